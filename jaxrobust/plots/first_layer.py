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

_TILE, _FRAME = 33, 2  # pixels: about the height of a filter's picture, and the frame around it


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
      inset: by title, the number of a filter that is framed, and shown enlarged beside the others.
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
      >>> [text.get_text() for text in figure.axes[0].texts if text.get_text()][:3]
      ['STD', 'ADV', 'filter 2']
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
    inset = inset or {}
    for name, number in inset.items():
        if name not in kernels:
            raise ValueError(f"inset must name models of {', '.join(kernels)}, got {name!r}.")
        if not 0 <= number < (count := len(kernels[name])):
            raise ValueError(f"inset must be a filter of {name!r} in [0, {count}), got {number}.")
    limit = max(np.abs(values).max() for values in kernels.values()) or 1.0
    columns = min(columns, len(kernels))
    cells_each = 2 if inset else 1
    cells: list[np.ndarray | None] = []
    captions: list[str] = []
    for name, values in kernels.items():
        shown = 0.5 + 0.5 * values / limit
        tiles, enlarged, caption = _framed(shown, 1.0), None, ""
        if name in inset:
            enlarged, caption = shown[inset[name]], f"filter {inset[name]}"
            tiles[inset[name]] = _framed(enlarged, to_rgb(line_colors([name])[name]))
        cells += [_mosaic(tiles), enlarged][:cells_each]
        captions += [name, caption][:cells_each]
    rows = _rows(cells, cells_each * columns, None)
    return grid(
        rows,
        captions=_rows(captions, cells_each * columns, None),
        row_groups=[("", 1)] * len(rows),
        column_groups=[("", cells_each)] * columns,
        title=title,
        note=f"One scale: black is −{limit:.2g}, mid-grey 0, white {limit:.2g}.",
        cell_size=min(9.0 / len(rows[0]), 3.4),
        path=path,
    )


def _rows(values: list[Any], across: int, empty: Any) -> list[list[Any]]:
    filled = [*values, *[empty] * (-len(values) % across)]
    return [filled[start : start + across] for start in range(0, len(filled), across)]


def _framed(kernels: np.ndarray, color: Any) -> np.ndarray:
    """Kernels (…, h, w, channels), enlarged, in a thin frame of a colour."""
    *shape, height, width, _ = kernels.shape
    factor = math.ceil(_TILE / height)
    sides = factor * height + 2 * _FRAME, factor * width + 2 * _FRAME
    framed = np.full((*shape, *sides, 3), color)
    framed[..., _FRAME:-_FRAME, _FRAME:-_FRAME, :] = kernels.repeat(factor, -3).repeat(factor, -2)
    return framed


def _mosaic(tiles: np.ndarray) -> np.ndarray:
    """Pictures (n, h, w, 3) as one, in rows, about as high as wide."""
    count, height, width, _ = tiles.shape
    across = math.ceil(math.sqrt(count * height / width))
    rows = _rows(list(tiles), across, np.ones_like(tiles[0]))
    return np.vstack([np.hstack(row) for row in rows])
