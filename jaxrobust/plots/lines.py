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
    x_label: str | Mapping[str, str],
    y_label: str,
    dashed: Mapping[str, Any] | None = None,
    filled_between: tuple[str, str] | None = None,
    title: str | None = None,
    y_limits: tuple[float, float] | None = None,
    share_y: bool = True,
    x_ticks: Sequence[str] | None = None,
    colors: Mapping[str, str] | None = None,
    note: str | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Lines with their mean and a band of one standard deviation over seeds.

    Args:
      x: (points,) increasing numbers. For panels that do not share them: panel title -> numbers.
      series: label -> (seeds, points), or (points,) of a single training. For several panels that
        share their axes and colours: panel title -> such a mapping.
      x_label, y_label: with their units; `x_label` as `x` where panels have their own.
      dashed: single models beside them, drawn dashed: as `series`.
      filled_between: the labels of two lines; between their means every panel is filled, in the
        colour of the line that is above, which the legend says.
      title: above everything.
      y_limits: of the axis; by default from the values.
      share_y: whether all panels have one range of values.
      x_ticks: what each position of `x` is called; by default the axis has numbers. Names that are
        too long to stand side by side are slanted.
      colors: label -> colour, where it is not to be that of `line_colors`.
      note: small, above the legend.
      path: where to save it, as `save` does.

    Returns:
      The figure.

    Raises:
      ValueError: when values are not finite, their number or that of `x_ticks` is not that of
        `x`, or what is given by panel or by label has another panel or label.

    Example:
      >>> accuracies = {"STD": [[99.0, 1.0], [98.0, 3.0]], "ADV": [88.0, 72.0]}
      >>> figure = curves([0, 8], accuracies, x_label="epsilon (levels)", y_label="right (%)")
      >>> [line.get_ydata().tolist() for line in figure.axes[0].lines]  # means over seeds
      [[98.5, 2.0], [88.0, 72.0]]
    """
    nested = bool(series) and all(isinstance(values, Mapping) for values in series.values())
    panels = dict(series) if nested else {"": series}
    positions = _positions(x, x_ticks, panels)
    x_labels = _for_panels("x_label", x_label, panels)
    extra = dict(dashed or {}) if nested else {"": dashed or {}}
    unknown = [name for name in extra if name not in panels]
    if unknown:
        raise ValueError(f"dashed must have the panels of series, got {unknown[0]!r}.")
    checked = {
        name: {label: _seeds(label, values, positions[name]) for label, values in lines.items()}
        for name, lines in panels.items()
    }
    singles = {
        name: {label: _seeds(label, values, positions[name]) for label, values in lines.items()}
        for name, lines in extra.items()
    }
    for label in filled_between or ():
        missing = [name for name, lines in checked.items() if label not in lines]
        if missing:
            where = f" of the panel {missing[0]!r}" if nested else ""
            raise ValueError(f"filled_between must name two lines{where}, got {label!r}.")
    together = [*checked.values(), *singles.values()]
    labels = list(dict.fromkeys(label for lines in together for label in lines))
    if not labels:
        raise ValueError("series must hold at least one line, got none.")
    colors = line_colors(labels) | dict(colors or {})
    markers: dict[str, str] = {}
    for label in labels:  # lines of one colour are told apart by their markers
        same = [other for other in markers if colors[other] == colors[label]]
        markers[label] = "os^Dv"[len(same) % 5]
    across = 2 if len(panels) == 4 else min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    size = (4.8, 3.2) if len(panels) == 1 else (min(3.4, 9.6 / across) * across, 2.7 * down)
    figure = AggFigure(figsize=size, dpi=200, layout="constrained")
    own_x = isinstance(x, Mapping) or isinstance(x_label, Mapping)
    grid_of_axes = figure.subplots(down, across, sharex=not own_x, sharey=share_y, squeeze=False)
    handles: dict[str, Any] = {}
    areas: dict[str, Any] = {}
    for axes, (name, lines) in zip(grid_of_axes.flat, checked.items(), strict=False):
        here = positions[name]
        if filled_between is not None:
            means = {label: lines[label].mean(0) for label in filled_between}
            areas = _fill(axes, here, means, colors)
        for label, values in (lines | singles.get(name, {})).items():
            single = label in singles.get(name, {})
            mean = values.mean(0)
            (line,) = axes.plot(
                here,
                mean,
                color=colors[label],
                linestyle=(0, (4, 2)) if single else "-",
                marker=markers[label],
                markersize=3.5,
                markevery=max(1, math.ceil(len(here) / 12)),
                markerfacecolor="white" if single else colors[label],
                linewidth=1.5,
            )
            if len(values) > 1:
                spread = values.std(0, ddof=1)
                axes.fill_between(
                    here, mean - spread, mean + spread, color=colors[label], alpha=0.2, linewidth=0
                )
            handles.setdefault(label, line)
        _finish_axes(axes, name, y_limits)
    if x_ticks is not None:
        room = 0.8 * size[0] / across / len(x_ticks)
        slanted = any(size_of(figure, name, fontsize=8)[0] > room for name in x_ticks)
        style = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        for axes, here in zip(grid_of_axes.flat, positions.values(), strict=False):
            axes.set_xticks(here, x_ticks, **style)
    for axes in grid_of_axes.flat[len(panels) :]:
        axes.set_visible(False)
    for index, (axes, label) in enumerate(zip(grid_of_axes.flat, x_labels.values(), strict=False)):
        if own_x or index + across >= len(panels):  # else the panel below says it
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(label, fontsize=9, color=TEXT_COLOR)
    for axes in grid_of_axes[:, 0]:
        axes.set_ylabel(y_label, fontsize=9, color=TEXT_COLOR)
    if title:
        wrapped = wrapped_to(figure, title, size[0] - 0.2, fontsize=11, fontweight="bold")
        figure.suptitle(wrapped, fontsize=11, fontweight="bold", color=TEXT_COLOR)
    handles |= areas
    widest = max(size_of(figure, label, fontsize=8)[0] for label in handles) + 0.5
    # The layout makes room for a legend with its title, and would lay a text of its own over it.
    figure.legend(
        list(handles.values()),
        list(handles),
        title=note and wrapped_to(figure, note, size[0] - 0.2, fontsize=8),
        title_fontsize=8,
        loc="outside lower center",
        ncols=max(1, min(len(handles), int((size[0] - 0.2) / widest))),
        fontsize=8,
        frameon=False,
        handlelength=2.4,
    )
    if path is not None:
        save(figure, path)
    return figure


def _for_panels(option: str, given: Any, panels: Mapping[str, Any]) -> dict[str, Any]:
    """What each panel has: its own, or all the same."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(panels, given)
    if set(given) != set(panels):
        raise ValueError(
            f"{option} must have the panels of series, {', '.join(panels)}, got {', '.join(given)}."
        )
    return {name: given[name] for name in panels}


