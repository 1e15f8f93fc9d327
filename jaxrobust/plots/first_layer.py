"""First-layer filters of several models side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from jaxrobust.plots.figures import TEXT_COLOR, line_colors, save
from jaxrobust.plots.grids import grid
from jaxrobust.plots.pictures import signed_maps

# In pixels of a panel, which is drawn at about its own size.
_FILTER, _SPACE, _BESIDE, _BELOW = 48, 4, 26, 40


def filters(
    kernels_by_title: Mapping[str, Any],
    *,
    inset: int | Mapping[str, int] | None = None,
    columns: int = 2,
    limit: float | None = None,
    title: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """First-layer filters of several models, all on one symmetric scale: mid-grey is zero.

    Args:
      kernels_by_title: for each model (n, kernel height, kernel width, 3 or 1) floats; a
        convolution's kernel in JAX's order is `jnp.moveaxis(kernel, -1, 0)`.
      inset: number of the filter that is shown enlarged beside the others, for all models or by
        title; None enlarges none.
      columns: models in a row.
      limit: weight that is shown at full intensity; by default the largest of all models, so that
        nothing is clipped. The figure states it.
      title: above everything.
      path: where to save it, as `save` does.

    Returns:
      The figure; `figure.axes` are the models.

    Raises:
      TypeError, ValueError: for kernels that are no finite floats or of another shape, or an inset
        that is no filter of its model.

    Example:
      >>> kernels = np.random.default_rng(0).normal(size=(4, 3, 3, 3))
      >>> figure = filters({"STD": kernels, "ADV": 0.5 * kernels}, limit=3.0)
      >>> len(figure.axes)
      2
    """
    if not kernels_by_title:
        raise ValueError("kernels_by_title must hold at least one model, got none.")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    kernels = {}
    for name, values in kernels_by_title.items():
        if np.ndim(values) != 4:
            raise ValueError(
                f"kernels of {name!r} must have shape (filters, height, width, 3), "
                f"got {np.shape(values)}."
            )
        kernels[name] = signed_maps(values, f"kernels of {name!r}")
    peak = max(np.abs(values).max() for values in kernels.values())
    limit = float(peak or 1.0) if limit is None else limit
    if not 0 < limit < math.inf:
        raise ValueError(f"limit must be a finite number above 0, got {limit:g}.")
    panels = []
    for name, chosen in _insets(inset, kernels).items():
        values = kernels[name]
        if chosen is not None and not 0 <= chosen < len(values):
            raise ValueError(
                f"inset must be a filter of {name!r} in [0, {len(values)}), got {chosen}."
            )
        panels.append(_Panel.draw(0.5 + 0.5 * np.clip(values / limit, -1, 1), chosen))
    columns = min(columns, len(panels))
    missing = -len(panels) % columns
    cells = [*(panel.picture for panel in panels), *[None] * missing]
    names = [*kernels, *[""] * missing]
    figure = grid(
        [cells[i : i + columns] for i in range(0, len(cells), columns)],
        captions=[names[i : i + columns] for i in range(0, len(names), columns)],
        captions_above=True,
        column_groups=[("", 1)] * columns,
        title=title,
        note=f"One scale: black is −{limit:.2g}, mid-grey 0, white {limit:.2g}.",
        cell_size=min(7.0 / columns, 3.4),
    )
    for axes, panel, name in zip(figure.axes, panels, kernels, strict=True):
        panel.mark(axes, line_colors([name])[name])
    if path is not None:
        save(figure, path)
    return figure


def _insets(inset: Any, kernels: Mapping[str, Any]) -> dict[str, int | None]:
    if not isinstance(inset, Mapping):
        return dict.fromkeys(kernels, inset)
    for name in inset:
        if name not in kernels:
            raise ValueError(f"inset must name models of {', '.join(kernels)}, got {name!r}.")
    return {name: inset.get(name) for name in kernels}


@dataclass(frozen=True)
class _Panel:
    """All filters of a model as one picture, one of them enlarged to their right.

    Attributes:
      picture: (h, w, channels) in [0, 1].
      chosen: number of the enlarged filter.
      frames: left, top, width and height of the filter and of its enlargement.
    """

    picture: np.ndarray
    chosen: int | None = None
    frames: tuple[tuple[int, int, int, int], ...] = ()

    @classmethod
    def draw(cls, kernels: np.ndarray, chosen: int | None) -> "_Panel":
        count, height, width, channels = kernels.shape
        unit = max(2, round(_FILTER / height))
        tall, wide = unit * height, unit * width
        across = math.ceil(math.sqrt(count * height / width))
        down = math.ceil(count / across)
        mosaic = np.ones(
            (down * (tall + _SPACE) - _SPACE, across * (wide + _SPACE) - _SPACE, channels)
        )
        for index, kernel in enumerate(_enlarged(kernels, unit)):
            y, x = index // across * (tall + _SPACE), index % across * (wide + _SPACE)
            mosaic[y : y + tall, x : x + wide] = kernel
        if chosen is None:
            return cls(mosaic)
        enlarged = _enlarged(kernels[chosen], max(2 * unit, round(0.6 * len(mosaic) / height)))
        left = mosaic.shape[1] + _BESIDE
        shape = (
            max(len(mosaic), len(enlarged) + _BELOW),
            left + enlarged.shape[1],
            channels,
        )
        picture = np.ones(shape)
        picture[: len(mosaic), : mosaic.shape[1]] = mosaic
        picture[: len(enlarged), left:] = enlarged
        y, x = chosen // across * (tall + _SPACE), chosen % across * (wide + _SPACE)
        return cls(
            picture, chosen, ((x, y, wide, tall), (left, 0, enlarged.shape[1], len(enlarged)))
        )

    def mark(self, axes: Any, color: str) -> None:
        """Frames around the filter and its enlargement, and the filter's number."""
        for x, y, width, height in self.frames:
            frame = Rectangle(
                (x - 0.5, y - 0.5), width, height, fill=False, edgecolor=color, linewidth=1.6
            )
            frame.set_clip_on(False)
            axes.add_patch(frame)
        if self.frames:
            x, _, width, height = self.frames[1]
            axes.text(
                x + width / 2,
                height + 8,
                f"filter {self.chosen}",
                ha="center",
                va="top",
                fontsize=8,
                color=TEXT_COLOR,
            )


def _enlarged(kernels: np.ndarray, factor: int) -> np.ndarray:
    return kernels.repeat(factor, axis=-3).repeat(factor, axis=-2)
