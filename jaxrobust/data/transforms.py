"""What happens to a record on the host, between reading and batching."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxrobust.core.checks import check_that
from jaxrobust.data import decode
from jaxrobust.data.dataset_config import ResolvedConfig
from jaxrobust.data.sources import Split


@dataclasses.dataclass(frozen=True)
class HostTransform:
    """Decodes, augments and resizes the records of a split.

    Every augmentation but "random_resized_crop" starts from the evaluation transform, with one
    difference: where all images have one size, it is applied at that size, before resizing.

    Attributes:
      split: the split whose records are transformed.
      augmentation: one of `dataset_config.AUGMENTATIONS`.
      image_size: height and width of the result, in pixels.
      resize_size: length of the shorter side before the central crop, in pixels.
    """

    split: Split
    augmentation: str
    image_size: int
    resize_size: int

    @classmethod
    def create(cls, split: Split, config: ResolvedConfig, augmentation: str) -> HostTransform:
        """The transform of a split under a resolved config."""
        resize_size = config.resize_size
        if resize_size is None and split.native_size is not None:
            resize_size = config.image_size
        elif resize_size is None:
            resize_size = round(config.image_size * 256 / 224)
        return cls(split, augmentation, config.image_size, resize_size)

    def __call__(self, record: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Transform a record of `split`.

        Args:
          record: what `split[index]` returned.
          rng: source of the augmentation's randomness.

        Returns:
          the record, "image" as uint8 (image_size, image_size, channels) and integers as int32.

        Raises:
          ValueError: when the picture cannot be decoded.
        """
        if self.augmentation == "random_resized_crop":
            name = self.split.describe(record["index"])
            image = decode.random_resized_crop(
                record["image"], self.image_size, rng, name=name, channels=self.split.channels
            )
        else:
            image = self.base(record)
            image = decode.pad_crop_flip(
                image,
                rng,
                padding=decode.PADDING if "crop" in self.augmentation else 0,
                flip="flip" in self.augmentation,
            )
            image = decode.resize_and_center_crop(image, *self.sizes())
        rest = {
            name: value if isinstance(value, bool) else np.int32(value)
            for name, value in record.items()
            if name != "image"
        }
        return {"image": image, **rest}

    def base(self, record: dict[str, Any]) -> np.ndarray:
        """The picture at the size at which it is augmented; the same size for all of a split."""
        name, dataset = self.split.describe(record["index"]), self.split.dataset_name
        image = decode.decode(record["image"], name=name, channels=self.split.channels)
        native = self.split.native_size
        if native is None:
            return decode.resize_and_center_crop(image, self.resize_size, self.image_size)
        got = f"{image.shape[0]} x {image.shape[1]} for {name}"
        rule = f"be {native} x {native} pixels"
        check_that(image.shape[:2] == (native, native), f"Images of {dataset}", rule, got)
        return image

    def sizes(self) -> tuple[int, int]:
        """What remains to be done after `base`: shorter side before the crop, and the crop."""
        if self.split.native_size is None:
            return self.image_size, self.image_size
        return self.resize_size, self.image_size
