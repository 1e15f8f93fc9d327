import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxrobust.data import catalog, pipeline, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.data.in_memory import InMemoryBatches
from jaxrobust.data.streaming import StreamedBatches
from tests import catalog_data

# Table 3 of the paper: pixels (None where it has a mean), classes, training images.
TABLE_3 = {
    "svhn_cropped": (32, 10, 73_257),
    "cifar10": (32, 10, 50_000),
    "cifar100": (32, 100, 50_000),
    "tiny_imagenet": (64, 200, 100_000),
    "stl10": (96, 10, 5_000),
    "food101": (None, 101, 75_750),
    "oxford_flowers102": (None, 102, 1_020),
    "stanford_dogs": (None, 120, 12_000),
    "caltech_birds2011": (None, 200, 5_994),
    "imagenet2012": (None, 1_000, 1_281_167),
}
# What is evaluated on, with its size as published.
EVALUATION = {
    "svhn_cropped": ("test", 26_032),
    "cifar10": ("test", 10_000),
    "cifar100": ("test", 10_000),
    "tiny_imagenet": ("validation", 10_000),
    "stl10": ("test", 8_000),
    "food101": ("validation", 25_250),
    "oxford_flowers102": ("test", 6_149),
    "stanford_dogs": ("test", 8_580),
    "caltech_birds2011": ("test", 5_794),
    "imagenet2012": ("validation", 50_000),
}
AUGMENTATION = {
    "svhn_cropped": "none",
    "cifar10": "crop_flip",
    "cifar100": "crop_flip",
    "tiny_imagenet": "crop_flip",
    "stl10": "crop_flip",
}
OF_ONE_SIZE = [name for name, (size, _, _) in TABLE_3.items() if size]


def test_catalogue_is_the_table_of_the_paper():
    assert tuple(TABLE_3) == catalog.PAPER
    for name, expected in TABLE_3.items():
        dataset = catalog.get(name)
        assert (dataset.native_size, dataset.num_classes, dataset.train_examples) == expected
        assert dataset.train_split == "train"
        assert (dataset.evaluation_split, dataset.evaluation_examples) == EVALUATION[name]
        assert dataset.augmentation == AUGMENTATION.get(name, "random_resized_crop")
    low = [name for name in catalog.PAPER if catalog.get(name).resolution == "low"]
    assert low == ["svhn_cropped", "cifar10", "cifar100", "tiny_imagenet"]


def test_catalogue_is_light():
    code = "import sys; import jaxrobust.data.catalog; print('tensorflow_datasets' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    for name in TABLE_3:
        catalog_data.write(name, folder)
    return str(folder)


def by_tfds(name, split, data_dir):
    """Pictures, as TFDS itself decodes them, and their labels."""
    records = tfds.builder(catalog.get(name).tfds_name, data_dir=data_dir).as_data_source(split)
    return [record["image"] for record in records], [record["label"] for record in records]


def resized(image, native_size):
    """224 pixels as PIL makes them: all of a small picture, the middle of a large one."""
    image = Image.fromarray(image)
    if native_size:
        return np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)).astype(int)
    size = [int(256 * side / min(image.size)) for side in image.size]
    left, top = (round((side - 224) / 2) for side in size)
    large = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(large.crop((left, top, left + 224, top + 224))).astype(int)


@pytest.mark.parametrize("name", TABLE_3)
def test_every_data_set_reaches_a_network_of_224_pixels(data_dir, name):
    config = DatasetConfig(name, data_dir=data_dir, image_size=224)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    info = pipeline.describe(config)
    assert (info.num_classes, info.image_shape) == (TABLE_3[name][1], (224, 224, 3))
    assert info.splits == catalog_data.SPLITS[name]
    assert (info.train_split, info.evaluation_split) == ("train", EVALUATION[name][0])
    labels = ("label", "coarse_label") if name == "cifar100" else ("label",)
    assert info.labels == labels

    native_size = TABLE_3[name][0]
    originals, expected = by_tfds(name, info.evaluation_split, data_dir)
    with pipeline.evaluation_batches(config, None, batch_size=5, mesh=mesh) as batches:
        assert batches.num_examples == len(expected) == 5
        (batch,) = batches
    assert batch.keys() == {"image", "index", "mask", *labels}
    assert batch["label"].tolist() == expected
    for image, original in zip(np.asarray(batch["image"]), originals, strict=True):
        assert np.abs(image - resized(original, native_size)).max() <= 2

    originals, expected = by_tfds(name, "train", data_dir)
    with pipeline.train_batches(config, batch_size=6, seed=0, mesh=mesh) as batches:
        assert batches.num_examples == len(expected) == 6
        batch = next(batches)
        if native_size:
            # What stays on the device are the pictures as they are; a batch of them is resized.
            assert batches._arrays["image"].shape == (6, native_size, native_size, 3)
            assert batches._arrays["image"].dtype == np.uint8
        else:
            assert type(batches).__name__ == "StreamedBatches"
    assert batch.keys() == {"image", "index", *labels}
    assert (batch["image"].shape, batch["image"].dtype) == ((6, 224, 224, 3), np.uint8)
    assert batch["label"].tolist() == [expected[index] for index in batch["index"]]
    plain = [resized(originals[index], native_size) for index in batch["index"]]
    changed = np.abs(np.asarray(batch["image"]) - np.stack(plain)).max((1, 2, 3)) > 2
    assert changed.any() == (AUGMENTATION.get(name) != "none")


@pytest.mark.parametrize("name", OF_ONE_SIZE)
@pytest.mark.parametrize("split", ["train", "evaluation"])
def test_data_sets_of_one_size_stay_on_the_device_in_full(data_dir, name, split):
    config, dataset = resolve(DatasetConfig(name, data_dir=data_dir, image_size=224))
    opened = sources.open_split(config, dataset, getattr(config, f"{split}_split"))
    full = dataclasses.replace(opened, records=range(getattr(dataset, f"{split}_examples")))
    augmentation = "none" if split == "evaluation" else config.augmentation
    assert pipeline._kind(config, full, augmentation) is InMemoryBatches
    # The paper's others would not, even if they were of one size.
    large = dataclasses.replace(full, native_size=460, records=range(25_250))
    assert pipeline._kind(config, large, augmentation) is StreamedBatches
