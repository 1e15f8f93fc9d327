import dataclasses
import json
import subprocess
import sys
import zlib

import cv2
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxrobust.data import catalog, pipeline, textured_shapes
from jaxrobust.data.dataset_config import DatasetConfig
from jaxrobust.data.textured_shapes import PARAMETERS, SHAPES, TEXTURES, draw

SMALL = dataclasses.replace(
    PARAMETERS, train_examples=60, test_examples=20, cue_conflict_examples=20
)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(textured_shapes, "PARAMETERS", SMALL)


def test_pictures_depend_on_split_and_index_alone():
    first = draw("train", 17)
    assert all(np.array_equal(a, b) for a, b in zip(first, draw("train", 17), strict=True))
    assert not np.array_equal(first[0], draw("test", 17)[0])
    assert not np.array_equal(first[0], draw("train", 27)[0])
    other = dataclasses.replace(PARAMETERS, seed=PARAMETERS.seed + 1)
    assert not np.array_equal(first[0], draw("train", 17, parameters=other)[0])


def test_a_batch_holds_the_single_pictures():
    pictures = textured_shapes.draw_batch("cue_conflict", (3, 21), size=16)
    assert pictures.images.dtype == np.float32
    for position, index in enumerate((3, 21)):
        image, mask, shape, texture = draw("cue_conflict", index, size=16)
        np.testing.assert_array_equal(np.rint(255 * pictures.images[position]), image)
        np.testing.assert_array_equal(pictures.masks[position], mask[..., 0] == 255)
        assert (pictures.labels[position], pictures.textures[position]) == (shape, texture)


@pytest.mark.parametrize(
    ("size", "checksum"),
    [(16, 3267937485), (32, 156943449), (64, 1867944182), (224, 796272089)],
)
def test_pictures_are_those_of_earlier_versions(size, checksum):
    pictures = [draw("train", 11 * index, size=size, independent=True) for index in range(10)]
    assert zlib.crc32(b"".join(a.tobytes() for p in pictures for a in p[:2])) == checksum


def test_what_decides_whether_a_set_is_made_anew_has_not_changed(tmp_path):
    made_from = textured_shapes.TexturedShapes(data_dir=tmp_path, config="both32").info.metadata
    assert json.loads(json.dumps(made_from)) == {
        "texture_std": 0.1,
        "contrast": [0.27, 0.57],
        "chroma": 0.08,
        "noise_std": 0.01,
        "rotation": np.pi,
        "scale": [0.45, 0.75],
        "shift": 0.5,
        "train_examples": 8000,
        "test_examples": 1000,
        "cue_conflict_examples": 1000,
        "seed": 2020,
    }


def test_sizes_are_the_same_pictures_on_other_grids():
    for index in range(20):
        _, large, shape, texture = draw("test", index, size=64)
        _, small, *cues = draw("test", index, size=16)
        assert cues == [shape, texture]
        shrunk = large.reshape(16, 4, 16, 4).mean((1, 3)) / 255
        # The small mask is either 0 or 1 along the edge; a pixel further it would fit far worse.
        fits, beside = (
            np.abs(shrunk - np.roll(small[..., 0] / 255, shift, 0)).mean() for shift in (0, 1)
        )
        assert fits < 0.6 * beside


def test_pictures_are_the_same_in_another_process():
    code = (
        "import zlib; from jaxrobust.data.textured_shapes import draw;"
        "print(zlib.crc32(b''.join(a.tobytes() for i in range(10) for a in draw('test', i)[:2])))"
    )
    pictures = b"".join(a.tobytes() for i in range(10) for a in draw("test", i)[:2])
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(output) == zlib.crc32(pictures)


@pytest.mark.parametrize("independent", [False, True])
def test_cues_are_balanced_and_conflict_only_where_they_should(independent):
    for split in ("train", "test"):
        pairs = [textured_shapes.cues(split, i, independent=independent) for i in range(1_000)]
        counts = np.zeros((10, 10), int)
        np.add.at(counts, tuple(np.transpose(pairs)), 1)
        expected = np.full((10, 10), 10) if independent else 100 * np.eye(10)
        assert np.array_equal(counts, expected)
    pairs = np.array([textured_shapes.cues("cue_conflict", i) for i in range(900)])
    counts = np.zeros((10, 10), int)
    np.add.at(counts, tuple(pairs.T), 1)
    assert np.array_equal(counts, 10 * (1 - np.eye(10)))


