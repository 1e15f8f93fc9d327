import argparse
import json
import os
import shutil
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from array_record.python import array_record_module
from PIL import Image

from experiments import accuracies, trained
from experiments.pictures import evaluation_pictures
from jaxrobust import filters, models
from jaxrobust.data.dataset_config import resolve
from jaxrobust.evaluation import evaluate
from tests.test_figure2_sensitivity_maps import write_workdir

VARIANTS = {
    "plain": None,
    "blurred": accuracies.blurred(1.0),
    "median": accuracies.median_filtered(2),
    "reversed": accuracies.reversed_colors(),
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory, data_dir):
    """One seed of STD and ADV on part of a small set."""
    return write_workdir(
        tmp_path_factory.mktemp("digits"),
        data_dir,
        seeds=(3,),
        dataset__evaluation_split="test[:50]",
    )


@pytest.fixture
def passes(monkeypatch):
    """The names of the variants of each pass over the data."""
    done = []
    original = evaluate.evaluate

    def counting(*args, **kwargs):
        done.append([json.loads(key) for key in kwargs["variants"]])
        return original(*args, **kwargs)

    monkeypatch.setattr(evaluate, "evaluate", counting)
    return done


def test_levels_are_those_of_the_paper():
    assert len(accuracies.SIGMAS) == 21
    assert accuracies.SIGMAS[:3] == (0.0, 0.25, 0.5)
    assert accuracies.SIGMAS[-1] == 5.0
    assert accuracies.TIMES == (0, 1, 2, 3, 4, 5)
    assert accuracies.blurred(2) == {"name": "gaussian_blur", "sigma": 2.0, "kernel_size": 7}
    assert accuracies.median_filtered(2) == {"name": "median_filter", "times": 2, "kernel_size": 5}
    assert accuracies.reversed_colors() == {"name": "reverse_colors", "mean": [0.485, 0.456, 0.406]}
    image = np.random.default_rng(0).random((4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        accuracies.filtered(image, accuracies.reversed_colors()), filters.reverse_colors(image)
    )


def test_accuracies_are_those_of_a_plain_loop_and_measured_once(digits, tmp_path, passes):
    one = trained.find(digits)[0]
    first = accuracies.measure(one, {"plain": None}, folder=tmp_path)
    assert passes == [[]]
    found = accuracies.measure(one, VARIANTS, folder=tmp_path)
    assert passes[1:] == [[VARIANTS[name] for name in ("blurred", "median", "reversed")]]
    pictures = evaluation_pictures(one.config, 50)
    for name, variant in VARIANTS.items():
        images = pictures.images
        if variant is not None:
            options = {key: value for key, value in variant.items() if key != "name"}
            images = filters.get(variant["name"])(images, **options)
            np.testing.assert_array_equal(accuracies.filtered(pictures.images, variant), images)
        order = np.argsort(-np.asarray(one.load()(jnp.asarray(images))), axis=1)
        hit = order == pictures.labels[:, None]
        np.testing.assert_array_equal(found[name].right, 100.0 * hit[:, 0])
        assert found[name].top1 == pytest.approx(100 * hit[:, 0].mean())
        assert found[name].top5 == pytest.approx(100 * hit[:, :5].any(1).mean())
        assert found[name].texture is None
    assert len({found[name].top1 for name in found}) > 1
    np.testing.assert_array_equal(first["plain"].right, found["plain"].right)
    # Nothing is left to be measured, in whatever order.
    again = accuracies.measure(one, dict(reversed(VARIANTS.items())), folder=tmp_path)
    assert len(passes) == 2
    assert list(again) == list(reversed(VARIANTS))
    np.testing.assert_array_equal(again["median"].right, found["median"].right)
    assert again["median"].top5 == found["median"].top5
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_kept_belongs_to_one_checkpoint_and_one_split(digits, tmp_path, passes):
    std, adv = trained.find(digits)
    variants = {"plain": None}
    accuracies.measure(std, variants, folder=tmp_path / "kept")
    accuracies.measure(adv, variants, folder=tmp_path / "kept")
    accuracies.measure(std, variants, folder=tmp_path / "kept", split="test[:20]")
    assert len(passes) == 3
    assert len(list((tmp_path / "kept").iterdir())) == 3
    # The same training again, written anew: other weights under the same name.
    work = tmp_path / "work"
    shutil.copytree(digits, work)
    copied = trained.find(work)[0]
    accuracies.measure(copied, variants, folder=tmp_path / "kept")
    os.utime(copied.folder / "checkpoints" / "30", ns=(1, 1))
    accuracies.measure(copied, variants, folder=tmp_path / "kept")
    assert len(passes) == 5


@pytest.mark.parametrize("damage", ['{"identity"', "{}", "[]", "no variants", "variants a list"])
def test_what_cannot_be_read_is_measured_again(digits, tmp_path, passes, damage):
    one = trained.find(digits)[0]
    accuracies.measure(one, {"plain": None}, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = json.loads(path.read_text())
    damaged = {
        "no variants": json.dumps({"identity": whole["identity"]}),
        "variants a list": json.dumps(whole | {"variants": []}),
    }
    path.write_text(damaged.get(damage, damage))
    accuracies.measure(one, {"plain": None}, folder=tmp_path)
    assert len(passes) == 2
    assert json.loads(path.read_text()) == whole


def test_what_is_kept_belongs_to_the_records_of_a_tfds_set(tmp_path, passes):
    work = write_workdir(tmp_path / "work", tmp_path / "data", seeds=(3,))
    one = trained.find(work)[0]
    before = accuracies.measure(one, {"plain": None}, folder=tmp_path / "kept")["plain"]
    accuracies.measure(one, {"plain": None}, folder=tmp_path / "kept")
    assert len(passes) == 1
    (path,) = (tmp_path / "data").rglob("*test.array_record*")
    records = grain.sources.ArrayRecordDataSource([str(path)])
    encoded = [records[position] for position in reversed(range(len(records)))]
    turned = path.with_name("turned")
    writer = array_record_module.ArrayRecordWriter(str(turned), "group_size:1")
    for record in encoded:
        writer.write(record)
    writer.close()
    turned.replace(path)
    after = accuracies.measure(one, {"plain": None}, folder=tmp_path / "kept")["plain"]
    assert len(passes) == 2
    np.testing.assert_array_equal(after.right, before.right[::-1])


def test_what_is_kept_belongs_to_the_code_the_backend_and_the_type(
    digits, tmp_path, passes, monkeypatch
):
    one = trained.find(digits)[0]

    def identity():
        accuracies.measure(one, {"plain": None}, folder=tmp_path)
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return json.loads(newest.read_text())["identity"]

    first = identity()
    assert (first["backend"], first["dtype"], first["jax"]) == ("cpu", None, jax.__version__)
    monkeypatch.setattr(accuracies, "_SOURCES", (*accuracies._SOURCES, "norms.py"))
    assert identity()["code"] != first["code"]
    assert len(passes) == 2
    # The network of these tests has no type of its own; the library's have.
    network = models.create("resnet8_small", num_classes=10, dtype="bfloat16")
    monkeypatch.setattr(models, "create", lambda **_: network)
    resolved, catalogued = resolve(one.config.dataset)
    found = accuracies._identity(one, resolved, catalogued, "test")
    assert found["dtype"] == "bfloat16"


def test_an_interrupted_pass_goes_on(digits, tmp_path, monkeypatch):
    one = trained.find(digits)[0]
    options = {"batch_size": 8}  # 7 batches
    whole = accuracies.measure(one, VARIANTS, folder=tmp_path / "whole", **options)
    monkeypatch.setattr(evaluate, "_SAVE_EVERY", 0.0)
    calls = []
    original = evaluate.count

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4 * 5:  # the plain pictures and three variants each
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(evaluate, "count", failing)
    with pytest.raises(KeyboardInterrupt):
        accuracies.measure(one, VARIANTS, folder=tmp_path / "part", **options)
    found = accuracies.measure(one, VARIANTS, folder=tmp_path / "part", **options)
    assert len(calls) == 4 * 5 + 4 * 3
    for name in VARIANTS:
        np.testing.assert_array_equal(found[name].right, whole[name].right)
    assert [path.suffixes for path in (tmp_path / "part").iterdir()] == [[".json"]]


def test_pairs_share_their_passes(digits, tmp_path, passes, capfd):
    pairs = trained.pairs(trained.find(digits))
    runs = accuracies.measure_pairs(pairs, {"plain": None}, folder=tmp_path, batch_size=3)
    assert [len(seeds) for seeds in runs.values()] == [1, 1]
    assert list(runs) == ["std", "adv"]
    assert len(passes) == 2
    std = accuracies.measure(pairs[0][0], {"plain": None}, folder=tmp_path)
    np.testing.assert_array_equal(runs["std"][0]["plain"].right, std["plain"].right)


def write_pictures(folder: Path, classes, count=2):
    for position, name in enumerate(classes):
        (folder / "test" / name).mkdir(parents=True)
        for number in range(count):
            picture = np.full((16, 16, 3), 20 * position + number, np.uint8)
            Image.fromarray(picture).save(folder / "test" / name / f"{number}.png")


def test_a_stylised_copy_has_the_classes_of_its_source(digits, tmp_path, passes):
    one = trained.find(digits)[0]
    write_pictures(tmp_path / "copy", map(str, range(10)))
    dataset = accuracies.stylized_dataset(one, tmp_path / "copy")
    assert dataset.image_size == 16
    found = accuracies.measure(one, {"s": None}, folder=tmp_path / "kept", dataset=dataset)["s"]
    assert len(found.right) == 20
    # Another picture in the folder is another data set.
    write_pictures(tmp_path / "more", map(str, range(10)), count=3)
    shutil.copy(tmp_path / "more/test/0/2.png", tmp_path / "copy/test/0/2.png")
    from jaxrobust.data import image_folder

    image_folder._open_split.cache_clear()
    found = accuracies.measure(one, {"s": None}, folder=tmp_path / "kept", dataset=dataset)["s"]
    assert len(found.right) == 21
    assert len(passes) == 2
    write_pictures(tmp_path / "others", ("cat", "dog"))
    with pytest.raises(
        ValueError, match=r"must have the classes of Digits, 0, 1, 2, … \(10\), got cat, dog\."
    ):
        accuracies.stylized_dataset(one, tmp_path / "others")
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        accuracies.stylized_dataset(one, tmp_path / "nowhere")


def test_arguments():
    parser = argparse.ArgumentParser()
    accuracies.add_arguments(parser)
    accuracies.add_stylized_argument(parser)
    found = parser.parse_args(["--batch-size", "8", "--stylized", "copy"])
    assert (found.batch_size, found.stylized) == (8, Path("copy"))
