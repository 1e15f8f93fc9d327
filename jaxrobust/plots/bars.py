"""Bars side by side, with their spread: a table as a picture."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from jaxrobust.plots.figures import RULE_COLOR, TEXT_COLOR, AggFigure, line_colors, save
from jaxrobust.plots.text import size_of, wrapped_to

Bar = tuple[float, float | None]  # mean and spread


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
      note: small, under everything.
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
    flat = [
        bar for groups in panels.values() for group in groups.values() for bar in group.values()
    ]
    if not flat or not all(panels.values()):
        raise ValueError("panels must each hold at least one bar, got none.")
    for height, spread in flat:
        if not np.isfinite(height) or not np.isfinite(spread or 0.0):
            raise ValueError(f"bars must be finite, got {height} and the spread {spread}.")
    if unknown := [name for name in pale if name not in panels]:
        raise ValueError(f"pale must name panels, {', '.join(panels)}, got {unknown[0]!r}.")
    labels = list(
        dict.fromkeys(
            label for groups in panels.values() for bar in groups.values() for label in bar
        )
    )
    colors = line_colors(labels)
    across = 2 if len(panels) == 4 else min(len(panels), 3)
    down = math.ceil(len(panels) / across)
    # Panels of one row have bars of one width.
    room = [sum(len(group) + 0.8 for group in groups.values()) for groups in panels.values()]
    ratios = [max(room[column::across]) for column in range(across)]
    size = (max(4.8, min(13.0, 0.42 * sum(ratios) + 0.8)), 2.6 * down + 0.8)
    layout = ConstrainedLayoutEngine()
    figure = AggFigure(figsize=size, dpi=200, layout=layout)
    grid_of_axes = figure.subplots(
        down, across, sharey=True, squeeze=False, gridspec_kw={"width_ratios": ratios}
    )
    for axes in grid_of_axes.flat[len(panels) :]:
        axes.set_visible(False)
    handles: dict[str, Any] = {}
    for index, (name, groups) in enumerate(panels.items()):
        axes = grid_of_axes.flat[index]
        left, middles = 0.0, []
        for group in groups.values():
            for label, (height, spread) in group.items():
                (bar,) = axes.bar(
                    left,
                    height,
                    width=0.9,
                    color=colors[label],
                    alpha=0.45 if name in pale else 1.0,
                )
                if spread is not None:
                    axes.errorbar(left, height, spread, color=TEXT_COLOR, capsize=2, linewidth=0.9)
                axes.annotate(
                    f"{height:.1f}",
                    (left, height + (spread or 0.0)),
                    (0, 2),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7,
                    color=TEXT_COLOR,
                )
                if name not in pale or label not in handles:
                    handles[label] = bar
                left += 1.0
            middles.append(left - (len(group) + 1) / 2)
            left += 0.8
        axes.set_xticks(middles, list(groups))
        axes.set_xlim(-0.9, ratios[index % across] - 0.9)
        wide = size[0] * 0.9 * ratios[index % across] / sum(ratios)
        wrapped = wrapped_to(figure, name, wide, fontsize=9)
        axes.set_title(wrapped, fontsize=9, color=TEXT_COLOR)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines["left"].set_color(RULE_COLOR)
        axes.grid(axis="y", color="#E4E4E4", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8, colors=TEXT_COLOR)
        axes.tick_params(axis="x", length=0)
        if y_limits is not None:
            axes.set_ylim(*y_limits)
    for axes in grid_of_axes[:, 0]:
        axes.set_ylabel(y_label, fontsize=9, color=TEXT_COLOR)
    if title:
        wrapped = wrapped_to(figure, title, size[0] - 0.2, fontsize=11, fontweight="bold")
        figure.suptitle(wrapped, fontsize=11, fontweight="bold", color=TEXT_COLOR)
    # Under the axes the legend, under it the note.
    under = 0.08
    if note:
        wrapped = wrapped_to(figure, note, size[0] - 0.3, fontsize=8)
        figure.text(
            0.5, under / size[1], wrapped, fontsize=8, color=TEXT_COLOR, ha="center", va="bottom"
        )
        under += size_of(figure, wrapped, fontsize=8)[1] + 0.04
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, under / size[1]),
        borderaxespad=0.0,
        ncols=len(handles),
        fontsize=8,
        frameon=False,
    )
    under = (under + 0.3) / size[1]
    layout.set(rect=(0.0, under, 1.0, 1.0 - under))
    if path is not None:
        save(figure, path)
    return figure
