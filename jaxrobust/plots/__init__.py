"""Figures for papers and notebooks: maps as pictures, grids of them, first-layer filters, curves.

Figures are made with matplotlib's object interface: no global state, no display needed. They are
laid out from measured text and in whole pixels, so nothing is clipped and small pictures are
enlarged exactly.
"""

from jaxrobust.plots.bars import bars
from jaxrobust.plots.figures import ADV_COLOR, STD_COLOR, line_colors, save
from jaxrobust.plots.first_layer import filters
from jaxrobust.plots.grids import grid
from jaxrobust.plots.lines import curves
from jaxrobust.plots.pictures import heatmap, overlay, to_picture

__all__ = [
    "ADV_COLOR",
    "STD_COLOR",
    "bars",
    "curves",
    "filters",
    "grid",
    "heatmap",
    "line_colors",
    "overlay",
    "save",
    "to_picture",
]