@pytest.mark.parametrize("size", textured_shapes.SIZES)
@pytest.mark.parametrize("shape", range(10), ids=SHAPES)
def test_mask_is_the_silhouette(size, shape):
    # Without noise, texture and chroma the silhouette is what differs from the background.
    plain = dataclasses.replace(PARAMETERS, noise_std=0, texture_std=0, chroma=0)
    image, mask, drawn, _ = draw("test", shape + 10, size=size, parameters=plain)
    assert drawn == shape
    background = int(image[0, 0, 0])
    difference = np.abs(image[..., 0].astype(int) - background)
    coverage, inside = difference / difference.max(), mask[..., 0] > 0
    assert inside[coverage > 0.55].all()
    assert not inside[coverage < 0.45].any()
    assert set(np.unique(mask)) == {0, 255}
    assert 0.04 < (mask > 0).mean() < 0.45
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    assert not border.any()


def test_silhouettes_have_the_right_topology():
    parts, holes = {}, {}
    for index, name in enumerate(SHAPES):
        _, mask, _, _ = draw("test", index, size=224)
        contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        holes[name] = int(sum(hierarchy[0, :, 3] >= 0))
        parts[name] = len(contours) - holes[name]
    assert holes == {name: int(name == "ring") for name in SHAPES}
    assert parts == {name: 3 if name == "bars" else 1 for name in SHAPES}


@pytest.mark.parametrize("size", textured_shapes.SIZES)
def test_textures_have_the_stated_amplitude_and_differ(size):
    rng = np.random.default_rng(0)
    spectra = []
    for index, name in enumerate(TEXTURES):
        texture = textured_shapes.texture_pattern(index, size, rng)
        assert set(np.unique(texture)) == ({0.0} if name == "plain" else {-1.0, 1.0})
        spectra.append(np.abs(np.fft.fft2(texture)))
    for i in range(10):
        for j in range(i):
            overlap = np.sum(spectra[i] * spectra[j])
            norms = np.linalg.norm(spectra[i]) * np.linalg.norm(spectra[j])
            assert overlap <= 0.9 * norms + 1e-6, (TEXTURES[i], TEXTURES[j])


def test_texture_is_small_and_contrast_large():
    inside_std, contrast = [], []
    for index in range(200):
        image, mask, _, texture = draw("train", index)
        grey, inside = image.mean(-1) / 255, cv2.erode(mask, np.ones((3, 3))) > 0
        outside = cv2.dilate(mask, np.ones((3, 3))) == 0
        if TEXTURES[texture] != "plain" and inside.sum() > 30:
            inside_std.append(grey[inside].std())
        if inside.any():
            contrast.append(abs(grey[inside].mean() - grey[outside].mean()))
    assert np.mean(inside_std) == pytest.approx(PARAMETERS.texture_std, rel=0.1)
    low, high = PARAMETERS.contrast
    reach = 2 * PARAMETERS.chroma + PARAMETERS.texture_std
    assert low - reach < min(contrast)
    assert max(contrast) < high + reach


@pytest.mark.parametrize("config", ["shape32", "texture16", "both64"])
def test_builder_stores_what_is_drawn(tmp_path, small, config):
    builder = textured_shapes.TexturedShapes(data_dir=tmp_path, config=config)
    builder.prepare()
    builder = tfds.builder(f"textured_shapes/{config}", data_dir=tmp_path)
    size, target = builder.builder_config.size, builder.builder_config.target
    for split, count in SMALL.examples.items():
        stored = list(builder.as_data_source(split))
        assert len(stored) == count == builder.info.splits[split].num_examples
        drawn = {}
        for index in range(count):
            image, mask, shape, texture = draw(
                split, index, size=size, independent=target != "shape", parameters=SMALL
            )
            drawn[image.tobytes()] = mask.tobytes(), shape, texture
        assert len(drawn) == count
        for record in stored:
            mask, shape, texture = drawn[record["image"].tobytes()]
            label = {"shape": shape, "texture": texture, "both": 10 * shape + texture}[target]
            assert (record["mask"].tobytes(), record["shape"]) == (mask, shape)
            assert (record["texture"], record["label"]) == (texture, label)


