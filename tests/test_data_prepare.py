import os
import pathlib
import re
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
import sklearn.datasets
import tensorflow_datasets as tfds
from PIL import Image

from jaxrobust.data import catalog, decode, embedded, pipeline, prepare
from jaxrobust.data.dataset_config import DatasetConfig
from tests import catalog_data


def test_digits_are_the_scans(tmp_path, capsys):
    prepare.main(["digits", f"--data_dir={tmp_path}"])
    captured = capsys.readouterr()
    train, test = captured.out.splitlines()
    assert train.startswith("train: 1,437 images (0: 143, 1: 146, 2: 142, ")
    assert test.startswith("test: 360 images (0: 35, 1: 36, 2: 35, ")
    assert captured.err.count("\n") == 1
    digits = sklearn.datasets.load_digits()
    grey = np.rint(digits.images * 255 / 16).astype(np.uint8)
    builder = tfds.builder("digits", data_dir=tmp_path)
    for split, part in (("train", slice(1_437)), ("test", slice(1_437, None))):
        stored = sorted(
            (record["label"], record["image"].tobytes()) for record in builder.as_data_source(split)
        )
        expected = [np.repeat(image[..., None], 3, -1).tobytes() for image in grey[part]]
        assert stored == sorted(zip(digits.target[part], expected, strict=True))


