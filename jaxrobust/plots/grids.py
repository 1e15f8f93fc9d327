"""Rows and columns of pictures with titles."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxrobust.plots.figures import (
    LEAST_DPI,
    MOST_DPI,
    RULE_COLOR,
    TEXT_COLOR,
    AggFigure,
    save,
)
from jaxrobust.plots.pictures import levels
from jaxrobust.plots.text import Fitted, fit, size_of, wrapped_to

_MARGIN, _GAP, _GROUP_GAP, _PAD = 0.08, 0.05, 0.18, 0.05  # inches
_TITLE_FONT = {"fontsize": 11, "fontweight": "bold"}
_NOTE_FONT = {"fontsize": 8}


def grid(
    pictures: Any,
    *,
    row_titles: Sequence[str] | None = None,
    column_titles: Sequence[str] | None = None,
    title: str | None = None,
    row_groups: Sequence[tuple[str, int]] | None = None,
    column_groups: Sequence[tuple[str, int]] | None = None,
    captions: Sequence[Sequence[str | None]] | None = None,
    captions_above: bool = False,
    note: str | None = None,
    cell_size: float | None = None,
    frames: bool = False,
    path: str | Path | None = None,
) -> Figure:
    """Rows and columns of pictures with titles.

    The resolution is chosen so that every pixel of a picture takes a whole number of pixels (1 or
    more, but for pictures of more than 400 pixels an inch, which are shrunk).

    Args:
      pictures: rows of pictures, each (h, w, 3), (h, w, 1) or (h, w), floats in [0, 1] or uint8,
        None for an empty cell; or an array (rows, columns, h, w, 3 or 1). Sizes may differ: each
        picture fills its cell as far as its proportions allow.
      row_titles, column_titles: one for each row, one for each column.
      title: above everything.
      row_groups, column_groups: (heading, number of rows or columns) pairs that cover all of them.
      captions: a small text for each picture, in rows as `pictures`; a row without any takes no
        room for them.
      captions_above: write them above the pictures rather than under them.
      note: small, under everything: what the reader must know of the pictures.
      cell_size: longer side of a cell in inches; by default from the number of columns.
      frames: draw a thin line around each picture, as where white ones lie on white paper.
      path: where to save it, as `save` does.

    Returns:
      The figure; `figure.axes` are the cells that are not empty, row by row.

    Raises:
      TypeError, ValueError: for ragged rows, a wrong number of titles, or values out of range.

    Example:
      >>> figure = grid([[np.zeros((8, 8, 3)), None]], column_titles=["STD", "ADV"])
      >>> figure.axes[0].images[0].get_size()
      (8, 8)
    """
    rows = _rows(pictures)
    counts = len(rows), len(rows[0])
    row_texts = _titles(row_titles, counts[0], "row_titles")
    column_texts = _titles(column_titles, counts[1], "column_titles")
    row_heads = _groups(row_groups, counts[0], "row_groups")
    column_heads = _groups(column_groups, counts[1], "column_groups")
    cell_texts = _captions(captions, counts)
    sheet, cell = _sheet(rows, cell_size)
    high, wide = cell

    under = sheet.fit(cell_texts, [wide] * len(cell_texts), "top", 9 if captions_above else 8)
    room = sheet.rows_reach(under, counts, _PAD)
    widths, heights = [wide] * counts[1], [high + caption for caption in room]
    lefts = sheet.starts(column_heads, widths)
    tops = sheet.starts(row_heads, heights)
    spans = [_spans(row_heads, tops, heights), _spans(column_heads, lefts, widths)]
    row_fit = sheet.fit(row_texts, [high] * counts[0], "left", 9)
    column_fit = sheet.fit(column_texts, [wide] * counts[1], "top", 9)
    row_head_fit = sheet.fit_groups(row_heads, spans[0], "left")
    column_head_fit = sheet.fit_groups(column_heads, spans[1], "top")

    # From left to right, then from top to bottom.
    margin, pad = sheet.pixels(_MARGIN), sheet.pixels(_PAD)
    row_head_right = margin + sheet.reach(row_head_fit)
    row_title_right = margin + sheet.reach(row_head_fit, 3 * _PAD) + sheet.reach(row_fit)
    left = row_title_right + (pad if row_fit.depth else 0)
    width = left + lefts[-1] + wide + margin
    heading, footing = (
        sheet.wrapped(text, max(width - 2 * margin, sheet.pixels(2.5)), font)
        for text, font in ((title, _TITLE_FONT), (note, _NOTE_FONT))
    )
    missing = max(0, *(text.width + 2 * margin - width for text in (heading, footing)))
    shift = missing // 2
    width, left = width + missing, left + shift
    column_head_bottom = margin + heading.height + (2 * pad if title else 0)
    column_head_bottom += sheet.reach(column_head_fit)
    column_title_bottom = column_head_bottom + sheet.reach(column_fit)
    column_title_bottom += 3 * pad if column_head_fit.depth else 0
    top = column_title_bottom + (pad if column_fit.depth else 0)
    bottom = top + tops[-1] + heights[-1]
    height = bottom + (2 * pad + footing.height if note else 0) + margin
    sheet.resize(width, height)

    sheet.write(width / 2, margin, heading.text, _TITLE_FONT, "center", "top")
    sheet.write(width / 2, height - margin, footing.text, _NOTE_FONT, "center", "bottom")
    for text, start in zip(column_fit.texts, lefts, strict=True):
        sheet.write_above(left + start + wide / 2, column_title_bottom, text, column_fit)
    above = room if captions_above else [0] * counts[0]
    for text, start, caption in zip(row_fit.texts, tops, above, strict=True):
        y = top + start + caption + high / 2
        sheet.write(row_title_right + shift, y, text, row_fit.font, "right", "center")
    for text, (begin, end) in zip(column_head_fit.texts, spans[1], strict=True):
        sheet.write_above(left + (begin + end) / 2, column_head_bottom, text, column_head_fit)
        if text:
            sheet.rule((left + begin, left + end), (column_head_bottom + pad,) * 2)
    for text, (begin, end) in zip(row_head_fit.texts, spans[0], strict=True):
        x, y = row_head_right + shift, top + (begin + end) / 2
        sheet.write(x, y, text, row_head_fit.font, "right", "center")
        if text:
            sheet.rule((x + pad,) * 2, (top + begin, top + end))
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            x, y = left + lefts[c], top + tops[r]
            if under.depth:
                text = under.texts[r * counts[1] + c]
                if captions_above:
                    sheet.write_above(x + wide / 2, y + room[r] - pad, text, under)
                else:
                    middle = x + wide / 2, y + high + pad / 2
                    sheet.write(*middle, text, under.font, "center", "top")
            if picture is not None:
                sheet.place(picture, (x, y + above[r]), cell, frames)
    if path is not None:
        save(sheet.figure, path)
    return sheet.figure


def _sheet(
    rows: Sequence[Sequence[np.ndarray | None]], cell_size: float | None
) -> tuple["_Sheet", tuple[int, int]]:
    """A sheet in whose resolution pixels become whole numbers of pixels, and a cell's size."""
    if cell_size is not None and not 0.2 <= cell_size < math.inf:
        raise ValueError(f"cell_size must be at least 0.2 inches, got {cell_size:g}.")
    sizes = [cell.shape[:2] for row in rows for cell in row if cell is not None]
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    longest = max(height, width)
    inches = cell_size or min(max(7.5 / len(rows[0]), 0.75), 2.2)
    repeats = math.ceil(inches * LEAST_DPI / longest)
    dpi = min(repeats * longest / inches, MOST_DPI)
    scale = min(repeats, inches * dpi / longest)
    return _Sheet(dpi), (max(1, round(height * scale)), max(1, round(width * scale)))


