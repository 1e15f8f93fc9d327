"""Adaptive instance normalisation (Huang & Belongie 2017): one picture in the style of another.

References:
  https://arxiv.org/abs/1703.06868
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from jaxrobust.core import batching, pytrees
from jaxrobust.core.checks import check_count, check_images, check_that, is_concrete
from jaxrobust.stylization.networks import check_networks

Array = jax.Array

EPSILON = 1e-5
"""Added to every variance, as in the public code: channels that are constant stay finite."""


def channel_statistics(features: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each channel.

    Args:
      features: (…, height, width, channels), of at least 2 pixels.

    Returns:
      mean and standard deviation, each (…, channels); the latter is the root of the unbiased
      variance (divided by n - 1, as PyTorch's) plus 1e-5.
    """
    mean, variance = _moments(features)
    return mean, jnp.sqrt(variance + EPSILON)


def _moments(features: Array) -> tuple[Array, Array]:
    height, width = features.shape[-3:-1]
    mean = jnp.mean(features, (-3, -2))
    squares = jnp.square(features - mean[..., None, None, :])
    return mean, jnp.sum(squares, (-3, -2)) / (height * width - 1)


def adain(content_features: Array, style_features: Array) -> Array:
    """The content's features with the mean and standard deviation of the style's channels.

    The result's mean is the style's. Its standard deviation is, too, wherever the content's is well
    above 0.003, the root of the 1e-5 that is added to both variances; a channel in which the
    content is constant becomes the style's mean.

    Args:
      content_features: (…, height, width, channels), of at least 2 pixels.
      style_features: (…, height', width', channels).

    Returns:
      features of the content's shape.

    Raises:
      ValueError: when the shapes do not fit.

    Example:
      >>> content, style = jax.random.uniform(jax.random.key(0), (2, 8, 8, 4))
      >>> mean, std = channel_statistics(adain(content, 3 * style + 1))
      >>> bool(jnp.allclose(mean, 3 * jnp.mean(style, (0, 1)) + 1, atol=1e-5))
      True
    """
    for name, features in (
        ("content_features", content_features),
        ("style_features", style_features),
    ):
        fits = features.ndim >= 3 and features.shape[-3] * features.shape[-2] >= 2
        rule = "have shape (…, height, width, channels) and 2 pixels or more"
        check_that(fits, name, rule, features.shape)
    channels, style_channels = content_features.shape[-1], style_features.shape[-1]
    rule = f"have the content's {channels} channels"
    check_that(style_channels == channels, "style_features", rule, style_channels)
    mean, std = (value[..., None, None, :] for value in channel_statistics(content_features))
    style_mean, style_std = (
        value[..., None, None, :] for value in channel_statistics(style_features)
    )
    return (content_features - mean) / std * style_std + style_mean


def blend(content_features: Array, style_features: Array, strength: Array | float) -> Array:
    """AdaIN with a strength: at 0 the content's features, at 1 those of `adain`."""
    transferred = adain(content_features, style_features)
    return strength * transferred + (1 - strength) * content_features