@pytest.fixture
def tiny_imagenet_folder(tmp_path):
    """The archive's layout with 200 classes, two training and one validation image a class."""
    root = tmp_path / "source" / "tiny-imagenet-200"
    rng = np.random.default_rng(0)
    wnids = [f"n{index:08d}" for index in rng.permutation(200)]

    def write(file, index):
        file.parent.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        # Some of the real ones are grey.
        picture = Image.fromarray(image).convert("L" if index % 7 == 0 else "RGB")
        picture.save(file, "JPEG")

    lines = []
    for index, wnid in enumerate(wnids):
        for count in range(2):
            write(root / "train" / wnid / "images" / f"{wnid}_{count}.JPEG", index)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
        write(root / "val" / "images" / f"val_{index}.JPEG", index)
        lines.append(f"val_{index}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    write(root / "test" / "images" / "test_0.JPEG", 1)
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (root / "words.txt").write_text("".join(f"{wnid}\tthing\n" for wnid in wnids))
    return root


@pytest.mark.parametrize("packed", [True, False])
def test_tiny_imagenet_is_read_from_zip_and_folder(tiny_imagenet_folder, tmp_path, packed):
    root, manual = tiny_imagenet_folder, tmp_path / "manual"
    manual.mkdir()
    if packed:
        with zipfile.ZipFile(manual / "tiny-imagenet-200.zip", "w") as archive:
            for file in root.rglob("*"):
                archive.write(file, pathlib.Path(root.name) / file.relative_to(root))
    else:
        (manual / root.name).symlink_to(root)
    data_dir = str(tmp_path / "tfds")
    sizes = prepare.prepare("tiny_imagenet", data_dir=data_dir, manual_dir=str(manual))
    assert sizes == {"train": 400, "validation": 200}
    wnids = (root / "wnids.txt").read_text().split()
    builder = tfds.builder("tiny_imagenet", data_dir=data_dir)
    assert builder.info.features["label"].names == wnids
    skip = {"image": tfds.decode.SkipDecoding()}
    for record in builder.as_data_source("train", decoders=skip):
        wnid = wnids[record["label"]]
        file = root / "train" / wnid / "images" / record["file_name"].decode()
        assert file.read_bytes() == record["image"]
    for record in builder.as_data_source("validation", decoders=skip):
        assert record["file_name"] == f"val_{record['label']}.JPEG".encode()
    info = pipeline.describe(DatasetConfig("tiny_imagenet", data_dir=data_dir))
    assert (info.num_classes, info.image_shape, info.class_names[3]) == (200, (64, 64, 3), wnids[3])


def test_what_is_missing_is_said_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    for name, message in {
        "cifar10": r'pip install "jaxrobust\[prepare\]"',
        "imagenet2012": r"Place ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar .*manual",
        "tiny_imagenet": r"Place tiny-imagenet-200.zip .*manual",
        "image_folder": "needs no preparation",
        "cifar": "'cifar'.*cifar10",
    }.items():
        with pytest.raises(SystemExit, match=message) as error:
            prepare.main([name, f"--data_dir={tmp_path}"])
        assert "\n" not in str(error.value)


def test_list_says_what_is_prepared_and_prepares_nothing(tmp_path, capsys):
    catalog_data.write("cifar10", tmp_path)
    prepare.prepare("digits", data_dir=str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    prepare.main(["--list", f"--data_dir={tmp_path}"])
    lines = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert set(catalog.PAPER) | {"textured_shapes/both16", "digits", "fashion_mnist"} <= set(lines)
    found = {name: folder for name, folder in lines.items() if folder != "not prepared"}
    assert found == {
        "cifar10": str(tmp_path / "cifar10" / "3.0.2"),
        "digits": str(tmp_path / "digits" / "1.0.0"),
    }
    assert sorted(tmp_path.rglob("*")) == before
    for wrong in ([], ["digits", "--list"]):
        with pytest.raises(SystemExit):
            prepare.main(wrong)
        assert "either DATASET or --list" in capsys.readouterr().err


def test_instructions_name_what_is_still_missing(tmp_path):
    command = f"python -m jaxrobust.data.prepare imagenet2012 --data_dir={tmp_path}"
    manual = tmp_path / "downloads" / "manual"
    assert prepare.instructions("imagenet2012", data_dir=str(tmp_path)) == (
        "place ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from "
        f"https://image-net.org/download-images (registration required) in {manual}, "
        f"then {command}"
    )
    manual.mkdir(parents=True)
    for name in ("train", "val"):
        (manual / f"ILSVRC2012_img_{name}.tar").touch()
    assert prepare.instructions("imagenet2012", data_dir=str(tmp_path)) == command


def test_files_without_random_access_are_named(tmp_path):
    catalog_data.write("cifar10", tmp_path)
    file = next(tmp_path.rglob("dataset_info.json"))
    file.write_text(file.read_text().replace("array_record", "tfrecord"))
    for record in tmp_path.rglob("*.array_record-*"):
        record.rename(record.with_name(record.name.replace("array_record", "tfrecord")))
    with pytest.raises(SystemExit, match=r"is prepared as tfrecord, .* in another folder"):
        prepare.main(["cifar10", f"--data_dir={tmp_path}"])
    assert prepare.prepared(data_dir=str(tmp_path))["cifar10"] is None


def test_imagenet_is_refused_until_both_archives_are_there(tmp_path):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "ILSVRC2012_img_train.tar").touch()
    with pytest.raises(FileNotFoundError, match=r"Place ILSVRC2012_img_val.tar from"):
        prepare.prepare("imagenet2012", data_dir=str(tmp_path))


def test_interrupted_tiny_imagenet_is_not_taken_for_complete(tiny_imagenet_folder, tmp_path):
    (tiny_imagenet_folder / "val" / "val_annotations.txt").unlink()
    manual, data_dir = str(tiny_imagenet_folder.parent), str(tmp_path / "tfds")
    with pytest.raises(FileNotFoundError):
        prepare.prepare("tiny_imagenet", data_dir=data_dir, manual_dir=manual)
    with pytest.raises(FileNotFoundError, match=r"prepare tiny_imagenet"):
        pipeline.describe(DatasetConfig("tiny_imagenet", data_dir=data_dir))


def test_encoded_pngs_keep_every_value():
    for channels in (1, 3):
        image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
        decoded = decode.decode(embedded.encode_png(image).getvalue())
        assert np.array_equal(decoded[..., :channels], image)


DAMAGE = {
    "metadata.json": b"",
    "dataset_info.json": b'{"name": ',
    "dataset_info.json ": b"[]",
    "dataset_info.json  ": b'{"name": "digits", "version": "1.0.0", "fileFormat": "?"}',
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_set_with_a_damaged_description_is_made_anew(name, tmp_path, capsys):
    prepare.prepare("digits", data_dir=str(tmp_path))
    path = tmp_path / "digits" / "1.0.0" / name.strip()
    whole = path.read_bytes()
    path.write_bytes(DAMAGE[name])
    assert prepare.prepared(data_dir=str(tmp_path))["digits"] is None
    capsys.readouterr()
    assert prepare.prepare("digits", data_dir=str(tmp_path)) == {"train": 1437, "test": 360}
    assert capsys.readouterr().err.startswith("Preparing digits in ")
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": 3}'])
def test_a_damaged_description_of_a_downloaded_set_is_named(content, tmp_path):
    catalog_data.write("cifar10", tmp_path)
    next(tmp_path.rglob("dataset_info.json")).write_bytes(content)
    sentence = r"^The description of cifar10 in .* cannot be read .*prepare cifar10 --data_dir="
    with pytest.raises(ValueError, match=sentence) as error:
        pipeline.describe(DatasetConfig("cifar10", data_dir=str(tmp_path)))
    assert "\n" not in str(error.value)


KILLED = """
import os, signal, sys
from jaxrobust.data import digits, prepare
examples = digits.Digits._generate_examples

def killed(self, part):
    for number, example in enumerate(examples(self, part)):
        if number == 50:
            print("half", flush=True)
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        yield example

digits.Digits._generate_examples = killed
prepare.main(["digits", f"--data_dir={sys.argv[1]}"])
"""


@pytest.mark.parametrize("kind", ["SIGKILL", "SIGTERM"])
def test_what_a_killed_preparation_leaves_is_removed(kind, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    folder = tmp_path / "digits"
    left = [path.name for path in folder.glob("incomplete*")]
    if kind == "SIGKILL":
        assert done.returncode == -9
        assert len(left) == 1
    else:
        assert done.returncode == 1
        assert done.stderr.endswith("Interrupted; the same command begins anew.\n")
        assert not left
    prepare.prepare("digits", data_dir=str(tmp_path))
    assert sorted(path.name for path in folder.iterdir()) == [".preparation.lock", "1.0.0"]


def test_unfinished_folders_of_other_programs_are_left_for_a_day(tmp_path):
    catalog_data.write("cifar10", tmp_path)
    folder = next(tmp_path.rglob("dataset_info.json")).parent.parent
    for name, age in (("incomplete.OLD_3.0.2", 90_000), ("incomplete.NEW_3.0.2", 4000)):
        (folder / name).mkdir()
        (folder / name / "part").touch()
        for path in (folder / name / "part", folder / name):
            os.utime(path, (time.time() - age,) * 2)
    prepare.prepare("cifar10", data_dir=str(tmp_path))
    assert [path.name for path in folder.glob("incomplete.*")] == ["incomplete.NEW_3.0.2"]


def test_two_preparations_wait_for_each_other(tmp_path, capsys):
    with embedded.only_preparation("digits", tmp_path / "digits"):
        other = threading.Thread(
            target=prepare.prepare, args=("digits",), kwargs={"data_dir": str(tmp_path)}
        )
        other.start()
        other.join(1.0)
        assert other.is_alive()
        assert not (tmp_path / "digits" / "1.0.0").exists()
    other.join()
    assert (tmp_path / "digits" / "1.0.0").exists()
    said = rf"Process {os.getpid()} on .* prepares digits in .*digits: waiting for it to end"
    assert re.search(said, capsys.readouterr().err)
