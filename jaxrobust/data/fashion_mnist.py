"""`fashion_mnist`: a TFDS builder over the four files of Fashion-MNIST, in their order.

70,000 grey pictures of clothes, 28 x 28 pixels, from Zalando's catalogue (Xiao, Rasul and Vollgraf
2017): real pictures that Debian's package dataset-fashion-mnist brings along.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import pathlib
import sys
import urllib.request
import zlib
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from jaxrobust.core.checks import check_that
from jaxrobust.core.files import written_whole
from jaxrobust.data.embedded import EmbeddedBuilder, encode_png

ORIGIN = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")

# Of what is in the files: their compressed forms differ, in the header of gzip at least.
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

_SECONDS = 30  # without an answer, until a download is given up
# Where the files lie below a folder of downloads: ours, and torchvision's.
_BELOW = ("", "fashion-mnist", "FashionMNIST/raw")


class FashionMnistInOrder(EmbeddedBuilder):
    """TFDS builder of `fashion_mnist`: splits `train` (60,000) and `test` (10,000), one channel.

    Unlike in TFDS's own `fashion_mnist`, which is shuffled, the pictures keep the order of the
    files: "the first 1,000 test images" are everybody's.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = f"The four files of {ORIGIN}, or of {DEBIAN_FOLDER}."

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(SHA256),
        )

    def prepare(self, *, manual_dir: str | None = None) -> None:
        """Prepare the data set from files on this machine, or else download them.

        Args:
          manual_dir: folder of the files, compressed or not; None looks into downloads/manual in
            TFDS's folder, then where Debian's package and Keras have them.

        Raises:
          OSError: when the files are neither found nor downloaded.
          ValueError: when a file does not hold what it should.
        """
        if self.is_current():
            return
        downloads = pathlib.Path(manual_dir or pathlib.Path(self.data_dir_root, "downloads/manual"))
        places = [downloads / below for below in _BELOW]
        if manual_dir is None:
            keras = pathlib.Path("~/.keras/datasets/fashion-mnist").expanduser()
            places += [DEBIAN_FOLDER, keras]
        complete = [place for place in places if not _missing(place)]
        if not complete:
            rule = f"hold the files {', '.join(SHA256)}, plain or .gz"
            got = f"{downloads} without {', '.join(_missing(downloads))}"
            check_that(manual_dir is None, "manual_dir", rule, got, FileNotFoundError)
            complete = [downloads / "fashion-mnist"]
            download(complete[0])
        super().prepare(manual_dir=str(complete[0]))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        folder = pathlib.Path(dl_manager.manual_dir)
        return {
            split: self._generate_examples(
                read(folder, f"{prefix}-images-idx3-ubyte")[16:],
                read(folder, f"{prefix}-labels-idx1-ubyte")[8:],
            )
            for split, prefix in (("train", "train"), ("test", "t10k"))
        }

    def _generate_examples(self, pixels: bytes, labels: bytes) -> Iterator[tuple[int, dict]]:
        images = np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28, 1)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield index, {"image": encode_png(image), "label": label}


def read(folder: pathlib.Path, name: str) -> bytes:
    """The content of one of the four files, checked: an IDX header, then the values.

    Args:
      folder: where the file lies, as it is or compressed by gzip.
      name: without ".gz".

    Returns:
      16 bytes and the pixels, or 8 bytes and the labels; a byte each.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: when it is damaged, or another data set's file of this name.
    """
    plain, compressed = _files(folder, name)
    file = plain if plain.exists() else compressed
    return _checked(file.read_bytes(), name, str(file))


def download(folder: pathlib.Path) -> None:
    """Download those of the four files that are missing; what came is checked, then written whole.

    Args:
      folder: where to; it is made.

    Raises:
      FileNotFoundError: when they cannot be had; the sentence says what to place where instead.
      ValueError: when what came is damaged.
    """
    print(f"Downloading Fashion-MNIST from {ORIGIN} ...", file=sys.stderr, flush=True)
    for name in _missing(folder):
        url = f"{ORIGIN}/{name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=_SECONDS) as answer:
                content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            files = ", ".join(f"{missing}.gz" for missing in _missing(folder))
            raise FileNotFoundError(
                f"Place {files} in {folder}, or install Debian's package dataset-fashion-mnist, "
                f"which has them: {url} cannot be downloaded ({error})."
            ) from error
        _checked(content, name, url)
        with written_whole(_files(folder, name)[1]) as temporary:
            temporary.write_bytes(content)


def _files(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Where a file may lie: as it is, or compressed."""
    return folder / name, folder / f"{name}.gz"


def _missing(folder: pathlib.Path) -> list[str]:
    return [name for name in SHA256 if not any(file.is_file() for file in _files(folder, name))]


def _checked(content: bytes, name: str, source: str) -> bytes:
    """What is in a file or an answer, if it is what it should be."""
    expected, checksum = SHA256[name], hashlib.sha256(content).hexdigest()
    rule = f"hold Fashion-MNIST's {name} of sha256 {expected}"
    if content.startswith(b"\x1f\x8b"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(
                f"{source} must {rule} when decompressed, got damaged gzip, itself of sha256 "
                f"{checksum} ({error})."
            ) from error
        checksum = hashlib.sha256(content).hexdigest()
    check_that(checksum == expected, source, rule, checksum)
    return content
