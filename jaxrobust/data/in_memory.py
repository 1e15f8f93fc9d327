"""Small data sets: decoded once, kept on the devices, gathered and augmented there."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrobust.data.batches import Batches
from jaxrobust.data.dataset_config import ResolvedConfig
from jaxrobust.data.decode import PADDING
from jaxrobust.data.sources import Split
from jaxrobust.data.transforms import HostTransform


class InMemoryBatches(Batches):
    """Batches gathered from arrays that every device holds."""

    def __init__(
        self,
        split: Split,
        config: ResolvedConfig,
        augmentation: str,
        *,
        batch_size: int,
        seed: int | None,
        mesh: Mesh,
    ) -> None:
        super().__init__(split, batch_size, seed)
        transform = HostTransform.create(split, config, "none")
        host_arrays = load(split, transform)
        resize_size, image_size = transform.sizes()
        replicated = NamedSharding(mesh, PartitionSpec())
        self._sharding = NamedSharding(mesh, PartitionSpec("data"))
        self._arrays = {name: _place(a, replicated) for name, a in host_arrays.items()}
        self._gather = _compiled(augmentation, resize_size, image_size, self._sharding)
        self._seed = np.uint32(seed or 0)
        self._indices = None
        if seed is not None:
            indices = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat()
            self._indices = indices.batch(batch_size)

    def _batch(self, step: int) -> dict[str, jax.Array]:
        mask = None
        if self._indices is not None:
            index = np.asarray(self._indices[step], np.int32)
        else:
            index = step * self.batch_size + np.arange(self.batch_size, dtype=np.int32)
            mask = index < self.num_examples
            index = np.where(mask, index, 0)
        placed = _place(index, self._sharding)
        batch = self._gather(self._arrays, placed, self._seed, np.uint32(step))
        return batch if mask is None else {**batch, "mask": _place(mask, self._sharding)}


def _place(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    # Every process holds the whole array, and places what its own devices need.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def load(split: Split, transform: HostTransform) -> dict[str, np.ndarray]:
    """Decode a whole split.

    Args:
      split: the split.
      transform: its transform; only `base` is applied.

    Returns:
      "image": uint8 (n, height, width, channels), and each of the split's labels: int32 (n,).

    Raises:
      ValueError: when a picture cannot be decoded, or has another size than the data set states.
    """
    labels = {name: np.zeros(len(split), np.int32) for name in split.labels}
    images = np.zeros((len(split), *transform.base(split[0]).shape), np.uint8)

    def decode_part(part: range) -> None:
        for index in part:
            record = split[index]
            images[index] = transform.base(record)
            for name, values in labels.items():
                values[index] = record[name]

    parts = [range(start, min(start + 256, len(split))) for start in range(0, len(split), 256)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode_part, parts))
    return {"image": images, **labels}


@functools.cache
def _compiled(augmentation: str, resize_size: int, image_size: int, sharding: NamedSharding) -> Any:
    # Cached, so that opening a split again compiles nothing.
    function = functools.partial(
        gather, augmentation=augmentation, resize_size=resize_size, image_size=image_size
    )
    return jax.jit(function, out_shardings=sharding)


def gather(
    arrays: dict[str, jax.Array],
    index: jax.Array,
    seed: jax.Array,
    step: jax.Array,
    *,
    augmentation: str,
    resize_size: int,
    image_size: int,
) -> dict[str, jax.Array]:
    """Gather, augment and resize one batch; pure, compiled by its caller.

    Args:
      arrays: "image" uint8 (n, height, width, channels) and labels (n,), replicated.
      index: int32 (batch,), sharded along the batch.
      seed: seed of the augmentation.
      step: number of the batch; with the seed it decides the augmentation.
      augmentation: "none", "flip", "crop" or "crop_flip".
      resize_size: length of the shorter side before the central crop, in pixels.
      image_size: height and width of the result, in pixels.

    Returns:
      the batch: "image" uint8 (batch, image_size, image_size, channels), labels and "index".
    """
    images = arrays["image"]
    if augmentation == "none":
        batch_images = jnp.take(images, index, axis=0)
    else:
        key = jax.random.fold_in(jax.random.key(seed), step)
        crop, flip = "crop" in augmentation, "flip" in augmentation
        batch_images = _crop_and_flip(images, index, key, crop=crop, flip=flip)
    labels = {name: jnp.take(a, index) for name, a in arrays.items() if name != "image"}
    return {"image": _resize(batch_images, resize_size, image_size), **labels, "index": index}


def _crop_and_flip(
    images: jax.Array, index: jax.Array, key: jax.Array, *, crop: bool, flip: bool
) -> jax.Array:
    # Rows and columns of the window are chosen in the gather itself: no padded copy, one pass.
    height, width = images.shape[1:3]
    flip_key, crop_key = jax.random.split(key)
    reach = PADDING if crop else 0
    offset = jax.random.randint(crop_key, (*index.shape, 2), -reach, reach + 1)
    rows = offset[:, :1] + jnp.arange(height)
    columns = offset[:, 1:] + jnp.arange(width)
    if flip:
        mirrored = jax.random.bernoulli(flip_key, shape=(*index.shape, 1))
        columns = jnp.where(mirrored, columns[:, ::-1], columns)
    window = images.at[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    if not crop:
        return window.get(mode="promise_in_bounds")
    inside = (rows >= 0) & (rows < height)
    inside = inside[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    return jnp.where(inside[..., None], window.get(mode="clip"), 0)


def _resize(images: jax.Array, resize_size: int, image_size: int) -> jax.Array:
    n, height, width, channels = images.shape
    short = min(height, width)
    resized = int(resize_size * height / short), int(resize_size * width / short)
    if resized != (height, width):
        shape = (n, *resized, channels)
        images = jax.image.resize(images.astype(jnp.float32), shape, "bilinear", antialias=True)
        images = jnp.rint(images).astype(jnp.uint8)
    top, left = ((side - image_size + 1) // 2 for side in resized)
    return images[:, top : top + image_size, left : left + image_size]
