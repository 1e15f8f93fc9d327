"""The ten silhouettes of `textured_shapes`."""

from __future__ import annotations

import cv2
import numpy as np

SHAPES = (
    "disc",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "heart",
    "crescent",
    "bars",
    "hexagon",
)

_SUPERSAMPLING = 4
_FRACTION_BITS = 4  # of OpenCV's fixed-point polygon corners


def _circle(radius: float = 1.0, points: int = 48) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _polygon(*corners: tuple[float, float]) -> np.ndarray:
    return np.array(corners, dtype=np.float64)


def _regular(corners: int) -> np.ndarray:
    angle = -np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star() -> np.ndarray:
    radius = np.where(np.arange(10) % 2, 0.42, 1.0)
    return _regular(10) * radius[:, None]


def _cross() -> np.ndarray:
    arm, reach = 0.3, 0.95
    quarter = np.array([[arm, -reach], [arm, -arm], [reach, -arm]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn.T, k) for k in range(4)])


def _heart() -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x = 16 * np.sin(angle) ** 3
    y = -(13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle))
    return np.stack([x, y - 2.5], axis=1) / 16.5


def _crescent() -> np.ndarray:
    # Outer arc of the unit circle; inner arc of a circle through the outer arc's two ends.
    half_angle, centre = 0.72 * np.pi, 0.45
    outer_angle = np.linspace(-half_angle, half_angle, 36) + np.pi
    outer = np.stack([np.cos(outer_angle), np.sin(outer_angle)], axis=1)
    end = outer[-1] - np.array([centre, 0.0])
    inner_half = np.pi - abs(np.arctan2(end[1], end[0]))
    inner_angle = np.linspace(inner_half, -inner_half, 24) + np.pi
    inner = np.hypot(*end) * np.stack([np.cos(inner_angle), np.sin(inner_angle)], axis=1)
    return np.concatenate([outer, inner + np.array([centre, 0.0])])


def _bars() -> list[np.ndarray]:
    return [
        _polygon((left, -0.8), (left + 0.34, -0.8), (left + 0.34, 0.8), (left, 0.8))
        for left in (-0.77, -0.17, 0.43)
    ]


# Contours in units of the circumradius, y downwards; overlapping contours cut holes (even-odd).
_CONTOURS: dict[str, list[np.ndarray]] = {
    "disc": [_circle(0.9)],
    "square": [_polygon((-0.75, -0.75), (0.75, -0.75), (0.75, 0.75), (-0.75, 0.75))],
    "triangle": [_regular(3)],
    "star": [_star()],
    "cross": [_cross()],
    "ring": [_circle(0.95), _circle(0.5)],
    "heart": [_heart()],
    "crescent": [_crescent()],
    "bars": _bars(),
    "hexagon": [_regular(6)],
}


def coverage(shape: int, size: int, centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """Draw one silhouette with smooth edges.

    Args:
      shape: position in `SHAPES`.
      size: height and width of the result, in pixels.
      centre: x and y of the centre, in pixels.
      radius: circumradius, in pixels.
      angle: rotation, in radians.

    Returns:
      share of every pixel that the silhouette covers: (size, size), float32 in [0, 1].
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    contours = [
        # Pixel k of the fine grid spans [k, k + 1), OpenCV's coordinates are pixel centres.
        (((c @ rotation.T) * radius + centre) * _SUPERSAMPLING - 0.5) * 2**_FRACTION_BITS
        for c in _CONTOURS[SHAPES[shape]]
    ]
    fine = np.zeros((size * _SUPERSAMPLING,) * 2, dtype=np.uint8)
    contours = [np.rint(c).astype(np.int32) for c in contours]
    cv2.fillPoly(fine, contours, 255, lineType=cv2.LINE_8, shift=_FRACTION_BITS)
    area = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
    return area.astype(np.float32) * np.float32(1 / 255)
