"""What a filter looks for: images that maximise it, and the first layer's filters themselves.

`maximize` makes an image by gradient ascent on one filter's activation (Erhan et al. 2009; eq. 10
of the paper), by default with the paper's plain settings, with `style="regularized"` as in "Feature
Visualization" (Olah et al. 2017, https://distill.pub/2017/feature-visualization).
`first_layer_filters` returns the kernels of the first convolution.
"""

from jaxrobust.feature_visualization.activation_maximization import maximize
from jaxrobust.feature_visualization.first_layer import first_layer_filters
from jaxrobust.feature_visualization.options import STYLES, complete_options
from jaxrobust.feature_visualization.parameterizations import Fourier, Pixel, color_correlation
from jaxrobust.feature_visualization.transformations import (
    Jitter,
    RandomRotate,
    RandomScale,
    standard_transformations,
)

__all__ = [
    "STYLES",
    "Fourier",
    "Jitter",
    "Pixel",
    "RandomRotate",
    "RandomScale",
    "color_correlation",
    "complete_options",
    "first_layer_filters",
    "maximize",
    "standard_transformations",
]
