"""Text is measured before it is placed: in inches, in the resolution that it is drawn in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure


def size_of(figure: Figure, text: str, **font: Any) -> tuple[float, float]:
    """Width and height of a text in inches."""
    artist = figure.text(0, 0, text, parse_math=False, **font)
    box = artist.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    artist.remove()
    return box.width / figure.dpi, box.height / figure.dpi


def wrapped_to(figure: Figure, text: str, width: float, **font: Any) -> str:
    """The text with line breaks between words, so that lines are at most `width` inches long."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}" if line else word
            if line and size_of(figure, longer, **font)[0] > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


@dataclass(frozen=True)
class Fitted:
    """Titles along one side: how they are written, and how far each reaches from it, in inches."""

    texts: Sequence[str]
    font: dict[str, Any]
    depths: Sequence[float]

    @property
    def depth(self) -> float:
        """How far the longest reaches."""
        return max(self.depths, default=0.0)


def fit(
    figure: Figure,
    texts: Sequence[str],
    room: Sequence[float],
    *,
    side: str,
    largest: float,
    weight: str = "normal",
) -> Fitted:
    """Titles above columns or left of rows; `room` is what each has along that side, in inches."""
    if not any(texts):
        return Fitted(texts, {}, [0.0] * len(texts))
    sizes = [size for size in (11, 10, 9, 8, 7) if size <= largest]
    along = {size: {"fontsize": size, "rotation": 0} for size in sizes}
    attempts: list[tuple[dict[str, Any], float | None]]
    if side == "top":
        attempts = [(along[size], None) for size in sizes]
        attempts += [(along[size] | {"rotation": 90}, 2.0) for size in sizes]
        attempts.append((along[sizes[-1]] | {"rotation": 90}, math.inf))
    else:
        attempts = [(along[sizes[0]], 0.9)]
        attempts += [(along[size] | {"rotation": 90}, None) for size in sizes[:2]]
        attempts += [(along[size], width) for size in sizes for width in (1.5, 2.5)]
        attempts.append((along[sizes[-1]], math.inf))
    for font, width in attempts:
        font = font | {"fontweight": weight}
        flat = font | {"rotation": 0}
        wrapped = [
            wrapped_to(figure, text, room[index] if width is None else width, **flat)
            for index, text in enumerate(texts)
        ]
        extents = [size_of(figure, text, **flat) if text else (0.0, 0.0) for text in wrapped]
        if width is None:
            fits = all(w <= r and h <= 0.6 for (w, h), r in zip(extents, room, strict=True))
        else:
            fits = all(w <= width and h <= r for (w, h), r in zip(extents, room, strict=True))
        if fits:
            break
    across = 1 if (font["rotation"] == 0) == (side == "top") else 0
    return Fitted(wrapped, font, [extent[across] for extent in extents])
