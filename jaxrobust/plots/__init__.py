"""Figures for papers and notebooks: maps as pictures, grids of them, first-layer filters, curves.

Figures are matplotlib's own objects, made without pyplot: no display is needed. Small pictures are
enlarged by whole numbers of pixels, and a sheet is as large as what lies on it.
"""

from jaxrobust.plots.charts import bars, curves
from jaxrobust.plots.figures import ADV_COLOR, STD_COLOR, line_colors, save
from jaxrobust.plots.first_layer import filters
from jaxrobust.plots.grids import grid
from jaxrobust.plots.pictures import overlay, to_picture

__all__ = [
    "ADV_COLOR",
    "STD_COLOR",
    "bars",
    "curves",
    "filters",
    "grid",
    "line_colors",
    "overlay",
    "save",
    "to_picture",
]
