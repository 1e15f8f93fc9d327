import gzip
import hashlib
import io
import pathlib
import urllib.error
import urllib.request

import numpy as np
import pytest

from jaxrobust.data import decode, fashion_mnist, pipeline, prepare, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve

SIZES = {"train": 23, "t10k": 12}


@pytest.fixture
def files(monkeypatch, tmp_path):
    """Four small files in the real format, by name; nothing else is found, nor a network."""
    rng, made = np.random.default_rng(0), {}
    for prefix, count in SIZES.items():
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            header = np.array([magic, *array.shape], ">i4").tobytes()
            made[f"{prefix}-{kind}-ubyte"] = header + array.tobytes()
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    monkeypatch.setattr(fashion_mnist, "SHA256", checksums)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no package")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return made


def unreachable(url, timeout):
    raise urllib.error.URLError("no route to host")


def write(files, folder, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        file = folder / (f"{name}.gz" if packed else name)
        file.write_bytes(gzip.compress(content) if packed else content)
    return folder


def run(tmp_path, *options):
    prepare.main(["fashion_mnist", f"--data_dir={tmp_path / 'tfds'}", *options])


def assert_prepared(data_dir, files):
    """Pictures and labels are those of the files, in their order."""
    config, dataset = resolve(DatasetConfig("fashion_mnist", data_dir=str(data_dir)))
    for split, prefix in (("train", "train"), ("test", "t10k")):
        opened = sources.open_split(config, dataset, split)
        records = [opened[index] for index in range(len(opened))]
        pixels = np.frombuffer(files[f"{prefix}-images-idx3-ubyte"][16:], np.uint8)
        images = [decode.decode(record["image"], channels=1) for record in records]
        np.testing.assert_array_equal(images, pixels.reshape(-1, 28, 28, 1))
        labels = files[f"{prefix}-labels-idx1-ubyte"][8:]
        assert bytes(record["label"] for record in records) == labels


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_files_are_found_in_manual_dir(files, tmp_path, packed, below, capsys):
    write(files, tmp_path / "mine" / below, packed)
    run(tmp_path, f"--manual_dir={tmp_path / 'mine'}")
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "train: 23 images (T-shirt/top: 3, Trouser: 3, Pullover: 3, Dress: 2, Coat: 2, Sandal: 2, "
        "Shirt: 2, Sneaker: 2, Bag: 2, Ankle boot: 2)",
        "test: 12 images (T-shirt/top: 2, Trouser: 2, Pullover: 1, Dress: 1, Coat: 1, Sandal: 1, "
        "Shirt: 1, Sneaker: 1, Bag: 1, Ankle boot: 1)",
    ]
    assert_prepared(tmp_path / "tfds", files)


@pytest.mark.parametrize("place", ["tfds/downloads/manual", "home/.keras/datasets/fashion-mnist"])
def test_files_are_found_in_the_usual_places(files, tmp_path, place):
    write(files, tmp_path / place)
    run(tmp_path)
    assert_prepared(tmp_path / "tfds", files)
    info = pipeline.describe(DatasetConfig("fashion_mnist", data_dir=str(tmp_path / "tfds")))
    assert (info.image_shape, info.class_names) == ((28, 28, 1), fashion_mnist.CLASSES)


def test_files_that_are_nowhere_are_asked_for(files, tmp_path):
    folder = tmp_path / "tfds" / "downloads" / "manual" / "fashion-mnist"
    write({"t10k-labels-idx1-ubyte": files["t10k-labels-idx1-ubyte"]}, folder)
    with pytest.raises(SystemExit) as error:
        run(tmp_path)
    assert str(error.value) == (
        "python -m jaxrobust.data.prepare: Place train-images-idx3-ubyte.gz, "
        f"train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz in {folder}, or install Debian's "
        f"package dataset-fashion-mnist, which has them: {fashion_mnist.ORIGIN}/"
        "train-images-idx3-ubyte.gz cannot be downloaded (<urlopen error no route to host>)."
    )
    # A folder that was named is the only one that is looked into.
    with pytest.raises(SystemExit, match=r"manual_dir must hold .*, got .*home without train-im"):
        run(tmp_path, f"--manual_dir={tmp_path / 'home'}")


