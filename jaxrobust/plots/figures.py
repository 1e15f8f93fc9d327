"""What all figures share: their style, their colours, measured text, and how they are saved."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxrobust.core.files import written_whole

# Okabe and Ito's palette: told apart with any kind of colour vision.
STD_COLOR = "#0072B2"
ADV_COLOR = "#D55E00"
RANDOM_COLOR = "#7F7F7F"
OTHER_COLORS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
RULE_COLOR = "#909090"
TEXT_COLOR = "#202020"
Font = dict[str, Any]
BIG: Font = {"fontsize": 11, "fontweight": "bold"}
HEADING: Font = {"fontsize": 10, "fontweight": "bold"}
TITLE: Font = {"fontsize": 9}
SMALL: Font = {"fontsize": 8}

styled = matplotlib.rc_context(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": RULE_COLOR,
        "axes.facecolor": "white",
        "axes.labelcolor": TEXT_COLOR,
        "axes.labelsize": 9,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 9,
        "figure.dpi": 200,
        "figure.facecolor": "white",
        "font.size": 8,
        "grid.color": "#E4E4E4",
        "grid.linewidth": 0.6,
        "legend.frameon": False,
        "text.color": TEXT_COLOR,
        "text.parse_math": False,  # names may hold a dollar sign
        "xtick.color": TEXT_COLOR,
        "ytick.color": TEXT_COLOR,
    }
)


class NotebookFigure(Figure):
    """A figure that a notebook shows, whether or not pyplot has been imported."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return _drawn(self, "png")


def line_colors(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label: STD and ADV always have theirs, whatever else a label says.

    Example:
      >>> line_colors(["ResNet-50 ADV", "std", "STD+ADV"])
      {'ResNet-50 ADV': '#D55E00', 'std': '#0072B2', 'STD+ADV': '#009E73'}
    """
    fixed = {"STD": STD_COLOR, "ADV": ADV_COLOR, "RANDOM": RANDOM_COLOR}
    colors: dict[str, str] = {}
    taken = 0
    for label in labels:
        names = [word for word in re.split(r"[^A-Z0-9+]+", label.upper()) if word in fixed]
        colors[label] = fixed[names[0]] if names else OTHER_COLORS[taken % len(OTHER_COLORS)]
        taken += not names
    return colors


def size_of(figure: Figure, text: str, **font: Any) -> tuple[float, float]:
    """Width and height of a text in pixels."""
    artist = figure.text(0, 0, text, **font)
    box = artist.get_window_extent()
    artist.remove()
    return box.width, box.height


def wrapped(figure: Figure, text: str, width: float, **font: Any) -> str:
    """The text in lines of at most `width` pixels; matplotlib wraps only at a figure's edge."""
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


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all, in its own resolution (at least 150 pixels an inch).

    Args:
      figure: of this module, or any of matplotlib's.
      path: its ending is the format: ".png", or ".pdf", ".svg" …; folders are made.

    Returns:
      The path.

    Raises:
      ValueError: when the ending is no format that matplotlib writes.

    Example:
      >>> import tempfile
      >>> from jaxrobust import plots
      >>> figure = plots.grid([[[[0.0, 1.0]]]], column_titles=["STD"])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     plots.save(figure, f"{folder}/figures/maps.png").exists()
      True
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    formats = figure.canvas.get_supported_filetypes()
    if kind not in formats:
        names = ", ".join(sorted(formats))
        raise ValueError(f"path must end in one of {names}, got {str(path)!r}.")
    content = _drawn(figure, kind)
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
    return path


def _drawn(figure: Figure, kind: str) -> bytes:
    """The bytes of a file of this kind, never cropped, whatever the user's defaults are."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.bbox": None}):
        figure.savefig(buffer, format=kind, dpi=max(150.0, figure.dpi))
    return buffer.getvalue()
