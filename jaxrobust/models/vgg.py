"""VGG (Simonyan & Zisserman 2015), with or without batch normalisation, as in torchvision.

References:
  https://arxiv.org/abs/1409.1556
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrobust.models import layers

Array = jax.Array


class VGG(nn.Module):
    """Five stages of 3x3 convolutions, a 2x2 max-pool after each, and three dense layers.

    The convolutions are named conv1_1, conv1_2, conv2_1, … after their stage and place in it, their
    normalisations bn1_1, …, the dense layers fc6, fc7 and fc8.

    Attributes:
      convolutions: number of convolutions in each stage.
      small_images: whether the last stage is averaged over the whole picture, for about 32 pixels
        (where one pixel of it is left), instead of over a grid of 7x7 windows.
      batch_norm: whether batch normalisation follows each convolution.
      width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
      hidden: units of the two hidden dense layers.
      dropout: rate of the dropout after each of them.
      num_classes: number of logits; None returns the last hidden layer instead.
      mean: mean of each channel, subtracted inside the network.
      std: standard deviation of each channel, divided by inside the network.
      dtype: compute dtype; the parameters and the result are float32.
      batch_statistics_axis: see `layers.BatchNorm`.
    """

    convolutions: tuple[int, ...]
    small_images: bool = False
    batch_norm: bool = False
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

        Height and width must be at least 32. With `train=True` the rng `dropout` must be given, and
        with `batch_norm` the collection `batch_stats` be mutable.
        """
        outputs = layers.normalize(images, self.mean, self.std, self.dtype)
        for stage, count in enumerate(self.convolutions, start=1):
            features = self.width * min(2 ** (stage - 1), 8)
            for place in range(1, count + 1):
                convolution = layers.Convolution(
                    features,
                    3,
                    padding=1,
                    use_bias=True,
                    dtype=self.dtype,
                    kernel_init=layers.he_normal_fan_out(),
                    name=f"conv{stage}_{place}",
                )
                if self.batch_norm:
                    norm = layers.BatchNorm(
                        self.dtype,
                        batch_statistics_axis=self.batch_statistics_axis,
                        name=f"bn{stage}_{place}",
                    )
                    outputs = layers.convolve_and_normalize(convolution, norm, outputs, train=train)
                else:
                    outputs = convolution(outputs)
                outputs = jax.nn.relu(outputs)
            outputs = layers.max_pool(outputs, 2)
        outputs = layers.adaptive_average_pool(outputs, 1 if self.small_images else 7)
        outputs = outputs.reshape(outputs.shape[0], -1)
        for name in ("fc6", "fc7"):
            outputs = jax.nn.relu(layers.Dense(self.hidden, self.dtype, name=name)(outputs))
            # Without a classifier the last hidden layer is returned as it is.
            if name == "fc6" or self.num_classes is not None:
                outputs = nn.Dropout(self.dropout, deterministic=not train)(outputs)
        result_dtype = jnp.promote_types(jnp.float32, self.dtype)
        if self.num_classes is not None:
            outputs = layers.Dense(self.num_classes, result_dtype, name="fc8")(outputs)
        return outputs.astype(result_dtype)


vgg11 = partial(VGG, (1, 1, 2, 2, 2))
vgg13 = partial(VGG, (2, 2, 2, 2, 2))
vgg16 = partial(VGG, (2, 2, 3, 3, 3))
vgg19 = partial(VGG, (2, 2, 4, 4, 4))
