import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxrobust import map_metrics
from jaxrobust.data import pipeline, textured_shapes
from jaxrobust.experiments.pictures import Pictures, evaluation_pictures
from tests import tiny


def config_of(data_dir, **changes):
    return tiny.config(data_dir, **{f"dataset__{key}": value for key, value in changes.items()})


@pytest.mark.parametrize("dataset", [{}, {"in_memory": "False"}, {"image_size": 12}])
def test_pictures_are_those_of_evaluation(data_dir, dataset):
    config = config_of(data_dir, **dataset)
    found = evaluation_pictures(config, 20)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    with pipeline.evaluation_batches(config.dataset, None, batch_size=24, mesh=mesh) as batches:
        batch = next(batches)
    levels = np.abs(found.images * 255 - batch["image"][:20])
    # 12 pixels from 8 have weights that are not exact: halfway between two levels, either is right.
    assert np.mean(levels > 1e-4) <= (0.01 if "image_size" in dataset else 0)
    assert levels.max() < 1.01
    np.testing.assert_array_equal(found.labels, batch["label"][:20])
    np.testing.assert_array_equal(found.index, range(20))
    assert found.images.dtype == np.float32
    assert found.masks is None
    assert found.class_names == tuple("0123456789")
    assert len(found) == 20


@pytest.mark.parametrize("count", [3, 10, 20, 25])
def test_pictures_of_every_class(data_dir, count):
    config = config_of(data_dir)
    everything = evaluation_pictures(config, 360)
    found = evaluation_pictures(config, count, per_class=True)
    counts = np.bincount(found.labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    # The first of each class in the split, all first ones before all second ones.
    for label in range(10):
        mine = found.index[found.labels == label]
        first = everything.index[everything.labels == label]
        np.testing.assert_array_equal(mine, first[: len(mine)])
    np.testing.assert_array_equal(found.images, everything.images[found.index])
    if count >= 10:
        np.testing.assert_array_equal(found.labels[:10], np.arange(10))
    else:
        assert (np.diff(found.labels) >= 10 // count).all()


def test_a_damaged_file_is_named(tmp_path):
    config = config_of(tmp_path)
    pipeline.describe(config.dataset)
    path = next(tmp_path.rglob("*test.array_record*"))
    content = bytearray(path.read_bytes())
    content[40_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^Cannot read image \d+ of digits test from {path}, "):
        evaluation_pictures(config, 360)


def test_masks_are_the_silhouettes(tmp_path_factory, data_dir, monkeypatch):
    # A small set, drawn by the same generator.
    small = textured_shapes.Parameters(train_examples=20, test_examples=30, cue_conflict_examples=9)
    monkeypatch.setattr(textured_shapes, "PARAMETERS", small)
    folder = tmp_path_factory.mktemp("shapes")
    config = config_of(folder, name="textured_shapes", image_size=None)
    found = evaluation_pictures(config, 12, per_class=True)
    assert found.masks.shape == found.images.shape[:3] == (12, 32, 32)
    assert found.masks.dtype == bool
    drawn = [textured_shapes.draw("test", index, parameters=small) for index in range(30)]
    for image, mask, label in zip(found.images, found.masks, found.labels, strict=True):
        levels = np.rint(image * 255).astype(np.uint8)
        (match,) = [one for one in drawn if np.array_equal(one[0], levels)]
        np.testing.assert_array_equal(mask, match[1][..., 0] == 255)
        assert label == match[2]
    assert found.class_names == textured_shapes.SHAPES
    # Cut and resized as the image is: mask and silhouette still lie on each other.
    config.dataset.resize_size, config.dataset.image_size = 64, 48
    enlarged = evaluation_pictures(config, 12, per_class=True)
    assert enlarged.masks.shape == (12, 48, 48)
    centre = found.masks[:, 4:28, 4:28].repeat(2, 1).repeat(2, 2)
    assert (enlarged.masks == centre).mean() > 0.95
    conflict = evaluation_pictures(config, 5, split="cue_conflict")
    assert conflict.masks.shape == (5, 48, 48)


def test_of_too_many_pictures_those_that_there_are_are_taken(data_dir, caplog):
    config = config_of(data_dir)
    every = evaluation_pictures(config, 361)
    assert every.index.tolist() == list(range(360))
    evenly = evaluation_pictures(config, 360, per_class=True)
    counts = np.bincount(every.labels)
    np.testing.assert_array_equal(np.bincount(evenly.labels), np.minimum(counts, 36))
    assert sorted(evaluation_pictures(config, 9999, per_class=True).index) == list(range(360))
    assert [record.getMessage() for record in caplog.records] == [
        "360 of the 361 pictures asked for are taken: the split 'test' of digits has 360.",
        f"{len(evenly)} of the 360 pictures asked for are taken: the split 'test' of digits has "
        "360, and no more of some class.",
        "360 of the 9999 pictures asked for are taken: the split 'test' of digits has 360.",
    ]
    for count in (0, 2.0, True):
        with pytest.raises(ValueError, match="count must be a whole number of at least 1"):
            evaluation_pictures(config, count)


def test_what_is_drawn_is_described(data_dir):
    found = evaluation_pictures(config_of(data_dir), 12, per_class=True)
    described = found.described([0, 11])
    assert (described["images"], described["masks"]) == (12, False)
    assert described["index"] == found.index.tolist()
    assert described["drawn"] == [
        {"index": int(found.index[position]), "label": label, "class": str(label)}
        for position, label in ((0, 0), (11, found.labels[11]))
    ]


def test_what_lies_in_all_pictures_at_one_place_is_no_grid_once_they_are_moved():
    image = np.zeros((16, 16, 1))
    image[4:12:2, 4:12:4] = 1.0  # far from the edges, which are repeated
    mask = image[..., 0] > 0
    count = 32
    pictures = Pictures(
        np.broadcast_to(image, (count, 16, 16, 1)),
        np.zeros(count, int),
        np.broadcast_to(mask, (count, 16, 16)),
        ("a",),
        np.arange(count),
    )
    moved = pictures.moved(4)
    for stride in (2, 4):
        shares = map_metrics.phase_shares(pictures.images, stride=stride).mean(0)
        assert shares.max() >= 0.5
        shares = map_metrics.phase_shares(moved.images, stride=stride).mean(0)
        np.testing.assert_allclose(shares, 1 / stride**2)
    np.testing.assert_array_equal(moved.masks, moved.images[..., 0] > 0)
    np.testing.assert_array_equal(moved.images[6], np.roll(image, (1, 2), (0, 1)))
    # What leaves on one side does not enter on the other: the first row is repeated.
    edge = Pictures(np.eye(4)[None, :, :, None].repeat(16, 0), *[None] * 2, ("a",), None)
    np.testing.assert_array_equal(edge.moved(4).images[8, :3, :, 0], np.eye(4)[[0, 0, 0]])
