"""Activation maximisation: gradient ascent on the image for one filter of one layer."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust.core.batching import map_in_chunks
from jaxrobust.core.checks import check_count, check_key, is_concrete, num_classes
from jaxrobust.core.pytrees import as_pytree
from jaxrobust.core.types import AnyClassifier, Number, Pixels
from jaxrobust.feature_visualization.options import (
    OBJECTIVES,
    check_image_shape,
    complete_options,
)
from jaxrobust.feature_visualization.parameterizations import Parameterization, Pixel
from jaxrobust.feature_visualization.transformations import Transformation

LOGITS = "logits"


def maximize(
    classifier: AnyClassifier,
    layer: str | int | Callable[..., jax.Array],
    channels: jax.Array | np.ndarray | Sequence[int] | int,
    *,
    key: jax.Array,
    image_shape: Sequence[int],
    style: str = "paper",
    steps: int | jax.Array | None = None,
    learning_rate: Number | None = None,
    weight_decay: Number | None = None,
    objective: str | Callable[[jax.Array], jax.Array] | None = None,
    parameterization: str | Parameterization | None = None,
    transformations: Sequence[Transformation] | None = None,
    mean: Pixels | None = None,
    std: Pixels | None = None,
    batch_size: int | None = 32,
) -> jax.Array:
    """Images that maximise the activation of one channel each (Erhan et al. 2009; eq. 10).

    All channels run in one compiled program; other channels, keys, weights and numbers compile
    nothing. `style` sets every option that is left at None:

    | option           | "paper"                           | "regularized" (Olah et al. 2017)     |
    |------------------|-----------------------------------|--------------------------------------|
    | parameterization | `Pixel()`, normalised, unbounded  | `Fourier()`, inside [0, 1]           |
    | transformations  | none                              | `standard_transformations`           |
    | objective        | "sum"                             | "mean"                               |
    | steps            | 30                                | 512                                  |
    | learning_rate    | 0.1                               | 0.05                                 |
    | weight_decay     | 1e-6                              | 0                                    |

    Args:
      classifier: a Classifier, or any callable pytree from one image to logits (k,).
      layer: a name as `classifier.conv_layers(image_shape)` gives it (its output before BatchNorm
        and ReLU), the paper's number of a convolution (1 is the first), or "logits". For a model
        without named layers: "logits", or a function of (classifier, image (h, w, c) in pixel
        units) that returns activations with the channels last, without a batch axis.
      channels: one channel, or (n,) of them.
      key: one key, split for several channels, or (n,) keys.
      image_shape: (h, w, c) of the images to make.
      style: "paper" or "regularized".
      steps: steps of gradient ascent, at least 1.
      learning_rate: Adam's step size, in the units of the parameterisation.
      weight_decay: of the parameters, added to the gradient as in PyTorch's Adam.
      objective: "sum" or "mean" over the channel's positions, "neuron" (its central one), or a
        function from the channel's activations to a scalar.
      parameterization: "pixel", "fourier", or an object such as `Fourier(decay=1.5)`.
      transformations: functions of (key, image), applied in turn before each step, such as
        `(Jitter(4), RandomRotate(10.0))`; () for none.
      mean: per channel, of the normalisation that "pixel" works behind; the classifier's own when
        None.
      std: per channel; given together with `mean`.
      batch_size: the largest number of channels ascended at once, None for all of them.

    Returns:
      (h, w, c) for one channel, (n, h, w, c) for several, float32 in pixel units. With "pixel" they
      leave [0, 1]: clip them to show them.

    Raises:
      TypeError, ValueError: for an unknown layer, a channel out of range, a model without mean and
        std, or options out of their range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), -image.sum()])
      >>> image = maximize(classifier, "logits", 1, key=jax.random.key(0), image_shape=(4, 4, 3),
      ...                  mean=(0.5,), std=(0.25,))
      >>> bool(jnp.all(image < -0.2))  # 30 steps of 0.1 · std below the mean
      True
    """
    shape = check_image_shape(image_shape)
    options = complete_options(
        shape,
        style=style,
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        objective=objective,
        parameterization=parameterization,
        transformations=transformations,
    )
    if batch_size is not None:
        check_count("batch_size", batch_size)
    normalization = _normalization(classifier, shape, mean, std)
    if normalization is None and isinstance(options["parameterization"], Pixel):
        raise ValueError(
            "parameterization 'pixel' needs mean and std, which the classifier does not have: pass "
            "them (mean=(0,), std=(1,) for the pixels themselves), or take 'fourier'."
        )
    classifier = as_pytree(classifier)
    layer = _resolve_layer(classifier, layer, shape)
    channels, single = _check_channels(channels, _channel_count(classifier, layer, shape))
    keys = check_key(key, None if single else len(channels))
    if keys is None:
        raise ValueError("key must be given for the start, got None.")
    if single:
        keys = keys[None]
    elif keys.ndim == 0:
        keys = jax.random.split(keys, len(channels))
    images = _ascend(
        classifier,
        channels,
        keys,
        normalization,
        options.pop("steps"),
        options.pop("learning_rate"),
        options.pop("weight_decay"),
        layer=layer,
        image_shape=shape,
        # None wherever all fit: what is equal must not be compiled twice.
        batch_size=None if batch_size is None or batch_size >= len(channels) else int(batch_size),
        **options,
    )
    return images[0] if single else images


@functools.partial(
    jax.jit,
    static_argnames=(
        "layer",
        "image_shape",
        "batch_size",
        "objective",
        "parameterization",
        "transformations",
    ),
)
def _ascend(
    classifier,
    channels,
    keys,
    normalization,
    steps,
    learning_rate,
    weight_decay,
    *,
    layer,
    image_shape,
    batch_size,
    objective,
    parameterization,
    transformations,
):
    value = objective if callable(objective) else OBJECTIVES[objective]
    mean, std = (None, None) if normalization is None else normalization
    # PyTorch's Adam: the decay is part of the gradient, so that Adam scales it too.
    optimizer = optax.chain(
        optax.add_decayed_weights(weight_decay), optax.scale_by_adam(), optax.scale(-learning_rate)
    )

    def image_of(parameters):
        return parameterization.image(parameters, image_shape, mean, std).astype(jnp.float32)

    def one(channel_and_key):
        channel, key = channel_and_key
        start_key, steps_key = jax.random.split(key)

        def loss(parameters, step):
            image = image_of(parameters)
            step_key = jax.random.fold_in(steps_key, step)
            for index, transformation in enumerate(transformations):
                image = transformation(jax.random.fold_in(step_key, index), image)
            activation = _activation(classifier, image, layer=layer)[..., channel]
            return -value(activation.astype(jnp.float32))

        def step(index, state):
            parameters, optimizer_state = state
            gradient = jax.grad(loss)(parameters, index)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, parameters)
            return optax.apply_updates(parameters, updates), optimizer_state

        start = parameterization.init(start_key, image_shape)
        parameters, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
        return image_of(parameters)

    return map_in_chunks(one, (channels, keys), batch_size)


@functools.partial(jax.jit, static_argnames="layer", inline=True)
def _activation(classifier, image, *, layer):
    """The activations of the layer for one image, channels last."""
    if layer == LOGITS:
        return classifier(image)
    if callable(layer):
        return layer(classifier, image)
    return classifier.activations(image, layers=[layer])[layer]


def _normalization(classifier, image_shape, mean, std) -> tuple[jax.Array, jax.Array] | None:
    """Mean and std as arrays that broadcast against the image; None when they are not known."""
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std go together, got mean={mean} and std={std}.")
    if mean is None:
        mean, std = getattr(classifier, "mean", None), getattr(classifier, "std", None)
        if mean is None or std is None or callable(mean) or callable(std):
            return None
    arrays = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    for name, values in zip(("mean", "std"), arrays, strict=True):
        if values.shape not in ((), (1,), (image_shape[-1],)):
            raise ValueError(
                f"{name} must have one value for each of the {image_shape[-1]} channels of "
                f"image_shape, got shape {values.shape}."
            )
    if is_concrete(std) and not np.all(np.asarray(std) > 0):
        raise ValueError(f"std must be positive, got {std}.")
    return arrays


def _resolve_layer(classifier, layer, image_shape) -> str | Callable:
    if callable(layer) or (isinstance(layer, str) and layer == LOGITS):
        return layer
    if not hasattr(classifier, "activations"):
        raise TypeError(
            "layer must be 'logits' or a function of (classifier, image) for a classifier whose "
            f"layers have no names, got {layer!r}."
        )
    if isinstance(layer, str):
        return layer
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise TypeError(
            f"layer must be a name, the number of a convolution or a function, got {layer!r}."
        )
    names = classifier.conv_layers(image_shape)
    if not 1 <= layer <= len(names):
        raise ValueError(
            f"layer must be the number of a convolution from 1 to {len(names)}, got {layer}."
        )
    return names[layer - 1]


def _channel_count(classifier, layer, image_shape) -> int:
    if layer == LOGITS:
        return num_classes(classifier, image_shape)
    image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
    activation = _activation.eval_shape(classifier, image, layer=layer)
    if getattr(activation, "ndim", 0) < 1 or math.prod(activation.shape) == 0:
        raise ValueError(
            "layer must return activations with the channels last, got "
            f"{jax.tree.map(lambda leaf: leaf.shape, activation)}."
        )
    return activation.shape[-1]


def _check_channels(channels: Any, count: int) -> tuple[jax.Array, bool]:
    array = np.asarray(channels) if is_concrete(channels) else jnp.asarray(channels)
    if array.ndim > 1 or 0 in array.shape:
        raise ValueError(f"channels must be one channel or (n,) of them, got shape {array.shape}.")
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"channels must be integers, got {channels!r}.")
    if isinstance(array, np.ndarray) and (array.min() < 0 or array.max() >= count):
        wrong = array.min() if array.min() < 0 else array.max()
        raise ValueError(
            f"channels must lie in [0, {count}), the channels of the layer, got {wrong}."
        )
    return jnp.asarray(array, jnp.int32).reshape(-1), array.ndim == 0
