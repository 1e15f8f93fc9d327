"""Evaluation images to look at, as the networks see them, with their masks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxrobust.data import pipeline, sources
from jaxrobust.data.dataset_config import ResolvedConfig, resolve
from jaxrobust.data.transforms import HostTransform

_BATCH = 128


@dataclass(frozen=True, eq=False)
class Pictures:
    """Evaluation images as the networks see them.

    Attributes:
      images: float32 (n, h, w, c) in [0, 1].
      labels: int32 (n,).
      masks: bool (n, h, w), True inside the silhouette; None where the data set has none.
      class_names: one for each class.
      index: int32 (n,), positions in the split.
      textures: int32 (n,), the class whose texture each image carries; None where the data set does
        not say.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    class_names: tuple[str, ...]
    index: np.ndarray
    textures: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.images)

    def moved(self, step: int) -> "Pictures":
        """The same, each moved down and to the right by less than `step` pixels; edges repeated.

        Every step² pictures have every move once, so that what lies at the same place in all of
        them does not add up in any phase of a stride of `step`, and what the network puts there
        does.
        """
        moves = [divmod(place % step**2, step) for place in range(len(self))]

        def move(arrays: np.ndarray) -> np.ndarray:
            height, width = arrays.shape[1:3]
            rows, columns = np.arange(height), np.arange(width)
            return np.stack(
                [
                    array[np.maximum(rows - down, 0)][:, np.maximum(columns - right, 0)]
                    for array, (down, right) in zip(arrays, moves, strict=True)
                ]
            )

        masks = None if self.masks is None else move(self.masks)
        return replace(self, images=move(self.images), masks=masks)

    def described(self, positions: Sequence[int]) -> dict[str, Any]:
        """What is looked at and, by its positions here, what is drawn, as JSON."""
        return {
            "images": len(self),
            "masks": self.masks is not None,
            "index": self.index.tolist(),
            "drawn": [
                {
                    "index": int(self.index[position]),
                    "label": int(self.labels[position]),
                    "class": self.class_names[self.labels[position]],
                }
                for position in positions
            ],
        }


def evaluation_pictures(
    config: Any, count: int, *, per_class: bool = False, split: str | None = None
) -> Pictures:
    """The first evaluation images of a training's data set, as its networks see them.

    Args:
      config: of the training.
      count: number of images.
      per_class: take them evenly from the classes, the first images of each: all first ones, then
        all second ones, …; a remainder goes to classes spread over all of them. Reads the split
        as far as the last image that it needs.
      split: its name; None is the config's evaluation split.

    Raises:
      ValueError: when count is no positive whole number, or a file of the data set is damaged.
      FileNotFoundError: when the data set is not prepared; the sentence names the command.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number of at least 1, got {count!r}.")
    # Worker processes do not pay for some images.
    resolved, dataset = resolve(ConfigDict(config.dataset.to_dict() | {"workers": 0}))
    opened = sources.open_split(resolved, dataset, split or resolved.evaluation_split)
    whole = min(count, len(opened))
    index = _evenly(opened, count) if per_class else np.arange(whole, dtype=np.int32)
    if len(index) < count:
        logging.getLogger("jaxrobust").warning(
            "%d of the %d pictures asked for are taken: the split %r of %s has %d%s.",
            *(len(index), count, opened.name, opened.dataset_name, len(opened)),
            ", and no more of some class" if len(index) < whole else "",
        )
    records = [opened.record(int(place)) for place in index]
    masks = None
    if "mask" in records[0]:
        transform = HostTransform.create(opened, resolved, "none")  # as of the images
        rng = np.random.default_rng(0)  # asked for, not used: nothing is augmented
        shapes = [
            transform({"image": record["mask"], "index": place}, rng)["image"]
            for place, record in zip(index, records, strict=True)
        ]
        masks = np.stack(shapes)[..., 0] >= 128
    integers = {
        name: np.array([record[name] for record in records], np.int32) for name in opened.labels
    }
    return Pictures(
        images=_as_seen(resolved, opened, index),
        labels=integers["label"],
        masks=masks,
        class_names=opened.class_names or tuple(map(str, range(opened.num_classes))),
        index=index,
        textures=integers.get("texture"),
    )


def shown_positions(labels: np.ndarray, count: int) -> list[int]:
    """Which pictures to draw: spread over the classes, of those that lead with one of each class.

    Example:
      >>> shown_positions(np.array([0, 1, 2, 3, 0, 1]), 2), shown_positions(np.array([0, 1, 0]), 3)
      ([0, 2], [0, 1, 2])
    """
    leading = len(np.unique(labels))
    if count > leading:
        return list(range(min(count, len(labels))))
    return [position * leading // count for position in range(count)]


def _evenly(split: sources.Split, count: int) -> np.ndarray:
    """Where the first images of each class are, the remainder spread over the classes."""
    classes, rest = split.num_classes, count % split.num_classes
    wanted = np.full(classes, count // classes)
    wanted[np.arange(rest) * classes // max(rest, 1)] += 1
    taken = np.zeros(classes, int)
    turns: list[tuple[int, int, int]] = []
    for place in range(len(split)):
        label = split[place]["label"]
        if taken[label] < wanted[label]:
            turns.append((taken[label], label, place))
            taken[label] += 1
        if len(turns) == count:
            break
    return np.array(sorted(turns), np.int32)[:, 2]


def _as_seen(config: ResolvedConfig, split: sources.Split, index: np.ndarray) -> np.ndarray:
    """The images at these places of the split, from the batches that networks are evaluated on."""
    shape = (config.image_size, config.image_size, split.channels)
    images = np.zeros((len(index), *shape), np.float32)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    with pipeline.evaluation_batches(config, split.name, batch_size=_BATCH, mesh=mesh) as batches:
        for batch in map(jax.device_get, batches):
            _, here, there = np.intersect1d(index, batch["index"], return_indices=True)
            images[here] = batch["image"][there]
            if index.max() in batch["index"]:
                break
    return images / np.float32(255)