def _positions(x: Any, x_ticks: Any, panels: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The checked `x` of each panel."""
    found = {}
    for name, values in _for_panels("x", x, panels).items():
        here = found[name] = np.asarray(values, float)
        increasing = here.ndim == 1 and here.size and (np.diff(here) > 0).all()
        if not increasing or not np.isfinite(here).all():
            raise ValueError(
                f"x must be a vector of increasing finite numbers, got shape {here.shape}."
            )
        if x_ticks is not None and (isinstance(x_ticks, str) or len(x_ticks) != here.size):
            raise ValueError(f"x_ticks must be {here.size} names, one a position, got {x_ticks!r}.")
    return found


def _fill(
    axes: Any, x: np.ndarray, means: Mapping[str, np.ndarray], colors: Mapping[str, str]
) -> dict[str, Any]:
    """Fills between two lines, up to where they cross; the areas by what they mean."""
    first, second = means.values()
    areas = {}
    label_pairs = zip(means, reversed(list(means)), strict=True)
    for (label, other), above in zip(label_pairs, (first > second, second > first), strict=True):
        areas[f"{label} above {other}"] = axes.fill_between(
            x,
            first,
            second,
            where=above,
            interpolate=True,
            color=colors[label],
            alpha=0.35,
            linewidth=0,
        )
    return areas


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
