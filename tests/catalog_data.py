"""Shared by tests: data sets in their own TFDS layouts, with pictures made here."""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jaxrobust.data import sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve

# Images of every split that the TFDS builder writes; no two splits of a data set have as many.
SPLITS = {
    "svhn_cropped": {"train": 6, "test": 5, "extra": 7},
    "cifar10": {"train": 6, "test": 5},
    "cifar100": {"train": 6, "test": 5},
    "tiny_imagenet": {"train": 6, "validation": 5},
    "stl10": {"train": 6, "test": 5, "unlabelled": 7},
    "food101": {"train": 6, "validation": 5},
    "oxford_flowers102": {"train": 6, "test": 5, "validation": 4},
    "stanford_dogs": {"train": 6, "test": 5},
    "caltech_birds2011": {"train": 6, "test": 5},
    "imagenet2012": {"train": 6, "validation": 5, "test": 7},
    "fashion_mnist": {"train": 30, "test": 26},
}


def write(name, data_dir):
    """Writes a data set as array_record with the features that its TFDS builder declares."""
    config, dataset = resolve(DatasetConfig(name=name, data_dir=str(data_dir)))
    declared = sources.find_builder(config, dataset)

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset.tfds_name
        code_path = None
        VERSION = declared.version

        def _info(self):
            features = declared.info.features
            return tfds.core.DatasetInfo(
                builder=self, features=features, metadata=declared.info.metadata
            )

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(split, count)
                for split, count in SPLITS[dataset.name].items()
            }

        def _generate_examples(self, split, count):
            rng = np.random.default_rng(list(f"{name} {split}".encode()))
            for index in range(count):
                size = rng.integers(90, 150, 2)  # where pictures have no fixed size
                features = declared.info.features.items()
                yield index, {key: value(feature, size, rng) for key, feature in features}

    Builder(data_dir=data_dir).download_and_prepare(file_format="array_record")


def value(feature, size, rng):
    """A value of a feature, as a builder hands it over."""
    if isinstance(feature, tfds.features.Image):
        return picture(feature, size, rng)
    if isinstance(feature, tfds.features.ClassLabel):
        return int(rng.integers(feature.num_classes))
    if isinstance(feature, tfds.features.Text):
        return f"file {rng.integers(1000)}"
    if isinstance(feature, tfds.features.BBoxFeature):
        low, high = rng.uniform(0, 0.4, 2), rng.uniform(0.6, 1, 2)
        return tfds.features.BBox(*low, *high)
    assert isinstance(feature, tfds.features.Sequence), feature
    return [
        {key: value(each, size, rng) for key, each in feature.feature.items()} for _ in range(2)
    ]


def picture(feature, size, rng):
    """An encoded smooth picture of the feature's shape, or of `size` where it has none."""
    height, width, channels = feature.shape
    height, width = height or int(size[0]), width or int(size[1])
    coarse = rng.integers(0, 256, (5, 5, channels), dtype=np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if feature.encoding_format == "jpeg" else "PNG")
    buffer.seek(0)
    return buffer