def _spans(
    groups: Sequence[tuple[str, int]], starts: Sequence[int], sides: Sequence[int]
) -> list[tuple[int, int]]:
    """Where each group begins and ends."""
    spans, first = [], 0
    for _, size in groups:
        last = first + size - 1
        spans.append((starts[first], starts[last] + sides[last]))
        first += size
    return spans


@dataclass(frozen=True)
class _Block:
    """A text of several lines and its size in pixels."""

    text: str
    width: int
    height: int


class _Sheet:
    """A figure in whole pixels, from the upper left corner; its size is known last."""

    def __init__(self, dpi: float):
        self.figure = AggFigure(figsize=(1, 1), dpi=dpi)
        self.dpi = dpi
        self.size = (1.0, 1.0)

    def pixels(self, inches: float) -> int:
        return math.ceil(inches * self.dpi)

    def resize(self, width: int, height: int) -> None:
        # The hundredth of a pixel keeps rounding from losing a whole one.
        self.size = width + 0.01, height + 0.01
        self.figure.set_size_inches(self.size[0] / self.dpi, self.size[1] / self.dpi)

    def starts(self, groups: Sequence[tuple[str, int]], sides: Sequence[int]) -> list[int]:
        """Where the cells begin along an axis; groups stand further apart."""
        starts, at = [], 0
        for _, size in groups:
            for _ in range(size):
                starts.append(at)
                at += sides[len(starts) - 1] + self.pixels(_GAP)
            at += self.pixels(_GROUP_GAP) - self.pixels(_GAP)
        return starts

    def fit(
        self,
        texts: Sequence[str],
        room: Sequence[int],
        side: str,
        largest: float,
        weight: str = "normal",
    ) -> Fitted:
        inches = [pixels / self.dpi for pixels in room]
        return fit(self.figure, texts, inches, side=side, largest=largest, weight=weight)

    def fit_groups(
        self, groups: Sequence[tuple[str, int]], spans: Sequence[tuple[int, int]], side: str
    ) -> Fitted:
        room = [end - begin for begin, end in spans]
        return self.fit([heading for heading, _ in groups], room, side, 10, "bold")

    def reach(self, fitted: Fitted, space: float = 0.0) -> int:
        """What titles take away from their side, with a space where there are any."""
        return self.pixels(fitted.depth) + self.pixels(space) if fitted.depth else 0

    def rows_reach(self, fitted: Fitted, counts: tuple[int, int], space: float) -> list[int]:
        """What the titles of the cells of each row take away from it, as `reach`."""
        rows = np.reshape(fitted.depths or [0.0] * (counts[0] * counts[1]), counts).max(1)
        return [self.pixels(depth) + self.pixels(space) if depth else 0 for depth in rows]

    def wrapped(self, text: str | None, room: int, font: dict[str, Any]) -> _Block:
        if not text:
            return _Block("", 0, 0)
        lines = wrapped_to(self.figure, str(text), room / self.dpi, **font)
        width, height = size_of(self.figure, lines, **font)
        return _Block(lines, self.pixels(width), self.pixels(height))

    def write(
        self, x: float, y: float, text: str, font: dict[str, Any], horizontal: str, vertical: str
    ) -> None:
        if text:
            self.figure.text(
                x / self.size[0],
                1 - y / self.size[1],
                text,
                ha=horizontal,
                va=vertical,
                multialignment="center" if font.get("rotation") else horizontal,
                color=TEXT_COLOR,
                parse_math=False,  # names may hold a dollar sign
                **font,
            )

    def write_above(self, x: float, bottom: float, text: str, fitted: Fitted) -> None:
        """A title over a column: all stand on one line, whatever their number of lines."""
        if fitted.font.get("rotation"):
            self.write(x, bottom, text, fitted.font, "center", "bottom")
        elif fitted.font:
            descent = 0.24 * fitted.font["fontsize"] / 72 * self.dpi
            self.write(x, bottom - descent, text, fitted.font, "center", "baseline")

    def rule(self, x: Sequence[float], y: Sequence[float]) -> None:
        horizontal, vertical = np.array(x) / self.size[0], 1 - np.array(y) / self.size[1]
        self.figure.add_artist(Line2D(horizontal, vertical, color=RULE_COLOR, linewidth=0.7))

    def place(
        self, picture: np.ndarray, corner: Sequence[int], cell: tuple[int, int], frame: bool
    ) -> None:
        """A picture, as large as its cell allows, in the cell's middle."""
        factor = min(cell[0] / picture.shape[0], cell[1] / picture.shape[1])
        high, wide = (max(1, round(factor * side)) for side in picture.shape[:2])
        x, y = corner[0] + (cell[1] - wide) // 2, corner[1] + (cell[0] - high) // 2
        width, height = self.size
        axes = self.figure.add_axes(
            (x / width, 1 - (y + high) / height, wide / width, high / height)
        )
        interpolation = "nearest" if factor >= 1 else "antialiased"
        axes.imshow(picture, interpolation=interpolation, aspect="auto", origin="upper")
        if frame:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(color=RULE_COLOR, linewidth=0.5)
        else:
            axes.set_axis_off()


