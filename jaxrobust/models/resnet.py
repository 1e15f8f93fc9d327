"""Residual networks (He et al. 2016), with the stride in the 3x3 convolution as in torchvision.

References:
  https://arxiv.org/abs/1512.03385
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrobust.core.checks import check_that
from jaxrobust.core.named import check_choice
from jaxrobust.models import layers

Array = jax.Array


class Downsample(nn.Module):
    """The projection of a shortcut: a strided 1x1 convolution and its normalisation."""

    features: int
    stride: int
    dtype: Any = jnp.float32
    batch_statistics_axis: str | None = None

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool = False) -> Array:
        convolution = layers.Convolution(
            self.features,
            1,
            self.stride,
            dtype=self.dtype,
            kernel_init=layers.he_normal_fan_out(),
            name="conv",
        )
        norm = layers.BatchNorm(
            self.dtype, batch_statistics_axis=self.batch_statistics_axis, name="norm"
        )
        return layers.convolve_and_normalize(convolution, norm, inputs, train=train)


class ResidualBlock(nn.Module):
    """A basic block (two 3x3 convolutions) or a bottleneck (1x1, 3x3, 1x1).

    Attributes:
      width: channels inside the block.
      features: channels that leave it.
      stride: stride of the block's first 3x3 convolution.
      bottleneck: whether it is a bottleneck.
      downsampling: how a stride of 2 is taken, see `ResNet`.
      dtype: compute dtype.
      batch_statistics_axis: see `layers.BatchNorm`.
    """

    width: int
    features: int
    stride: int = 1
    bottleneck: bool = False
    downsampling: str = "stride"
    dtype: Any = jnp.float32
    batch_statistics_axis: str | None = None

    @nn.compact
    def __call__(self, inputs: Array, *, train: bool = False) -> Array:
        width, features, stride = self.width, self.features, self.stride
        if stride != 1 and self.downsampling != "stride":
            # Before both branches: the convolutions cost what strided ones do.
            inputs, stride = layers.halve(inputs, self.downsampling), 1
        # Features, kernel size and stride of each convolution.
        if self.bottleneck:
            convolutions = [(width, 1, 1), (width, 3, stride), (features, 1, 1)]
        else:
            convolutions = [(width, 3, stride), (features, 3, 1)]
        outputs = inputs
        for index, (channels, size, step) in enumerate(convolutions, start=1):
            convolution = layers.Convolution(
                channels,
                size,
                step,
                size // 2,
                dtype=self.dtype,
                kernel_init=layers.he_normal_fan_out(),
                name=f"conv{index}",
            )
            norm = layers.BatchNorm(
                self.dtype, batch_statistics_axis=self.batch_statistics_axis, name=f"bn{index}"
            )
            outputs = layers.convolve_and_normalize(convolution, norm, outputs, train=train)
            if index < len(convolutions):
                outputs = jax.nn.relu(outputs)
        if stride != 1 or inputs.shape[-1] != features:
            inputs = Downsample(
                features, stride, self.dtype, self.batch_statistics_axis, name="downsample"
            )(inputs, train=train)
        return jax.nn.relu(outputs + inputs)


class ResNet(nn.Module):
    """A residual network on images in [0, 1].

    Attributes:
      stage_sizes: blocks in each stage; each stage after the first halves the resolution.
      bottleneck: bottlenecks instead of basic blocks.
      small_images: a 3x3 stem of stride 1 without max-pool (for about 32 pixels) instead of the 7x7
        stem of stride 2 with one.
      stem_stride: stride of the stem instead of these; 2 with `small_images` makes a network of
        about a quarter of the cost.
      downsampling: how each stride of 2 is taken: "stride" by the convolutions and the max-pool
        themselves; or by a pool before the stages, after the stem and after its max-pool, which
        then have stride 1: "average_pool", "max_pool", "blur_pool" or "max_blur_pool" (see
        `layers.halve`).
      width: channels of the stem and the first stage; each stage doubles them.
      widening: factor on the channels of the bottlenecks' 3x3 convolutions (2 makes a Wide
        ResNet-50-2 of a ResNet-50), or on all channels after the stem of basic blocks.
      num_classes: number of logits; None returns the pooled features instead.
      mean: mean of each channel, subtracted inside the network.
      std: standard deviation of each channel, divided by inside the network.
      dtype: compute dtype; the parameters and the result are float32.
      batch_statistics_axis: see `layers.BatchNorm`.
    """

    stage_sizes: tuple[int, ...]
    bottleneck: bool = False
    small_images: bool = False
    stem_stride: int | None = None
    downsampling: str = "stride"
    width: int = 64
    widening: int = 1
    num_classes: int | None = 1000
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    dtype: Any = jnp.float32
    batch_statistics_axis: str | None = None

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Compute logits (n, num_classes) of images (n, height, width, channels) in [0, 1].

        With `train=True` the collection `batch_stats` must be mutable.
        """
        check_choice("downsampling", self.downsampling, layers.DOWNSAMPLINGS)
        stride = self.stem_stride or (1 if self.small_images else 2)
        pooled = self.downsampling != "stride"
        rule = f"be 1 or 2 with the downsampling {self.downsampling!r}"
        check_that(not pooled or stride in (1, 2), "stem_stride", rule, stride)
        outputs = layers.normalize(images, self.mean, self.std, self.dtype)
        stem = partial(
            layers.Convolution,
            self.width,
            dtype=self.dtype,
            kernel_init=layers.he_normal_fan_out(),
            name="conv1",
        )
        size = 3 if self.small_images else 7
        convolution = stem(size, 1 if pooled else stride, size // 2)
        norm = layers.BatchNorm(
            self.dtype, batch_statistics_axis=self.batch_statistics_axis, name="bn1"
        )
        outputs = layers.convolve_and_normalize(convolution, norm, outputs, train=train)
        outputs = jax.nn.relu(outputs)
        if pooled and stride == 2:
            outputs = layers.halve(outputs, self.downsampling)
        if not self.small_images:
            outputs = layers.max_pool(outputs, 3, stride=1 if pooled else 2, padding=1)
            if pooled:
                outputs = layers.halve(outputs, self.downsampling)
        for stage, blocks in enumerate(self.stage_sizes):
            width = self.width * 2**stage
            for block in range(blocks):
                outputs = ResidualBlock(
                    width=width * self.widening,
                    features=4 * width if self.bottleneck else width * self.widening,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bottleneck=self.bottleneck,
                    downsampling=self.downsampling,
                    dtype=self.dtype,
                    batch_statistics_axis=self.batch_statistics_axis,
                    name=f"layer{stage + 1}_{block}",
                )(outputs, train=train)
        result_dtype = jnp.promote_types(jnp.float32, self.dtype)
        outputs = jnp.mean(outputs, (1, 2), dtype=result_dtype)
        if self.num_classes is not None:
            outputs = layers.Dense(self.num_classes, result_dtype, name="fc")(outputs)
        return outputs.astype(result_dtype)


resnet18 = partial(ResNet, (2, 2, 2, 2))
resnet34 = partial(ResNet, (3, 4, 6, 3))
resnet50 = partial(ResNet, (3, 4, 6, 3), bottleneck=True)
resnet101 = partial(ResNet, (3, 4, 23, 3), bottleneck=True)
resnet152 = partial(ResNet, (3, 8, 36, 3), bottleneck=True)
wide_resnet50_2 = partial(resnet50, widening=2)
resnet8_small = partial(ResNet, (1, 1, 1), small_images=True, width=16)
