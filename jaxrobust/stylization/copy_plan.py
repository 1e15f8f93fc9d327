"""What a stylised copy consists of: its names, its records, and where they may stand."""

from __future__ import annotations

import dataclasses
import functools
import json
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

from jaxrobust.core import files
from jaxrobust.core.settings import difference, to_plain
from jaxrobust.data import decode, sources
from jaxrobust.data.image_folder import ImageFolder, find_split, inspect_picture
from jaxrobust.data.transforms import HostTransform
from jaxrobust.stylization.styles import LEAST_SIZE, StyleFolder, Styles


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
            if min(height, width) < LEAST_SIZE:
                raise ValueError(
                    f"Pictures must be at least {LEAST_SIZE} x {LEAST_SIZE} pixels, got "
                    f"{height} x {width} for {self.split.describe(index)}."
                )
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

    def write(self, name: str, picture: np.ndarray) -> None:
        """Write one picture under a temporary name, then rename."""
        path = self.incomplete / name
        path.parent.mkdir(parents=True, exist_ok=True)  # folders within a class's
        temporary = path.with_name(f".{path.name}.tmp")
        if self.file_format == "png":
            encoded = cv2.imencode(".png", picture[..., ::-1])[1].tobytes()
        else:
            encoded = simplejpeg.encode_jpeg(picture, quality=95, colorsubsampling="444")
        temporary.write_bytes(encoded)
        temporary.replace(path)

    def prepare_output(self, settings: dict[str, Any]) -> bool:
        """Check that the output is empty or a part of this very copy; is there work left?"""
        settings = to_plain(settings)
        before = files.read_json(self.settings) if self.settings.exists() else None
        for path in (self.folder, self.incomplete, self.records, self.unfinished_records):
            if before is None and path.exists():
                raise ValueError(
                    f"output must not hold a split {self.folder.name!r} of something else, "
                    f"got {path}: nothing is overwritten."
                )
        if before is not None:
            differences = difference({**before, "jaxrobust": None}, {**settings, "jaxrobust": None})
            if differences:
                raise ValueError(
                    f"{self.folder} is a copy with other settings ({'; '.join(differences)}): "
                    "give another output."
                )
            if self.folder.exists():
                return self._reopened()
        else:
            files.write_json(self.settings, settings)
        return True

    def _reopened(self) -> bool:
        """Whether pictures or records of a finished copy are gone; then it is unfinished again."""
        found = self._recorded(self.records, self.folder)
        missing = len(self.split) - len(found)
        if missing:
            logging.warning(
                "%d of the %d pictures in %s are gone, or their records: they are made again.",
                missing, len(self.split), self.folder,
            )  # fmt: skip
            _write_lines(self.unfinished_records, found.values())
            self.folder.rename(self.incomplete)
        else:
            self.unfinished_records.unlink(missing_ok=True)
        return bool(missing)

    def finished(self) -> dict[int, str]:
        """The records, by index, of the pictures that are recorded and there."""
        return self._recorded(self.unfinished_records, self.incomplete)

    def _recorded(self, records: Path, folder: Path) -> dict[int, str]:
        if not records.exists():
            return {}
        found = {}
        # What follows the last newline is half a line.
        for line in records.read_text(errors="replace").split("\n")[:-1]:
            try:
                record = json.loads(line)
                index, picture = record["index"], folder / record["picture"]
            except (ValueError, TypeError, KeyError):  # damaged: the picture is made again
                continue
            if index in range(len(self.split)) and picture.is_file():
                found[int(index)] = line
        return found

    def begin(self) -> dict[int, str]:
        """What `finished` returns, and nothing else left in the file of the records."""
        found = self.finished()
        _write_lines(self.unfinished_records, found.values())
        return found

    def finish(self) -> None:
        """The records in order and the copy under its own name: complete."""
        found = self.finished()
        _write_lines(self.records, [found[index] for index in range(len(self.split))])
        self.incomplete.rename(self.folder)
        self.unfinished_records.unlink(missing_ok=True)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a file of lines under a temporary name, then rename."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text("".join(f"{line}\n" for line in lines))
    temporary.replace(path)


def without_small(split: sources.Split) -> sources.Split:
    """An image folder's split without the pictures that are too small; each is named.

    Raises:
        ValueError: When none is left.
    """
    records = split.records
    if not isinstance(records, ImageFolder):
        return split
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        check = functools.partial(inspect_picture, thoroughly=False)
        sizes = list(pool.map(check, records.files))
    fitting = {
        k: size
        for k, size in enumerate(sizes)
        if not isinstance(size, str) and min(size) >= LEAST_SIZE
    }
    small = [k for k in range(len(sizes)) if k not in fitting]
    for k in small:
        logging.warning(
            "Skipped: pictures must be at least %d x %d pixels, got %s for %s.",
            LEAST_SIZE, LEAST_SIZE, sizes[k], records.files[k],
        )  # fmt: skip
    if not fitting:
        raise ValueError(
            f"Pictures must be at least {LEAST_SIZE} x {LEAST_SIZE} pixels, got none of split "
            f"{split.name!r}."
        )
    height, width = next(iter(fitting.values()))
    native_size = height if height == width and len(set(fitting.values())) == 1 else None
    records = dataclasses.replace(
        records,
        files=tuple(records.files[k] for k in fitting),
        labels=tuple(records.labels[k] for k in fitting),
        native_size=native_size,
        skipped=(*records.skipped, *(records.files[k] for k in small)),
    )
    return dataclasses.replace(split, records=records, native_size=native_size)


def check_folders(output: Path, resolved: Any, dataset: Any, styles: Styles) -> None:
    """Raise when the output lies inside the source or the styles, or the source inside it."""
    if resolved.path is not None:
        source = Path(resolved.path).expanduser()
    else:
        source = Path(sources.open_builder(resolved, dataset).data_dir)
    output, source = output.expanduser().resolve(), source.resolve()
    if output.is_relative_to(source) or source.is_relative_to(output):
        raise ValueError(
            f"output must lie outside the source, which is never changed, got {output} for the "
            f"source {source}."
        )
    if isinstance(styles, StyleFolder) and output.is_relative_to(styles.path.resolve()):
        raise ValueError(
            f"output must lie outside the folder of the styles, {styles.path.resolve()}, "
            f"got {output}."
        )


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