def _rows(pictures: Any) -> list[list[np.ndarray | None]]:
    if not isinstance(pictures, list | tuple):
        pictures = np.asarray(pictures)
        if pictures.ndim != 5:
            raise ValueError(
                "pictures must be rows of pictures or an array (rows, columns, height, width, 3), "
                f"got shape {pictures.shape}."
            )
    for row in pictures:
        if not isinstance(row, list | tuple) and getattr(row, "ndim", None) != 4:
            raise ValueError(
                "pictures must be a list of rows, each a list of pictures (or None), "
                f"got a row of type {type(row).__name__}."
            )
    lengths = [len(row) for row in pictures]
    if not lengths or min(lengths) != max(lengths) or not lengths[0]:
        raise ValueError(
            "rows of pictures must be of one length of at least 1, "
            f"got {', '.join(map(str, sorted(set(lengths)))) or 'no row'}."
        )
    rows: list[list[np.ndarray | None]] = [
        [
            None if cell is None else _picture(cell, f"the picture in row {r}, column {c}")
            for c, cell in enumerate(row)
        ]
        for r, row in enumerate(pictures)
    ]
    if all(cell is None for row in rows for cell in row):
        raise ValueError("pictures must hold at least one picture, got None in every cell.")
    return rows


def _picture(cell: Any, name: str) -> np.ndarray:
    cell = np.asarray(cell)
    cell = cell[..., None] if cell.ndim == 2 else cell
    if cell.ndim != 3:
        raise ValueError(f"{name} must have shape (height, width, 3), got {cell.shape}.")
    return levels(cell, name)


def _titles(titles: Sequence[str] | None, count: int, name: str) -> list[str]:
    if titles is None:
        return [""] * count
    if isinstance(titles, str) or len(titles) != count:
        raise ValueError(f"{name} must be {count} titles, got {_described(titles)}.")
    return [str(title) for title in titles]


def _described(titles: Any) -> str:
    return repr(titles) if isinstance(titles, str) else str(len(titles))


def _groups(groups: Any, count: int, name: str) -> list[tuple[str, int]]:
    if groups is None:
        return [("", count)]
    groups = [(str(heading), int(size)) for heading, size in groups]
    if any(size < 1 for _, size in groups) or sum(size for _, size in groups) != count:
        raise ValueError(
            f"{name} must be (heading, size) pairs whose sizes add up to {count}, "
            f"got {[size for _, size in groups]}."
        )
    return groups


def _captions(captions: Any, counts: tuple[int, int]) -> list[str]:
    """Row by row."""
    if captions is None:
        return []
    if [len(row) for row in captions] != [counts[1]] * counts[0]:
        raise ValueError(
            f"captions must be {counts[0]} rows of {counts[1]} texts, "
            f"got {[len(row) for row in captions]}."
        )
    return [str(text or "") for row in captions for text in row]
