"""What a stylised copy consists of: its names, its records, and where they may stand."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from absl import logging

from jaxrobust.core import digests, files
from jaxrobust.core.checks import check_that
from jaxrobust.core.settings import difference, to_plain
from jaxrobust.data import decode, sources
from jaxrobust.data.image_folder import ImageFolder, find_split, inspect_pictures
from jaxrobust.data.transforms import HostTransform
from jaxrobust.stylization.styles import LEAST_SIZE, StyleFolder, Styles

_LARGE_ENOUGH = f"be at least {LEAST_SIZE} x {LEAST_SIZE} pixels"


@dataclasses.dataclass(frozen=True)
class CopyPlan:
    """All that is settled before the first picture is read.

    Until the copy is complete its folder has the ending ".incomplete", and so have its records.
    """

    split: sources.Split
    transform: HostTransform
    styles: Styles
    style_size: int
    seed: int
    strength: float
    class_folders: tuple[str, ...]
    originals: tuple[Path, ...] | None  # an image folder's pictures, below the split
    file_names: tuple[str, ...] | None  # of their copies
    folder: Path  # what the finished copy is called
    file_format: str

    @property
    def incomplete(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.incomplete")

    @property
    def records(self) -> Path:
        """One line of JSON a picture, beside the copy."""
        return self.folder.with_name(f"{self.folder.name}.jsonl")

    @property
    def unfinished_records(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.incomplete.jsonl")

    @property
    def settings(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def lock(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.lock")

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """The content picture, the style picture and the record of an index."""
        source = self.split[index]
        if self.file_names is not None:
            source["image"] = decode.decode(source["image"], name=self.split.describe(index))
            height, width = source["image"].shape[:2]
            got = f"{height} x {width} for {self.split.describe(index)}"
            check_that(min(height, width) >= LEAST_SIZE, "Pictures", _LARGE_ENOUGH, got)
        content = self.transform.base(source)
        content = decode.resize_and_center_crop(content, *self.transform.sizes())
        # Its own generator for each picture: whatever is skipped, the others stay as they are.
        original = str(index) if self.originals is None else self.originals[index].as_posix()
        name = os.fsencode(f"{self.folder.name}/{original}")
        rng = np.random.default_rng((self.seed, *name))
        style, style_name = self.styles.draw(rng, self.style_size)
        if self.file_names is not None:
            picture = self.file_names[index]
        else:
            digits = len(str(len(self.split) - 1))
            picture = f"{self.class_folders[source['label']]}/{index:0{digits}}.{self.file_format}"
        record = {
            "picture": picture,
            "index": index,
            "source": self.split.describe(index),
            "style": style_name,
            "seed": self.seed,
            "strength": self.strength,
        }
        return content, style, record

    def write(self, name: str, picture: np.ndarray) -> str:
        """Write one picture, whole or not at all; its file's checksum."""
        if self.file_format == "png":
            encoded = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
        else:
            encoded = simplejpeg.encode_jpeg(picture, quality=95, colorsubsampling="444")
        with files.written_whole(self.incomplete / name) as temporary:
            temporary.write_bytes(encoded)
        return digests.checksum(encoded)

    def prepare_output(self, settings: dict[str, Any]) -> bool:
        """Check that the output is empty or a part of this very copy; is there work left?"""
        if not self.settings.exists():
            for path in (self.folder, self.incomplete, self.records, self.unfinished_records):
                rule = f"not hold a split {self.folder.name!r} of something else"
                check_that(not path.exists(), "output", rule, f"{path}: nothing is overwritten")
            files.write_json(self.settings, settings)
            return True
        before = files.read_json(self.settings)
        differences = difference(before, to_plain(settings), ignored=["jaxrobust"])
        if differences:
            raise ValueError(
                f"{self.folder} is a copy with other settings ({'; '.join(differences)}): "
                "give another output."
            )
        return self._reopened() if self.folder.exists() else True

    def _reopened(self) -> bool:
        """Whether pictures or records of a finished copy are gone or damaged: then it is unfinished
        again."""
        recorded = self._recorded(self.records, self.folder)
        missing = len(self.split) - len(recorded)
        if missing:
            logging.warning(
                "%d of the %d pictures in %s are gone or damaged, or their records: they are made "
                "again.",
                missing, len(self.split), self.folder,
            )  # fmt: skip
            self._write_records(self.unfinished_records, recorded.values())
            self.folder.rename(self.incomplete)
        else:
            self.unfinished_records.unlink(missing_ok=True)
        return bool(missing)

    def finished(self) -> dict[int, dict[str, Any]]:
        """The records, by index, of the pictures that are recorded and there as written."""
        return self._recorded(self.unfinished_records, self.incomplete)

    def _recorded(self, records: Path, folder: Path) -> dict[int, dict[str, Any]]:
        found = files.read_log(records, index=int, picture=str)  # damaged ones are made again
        found = [record for record in found if record["index"] in range(len(self.split))]

        def whole(record: dict[str, Any]) -> bool:
            picture = folder / record["picture"]
            if "picture_crc32" not in record:  # of an earlier version
                return picture.is_file()
            try:
                return digests.checksum(picture.read_bytes()) == record["picture_crc32"]
            except OSError:
                return False

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            kept = zip(found, pool.map(whole, found), strict=True)
            return {record["index"]: record for record, is_whole in kept if is_whole}

    def _write_records(self, path: Path, records: Iterable[dict[str, Any]]) -> None:
        files.write_lines(path, map(files.json_line, records))

    def begin(self) -> dict[int, dict[str, Any]]:
        """What `finished` returns, and nothing else left in the file of the records."""
        recorded = self.finished()
        self._write_records(self.unfinished_records, recorded.values())
        return recorded

    def finish(self) -> None:
        """The records in order and the copy under its own name: complete.

        Raises:
          ValueError: when a picture is no longer what was written.
        """
        recorded = self.finished()
        indices = range(len(self.split))
        if missing := [index for index in indices if index not in recorded]:
            raise ValueError(
                f"{len(missing)} of the {len(indices)} pictures in {self.incomplete} are not what "
                f"was written, the first of them that of {self.split.describe(missing[0])}: the "
                "same command makes them again."
            )
        self._write_records(self.records, [recorded[index] for index in indices])
        self.incomplete.rename(self.folder)
        self.unfinished_records.unlink(missing_ok=True)


