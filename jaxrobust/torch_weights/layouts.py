"""Where PyTorch's implementations of our networks keep each array, and in which order of axes.

A layout renames the modules of one class of networks: what is "layer1_0/downsample/conv" here is
"layer1.0.downsample.0" in torchvision. Every kernel, of a convolution or of a dense layer, is
(height, width, in, out) here and (out, in, height, width) there; a dense layer after a flattening
saw the channels last here and first there.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrobust.core.checks import check_that
from jaxrobust.models import alexnet, resnet, vgg

Naming = Callable[[str], str]

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def _residual(shortcut: str, last: str) -> Callable[[nn.Module], Naming]:
    replacements = {
        r"^layer(\d+)_": r"layer\1.",
        r"/downsample/conv$": f".{shortcut}.0",
        r"/downsample/norm$": f".{shortcut}.1",
        r"^fc$": last,
        r"/": ".",
    }

    def name(module: str) -> str:
        for pattern, replacement in replacements.items():
            module = re.sub(pattern, replacement, module)
        return module

    return lambda model: name


def _sequential(
    stages: Callable[[Any], Sequence[Sequence[str]]], classifier: Sequence[int], *, blocks=False
) -> Callable[[nn.Module], Naming]:
    """Positions in two `nn.Sequential`.

    Args:
      stages: from the model, the endings of the convolutions' names, up to each max-pool.
      classifier: positions of the dense layers.
      blocks: whether a convolution, what normalises it and its ReLU share one position.
    """

    def naming(model: Any) -> Naming:
        names, position = {}, 0
        for stage in stages(model):
            for ending in stage:
                if blocks:
                    conv, norm, step = f"{position}.conv.0", f"{position}.conv.1", 1
                else:
                    conv, norm, step = f"{position}", f"{position + 1}", 2 + model.batch_norm
                names[f"conv{ending}"], names[f"bn{ending}"] = (
                    f"features.{conv}",
                    f"features.{norm}",
                )
                position += step
            position += 1
        for dense, place in zip(("fc6", "fc7", "fc8"), classifier, strict=True):
            names[dense] = f"classifier.{place}"
        return names.__getitem__

    return naming


def _alexnet_stages(_: Any) -> list[list[str]]:
    return [["1"], ["2"], ["3", "4", "5"]]


def _vgg_stages(model: Any) -> list[list[str]]:
    counts = enumerate(model.convolutions, start=1)
    return [[f"{stage}_{place}" for place in range(1, count + 1)] for stage, count in counts]


# By class of networks; the first layout of each is the one that is written. AlexNet's with blocks,
# and BatchNorm in that of torchvision, are those of the paper's first author; "shortcut" and
# "linear" are the names in the robustness library's networks for CIFAR.
_LAYOUTS: Mapping[type, Mapping[str, Callable[[nn.Module], Naming]]] = {
    resnet.ResNet: {
        "torchvision": _residual("downsample", "fc"),
        "robustness (CIFAR)": _residual("shortcut", "linear"),
    },
    alexnet.AlexNet: {
        "torchvision": _sequential(_alexnet_stages, (1, 4, 6)),
        "blocks": _sequential(_alexnet_stages, (1, 4, 6), blocks=True),
    },
    vgg.VGG: {"torchvision": _sequential(_vgg_stages, (0, 3, 6))},
}
_ENDS = {
    resnet.ResNet: ("conv1", "fc"),
    alexnet.AlexNet: ("conv1", "fc8"),
    vgg.VGG: ("conv1_1", "fc8"),
}
_FLATTENED = "fc6"


@dataclass(frozen=True)
class Tensor:
    """An array of a network, here and there.

    Attributes:
      path: in the variables, ("params", "conv1", "kernel").
      shape: here.
      name: in a state dict.
      torch_shape: there.
      kernel: (height, width, in, out) of a kernel, None of a vector.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    name: str
    torch_shape: tuple[int, ...]
    kernel: tuple[int, int, int, int] | None

    def from_torch(self, array: np.ndarray) -> np.ndarray:
        """The array as it stands here, in float32."""
        if self.kernel is not None:
            height, width, inputs, outputs = self.kernel
            array = array.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)
        return np.ascontiguousarray(array, np.float32).reshape(self.shape)

    def to_torch(self, array: np.ndarray) -> np.ndarray:
        """The array as it stands there."""
        if self.kernel is not None:
            array = array.reshape(self.kernel).transpose(3, 2, 0, 1)
        return np.ascontiguousarray(array).reshape(self.torch_shape)


def _naming(model: nn.Module) -> Mapping[str, Callable[[nn.Module], Naming]]:
    rule = f"be one of {', '.join(kind.__name__ for kind in _LAYOUTS)}"
    check_that(type(model) in _LAYOUTS, "model", rule, f"a {type(model).__name__}", TypeError)
    return _LAYOUTS[type(model)]


def of(model: nn.Module) -> dict[str, list[Tensor]]:
    """The arrays of a network in each layout that its class has; the first is torchvision's.

    Raises:
      TypeError: when it is of another class.
    """
    layouts = _naming(model)
    # The shapes of the weights are the same for all sizes of images.
    images = jnp.zeros((1, 64, 64, len(model.mean)))  # type: ignore[attr-defined]
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    leaves = {
        tuple(entry.key for entry in path): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    }
    # By name, the last convolution comes last.
    channels = [shape[-1] for shape in leaves.values() if len(shape) == 4][-1]
    return {
        layout: [_tensor(path, shape, naming(model), channels) for path, shape in leaves.items()]
        for layout, naming in layouts.items()
    }


def _tensor(path: tuple[str, ...], shape: tuple[int, ...], name: Naming, channels: int) -> Tensor:
    module, leaf = "/".join(path[1:-1]), path[-1]
    torch_name = f"{name(module)}.{_LEAVES[leaf]}"
    if leaf != "kernel":
        return Tensor(path, shape, torch_name, shape, None)
    if len(shape) == 4:
        return Tensor(path, shape, torch_name, (shape[3], shape[2], *shape[:2]), shape)
    inputs, outputs = shape
    kernel = (1, 1, inputs, outputs)
    if module == _FLATTENED:
        side = math.isqrt(inputs // channels)
        kernel = (side, side, channels, outputs)
    return Tensor(path, shape, torch_name, (outputs, inputs), kernel)


def ends(model: nn.Module) -> tuple[set[str], set[str]]:
    """The names of the kernels of the first and of the last layer, by all layouts.

    Raises:
      TypeError: as `of`.
    """
    names = [naming(model) for naming in _naming(model).values()]
    first, last = ({f"{name(end)}.weight" for name in names} for end in _ENDS[type(model)])
    return first, last
