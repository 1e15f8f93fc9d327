import io
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import image_folder, pipeline
from jaxrobust.data.dataset_config import DatasetConfig
from tests.test_data_decode import png_of_equal_pixels


def mesh(devices=1):
    return jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for index in range(count):
                suffix = ("jpg", "png", "webp", "JPEG", "bmp", "jpg", "jfif")[index]
                size = (40 + 3 * index, 50)
                image = rng.integers(0, 100, (*size, 3), dtype=np.uint8) + np.uint8(100 * label)
                image_format = "JPEG" if suffix == "jfif" else None
                Image.fromarray(image).save(place / f"{index}.{suffix}", image_format)
            (place / ".hidden").touch()
            (place / "notes.txt").write_text("no picture")
    return tmp_path


def config(folder, **options):
    return DatasetConfig(name="image_folder", path=str(folder), image_size=32, **options)


def truncate(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def test_labels_follow_the_sorted_class_names(folder):
    info = pipeline.describe(config(folder))
    assert info.class_names == ("cat", "dog")
    assert info.num_classes == 2
    assert info.splits == {"train": 14, "val": 6}
    assert (info.train_examples, info.evaluation_examples) == (14, 6)
    with pipeline.evaluation_batches(config(folder), None, batch_size=4, mesh=mesh()) as batches:
        assert len(batches) == 2
        found = list(batches)
    mask = np.concatenate([batch["mask"] for batch in found])
    labels = np.concatenate([batch["label"] for batch in found])[mask]
    images = np.concatenate([batch["image"] for batch in found])[mask]
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [image.mean() > 100 for image in images] == [label == 1 for label in labels]


def test_training_covers_every_picture_once_an_epoch(folder):
    with pipeline.train_batches(config(folder), batch_size=7, seed=3, mesh=mesh()) as batches:
        for _ in range(3):
            epoch = [next(batches) for _ in range(2)]
            index = np.concatenate([batch["index"] for batch in epoch])
            assert sorted(index) == list(range(14))
            assert epoch[0]["image"].shape == (7, 32, 32, 3)


@pytest.mark.parametrize("name", ["2.webp", "0.jpg", "1.png"])
def test_corrupt_picture_stops_before_training_and_is_named(folder, name):
    truncate(folder / "train" / "dog" / name)
    with pytest.raises(ValueError, match=rf"dog/{name}.*1 of 14.*skip"):
        pipeline.describe(config(folder))


def test_corrupt_pictures_are_skipped_named_and_counted(folder, caplog):
    truncate(folder / "train" / "dog" / "0.jpg")
    (folder / "val" / "cat" / "1.png").write_bytes(b"")
    options = config(folder, corrupt_images="skip")
    info = pipeline.describe(options)
    assert (info.train_examples, info.evaluation_examples) == (13, 5)
    assert "dog/0.jpg" in caplog.text
    assert "cat/1.png" in caplog.text
    assert "Skipped 1 of 14" in caplog.text
    with pipeline.evaluation_batches(options, "val", batch_size=4, mesh=mesh()) as batches:
        assert sum(int(batch["mask"].sum()) for batch in batches) == 5
    with pipeline.train_batches(options, batch_size=13, seed=0, mesh=mesh()) as batches:
        assert sorted(np.asarray(next(batches)["index"])) == list(range(13))


def test_a_picture_of_too_many_pixels_is_corrupt(folder, caplog):
    (folder / "train" / "dog" / "1.png").write_bytes(png_of_equal_pixels(9_500, 9_500))
    assert pipeline.describe(config(folder, corrupt_images="skip")).train_examples == 13
    assert "dog/1.png must have at most 89,478,485 pixels, got 9500 x 9500" in caplog.text


def test_files_that_are_no_pictures_by_their_names_are_counted_and_named(folder, caplog):
    (folder / "train" / "dog" / "0.jpg").rename(folder / "train" / "dog" / "0")
    assert pipeline.describe(config(folder)).splits == {"train": 13, "val": 6}
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith(f"Left out 3 files in {folder}/train that are no pictures")
    for name in ("cat/notes.txt", "dog/0,", "dog/notes.txt."):
        assert f"{folder}/train/{name}" in said[0]
    assert said[1].startswith(f"Left out 2 files in {folder}/val ")


@pytest.mark.parametrize("place", ["test", "test/unknown"])
def test_unlabelled_test_pictures_are_left_out(folder, place):
    (folder / place).mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(folder / place / "1.png")
    assert pipeline.describe(config(folder)).splits == {"train": 14, "val": 6}
    with pytest.raises(ValueError, match=r"'test'.*train, val, and test has none of their classes"):
        pipeline.describe(config(folder, evaluation_split="test"))
    # With some of the classes it is a split, and has to have all.
    (folder / "test" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"train and test differ in .*dog"):
        image_folder.open_split(folder, "test", "stop")


def test_damage_inside_a_jpeg_is_named_at_the_latest_when_decoded(folder):
    file = folder / "train" / "cat" / "0.jpg"
    buffer = io.BytesIO()
    Image.open(file).save(buffer, "JPEG")
    content = buffer.getvalue()
    table = content.index(b"\xff\xc4") + 4
    file.write_bytes(content[:table] + b"\xff" * 20 + content[table + 20 :])
    image_folder._open_split.cache_clear()
    with pipeline.train_batches(config(folder), batch_size=14, seed=0, mesh=mesh()) as batches:
        with pytest.raises(ValueError, match=r"cat/0.jpg"):
            next(batches)
        with pytest.raises(ValueError, match=r"cat/0.jpg"):
            next(batches)


def test_equal_square_pictures_stay_in_memory(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(3):
                image = np.full((24, 24, 3), 40 * index, np.uint8)
                Image.fromarray(image).save(tmp_path / split / name / f"{index}.png")
    options = DatasetConfig(
        name="image_folder", path=str(tmp_path), image_size=24, augmentation="flip"
    )
    with pipeline.train_batches(options, batch_size=6, seed=0, mesh=mesh()) as batches:
        assert type(batches).__name__ == "InMemoryBatches"
        batch = next(batches)
    assert (batch["image"][:, 0, 0, 0] == 40 * (batch["index"] % 3)).all()


def test_what_is_missing_or_different_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pipeline.describe(config(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="train"):
        pipeline.describe(config(tmp_path / "empty"))
    (tmp_path / "empty" / "train").mkdir()
    with pytest.raises(ValueError, match="one folder a class"):
        pipeline.describe(config(tmp_path / "empty"))
    with pytest.raises(ValueError, match="Unknown split 'extra'"):
        pipeline.describe(config(folder, train_split="extra"))
    (folder / "train" / "zebra").mkdir()
    with pytest.raises(ValueError, match="differ in zebra"):
        pipeline.describe(config(folder))
    (folder / "val" / "zebra").mkdir()
    with pytest.raises(ValueError, match=r"none in .*zebra"):
        pipeline.describe(config(folder))
    shutil.rmtree(folder / "val")
    shutil.rmtree(folder / "train" / "zebra")
    with pytest.raises(ValueError, match="Unknown split 'validation'"):
        pipeline.describe(config(folder))
