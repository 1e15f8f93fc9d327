"""Curves of several trainings: mean, spread, single models."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxrobust.plots.figures import TEXT_COLOR, AggFigure, line_colors, save
from jaxrobust.plots.pictures import not_finite
from jaxrobust.plots.text import size_of, wrapped_to


def curves(
    x: Any,
    series: Mapping[str, Any],
    *,
    x_label: str,
    y_label: str,
    dashed: Mapping[str, Any] | None = None,
    title: str | None = None,
    y_limits: tuple[float, float] | None = None,
    x_ticks: Sequence[str] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Lines with their mean and a band of one standard deviation over seeds.

    Args:
      x: (points,) increasing numbers.
      series: label -> (seeds, points), or (points,) of a single training. For several panels that
        share their axes and colours: panel title -> such a mapping.
      x_label, y_label: with their units.
      dashed: single models beside them, drawn dashed: label -> (points,); with panels as `series`.
      title: above everything.
      y_limits: of the axis; by default from the values.
      x_ticks: what each position of `x` is called; by default the axis has numbers. Names that are
        too long to stand side by side are slanted.
      path: where to save it, as `save` does.

    Returns:
      The figure.

    Raises:
      ValueError: when values are not finite, or their number or that of `x_ticks` is not that of
        `x`.
    """
    x = np.asarray(x, float)
    if x.ndim != 1 or not x.size or not np.isfinite(x).all() or (np.diff(x) <= 0).any():
        raise ValueError(f"x must be a vector of increasing finite numbers, got shape {x.shape}.")
    if x_ticks is not None and (isinstance(x_ticks, str) or len(x_ticks) != x.size):
        raise ValueError(f"x_ticks must be {x.size} names, one a position, got {x_ticks!r}.")
    nested = bool(series) and all(isinstance(values, Mapping) for values in series.values())
    panels = dict(series) if nested else {"": series}
    extra = dict(dashed or {}) if nested else {"": dashed or {}}
    unknown = [name for name in extra if name not in panels]
    if unknown:
        raise ValueError(f"dashed must have the panels of series, got {unknown[0]!r}.")
    checked = {
        name: {label: _seeds(label, values, x) for label, values in lines.items()}
        for name, lines in panels.items()
    }
    singles = {
        name: {label: _seeds(label, values, x) for label, values in lines.items()}
        for name, lines in extra.items()
    }
    together = [*checked.values(), *singles.values()]
    labels = list(dict.fromkeys(label for lines in together for label in lines))
    if not labels:
        raise ValueError("series must hold at least one line, got none.")
    colors = line_colors(labels)
    markers: dict[str, str] = {}
    for label in labels:  # lines of one colour are told apart by their markers
        same = [other for other in markers if colors[other] == colors[label]]
        markers[label] = "os^Dv"[len(same) % 5]
    across = 2 if len(panels) == 4 else min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    size = (4.8, 3.2) if len(panels) == 1 else (min(3.4, 9.6 / across) * across, 2.7 * down)
    figure = AggFigure(figsize=size, dpi=200, layout="constrained")
    grid_of_axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for axes, (name, lines) in zip(grid_of_axes.flat, checked.items(), strict=False):
        for label, values in (lines | singles.get(name, {})).items():
            single = label in singles.get(name, {})
            mean = values.mean(0)
            (line,) = axes.plot(
                x,
                mean,
                color=colors[label],
                linestyle=(0, (4, 2)) if single else "-",
                marker=markers[label],
                markersize=3.5,
                markevery=max(1, math.ceil(len(x) / 12)),
                markerfacecolor="white" if single else colors[label],
                linewidth=1.5,
            )
            if len(values) > 1:
                spread = values.std(0, ddof=1)
                axes.fill_between(
                    x, mean - spread, mean + spread, color=colors[label], alpha=0.2, linewidth=0
                )
            handles.setdefault(label, line)
        _finish_axes(axes, name, y_limits)
    if x_ticks is not None:
        room = 0.8 * size[0] / across / x.size
        slanted = any(size_of(figure, name, fontsize=8)[0] > room for name in x_ticks)
        style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        for axes in grid_of_axes.flat:
            axes.set_xticks(x, x_ticks, **style)
    for axes in grid_of_axes.flat[len(panels) :]:
        axes.set_visible(False)
    for column in range(across):
        last = [axes for axes in grid_of_axes[:, column] if axes.get_visible()][-1]
        last.tick_params(labelbottom=True)
        last.set_xlabel(x_label, fontsize=9, color=TEXT_COLOR)
    for axes in grid_of_axes[:, 0]:
        axes.set_ylabel(y_label, fontsize=9, color=TEXT_COLOR)
    if title:
        wrapped = wrapped_to(figure, title, size[0] - 0.2, fontsize=11, fontweight="bold")
        figure.suptitle(wrapped, fontsize=11, fontweight="bold", color=TEXT_COLOR)
    widest = max(size_of(figure, label, fontsize=8)[0] for label in labels) + 0.5
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=max(1, min(len(labels), int((size[0] - 0.2) / widest))),
        fontsize=8,
        frameon=False,
        handlelength=2.4,
    )
    if path is not None:
        save(figure, path)
    return figure


def _seeds(label: str, values: Any, x: np.ndarray) -> np.ndarray:
    """The values of a line as (seeds, points)."""
    values = np.atleast_2d(np.asarray(values, float))
    if values.ndim != 2 or values.shape[1] != x.size or not len(values):
        raise ValueError(
            f"the line {label!r} must have shape (seeds, {x.size}) or ({x.size},), "
            f"got {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ValueError(f"the line {label!r} must be finite, got {not_finite(values)}.")
    return values


def _finish_axes(axes: Any, name: str, y_limits: tuple[float, float] | None) -> None:
    axes.set_facecolor("white")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=TEXT_COLOR)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.02)
    if name:
        axes.set_title(name, fontsize=9, color=TEXT_COLOR)
    if y_limits is not None:
        axes.set_ylim(*y_limits)