def stylize(
    encoder: Callable[[Array], Sequence[Array]],
    decoder: Callable[[Array], Array],
    images: Array,
    style_images: Array,
    *,
    strength: float | Array = 1.0,
    batch_size: int | None = None,
) -> Array:
    """Pictures in the style of others.

    Args:
      encoder: a callable pytree, one image -> its feature maps, the deepest last (`load_encoder`,
        `vgg_encoder`, or your own).
      decoder: a callable pytree, the deepest feature map -> an image (`load_decoder`,
        `train_decoder`).
      images: (h, w, 3) or (n, h, w, 3), floats in [0, 1]; of any size that the encoder takes.
      style_images: (h', w', 3) for all of them, or (n, h', w', 3), one for each; floats in [0, 1],
        of any size.
      strength: from 0, the decoder's reconstruction of the content, to 1; traced.
      batch_size: the largest number of images evaluated at once on each device; None is as many as
        come to 32 of 224 x 224 pixels.

    Returns:
      images of the shape of `images`, clipped to [0, 1]. What the decoder draws beyond the
      content's edges, where its side is no multiple of the encoder's stride, is cut off.

    Raises:
      TypeError: when the images are not floating point, the networks cannot be called, or the
        strength is no single number.
      ValueError: when the images do not fit each other or the networks, are too small or leave
        [0, 1], or the strength does.

    Example:
      >>> import jax
      >>> from jaxrobust import Classifier, models, stylization
      >>> model = models.create("vgg11_small", num_classes=10)
      >>> classifier = Classifier.init(jax.random.key(0), model, image_shape=(32, 32, 3))
      >>> encoder = stylization.vgg_encoder(classifier, layer="relu2_1")
      >>> decoder = stylization.mirrored_decoder(encoder, jax.random.key(1))
      >>> images = jax.random.uniform(jax.random.key(2), (2, 32, 32, 3))
      >>> stylization.stylize(encoder, decoder, images, images[0], strength=0.5).shape
      (2, 32, 32, 3)
    """
    images = check_images(images)
    style_images = check_images(style_images)
    fits = style_images.shape[:-3] in ((), images.shape[:-3])
    rule = f"be one picture, or one for each of the images {images.shape}"
    check_that(fits, "style_images", rule, f"shape {style_images.shape}")
    check_strength(strength)
    height, width = images.shape[-3:-1]
    if batch_size is None:
        batch_size = max(1, batching.PIXELS_AT_ONCE // (height * width))
    check_count("batch_size", batch_size)
    check_networks(encoder, decoder, images.shape[-3:], style_images.shape[-3:])
    return stylize_unchecked(
        pytrees.as_pytree(encoder),
        pytrees.as_pytree(decoder),
        images,
        style_images,
        strength,
        chunk=batch_size,
        partition=batching.batch_partition(images),
    )


def check_strength(strength: Any) -> None:
    """Raise unless the strength is one number from 0 to 1, or a traced one.

    Raises:
      TypeError: when it is no single number.
      ValueError: when it is out of range.
    """
    dtype = getattr(strength, "dtype", None) or np.asarray(strength).dtype
    is_real = jnp.issubdtype(dtype, np.floating) or jnp.issubdtype(dtype, np.integer)
    number = is_real and not np.ndim(strength)
    check_that(number, "strength", "be one number from 0 to 1", repr(strength), TypeError)
    fits = not is_concrete(strength) or 0 <= float(strength) <= 1
    check_that(fits, "strength", "be from 0 to 1", strength)


@functools.partial(jax.jit, static_argnames=("chunk", "partition"))
def stylize_unchecked(
    encoder, decoder, images, style_images, strength, *, chunk=None, partition=None
):
    """`stylize` of arrays that are known to be in order; traced by its callers."""

    def stylized(encoder, decoder, strength, image, style_features):
        features = blend(encoder(image)[-1], style_features, strength)
        return jnp.clip(fit_to_shape(decoder(features), image.shape), 0.0, 1.0)

    def many(networks, images, style_images):
        encoder, decoder, strength = networks
        if style_images.ndim == 3:
            features = encoder(style_images)[-1]  # once for all
            return batching.map_in_chunks(
                lambda image: stylized(encoder, decoder, strength, image, features), images, chunk
            )
        return batching.map_in_chunks(
            lambda pair: stylized(encoder, decoder, strength, pair[0], encoder(pair[1])[-1]),
            (images, style_images),
            chunk,
        )

    networks = encoder, decoder, strength
    if images.ndim == 3:
        return stylized(*networks, images, encoder(style_images)[-1])
    if chunk is None or partition is None:
        return many(networks, images, style_images)
    mesh, axes = partition
    style_spec = PartitionSpec(axes) if style_images.ndim == 4 else PartitionSpec()
    return jax.shard_map(
        many,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec(axes), style_spec),
        out_specs=PartitionSpec(axes),
        check_vma=False,
    )(networks, images, style_images)


def fit_to_shape(picture: Array, shape: tuple[int, ...]) -> Array:
    """A picture at the upper left of the given shape: cut off, or its last pixels repeated."""
    picture = picture[: shape[0], : shape[1]]
    missing: Any = [(0, shape[axis] - picture.shape[axis]) for axis in (0, 1)]
    return jnp.pad(picture, (*missing, (0, 0)), mode="edge")