def test_files_are_downloaded_whole(files, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "tfds" / "downloads" / "manual" / "fashion-mnist"
    packed = {f"{fashion_mnist.ORIGIN}/{n}.gz": gzip.compress(c) for n, c in files.items()}
    last = f"{fashion_mnist.ORIGIN}/t10k-labels-idx1-ubyte.gz"
    answers, asked = packed | {last: packed[last][:-9]}, []

    def urlopen(url, timeout):
        assert timeout <= 60
        asked.append(url)
        return io.BytesIO(answers[url])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(SystemExit, match=f"{last} must hold .* got damaged gzip, "):
        run(tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        pathlib.PurePath(url).name for url in packed if url != last
    )
    answers = packed
    run(tmp_path)
    assert asked == [*packed, last]
    assert "Downloading Fashion-MNIST from http" in capsys.readouterr().err
    assert_prepared(tmp_path / "tfds", files)
    run(tmp_path)
    assert len(asked) == 5


@pytest.mark.parametrize("damage", ["truncated", "bits", "text", "another"])
def test_wrong_files_are_named_with_both_checksums(files, tmp_path, damage):
    folder = write(files, tmp_path / "mine")
    name = "train-images-idx3-ubyte"
    file, content = folder / f"{name}.gz", files[name]
    packed = gzip.compress(content)
    damaged = {
        "truncated": packed[:-200],
        "bits": packed[:500] + bytes(200) + packed[700:],
        "text": b"<html>Not found</html>",
        "another": gzip.compress(content[:-1] + b"\0"),
    }[damage]
    file.write_bytes(damaged)
    with pytest.raises(SystemExit) as error:
        run(tmp_path, f"--manual_dir={folder}")
    said = str(error.value)
    if damage in ("truncated", "bits"):
        assert (
            f"{file} must hold Fashion-MNIST's {name} of sha256 {fashion_mnist.SHA256[name]} when "
            "decompressed, got damaged gzip, itself of sha256 "
            f"{hashlib.sha256(damaged).hexdigest()} ("
        ) in said
        assert said.endswith(").")
    else:
        inside = damaged if damage == "text" else content[:-1] + b"\0"
        assert said.endswith(
            f"{file} must hold Fashion-MNIST's {name} of sha256 {fashion_mnist.SHA256[name]}, "
            f"got {hashlib.sha256(inside).hexdigest()}."
        )
    assert "\n" not in said
    with pytest.raises(FileNotFoundError, match=r"jaxrobust.data.prepare fashion_mnist --data_dir"):
        pipeline.describe(DatasetConfig("fashion_mnist", data_dir=str(tmp_path / "tfds")))


@pytest.mark.skipif(
    not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_the_real_files_are_what_the_catalogue_says():
    _, dataset = resolve(DatasetConfig("fashion_mnist"))
    folder = fashion_mnist.DEBIAN_FOLDER
    pixels = np.frombuffer(fashion_mnist.read(folder, "train-images-idx3-ubyte")[16:], np.uint8)
    labels = np.frombuffer(fashion_mnist.read(folder, "t10k-labels-idx1-ubyte")[8:], np.uint8)
    assert len(pixels) == dataset.train_examples * dataset.native_size**2
    assert len(labels) == dataset.evaluation_examples
    found = np.array([pixels.mean(), pixels.std()]) / 255
    np.testing.assert_allclose(found, [*dataset.mean, *dataset.std], atol=5e-5)
    assert np.bincount(labels).tolist() == [1_000] * 10
    shown = [fashion_mnist.CLASSES[label] for label in labels[:4]]
    assert shown == ["Ankle boot", "Pullover", "Trouser", "Trouser"]
