"""`tiny_imagenet`: a TFDS builder over the layout of the public archive tiny-imagenet-200.zip."""

from __future__ import annotations

import io
import pathlib
import zipfile
from collections.abc import Iterator

import tensorflow_datasets as tfds

from jaxrobust.data.embedded import EmbeddedBuilder

_ROOT = "tiny-imagenet-200"


class _Archive:
    """One view of the zip and of the unpacked folder; names are relative to tiny-imagenet-200."""

    def __init__(self, path: pathlib.Path) -> None:
        self._folder = path
        self._zip = zipfile.ZipFile(path) if path.is_file() else None

    def read(self, name: str) -> bytes:
        if self._zip is None:
            return (self._folder / name).read_bytes()
        return self._zip.read(f"{_ROOT}/{name}")

    def lines(self, name: str) -> list[str]:
        return self.read(name).decode().splitlines()

    def names(self) -> list[str]:
        if self._zip is None:
            files = self._folder.rglob("*.JPEG")
            return sorted(file.relative_to(self._folder).as_posix() for file in files)
        names = (name for name in self._zip.namelist() if name.endswith(".JPEG"))
        return sorted(name.removeprefix(f"{_ROOT}/") for name in names)


class TinyImagenet(EmbeddedBuilder):
    """TFDS builder of `tiny_imagenet`: splits `train` and `validation`, 64 x 64 JPEGs as they are.

    The archive's `test` has no labels and is left out. The classes are numbered as in wnids.txt.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Place tiny-imagenet-200.zip (http://cs231n.stanford.edu/tiny-imagenet-200.zip), or the "
        "folder tiny-imagenet-200 unpacked from it, in manual_dir."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=200),
                    "file_name": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="http://cs231n.stanford.edu/",
            metadata=tfds.core.MetadataDict(archive=_ROOT),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        manual = pathlib.Path(dl_manager.manual_dir)
        candidates = (manual / f"{_ROOT}.zip", manual / _ROOT)
        existing = [path for path in candidates if path.exists()]
        if not existing:
            raise FileNotFoundError(f"{self.MANUAL_DOWNLOAD_INSTRUCTIONS} manual_dir is {manual}.")
        archive = _Archive(existing[0])
        wnids = archive.lines("wnids.txt")
        self.info.features["label"].names = wnids
        names = archive.names()
        annotations = (line.split("\t") for line in archive.lines("val/val_annotations.txt"))
        wnid_of = {f"val/images/{fields[0]}": fields[1] for fields in annotations}
        wnid_of |= {name: name.split("/")[1] for name in names if name.startswith("train/")}
        parts = {"train": "train/", "validation": "val/"}
        return {
            split: self._generate_examples(
                archive, [name for name in names if name.startswith(prefix)], wnid_of
            )
            for split, prefix in parts.items()
        }

    def _generate_examples(
        self, archive: _Archive, names: list[str], wnid_of: dict[str, str]
    ) -> Iterator[tuple[str, dict]]:
        for name in names:
            yield (
                name,
                {
                    "image": io.BytesIO(archive.read(name)),
                    "label": wnid_of[name],
                    "file_name": name.rpartition("/")[2],
                },
            )
