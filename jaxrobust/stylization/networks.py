"""AdaIN's networks: a frozen encoder, and the decoder that mirrors it.

Both are chains of 3x3 convolutions with reflection padding, written as PyTorch's `nn.Sequential`
counts them: `operations[i]` is module i, and the convolution at position i has the weights "i". So
the public files open as they are, and what is trained here opens there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrobust.core.checks import check_that, check_type
from jaxrobust.core.named import check_choice
from jaxrobust.core.pytrees import ArrayPytree
from jaxrobust.models import layers

Array = jax.Array


@flax.struct.dataclass(eq=False)
class Encoder(ArrayPytree):
    """An image -> its feature maps, as a callable pytree.

    Attributes:
      parameters: `{"0": {"kernel": (h, w, in, out), "bias": (out,)}, …}`, by position.
      operations: "convolution", "pad" (reflection, 1 pixel), "relu" or "pool" (2x2 maximum, the
        rest of an odd side counting as a window of its own), in order.
      outputs: positions of the operations whose results are the feature maps.
    """

    parameters: dict[str, dict[str, Array]]
    operations: tuple[str, ...] = flax.struct.field(pytree_node=False)
    outputs: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @property
    def least_size(self) -> int:
        """The shortest side of an image that every reflection padding can take."""
        return self.stride + 1

    @property
    def stride(self) -> int:
        """How many times as large as the deepest feature map the image is, but for rounding."""
        return 2 ** self.operations.count("pool")

    @property
    def channels(self) -> int:
        """Number of channels of the images that it takes."""
        return self.parameters[min(self.parameters, key=int)]["kernel"].shape[2]

    def __call__(self, images: Array) -> list[Array]:
        """The feature maps of one image (h, w, c) in [0, 1], or of a batch (n, h, w, c).

        Raises:
          ValueError: when the images are too small.
        """
        check_size(images, self.least_size)
        results = _run(self.operations, self.parameters, images)
        return [results[position] for position in self.outputs]


@flax.struct.dataclass(eq=False)
class Decoder(ArrayPytree):
    """The deepest feature map -> an image, as a callable pytree.

    Attributes:
      parameters: as of `Encoder`.
      operations: "convolution", "pad", "relu" or "upsample" (every pixel becomes 2x2), in order.
    """

    parameters: dict[str, dict[str, Array]]
    operations: tuple[str, ...] = flax.struct.field(pytree_node=False)

    @property
    def channels(self) -> int:
        """Number of channels of the feature map that it takes."""
        return self.parameters[min(self.parameters, key=int)]["kernel"].shape[2]

    @property
    def factor(self) -> int:
        """How many times as large as the feature map the image is, in either direction."""
        return 2 ** self.operations.count("upsample")

    def __call__(self, features: Array) -> Array:
        """The image (h, w, 3) of features (h, w, c), or a batch of them; not clipped to [0, 1]."""
        return _run(self.operations, self.parameters, features)[-1]


def check_size(images: Any, least: int, name: str = "images") -> None:
    """Raise when pictures (…, height, width, channels) are too small for an encoder.

    Raises:
      ValueError: with the size.
    """
    height, width = images.shape[-3:-1]
    rule = f"be at least {least} x {least} pixels for this encoder"
    check_that(min(height, width) >= least, name, rule, f"{height} x {width}")


def _run(operations: Sequence[str], parameters: Mapping[str, Any], inputs: Array) -> list[Array]:
    """The results of all operations."""
    single = inputs.ndim == 3
    outputs = inputs[None] if single else inputs
    results = []
    for position, operation in enumerate(operations):
        if operation == "convolution":
            weights = parameters[str(position)]
            outputs = layers.convolve(outputs, weights["kernel"]) + weights["bias"]
        elif operation == "pad":
            outputs = jnp.pad(outputs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        elif operation == "relu":
            outputs = jax.nn.relu(outputs)
        elif operation == "pool":
            odd = [(0, side % 2) for side in outputs.shape[1:3]]
            outputs = nn.max_pool(outputs, (2, 2), (2, 2), odd)
        else:
            outputs = jnp.repeat(jnp.repeat(outputs, 2, axis=1), 2, axis=2)
        results.append(outputs)
    return [result[0] for result in results] if single else results


def layer_positions(operations: Sequence[str]) -> dict[str, int]:
    """Position of every ReLU of an encoder by VGG's name for it: relu1_1, relu1_2, relu2_1, …"""
    positions, stage, place = {}, 1, 0
    for position, operation in enumerate(operations):
        if operation == "relu":
            place += 1
            positions[f"relu{stage}_{place}"] = position
        elif operation == "pool":
            stage, place = stage + 1, 0
    return positions


