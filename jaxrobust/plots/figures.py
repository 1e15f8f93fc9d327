"""The figures themselves: a class that notebooks show, colours, saving."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any kind of colour vision.
STD_COLOR = "#0072B2"
ADV_COLOR = "#D55E00"
RANDOM_COLOR = "#7F7F7F"
OTHER_COLORS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
TEXT_COLOR = "#202020"
RULE_COLOR = "#909090"

LEAST_DPI, MOST_DPI = 170.0, 400.0


class AggFigure(Figure):
    """A white figure that a notebook shows, whether or not pyplot has been imported."""

    def __init__(self, **options: Any):
        super().__init__(facecolor="white", **options)
        FigureCanvasAgg(self)

    def savefig(self, *arguments: Any, **options: Any) -> None:
        """As matplotlib's, but never cropped, whatever the user's defaults are."""
        with matplotlib.rc_context({"savefig.bbox": None}):
            super().savefig(*arguments, **options)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi)
        return buffer.getvalue()


def line_colors(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each label: STD and ADV always have theirs, whatever else a label says.

    Example:
      >>> line_colors(["ResNet-50 ADV", "std", "STD+ADV"])
      {'ResNet-50 ADV': '#D55E00', 'std': '#0072B2', 'STD+ADV': '#009E73'}
    """
    fixed = {"STD": STD_COLOR, "ADV": ADV_COLOR, "RANDOM": RANDOM_COLOR}
    colors, others = {}, 0
    for label in labels:
        words = re.split(r"[^A-Z0-9+]+", label.upper())
        known = [fixed[word] for word in words if word in fixed]
        colors[label] = known[0] if known else OTHER_COLORS[others % len(OTHER_COLORS)]
        others += not known
    return colors


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure, whole or not at all, in its own resolution (at least 150 pixels an inch).

    Args:
      figure: of this module, or any of matplotlib's; pyplot lets go of it.
      path: its ending is the format: ".png", or ".pdf", ".svg" …; folders are made.

    Returns:
      The path.

    Raises:
      ValueError: when the ending is no format that matplotlib writes.

    Example:
      >>> import tempfile
      >>> import numpy as np
      >>> from jaxrobust import plots
      >>> figure = plots.grid(np.zeros((1, 2, 8, 8, 3)), column_titles=["STD", "ADV"])
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     plots.save(figure, f"{folder}/figures/maps.png").exists()
      True
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"path must end in one of {', '.join(sorted(known))}, got {str(path)!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format=kind, dpi=max(150.0, figure.dpi))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    return path
