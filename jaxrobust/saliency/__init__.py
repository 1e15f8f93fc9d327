"""Sensitivity maps: which pixels the evidence for a class hangs on.

Every method is `method(classifier, images, labels, *, options)` and returns signed maps of the
images' shape. It is written for one image and takes one or many (`jaxrobust.core.batching`);
gradients are with respect to images in [0, 1], whatever normalisation the classifier does inside.
"""

from jaxrobust.core.types import Method
from jaxrobust.saliency.averages import integrated_gradients, smoothgrad
from jaxrobust.saliency.class_activation import grad_cam, guided_grad_cam
from jaxrobust.saliency.gradients import (
    guided_backprop,
    input_times_gradient,
    loss_gradient,
    vanilla_gradient,
)

# The five of the paper, in its order.
PAPER_METHODS: dict[str, Method] = {
    "vanilla_gradient": vanilla_gradient,
    "loss_gradient": loss_gradient,
    "guided_backprop": guided_backprop,
    "smoothgrad": smoothgrad,
    "integrated_gradients": integrated_gradients,
}

__all__ = [
    "PAPER_METHODS",
    "grad_cam",
    "guided_backprop",
    "guided_grad_cam",
    "input_times_gradient",
    "integrated_gradients",
    "loss_gradient",
    "smoothgrad",
    "vanilla_gradient",
]
