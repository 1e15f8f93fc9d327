import pathlib
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import sklearn.datasets
import tensorflow_datasets as tfds
from PIL import Image

from jaxrobust.data import catalog, decode, embedded, pipeline, prepare
from jaxrobust.data.dataset_config import DatasetConfig

# Table 3 of the paper: pixels, classes, training images.
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


def test_catalogue_is_the_table_of_the_paper():
    assert tuple(TABLE_3) == catalog.PAPER
    for name, expected in TABLE_3.items():
        dataset = catalog.get(name)
        assert (dataset.native_size, dataset.num_classes, dataset.train_examples) == expected
    low = [name for name in catalog.PAPER if catalog.get(name).resolution == "low"]
    assert low == ["svhn_cropped", "cifar10", "cifar100", "tiny_imagenet"]


@pytest.mark.parametrize("name", [name for name in TABLE_3 if name != "tiny_imagenet"])
def test_catalogue_names_builders_that_exist(name, tmp_path):
    builder = tfds.builder(catalog.get(name).tfds_name, data_dir=tmp_path)
    assert builder.info.features["label"].num_classes == catalog.get(name).num_classes


def test_catalogue_is_light():
    code = "import sys; import jaxrobust.data.catalog; print('tensorflow_datasets' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"


def test_digits_are_the_scans(tmp_path, capsys):
    prepare.main(["digits", f"--data_dir={tmp_path}"])
    captured = capsys.readouterr()
    assert captured.out == "train: 1,437 images, test: 360 images\n"
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
