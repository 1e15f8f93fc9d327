"""Rows and columns of pictures with titles."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from jaxrobust.plots import figures
from jaxrobust.plots.figures import size_of, wrapped
from jaxrobust.plots.pictures import levels

_LEAST_DPI = 170.0
_GAP, _GROUP_GAP, _PAD, _ROW_TITLE, _LEAST_WIDTH = 0.05, 0.18, 0.05, 1.5, 2.5  # inches
_RULE: dict[str, Any] = {"color": figures.RULE_COLOR, "linewidth": 0.7, "clip_on": False}


@figures.styled
def grid(
    pictures: Any,
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    title: str | None = None,
    row_groups: Sequence[tuple[str, int]] | None = None,
    column_groups: Sequence[tuple[str, int]] | None = None,
    captions: Sequence[Sequence[str | None]] | None = None,
    note: str | None = None,
    cell_size: float | None = None,
    frames: bool = False,
    path: str | Path | None = None,
) -> Figure:
    """Rows and columns of pictures with titles.

    The figure's resolution is such that each pixel of a picture is a square of whole pixels.

    Args:
      pictures: rows of pictures, each (h, w, 3), (h, w, 1) or (h, w), floats in [0, 1] or uint8,
        None for an empty cell; or an array (rows, columns, h, w, 3 or 1). Sizes may differ.
      row_titles, column_titles: one for each row, one for each column.
      title: above everything.
      row_groups, column_groups: (heading, number of rows or columns) pairs that cover all of them.
      captions: a small text under each picture, in rows as `pictures`; a row without any takes no
        room for them.
      note: small, under everything: what the reader must know of the pictures.
      cell_size: longer side of a cell in inches; by default from the number of columns.
      frames: draw a thin line around each picture, as where white ones lie on white paper.
      path: where to save it, as `save` does.

    Returns:
      The figure, whose one axes shows all pictures.

    Raises:
      TypeError, ValueError: for ragged rows, a wrong number of titles, or values out of range.

    Example:
      >>> figure = grid([[np.zeros((8, 8, 3)), None]], column_titles=["STD", "ADV"])
      >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
      ['STD', 'ADV']
    """
    cells = _cells(pictures)
    down, across = len(cells), len(cells[0])
    row_titles = _titles(row_titles, down, "row_titles")
    column_titles = _titles(column_titles, across, "column_titles")
    row_heads, row_counts = _groups(row_groups, down, "row_groups")
    column_heads, column_counts = _groups(column_groups, across, "column_groups")
    captions = _captions(captions, down, across)
    if cell_size is not None and not 0.2 <= cell_size < math.inf:
        raise ValueError(f"cell_size must be at least 0.2 inches, got {cell_size:g}.")

    # All pictures lie on one, the page, enlarged by a whole number; its pixels are the figure's.
    inches = cell_size or min(max(7.5 / across, 0.75), 2.2)
    sizes = [cell.shape[:2] for row in cells for cell in row if cell is not None]
    factor = math.ceil(inches * _LEAST_DPI / np.max(sizes))
    high, wide = factor * np.max(sizes, axis=0)
    dpi = max(high, wide) / inches
    gap, group_gap, pad = (math.ceil(dpi * space) for space in (_GAP, _GROUP_GAP, _PAD))
    figure = figures.NotebookFigure(dpi=dpi, layout="none")
    texts, font = _fitted(figure, captions, wide, np.inf, figures.SMALL)
    tall = np.reshape([size_of(figure, text, **font)[1] for text in texts], (down, across)).max(1)
    heights = high + np.ceil(tall + pad * (tall > 0)).astype(int)
    tops, row_spans = _starts(heights, row_counts, gap, group_gap)
    lefts, column_spans = _starts(np.full(across, wide), column_counts, gap, group_gap)
    corners = list(itertools.product(tops, lefts))
    page = np.full((row_spans[-1, 1] + gap, column_spans[-1, 1] + gap, 3), 255, np.uint8)
    for cell, (top, left) in zip(itertools.chain(*cells), corners, strict=True):
        if cell is not None:
            _paste(page, cell, (top, left, high, wide), framed=frames)

    size = width, height = np.array(page.shape[1::-1])
    figure.set_size_inches(size / dpi)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.imshow(page, extent=(0, width, height, 0), interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=3, labeltop=True, labelbottom=False)
    for text, (top, left) in zip(texts, corners, strict=True):
        axes.text(left + wide / 2, top + high + pad / 2, text, ha="center", va="top", **font)
    texts, font = _fitted(figure, column_titles, wide, np.inf, figures.TITLE)
    axes.set_xticks(lefts + wide / 2, texts, va="baseline", **font)
    texts, font = _fitted(figure, row_titles, dpi * _ROW_TITLE, high, figures.TITLE)
    axes.set_yticks(tops + high / 2, texts, **font)
    texts, font = _fitted(figure, column_heads, np.ptp(column_spans, 1), np.inf, figures.HEADING)
    y = _reach(axes).y1 - pad
    for text, span in zip(texts, column_spans, strict=True):
        if text:
            axes.plot(span, [y, y], **_RULE)
            axes.text(span.mean(), y - pad, text, ha="center", va="bottom", **font)
    rooms = dpi * _ROW_TITLE, np.ptp(row_spans, 1)
    texts, font = _fitted(figure, row_heads, *rooms, figures.HEADING)
    x = _reach(axes).x0 - pad
    for text, span in zip(texts, row_spans, strict=True):
        if text:
            axes.plot([x, x], span, **_RULE)
            axes.text(x - pad, span.mean(), text, ha="right", va="center", **font)
    reach = _reach(axes)
    middle, room = (reach.x0 + reach.x1) / 2, max(reach.width, dpi * _LEAST_WIDTH)
    text = wrapped(figure, title or "", room, **figures.BIG)
    axes.text(middle, reach.y1 - 2 * pad, text, ha="center", va="bottom", **figures.BIG)
    text = wrapped(figure, note or "", room, **figures.SMALL)
    axes.text(middle, reach.y0 + pad, text, ha="center", va="top", **figures.SMALL)

    # The figure becomes as large as all that is drawn, in whole pixels; the hundredth of one keeps
    # rounding from losing a whole one.
    drawn = figure.get_tightbbox().padded(2 * _PAD)
    low, high = np.floor(dpi * drawn.min), np.ceil(dpi * drawn.max)
    figure.set_size_inches((high - low + 0.01) / dpi)
    axes.set_position((*(-low / figure.bbox.size), *(size / figure.bbox.size)))
    if path is not None:
        figures.save(figure, path)
    return figure


def _fitted(
    figure: Figure, texts: Sequence[str], widths: Any, heights: Any, font: figures.Font
) -> tuple[list[str], figures.Font]:
    """Texts wrapped to their widths in pixels, and the largest font in which all fit their room."""
    widths = np.broadcast_to(widths, len(texts))
    lines = [wrapped(figure, *each, **font) for each in zip(texts, widths, strict=True)]
    sizes = np.maximum([size_of(figure, line, **font) for line in lines], 1.0)
    share = min(1.0, np.min(widths / sizes[:, 0]), np.min(heights / sizes[:, 1]))
    return lines, font | {"fontsize": share * font["fontsize"]}


def _starts(
    sides: np.ndarray, counts: np.ndarray, gap: int, group_gap: int
) -> tuple[np.ndarray, np.ndarray]:
    """Where rows or columns begin, and (groups, 2) where their groups begin and end."""
    last = np.cumsum(counts) - 1
    after = np.full(len(sides), gap)
    after[last] = group_gap
    ends = gap + np.cumsum(sides + after) - after
    starts = ends - sides
    return starts, np.stack([starts[last - counts + 1], ends[last]], axis=1)


def _paste(
    page: np.ndarray, picture: np.ndarray, cell: tuple[int, int, int, int], framed: bool
) -> None:
    """Lay a picture into the middle of a cell (top, left, height, width), as large as it can be."""
    top, left, high, wide = cell
    factor = min(high // picture.shape[0], wide // picture.shape[1])
    picture = picture.repeat(factor, 0).repeat(factor, 1)
    height, width, _ = picture.shape
    top, left = top + (high - height) // 2, left + (wide - width) // 2
    if framed:
        page[top - 1 : top + height + 1, left - 1 : left + width + 1] = 144  # grey
    page[top : top + height, left : left + width] = picture


def _reach(axes: Axes) -> Bbox:
    """How far all that is drawn reaches, in pixels of the page: to the top y1, to the bottom y0."""
    figure = axes.figure
    return figure.get_tightbbox().transformed(figure.dpi_scale_trans - axes.transData)


def _cells(pictures: Any) -> list[list[np.ndarray | None]]:
    for row in pictures:
        if not isinstance(row, list | tuple) and np.ndim(row) != 4:
            raise ValueError(
                "pictures must be a list of rows, each a list of pictures (or None), or an array "
                f"(rows, columns, height, width, 3), got a row of shape {np.shape(row)}."
            )
    lengths = sorted({len(row) for row in pictures})
    if len(lengths) != 1 or not lengths[0]:
        raise ValueError(
            "rows of pictures must be of one length of at least 1, "
            f"got {', '.join(map(str, lengths)) or 'no row'}."
        )
    if all(cell is None for row in pictures for cell in row):
        raise ValueError("pictures must hold at least one picture, got None in every cell.")
    return [
        [_cell(cell, f"the picture in row {r}, column {c}") for c, cell in enumerate(row)]
        for r, row in enumerate(pictures)
    ]


def _cell(picture: Any, name: str) -> np.ndarray | None:
    if picture is None:
        return None
    picture = np.asarray(picture)
    picture = picture[..., None] if picture.ndim == 2 else picture
    if picture.ndim != 3:
        raise ValueError(f"{name} must have shape (height, width, 3), got {picture.shape}.")
    return levels(picture, name)


def _titles(titles: Sequence[str] | None, count: int, name: str) -> list[str]:
    if titles is None:
        return [""] * count
    if isinstance(titles, str) or len(titles) != count:
        given = repr(titles) if isinstance(titles, str) else len(titles)
        raise ValueError(f"{name} must be {count} titles, got {given}.")
    return [str(title) for title in titles]


def _groups(groups: Any, count: int, name: str) -> tuple[list[str], np.ndarray]:
    headings, sizes = zip(*(groups or [("", count)]), strict=True)
    if min(sizes) < 1 or sum(sizes) != count:
        pairs = f"(heading, size) pairs whose sizes add up to {count}"
        raise ValueError(f"{name} must be {pairs}, got {list(sizes)}.")
    return list(map(str, headings)), np.array(sizes)


def _captions(captions: Any, down: int, across: int) -> list[str]:
    """Row by row."""
    if captions is None:
        return [""] * (down * across)
    lengths = [len(row) for row in captions]
    if lengths != [across] * down:
        raise ValueError(f"captions must be {down} rows of {across} texts, got {lengths}.")
    return [str(text or "") for row in captions for text in row]