def cut(parameters: Mapping[str, Any], operations: Sequence[str], layer: str) -> Encoder:
    """The encoder up to a layer; its feature maps are the first of every stage, and that layer.

    Raises:
      ValueError: when there is no such layer.
    """
    positions = layer_positions(operations)
    check_choice("layer", layer, positions)
    last = positions[layer]
    outputs = [at for name, at in positions.items() if name.endswith("_1") and at < last]
    kept = {name: value for name, value in parameters.items() if int(name) < last}
    return Encoder(kept, tuple(operations[: last + 1]), (*outputs, last))


def mirrored_decoder(
    encoder: Callable[[Array], Sequence[Array]],
    key: Array,
    *,
    image_shape: tuple[int, int, int] = (256, 256, 3),
) -> Decoder:
    """A freshly drawn decoder for an encoder.

    That of an `Encoder` is its mirror image: each convolution the other way round, upsampling for
    pooling. Any other encoder gets, for each of its feature maps, a convolution to the channels of
    the map before, the upsampling between them, and one more convolution.

    Args:
      encoder: a callable pytree: one image (h, w, c) in [0, 1] -> its feature maps (h', w', c'),
        the deepest last.
      key: of the weights, drawn uniformly within 1/sqrt(fan_in), as PyTorch does.
      image_shape: of the images at which the encoder's resolution is looked up, when it is no
        `Encoder`; the sides should be multiples of 2 to some power.

    Raises:
      ValueError: when neighbouring feature maps differ in size by no power of two.
    """
    plan = _mirrored(encoder) if isinstance(encoder, Encoder) else _staged(encoder, image_shape)
    operations: list[str] = []
    shapes = {}
    for step in plan:
        operations += ["upsample"] if step is None else ["pad", "convolution", "relu"]
        if step is not None:
            shapes[len(operations) - 2] = step
    return Decoder(_drawn(key, list(shapes.items())), tuple(operations[:-1]))


def _drawn(
    key: Array, shapes: Sequence[tuple[int, tuple[int, int]]]
) -> dict[str, dict[str, Array]]:
    """Weights of 3x3 convolutions, by position, of the given channels in and out."""
    counts = [(9 * channels + 1) * features for _, (channels, features) in shapes]
    numbers = jax.random.uniform(key, (sum(counts),), minval=-1.0, maxval=1.0)
    parameters = {}
    parts = jnp.split(numbers, np.cumsum(counts)[:-1])
    for (position, (channels, features)), part in zip(shapes, parts, strict=True):
        rows = part.reshape(-1, features) * (9 * channels) ** -0.5
        kernel = rows[:-1].reshape(3, 3, channels, features)
        parameters[str(position)] = {"kernel": kernel, "bias": rows[-1]}
    return parameters


def _mirrored(encoder: Encoder) -> list[tuple[int, int] | None]:
    """Channels in and out of each convolution of the mirror image; None upsamples."""
    plan: list[tuple[int, int] | None] = []
    for position in reversed(range(len(encoder.operations))):
        if encoder.operations[position] == "pool":
            plan.append(None)
        elif encoder.operations[position] == "convolution":
            kernel = encoder.parameters[str(position)]["kernel"]
            if kernel.shape[0] == 3:
                plan.append((kernel.shape[3], kernel.shape[2]))
    return plan


