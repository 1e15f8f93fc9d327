"""Weights and pictures that the fixtures of PyTorch's logits were computed with, made anew.

Both the script that needs PyTorch and the tests, which do not, call these functions.
"""

import math
import re
import zlib
from collections.abc import Mapping

import numpy as np
from skimage import data

# Where 224 x 224 pixels begin in photographs that come with scikit-image.
SIZES = {"224": (224, 224), "odd": (197, 163), "32": (32, 32)}
_CROPS = {"astronaut": (10, 130), "coffee": (60, 200), "chelsea": (40, 60)}


def sampled(image: np.ndarray) -> np.ndarray:
    """Some rows and columns of an image, its borders among them."""
    rows, columns = (np.r_[0:4, 10 : size - 10 : 17, size - 4 : size] for size in image.shape[:2])
    return image[np.ix_(rows, columns)]


def photographs(count: int, height: int = 224, width: int = 224) -> np.ndarray:
    """(count, height, width, 3) float32 in [0, 1]; at most 3.

    The levels are spread over their intervals: where pixels are equal, rounding would decide which
    of them a max-pool hands the gradient.
    """
    crops = []
    step = 224 // max(height, width)
    for name, (top, left) in list(_CROPS.items())[:count]:
        crops.append(getattr(data, name)()[top::step, left::step][:height, :width])
    levels = np.stack(crops).astype(np.float32)
    return (levels + (_uniform("pictures", levels.shape) + np.float32(1)) / 2) / np.float32(256)


def state(
    shapes: Mapping[str, tuple[int, ...]], statistics: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """A state dict of float32, without counters.

    Running statistics are those given, everything else is drawn, from a generator seeded by its
    name. Two habits of trained networks are kept, without which rounding decides about the deep
    ones: what convolutions return varies little (there the epsilon of BatchNorm matters), and so
    does what a block adds to its input.

    Args:
      shapes: by name.
      statistics: by name; until there are some, means are 0 and variances 1.
    """
    normalized = any(name.endswith("running_var") for name in shapes)
    return {
        name: (
            np.asarray(statistics[name], np.float32)
            if name in statistics
            else _drawn(name, tuple(shape), 0.3 if normalized else 1.4)
        )
        for name, shape in shapes.items()
        if not name.endswith("num_batches_tracked")
    }


def _drawn(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    if name.endswith(("running_mean", "running_var")):
        return np.full(shape, float(name.endswith("var")), np.float32)
    values = _uniform(name, shape)
    if len(shape) > 1:
        scale = gain if len(shape) == 4 else 1.4
        return values * np.float32(scale * math.sqrt(3 / math.prod(shape[1:])))
    if name.endswith("weight"):
        scale = 0.2 if re.search(r"layer.*bn[23]", name) else 1.0
        return np.float32(scale) * (np.float32(1) + np.float32(0.5) * values)
    return np.float32(0.1) * values


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """From -1 to 1, by a name."""
    count = math.prod(shape)
    # The raw stream of a bit generator is the same in all versions of NumPy.
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-count // 2)).view(np.uint32)
    values = (raw[:count] >> 8).astype(np.float32).reshape(shape)
    return values * np.float32(2**-23) - np.float32(1)
