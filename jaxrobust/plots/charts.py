"""Bars and curves: panels side by side with one title and one legend."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxrobust.plots import figures
from jaxrobust.plots.figures import line_colors, size_of, wrapped
from jaxrobust.plots.pictures import check_finite

Bar = tuple[float, float | None]  # mean and spread
_INCHES, _BETWEEN = 0.42, 0.8  # of a bar's width; between groups, in bars
_DASHED = {"linestyle": (0, (4, 2)), "markerfacecolor": "white"}


@figures.styled
def bars(
    panels: Mapping[str, Mapping[str, Mapping[str, Bar]]],
    *,
    y_label: str,
    pale: Sequence[str] = (),
    title: str | None = None,
    note: str | None = None,
    y_limits: tuple[float, float] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Groups of bars, the height written above each; at most three panels side by side.

    Args:
      panels: panel title -> group -> label -> (height, spread); the spread is drawn as a line from
        height - spread to height + spread, None is none. Labels keep their colour, and STD and ADV
        have theirs.
      y_label: with its unit.
      pale: titles of panels whose bars are drawn pale: what is not one's own.
      title: above everything.
      note: small, above the legend.
      y_limits: of the axis; by default from 0.
      path: where to save it, as `save` does.

    Returns:
      The figure.

    Raises:
      ValueError: when there is no bar, a number is not finite, or `pale` names no panel.

    Example:
      >>> figure = bars({"": {"clean": {"STD": (90.0, 1.0), "ADV": (80.0, None)}}}, y_label="%")
      >>> [text.get_text() for text in figure.axes[0].texts]
      ['90.0', '80.0']
    """
    groups = [group for of_panel in panels.values() for group in of_panel.values()]
    if not any(groups) or not all(panels.values()):
        raise ValueError("panels must each hold at least one bar, got none.")
    for height, spread in (bar for group in groups for bar in group.values()):
        if not np.isfinite(height) or not np.isfinite(spread or 0.0):
            raise ValueError(f"bars must be finite, got {height} and the spread {spread}.")
    for name in pale:
        if name not in panels:
            raise ValueError(f"pale must name panels, {', '.join(panels)}, got {name!r}.")
    colors = line_colors(dict.fromkeys(label for group in groups for label in group))
    widest = max(
        sum(len(group) + _BETWEEN for group in of_panel.values()) for of_panel in panels.values()
    )
    figure, every_axes = _panels(panels, _INCHES * widest, y_label, sharey=True)
    handles: dict[str, Any] = {}
    for axes, (name, of_panel) in zip(every_axes, panels.items(), strict=True):
        left, middles = 0.0, []
        for group in of_panel.values():
            for place, (label, (height, spread)) in enumerate(group.items()):
                bar = axes.bar(
                    left + place,
                    height,
                    width=0.9,
                    yerr=spread,
                    error_kw={"elinewidth": 0.9, "capsize": 2},
                    color=colors[label],
                    alpha=0.45 if name in pale else 1.0,
                )
                axes.bar_label(bar, fmt="{:.1f}", padding=2, fontsize=7)
                handles.setdefault(label, bar)
            middles.append(left + (len(group) - 1) / 2)
            left += len(group) + _BETWEEN
        axes.set_xticks(middles, list(of_panel))
        axes.set_xlim(-0.9, widest - 0.9)  # bars of one width in all panels
        axes.tick_params(axis="x", length=0)
        axes.margins(y=0.07)  # for the number above the highest
        if y_limits is not None:
            axes.set_ylim(*y_limits)
    return _finish(figure, handles, title, note, path)


