"""The filters of the first layer, which need no optimisation to be seen."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrobust.classifier import Classifier


def first_layer_filters(
    classifier: Classifier, image_shape: Sequence[int], *, fold_batch_norm: bool = False
) -> jax.Array:
    """The kernels of the first convolution.

    They act on normalised images. With `fold_batch_norm` each is multiplied by scale / sqrt(var +
    epsilon) of the BatchNorm that follows: what the next layer sees, comparable between trainings,
    since BatchNorm makes the size of the raw kernels arbitrary.

    Args:
      classifier: a Classifier (a Linen model and its variables).
      image_shape: (h, w, c) of its images.
      fold_batch_norm: whether the BatchNorm after the convolution is folded in.

    Returns:
      (n, kernel height, kernel width, c), float32.

    Raises:
      TypeError: when the classifier is no Classifier.
      ValueError: when it has no convolution, or no BatchNorm directly after the first one.

    Example:
      >>> import jax
      >>> from jaxrobust import Classifier, feature_visualization, models
      >>> model = models.create("resnet8_small", num_classes=10)
      >>> classifier = Classifier.init(jax.random.key(0), model, image_shape=(32, 32, 3))
      >>> feature_visualization.first_layer_filters(classifier, (32, 32, 3)).shape
      (16, 3, 3, 3)
    """
    if not isinstance(classifier, Classifier):
        raise TypeError(
            "classifier must be a Classifier, whose layers have names, "
            f"got a {type(classifier).__name__}."
        )
    names = classifier.conv_layers(image_shape)
    if not names:
        raise ValueError(
            f"classifier must have a convolution, {type(classifier.model).__name__} has none."
        )
    path = tuple(names[0].split("/"))
    kernel = _at(classifier.variables["params"], path)["kernel"]
    filters = jnp.moveaxis(jnp.asarray(kernel, jnp.float32), -1, 0)
    if not fold_batch_norm:
        return filters
    found = _batch_norm_after(classifier, path, image_shape)
    if found is None:
        raise ValueError(
            f"fold_batch_norm needs a BatchNorm directly after {names[0]!r}, "
            f"{type(classifier.model).__name__} has none there."
        )
    norm_path, epsilon = found
    variance = _at(classifier.variables["batch_stats"], norm_path)["var"]
    parameters = _at(classifier.variables["params"], norm_path)
    factor = parameters.get("scale", 1.0) * jax.lax.rsqrt(variance + epsilon)
    return filters * factor[:, None, None, None]


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    """What lies under the path, an empty dict where nothing does (a BatchNorm without scale)."""
    for name in path:
        tree = tree.get(name, {})
    return tree


def _batch_norm_after(classifier, path, image_shape) -> tuple[tuple[str, ...], float] | None:
    """Path and epsilon of the BatchNorm that takes the very output of the convolution."""
    batch_stats = classifier.variables.get("batch_stats", {})
    outputs: list[Any] = []
    found: list[tuple[tuple[str, ...], float]] = []

    def watch(call, args, kwargs, context):
        module, called = context.module, context.method_name == "__call__"
        takes_it = bool(outputs) and any(value is outputs[0] for value in (*args, *kwargs.values()))
        # Known by its running variance, so that any class of BatchNorm is found.
        if called and takes_it and "var" in _at(batch_stats, module.path):
            found.append((module.path, float(module.epsilon)))
        output = call(*args, **kwargs)
        if called and module.path == path and not outputs:
            outputs.append(output)
        return output

    with nn.intercept_methods(watch):
        jax.eval_shape(
            lambda variables, images: classifier.model.apply(variables, images, train=False),
            classifier.variables,
            jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
        )
    return found[0] if found else None
