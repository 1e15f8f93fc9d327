"""Evaluation images to look at, as the networks see them, with their masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxrobust.data import pipeline, sources
from jaxrobust.data.dataset_config import resolve
from jaxrobust.data.transforms import HostTransform

_BATCH = 128


@dataclass(frozen=True, eq=False)
class Pictures:
    """Evaluation images as the networks see them.

    Attributes:
      images: float32 (n, h, w, 3) in [0, 1].
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
      ValueError: when the split has too few images, of some class with `per_class`.
      FileNotFoundError: when the data set is not prepared; the sentence names the command.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number of at least 1, got {count!r}.")
    # Worker processes do not pay for some images.
    resolved, dataset = resolve(ConfigDict(config.dataset.to_dict() | {"workers": 0}))
    opened = sources.open_split(resolved, dataset, split or resolved.evaluation_split)
    if count > len(opened):
        raise ValueError(
            f"count must be at most {len(opened)}, the images of the split {opened.name!r} of "
            f"{opened.dataset_name}, got {count}."
        )
    wanted = _evenly(count, opened.num_classes) if per_class else None
    images, labels, index, turns, textures = [], [], [], [], []
    taken = np.zeros(opened.num_classes, int)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    with pipeline.evaluation_batches(
        resolved, opened.name, batch_size=_BATCH, mesh=mesh
    ) as batches:
        for batch in batches:
            batch = jax.device_get(batch)
            for position in np.flatnonzero(batch["mask"]):
                label = batch["label"][position]
                if wanted is not None and taken[label] >= wanted[label]:
                    continue
                turns.append((taken[label], label) if per_class else (0, 0))
                taken[label] += 1
                images.append(batch["image"][position])
                labels.append(label)
                index.append(batch["index"][position])
                if "texture" in batch:
                    textures.append(batch["texture"][position])
                if len(images) == count:
                    break
            if len(images) == count:
                break
    if len(images) < count:
        assert wanted is not None
        short = int(np.argmax(wanted - taken))
        raise ValueError(
            f"count must leave at most {taken[short]} images for class {short}, all that "
            f"{opened.name!r} of {opened.dataset_name} has, got {count}."
        )
    order = sorted(range(count), key=turns.__getitem__)  # stable: by index without per_class
    places = np.array(index, np.int32)[order]
    return Pictures(
        images=np.stack(images)[order].astype(np.float32) / np.float32(255),
        labels=np.array(labels, np.int32)[order],
        masks=_masks(opened, HostTransform.create(opened, resolved, "none"), places),
        class_names=opened.class_names or tuple(map(str, range(opened.num_classes))),
        index=places,
        textures=np.array(textures, np.int32)[order] if textures else None,
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


def _evenly(count: int, classes: int) -> np.ndarray:
    """How many images of each class, the remainder spread over the classes."""
    wanted = np.full(classes, count // classes)
    rest = count % classes
    wanted[np.arange(rest) * classes // max(rest, 1)] += 1
    return wanted


def _masks(split: sources.Split, transform: HostTransform, index: np.ndarray) -> np.ndarray | None:
    """Masks, cut and resized as their images are."""
    if "mask" not in split.records[int(index[0])]:
        return None
    rng = np.random.default_rng(0)  # asked for, not used: nothing is augmented
    made = [
        transform({"image": split.records[int(i)]["mask"], "index": int(i)}, rng)["image"]
        for i in index
    ]
    return np.stack(made)[..., 0] >= 128