@figures.styled
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
      x_ticks: what each position of `x` is called; by default the axis has numbers.
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
    nested = bool(series) and all(isinstance(lines, Mapping) for lines in series.values())
    panels = series if nested else {"": series}
    single = (dashed or {}) if nested else {"": dashed or {}}
    for name in single:
        if name not in panels:
            raise ValueError(f"dashed must have the panels of series, got {name!r}.")
    x_labels = _by_panel("x_label", x_label, panels)
    positions = _by_panel("x", x, panels)
    lines = {}
    for name, solid in panels.items():
        here = positions[name] = np.asarray(positions[name], float)
        increasing = here.ndim == 1 and here.size > 0 and (np.diff(here) > 0).all()
        if not increasing or not np.isfinite(here).all():
            wanted = "a vector of increasing finite numbers"
            raise ValueError(f"x must be {wanted}, got shape {here.shape}.")
        if x_ticks is not None and (isinstance(x_ticks, str) or len(x_ticks) != here.size):
            wanted = f"{here.size} names, one a position"
            raise ValueError(f"x_ticks must be {wanted}, got {x_ticks!r}.")
        lines[name] = _lines(solid, here.size) | _lines(single.get(name, {}), here.size, **_DASHED)
        for label in filled_between or ():
            if label not in solid:
                where = f" of the panel {name!r}" if nested else ""
                raise ValueError(f"filled_between must name two lines{where}, got {label!r}.")
    labels = list(dict.fromkeys(label for of_panel in lines.values() for label in of_panel))
    if not labels:
        raise ValueError("series must hold at least one line, got none.")
    colors = line_colors(labels) | dict(colors or {})
    markers = dict(zip(labels, itertools.cycle("os^Dv"), strict=False))

    own_x = isinstance(x, Mapping) or isinstance(x_label, Mapping)
    figure, every_axes = _panels(panels, 3.0, y_label, sharex=not own_x, sharey=share_y)
    lowest = len(panels) - _columns(len(panels))
    handles: dict[str, Any] = {}
    areas: dict[str, Any] = {}
    for index, (name, axes) in enumerate(zip(panels, every_axes, strict=True)):
        here = positions[name]
        means = {label: values.mean(0) for label, (values, _) in lines[name].items()}
        for above, below in itertools.permutations(filled_between or (), 2):
            areas[f"{above} above {below}"] = axes.fill_between(
                here,
                means[below],
                means[above],
                where=means[above] > means[below],
                interpolate=True,
                color=colors[above],
                alpha=0.35,
                linewidth=0,
            )
        for label, (values, style) in lines[name].items():
            style = {"color": colors[label], "marker": markers[label], "markersize": 3.5, **style}
            every = math.ceil(here.size / 12)
            (handles[label],) = axes.plot(here, means[label], markevery=every, **style)
            if len(values) > 1:
                spread = np.array([-1, 1])[:, None] * values.std(0, ddof=1)
                low, high = means[label] + spread
                axes.fill_between(here, low, high, color=colors[label], alpha=0.2, linewidth=0)
        axes.margins(x=0.02)
        axes.locator_params(axis="x", nbins=6)
        if y_limits is not None:
            axes.set_ylim(*y_limits)
        if x_ticks is not None:
            axes.set_xticks(here, x_ticks, rotation=45, ha="right", rotation_mode="anchor")
        if own_x or index >= lowest:  # otherwise the panel below says it
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(x_labels[name])
    return _finish(figure, handles | areas, title, note, path)


def _by_panel(option: str, given: Any, panels: Mapping[str, Any]) -> dict[str, Any]:
    """What each panel has: its own, or all the same."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(panels, given)
    if set(given) != set(panels):
        names = ", ".join(panels)
        raise ValueError(
            f"{option} must have the panels of series, {names}, got {', '.join(given)}."
        )
    return dict(given)


def _lines(series: Mapping[str, Any], points: int, **style: Any) -> dict[str, Any]:
    """The values of each line as (seeds, points), and how it is drawn."""
    lines = {}
    for label, values in series.items():
        values = np.atleast_2d(np.asarray(values, float))
        if values.ndim != 2 or values.shape[1] != points or not len(values):
            shapes = f"(seeds, {points}) or ({points},)"
            raise ValueError(f"the line {label!r} must have shape {shapes}, got {values.shape}.")
        check_finite(values, f"the line {label!r}")
        lines[label] = values, style
    return lines


def _columns(panels: int) -> int:
    return 2 if panels == 4 else min(panels, 3)


def _panels(
    titles: Collection[str], width: float, y_label: str, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure, and its axes of `width` inches, one a title, at most three side by side."""
    across = _columns(len(titles))
    down = math.ceil(len(titles) / across)
    size = min(max(4.8, across * width + 0.8), 13.0), 2.5 * down + 0.8
    figure = figures.NotebookFigure(figsize=size, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, **options)
    for first in axes[:, 0]:
        first.set_ylabel(y_label)
    for unused in axes.flat[len(titles) :]:
        unused.remove()
    used = list(axes.flat[: len(titles)])
    for panel, title in zip(used, titles, strict=True):
        panel.set_title(wrapped(figure, title, 0.9 * figure.bbox.width / across, **figures.TITLE))
        panel.grid(axis="y")
    return figure, used


def _finish(
    figure: Figure,
    handles: Mapping[str, Any],
    title: str | None,
    note: str | None,
    path: str | Path | None,
) -> Figure:
    """Write the title above all panels, note and legend under them; save the figure if asked to."""
    room = figure.bbox.width - 0.2 * figure.dpi
    widest = max(size_of(figure, label, **figures.SMALL)[0] for label in handles) + 0.5 * figure.dpi
    if title:
        figure.suptitle(wrapped(figure, title, room, **figures.BIG), **figures.BIG)
    # The note is the legend's title: the layout would lay any other text over the legend.
    legend = figure.legend(
        list(handles.values()),
        list(handles),
        title=wrapped(figure, note or "", room, **figures.SMALL),
        loc="outside lower center",
        ncols=max(1, min(len(handles), int(room / widest))),
        handlelength=2.4,
    )
    legend.get_title().set_multialignment("center")
    figure.draw_without_rendering()  # makes the ticks, in our style
    if path is not None:
        figures.save(figure, path)
    return figure