def _staged(
    encoder: Callable[[Array], Sequence[Array]], image_shape: tuple[int, int, int]
) -> list[tuple[int, int] | None]:
    shapes = [leaf.shape for leaf in feature_shapes(encoder, image_shape)]
    plan: list[tuple[int, int] | None] = []
    for shape, before in zip(shapes[::-1], [*shapes[-2::-1], image_shape], strict=True):
        ratios = {large / small for large, small in zip(before[:2], shape[:2], strict=True)}
        ratio = ratios.pop()
        power = not ratios and ratio >= 1 and np.log2(ratio).is_integer()
        rule = "give feature maps whose sizes differ by powers of two"
        check_that(power, "encoder", rule, f"{shape} after {before} for images {image_shape}")
        upsampling = [None] * int(np.log2(ratio))
        last = before == image_shape
        channels = shape[2] if last else before[2]
        plan += [(shape[2], channels), *upsampling, (channels, before[2])]
    return plan


def feature_shapes(
    encoder: Callable[[Array], Sequence[Array]], image_shape: tuple[int, ...]
) -> list[jax.ShapeDtypeStruct]:
    """The shapes of an encoder's feature maps for one image; traced, never run.

    Raises:
      TypeError: when it cannot be called.
      ValueError: when it gives no list of maps (h, w, c), or the deepest is a single row.
    """
    check_type("encoder", encoder, Callable, "be a callable pytree image -> list of feature maps")
    image = jax.ShapeDtypeStruct(tuple(image_shape), jnp.float32)
    maps = jax.eval_shape(lambda x: encoder(x), image)
    if not isinstance(maps, list | tuple) or any(getattr(leaf, "ndim", None) != 3 for leaf in maps):
        raise ValueError(
            "encoder must map one image to a list of feature maps (height, width, channels), "
            f"got {jax.tree.map(lambda leaf: leaf.shape, maps)} for {tuple(image_shape)}."
        )
    if not maps or min(maps[-1].shape[:2]) < 2:
        raise ValueError(
            f"images of {image_shape[0]} x {image_shape[1]} pixels are too small for this encoder: "
            f"its feature maps are {[leaf.shape for leaf in maps]}, and 2 x 2 pixels are the least."
        )
    return list(maps)


def check_networks(
    encoder: Callable,
    decoder: Callable,
    image_shape: tuple[int, ...],
    style_shape: tuple[int, ...],
) -> None:
    """Raise unless encoder and decoder fit each other and the pictures.

    Raises:
      TypeError: when one of them cannot be called.
      ValueError: when the pictures are too small, or the decoder is another encoder's.
    """
    check_type("decoder", decoder, Callable, "be a callable pytree feature map -> image")
    for name, shape in (("images", image_shape), ("style_images", style_shape)):
        count = encoder.channels if isinstance(encoder, Encoder) else shape[-1]
        check_that(shape[-1] == count, name, f"have {count} channels", f"shape {tuple(shape)}")
    feature_shapes(encoder, style_shape)
    features = feature_shapes(encoder, image_shape)[-1]
    channels = getattr(decoder, "channels", features.shape[-1])
    rule = f"take the encoder's {features.shape[-1]} channels"
    got = f"one that takes {channels}: it belongs to another encoder or layer"
    check_that(channels == features.shape[-1], "decoder", rule, got)
    picture = jax.eval_shape(lambda x: decoder(x), features)
    fits = getattr(picture, "ndim", None) == 3 and picture.shape[-1] == image_shape[-1]
    got = f"shape {getattr(picture, 'shape', picture)} of features {features.shape}"
    check_that(fits, "decoder", f"give images (height, width, {image_shape[-1]})", got)
    for image_side, side, drawn in zip(
        image_shape[:2], features.shape[:2], picture.shape[:2], strict=True
    ):
        factor = -(-drawn // side)
        # An encoder rounds its sides up, so that the right decoder draws less than `factor` beyond.
        if not 0 <= drawn - image_side < factor:
            stride = -(-image_side // side)
            if isinstance(encoder, Encoder):
                stride = encoder.stride
            raise ValueError(
                f"decoder enlarges {factor} times, the encoder reduces {stride} times (images "
                f"{tuple(image_shape)}, decoded to {picture.shape}): it belongs to another layer."
            )
