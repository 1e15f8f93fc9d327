"""What a stylised copy consists of: its names, its records, and where they may stand."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from jaxrobust import config, files
from jaxrobust.data import decode, sources
from jaxrobust.data.image_folder import ImageFolder, find_split
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
    file_names: tuple[str, ...] | None  # of an image folder's pictures
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
        rng = np.random.default_rng((self.seed, *self.folder.name.encode(), index))
        style, style_name = self.styles.draw(rng, self.style_size)
        if self.file_names is not None:
            name = self.file_names[index]
        else:
            digits = len(str(len(self.split) - 1))
            name = f"{self.class_folders[source['label']]}/{index:0{digits}}.{self.file_format}"
        record = {
            "picture": name,
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
        settings = config.to_plain(settings)
        before = json.loads(self.settings.read_text()) if self.settings.exists() else None
        for path in (self.folder, self.incomplete, self.records, self.unfinished_records):
            if before is None and path.exists():
                raise ValueError(
                    f"output must not hold a split {self.folder.name!r} of something else, "
                    f"got {path}: nothing is overwritten."
                )
        if before is not None:
            differences = config.difference(
                {**before, "jaxrobust": None}, {**settings, "jaxrobust": None}
            )
            if differences:
                raise ValueError(
                    f"{self.folder} is a copy with other settings ({'; '.join(differences)}): "
                    "give another output."
                )
            if self.folder.exists():
                self.unfinished_records.unlink(missing_ok=True)
                return False
        else:
            files.write_json(self.settings, settings)
        return True

    def finished(self) -> dict[int, str]:
        """The records, by index, of the pictures that are recorded and there."""
        if not self.unfinished_records.exists():
            return {}
        # What follows the last newline is half a line.
        lines = self.unfinished_records.read_text().split("\n")[:-1]
        found = {}
        for line in lines:
            record = json.loads(line)
            if (self.incomplete / record["picture"]).exists():
                found[record["index"]] = line
        return found

    def finish(self) -> None:
        """The records in order and the copy under its own name: complete."""
        found = self.finished()
        temporary = self.records.with_suffix(".tmp")
        temporary.write_text("".join(f"{found[index]}\n" for index in range(len(self.split))))
        temporary.replace(self.records)
        self.incomplete.rename(self.folder)
        self.unfinished_records.unlink(missing_ok=True)


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


def file_names(
    split: sources.Split, file_format: str, path: str | None, split_name: str
) -> tuple[str, ...] | None:
    """Names of the copies of an image folder's pictures, their folders included."""
    if path is None or not isinstance(split.records, ImageFolder):
        return None
    root = find_split(path, split_name)
    originals = [file.relative_to(root) for file in split.records.files]
    stems = [file.with_suffix("").as_posix() for file in originals]
    if len(set(stems)) < len(stems):  # a.jpg and a.png: the whole names are different at least
        stems = [file.as_posix() for file in originals]
    return tuple(f"{stem}.{file_format}" for stem in stems)
