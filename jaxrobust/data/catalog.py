"""The data sets that the library knows: the paper's ten, and some that are had more easily."""

from __future__ import annotations

import dataclasses
import re

from jaxrobust.core.named import did_you_mean

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is opened.

    Attributes:
      name: name in a config.
      title: name in tables and figures.
      tfds_name: name of the TFDS builder, with its config if it has any; None for a folder.
      num_classes: number of classes; None where only the data can tell.
      train_split: split to train on.
      evaluation_split: split to evaluate on.
      train_examples: size of the training split: a check of what is opened.
      evaluation_examples: size of the evaluation split, likewise.
      native_size: height and width of the images in pixels; None where they differ.
      image_size: height and width, in pixels, that a network is given unless a config says so.
      resolution: "low" or "high": the paper's group of the data set; None outside the paper.
      mean: mean of every channel, on the scale [0, 1].
      std: standard deviation of every channel, on the scale [0, 1].
      augmentation: the training augmentation that "auto" stands for.
      embedded: whether the library makes the data set itself, on first use.
      channels: 3, red, green and blue; or 1, grey.
    """

    name: str
    title: str
    tfds_name: str | None
    num_classes: int | None
    train_split: str
    evaluation_split: str
    train_examples: int | None
    evaluation_examples: int | None
    native_size: int | None
    image_size: int
    resolution: str | None
    mean: tuple[float, ...] = _IMAGENET_MEAN
    std: tuple[float, ...] = _IMAGENET_STD
    augmentation: str = "random_resized_crop"
    embedded: bool = False
    channels: int = 3


# Mirror images of digits are other signs, and the stripes of textured_shapes have a direction: such
# data sets are not flipped.
_DATASETS = (
    Dataset(
        "svhn_cropped", "SVHN", "svhn_cropped", 10, "train", "test", 73_257, 26_032, 32, 32, "low",
        (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970), "none",
    ),
    Dataset(
        "cifar10", "CIFAR-10", "cifar10", 10, "train", "test", 50_000, 10_000, 32, 32, "low",
        (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "crop_flip",
    ),
    Dataset(
        "cifar100", "CIFAR-100", "cifar100", 100, "train", "test", 50_000, 10_000, 32, 32, "low",
        (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), "crop_flip",
    ),
    Dataset(
        "tiny_imagenet", "Tiny ImageNet", "tiny_imagenet", 200, "train", "validation",
        100_000, 10_000, 64, 64, "low",
        (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821), "crop_flip",
    ),
    Dataset(
        "stl10", "STL-10", "stl10", 10, "train", "test", 5_000, 8_000, 96, 96, "high",
        augmentation="crop_flip",
    ),
    Dataset(
        "food101", "Food-101", "food101", 101, "train", "validation", 75_750, 25_250,
        None, 224, "high",
    ),
    Dataset(
        # The official 1,020 training images; the 1,020 of `validation` are not trained on.
        "oxford_flowers102", "Flower-102", "oxford_flowers102", 102, "train", "test", 1_020, 6_149,
        None, 224, "high",
    ),
    Dataset(
        "stanford_dogs", "Stanford Dogs", "stanford_dogs", 120, "train", "test", 12_000, 8_580,
        None, 224, "high",
    ),
    Dataset(
        "caltech_birds2011", "CUB-200", "caltech_birds2011", 200, "train", "test", 5_994, 5_794,
        None, 224, "high",
    ),
    Dataset(
        # The labels of ImageNet's `test` are secret, so `validation` is what everybody reports.
        "imagenet2012", "ImageNet", "imagenet2012", 1_000, "train", "validation",
        1_281_167, 50_000, None, 224, "high",
    ),
    Dataset(
        "textured_shapes", "Textured shapes", "textured_shapes/shape32", 10, "train", "test",
        8_000, 1_000, 32, 32, None,
        (0.5, 0.5, 0.5), (0.24, 0.24, 0.24), "none", embedded=True,
    ),
    Dataset(
        "digits", "Digits", "digits", 10, "train", "test", 1_437, 360, 8, 32, None,
        (0.305, 0.305, 0.305), (0.376, 0.376, 0.376), "none", embedded=True,
    ),
    Dataset(
        # In grey as it is: an epsilon is a bound on each number that was measured.
        "fashion_mnist", "Fashion-MNIST", "fashion_mnist_in_order", 10, "train", "test",
        60_000, 10_000, 28, 28, None, (0.2860,), (0.3530,), "none", channels=1,
    ),
    Dataset(
        "image_folder", "Image folder", None, None, "train", "validation", None, None,
        None, 224, None,
    ),
)  # fmt: skip

_BY_NAME = {dataset.name: dataset for dataset in _DATASETS}

PAPER = tuple(dataset.name for dataset in _DATASETS if dataset.resolution)
"""Names of the ten data sets of the paper's Table 3, in its order."""

_TEXTURED_SHAPES_CONFIG = re.compile(r"(shape|texture|both)(16|32|64|224)")


def names() -> tuple[str, ...]:
    """Names of all data sets; those of one paper's table are in `PAPER`.

    Example:
      >>> len(PAPER), [name for name in names() if name not in PAPER]
      (10, ['textured_shapes', 'digits', 'fashion_mnist', 'image_folder'])
    """
    return tuple(_BY_NAME)


def get(name: str) -> Dataset:
    """Look a data set up.

    Args:
      name: a name of the catalogue; "textured_shapes" also takes a builder config, as in
        "textured_shapes/both64".

    Returns:
      the catalogue's entry.

    Raises:
      ValueError: when the name is unknown.

    Example:
      >>> get("cifar100").num_classes, get("textured_shapes/both64").num_classes
      (100, 100)
    """
    base, _, config = name.partition("/")
    if base not in _BY_NAME:
        choices = ", ".join(names())
        hint = did_you_mean(base, names(), cutoff=0.5)
        raise ValueError(f"Unknown data set {name!r}{hint}: it must be one of {choices}.")
    dataset = _BY_NAME[base]
    if not config:
        return dataset
    match = _TEXTURED_SHAPES_CONFIG.fullmatch(config)
    if base != "textured_shapes" or match is None:
        raise ValueError(
            f"Unknown data set {name!r}: only textured_shapes has builder configs, "
            "shape, texture or both followed by 16, 32, 64 or 224."
        )
    target, size = match[1], int(match[2])
    return dataclasses.replace(
        dataset,
        name=name,
        title=f"Textured shapes ({target}, {size} px)",
        tfds_name=name,
        num_classes=100 if target == "both" else 10,
        native_size=size,
        image_size=size,
    )