def test_batches_carry_both_cues(tmp_path, small):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    config = DatasetConfig("textured_shapes", data_dir=str(tmp_path))
    assert pipeline.describe(config).labels == ("label", "shape", "texture")
    with pipeline.train_batches(config, batch_size=60, seed=0, mesh=mesh) as batches:
        batch = next(batches)
    assert (batch["texture"] == batch["label"]).all()
    with pipeline.evaluation_batches(config, "cue_conflict", batch_size=20, mesh=mesh) as batches:
        (batch,) = batches
    assert (batch["shape"] == batch["label"]).all()
    assert not (batch["texture"] == batch["label"]).any()


def test_catalogue_knows_the_sizes():
    for config in textured_shapes.TexturedShapes.BUILDER_CONFIGS:
        known = catalog.get(f"textured_shapes/{config.name}")
        assert (known.native_size, known.image_size) == (config.size, config.size)
        assert known.num_classes == (100 if config.target == "both" else 10)
    dataset = catalog.get("textured_shapes")
    assert dataset.train_examples == PARAMETERS.train_examples
    assert dataset.evaluation_examples == PARAMETERS.test_examples
    images = np.stack([draw("train", i)[0] for i in range(500)]) / 255
    assert np.allclose(images.mean((0, 1, 2)), dataset.mean, atol=0.03)
    assert np.allclose(images.std((0, 1, 2)), dataset.std, atol=0.03)


def test_set_made_with_other_parameters_is_made_anew(tmp_path, small, monkeypatch, capsys):
    textured_shapes.TexturedShapes(data_dir=tmp_path).prepare()
    assert capsys.readouterr().err.count("Preparing textured_shapes/shape32") == 1
    textured_shapes.TexturedShapes(data_dir=tmp_path).prepare()
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(textured_shapes, "PARAMETERS", dataclasses.replace(SMALL, test_examples=7))
    builder = textured_shapes.TexturedShapes(data_dir=tmp_path)
    builder.prepare()
    assert capsys.readouterr().err.count("Preparing textured_shapes/shape32") == 1
    builder = textured_shapes.TexturedShapes(data_dir=tmp_path)
    assert len(builder.as_data_source("test")) == 7
    assert not list(tmp_path.rglob("incomplete*"))


def test_interrupted_preparation_leaves_nothing_that_looks_complete(tmp_path, small, monkeypatch):
    drawn = textured_shapes.draw

    def interrupted(split, index, **kwargs):
        if split == "test" and index == 5:
            raise KeyboardInterrupt
        return drawn(split, index, **kwargs)

    monkeypatch.setattr(textured_shapes, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        textured_shapes.TexturedShapes(data_dir=tmp_path).prepare()
    assert not textured_shapes.TexturedShapes(data_dir=tmp_path).is_current()
    monkeypatch.setattr(textured_shapes, "draw", drawn)
    textured_shapes.TexturedShapes(data_dir=tmp_path).prepare()
    assert len(textured_shapes.TexturedShapes(data_dir=tmp_path).as_data_source("test")) == 20


PREPARE = """
import pathlib, sys, time
from jaxrobust.data import digits

folder = pathlib.Path(sys.argv[1])
(folder / f"ready{sys.argv[2]}").touch()
while len(list(folder.glob("ready*"))) < 2:
    time.sleep(0.01)
digits.Digits(data_dir=folder / "data").prepare()
assert len(digits.Digits(data_dir=folder / "data").as_data_source("train")) == 1437
"""


def test_several_processes_may_prepare_at_once(tmp_path):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(tmp_path), str(worker)], stderr=subprocess.PIPE
        )
        for worker in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors.decode()
    assert not list(tmp_path.rglob("incomplete*"))