def without_small(split: sources.Split) -> sources.Split:
    """An image folder's split without the pictures that are too small; each is named.

    Raises:
      ValueError: when none is left.
    """
    records = split.records
    if not isinstance(records, ImageFolder):
        return split
    sizes = inspect_pictures(records.files, thoroughly=False)
    fitting = {
        index: size
        for index, size in enumerate(sizes)
        if not isinstance(size, str) and min(size) >= LEAST_SIZE
    }
    small = [index for index in range(len(sizes)) if index not in fitting]
    for index in small:
        logging.warning(
            "Skipped: pictures must %s, got %s for %s.",
            _LARGE_ENOUGH, sizes[index], records.files[index],
        )  # fmt: skip
    check_that(fitting, "Pictures", _LARGE_ENOUGH, f"none of split {split.name!r}")
    height, width = next(iter(fitting.values()))
    native_size = height if height == width and len(set(fitting.values())) == 1 else None
    records = dataclasses.replace(
        records,
        files=tuple(records.files[index] for index in fitting),
        labels=tuple(records.labels[index] for index in fitting),
        native_size=native_size,
        skipped=(*records.skipped, *(records.files[index] for index in small)),
    )
    return dataclasses.replace(split, records=records, native_size=native_size)


def check_folders(output: Path, resolved: Any, dataset: Any, styles: Styles) -> None:
    """Raise when the output lies inside the source or the styles, or the source inside it."""
    if resolved.path is not None:
        source = Path(resolved.path).expanduser()
    else:
        source = Path(sources.open_builder(resolved, dataset).data_dir)
    output, source = output.expanduser().resolve(), source.resolve()
    outside = not (output.is_relative_to(source) or source.is_relative_to(output))
    rule = "lie outside the source, which is never changed"
    check_that(outside, "output", rule, f"{output} for the source {source}")
    if isinstance(styles, StyleFolder):
        folder = styles.path.resolve()
        rule = f"lie outside the folder of the styles, {folder}"
        check_that(not output.is_relative_to(folder), "output", rule, output)


def class_folders(split: sources.Split) -> tuple[str, ...]:
    """Names of the classes' folders, whose order is that of the labels."""
    digits = len(str(split.num_classes - 1))
    numbers = tuple(f"{label:0{digits}}" for label in range(split.num_classes))
    names = tuple(re.sub(r"[/\\\0]", "_", name) for name in split.class_names)
    if not names:
        return numbers
    plain = all(name and name[0] != "." for name in names)
    if plain and len(set(names)) == len(names) and sorted(names) == list(names):
        return names
    return tuple(f"{number}_{name}" for number, name in zip(numbers, names, strict=True))


def original_names(split: sources.Split, path: str | None) -> tuple[Path, ...] | None:
    """An image folder's pictures, below the folder of the split."""
    if path is None or not isinstance(split.records, ImageFolder):
        return None
    root = find_split(path, split.name)
    return tuple(file.relative_to(root) for file in split.records.files)


def file_names(originals: Sequence[Path] | None, file_format: str) -> tuple[str, ...] | None:
    """Names of the copies of an image folder's pictures, their folders included."""
    if originals is None:
        return None
    stems = [file.with_suffix("").as_posix() for file in originals]
    if len(set(stems)) < len(stems):  # a.jpg and a.png: the whole names are different at least
        stems = [file.as_posix() for file in originals]
    return tuple(f"{stem}.{file_format}" for stem in stems)
