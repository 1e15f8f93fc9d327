"""AlexNet in the "one weird trick" widths (Krizhevsky 2014), by default with batch normalisation.

References:
  https://arxiv.org/abs/1404.5997
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrobust.models import layers

Array = jax.Array


class AlexNet(nn.Module):
    """Five convolutions, each with bias, and three dense layers.

    Attributes:
      small_images: 3x3 convolutions of stride 1 and 2x2 max-pools throughout (for about 32 pixels)
        instead of the 11x11 stem of stride 4, which needs 63 pixels.
      batch_norm: whether batch normalisation follows each convolution; torchvision's has none.
      width: channels of the first convolution; the others have 3, 6, 4 and 4 times as many.
      hidden: units of the two hidden dense layers.
      dropout: rate of the dropout before each of them.
      num_classes: number of logits; None returns the last hidden layer instead.
      mean: mean of each channel, subtracted inside the network.
      std: standard deviation of each channel, divided by inside the network.
      dtype: compute dtype; the parameters and the result are float32.
      batch_statistics_axis: see `layers.BatchNorm`.
    """

    small_images: bool = False
    batch_norm: bool = True
    width: int = 64
    hidden: int = 4096
    dropout: float = 0.5
    num_classes: int | None = 1000
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Any = jnp.float32
    batch_statistics_axis: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Compute logits (n, num_classes) of images (n, height, width, channels) in [0, 1].

        With `train=True` the rng `dropout` must be given, and with `batch_norm` the collection
        `batch_stats` be mutable.
        """
        width = self.width
        # Features, kernel size, stride and padding of each convolution.
        if self.small_images:
            sizes, pool, grid = [(3, 1, 1)] * 5, 2, 4
        else:
            sizes, pool, grid = [(11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)], 3, 6
        widths = (width, 3 * width, 6 * width, 4 * width, 4 * width)
        outputs = layers.normalize(images, self.mean, self.std, self.dtype)
        for index, (features, size) in enumerate(zip(widths, sizes, strict=True), start=1):
            convolution = layers.Convolution(
                features, *size, use_bias=True, dtype=self.dtype, name=f"conv{index}"
            )
            if self.batch_norm:
                norm = layers.BatchNorm(
                    self.dtype, batch_statistics_axis=self.batch_statistics_axis, name=f"bn{index}"
                )
                outputs = layers.convolve_and_normalize(convolution, norm, outputs, train=train)
            else:
                outputs = convolution(outputs)
            outputs = jax.nn.relu(outputs)
            if index in (1, 2, 5):
                outputs = layers.max_pool(outputs, pool, stride=2)
        outputs = layers.adaptive_average_pool(outputs, grid)
        outputs = outputs.reshape(outputs.shape[0], -1)
        for name in ("fc6", "fc7"):
            outputs = nn.Dropout(self.dropout, deterministic=not train)(outputs)
            outputs = jax.nn.relu(layers.Dense(self.hidden, self.dtype, name=name)(outputs))
        result_dtype = jnp.promote_types(jnp.float32, self.dtype)
        if self.num_classes is not None:
            outputs = layers.Dense(self.num_classes, result_dtype, name="fc8")(outputs)
        return outputs.astype(result_dtype)


alexnet = AlexNet
alexnet_small = partial(AlexNet, small_images=True, width=16, hidden=256)
