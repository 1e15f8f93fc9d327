"""First-layer filters of several models side by side."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from jaxrobust.plots.figures import line_colors
from jaxrobust.plots.grids import grid
from jaxrobust.plots.pictures import signed_maps

# In pixels of a model's picture: a filter, the frame around each, the space beside an enlarged one.
_FILTER, _FRAME, _BESIDE = 48, 3, 24
_WHITE = (1.0, 1.0, 1.0)
Color = tuple[float, float, float]


def filters(
    kernels_by_title: Mapping[str, Any],
    *,
    inset: Mapping[str, int] | None = None,
    columns: int = 2,
    title: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """First-layer filters of several models, all on one symmetric scale: mid-grey is zero.

    The largest weight of all models is shown at full intensity; the note says which it is.

    Args:
      kernels_by_title: for each model (n, kernel height, kernel width, 3 or 1) floats; a
        convolution's kernel in JAX's order is `jnp.moveaxis(kernel, -1, 0)`.
      inset: by title, the number of the filter that is framed and shown enlarged beside the others.
      columns: models in a row.
      title: above everything.
      path: where to save it, as `save` does.

    Returns:
      The figure.

    Raises:
      TypeError, ValueError: for kernels that are no finite floats or of another shape, or an inset
        that is no filter of its model.

    Example:
      >>> kernels = np.random.default_rng(0).uniform(-1, 1, size=(4, 3, 3, 3))
      >>> figure = filters({"STD": kernels, "ADV": 0.5 * kernels}, inset={"ADV": 2})
      >>> [text.get_text() for text in figure.axes[0].texts][:2]
      ['STD', 'ADV, filter 2 enlarged']
    """
    if not kernels_by_title:
        raise ValueError("kernels_by_title must hold at least one model, got none.")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    kernels = {}
    for name, values in kernels_by_title.items():
        values = kernels[name] = signed_maps(values, f"kernels of {name!r}")
        if values.ndim != 4:
            shape = "(filters, height, width, 3)"
            raise ValueError(f"kernels of {name!r} must have shape {shape}, got {values.shape}.")
    for name, chosen in (inset or {}).items():
        if name not in kernels:
            raise ValueError(f"inset must name models of {', '.join(kernels)}, got {name!r}.")
        if not 0 <= chosen < (count := len(kernels[name])):
            raise ValueError(f"inset must be a filter of {name!r} in [0, {count}), got {chosen}.")
    limit = max(np.abs(values).max() for values in kernels.values()) or 1.0
    columns = min(columns, len(kernels))
    pictures: list[np.ndarray] = []
    captions: list[str] = []
    for name, values in kernels.items():
        enlarged = (inset or {}).get(name)
        color = to_rgb(line_colors([name])[name])
        pictures.append(_picture(0.5 + 0.5 * values / limit, enlarged, color))
        captions.append(name if enlarged is None else f"{name}, filter {enlarged} enlarged")
    rows = _rows(pictures, columns, None)
    return grid(
        rows,
        captions=_rows(captions, columns, None),
        row_groups=[("", 1)] * len(rows),
        column_groups=[("", 1)] * columns,
        title=title,
        note=f"One scale: black is −{limit:.2g}, mid-grey 0, white {limit:.2g}.",
        cell_size=min(7.0 / columns, 3.4),
        path=path,
    )


def _rows(values: list[Any], across: int, empty: Any) -> list[list[Any]]:
    filled = [*values, *[empty] * (-len(values) % across)]
    return [filled[start : start + across] for start in range(0, len(filled), across)]


def _picture(kernels: np.ndarray, chosen: int | None, color: Color) -> np.ndarray:
    """All filters of a model on white, the chosen one framed, and enlarged to their right."""
    count, height, width, _ = kernels.shape
    factor = max(2, round(_FILTER / height))
    tiles = [_framed(kernel, factor, _WHITE) for kernel in kernels]
    if chosen is not None:
        tiles[chosen] = _framed(kernels[chosen], factor, color)
    across = math.ceil(math.sqrt(count * height / width))
    rows = _rows(tiles, across, np.ones_like(tiles[0]))
    mosaic = np.vstack([np.hstack(row) for row in rows])
    if chosen is None:
        return mosaic
    large = _framed(kernels[chosen], max(2 * factor, round(0.6 * len(mosaic) / height)), color)
    left = mosaic.shape[1] + _BESIDE
    picture = np.ones((max(len(mosaic), len(large)), left + large.shape[1], 3))
    picture[: len(mosaic), : mosaic.shape[1]] = mosaic
    picture[: len(large), left:] = large
    return picture


def _framed(kernel: np.ndarray, factor: int, color: Color) -> np.ndarray:
    enlarged = kernel.repeat(factor, 0).repeat(factor, 1)
    height, width, _ = enlarged.shape
    framed = np.full((height + 2 * _FRAME, width + 2 * _FRAME, 3), color)
    framed[_FRAME:-_FRAME, _FRAME:-_FRAME] = enlarged
    return framed
