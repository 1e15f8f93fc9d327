"""A user's own pictures: `path/train/<class>/*.jpg` and `path/validation/<class>/*.jpg`."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from absl import logging

from jaxrobust.core.checks import check_that
from jaxrobust.data import decode

EXTENSIONS = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_SYNONYMS = ("validation", "val", "test")
# What an intact file ends with; some writers append a few bytes more.
_JPEG_END = b"\xff\xd9"
_ENDS = {
    ".jfif": _JPEG_END,
    ".jpeg": _JPEG_END,
    ".jpg": _JPEG_END,
    ".png": b"IEND\xaeB`\x82",
}


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """Random access to the pictures of one split, in the order of their class and file names.

    Attributes:
      files: the pictures.
      labels: their classes: positions in `class_names`.
      class_names: sorted names of the classes' folders.
      native_size: height and width of all pictures, in pixels; None where they differ.
      skipped: the pictures that were left out because they cannot be read.
    """

    files: tuple[pathlib.Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    native_size: int | None
    skipped: tuple[pathlib.Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, bytes | int]:
        return {"image": self.files[index].read_bytes(), "label": self.labels[index]}

    def describe(self, index: int) -> str:
        """What to call a picture in a message."""
        return str(self.files[index])


def splits(path: str | os.PathLike[str]) -> dict[str, pathlib.Path]:
    """Folders of the splits that exist, by name.

    A `test` beside other splits that has none of their classes holds pictures without labels, as
    competitions publish it, and is left out.

    Raises:
      FileNotFoundError: when there is no such folder, or no split in it.
    """
    root = pathlib.Path(path).expanduser()
    is_folder = root.is_dir()
    check_that(is_folder, "dataset.path", "be a folder", repr(str(path)), FileNotFoundError)
    folders = {name: root / name for name in ("train", *_SYNONYMS) if (root / name).is_dir()}
    if not folders:
        raise FileNotFoundError(
            f"{root} must hold folders train and {', '.join(_SYNONYMS[:2])} or {_SYNONYMS[2]}, "
            "with one folder a class in each."
        )
    labelled = [_class_folders(folder) for name, folder in folders.items() if name != "test"]
    classes = set(itertools.chain(*labelled))
    if "test" in folders and labelled and classes.isdisjoint(_class_folders(folders["test"])):
        del folders["test"]
    return folders


def find_split(path: str | os.PathLike[str], split: str) -> pathlib.Path:
    """Folder of a split; "validation", "val" and "test" stand in for each other if need be."""
    folders = splits(path)
    if split in folders:
        return folders[split]
    unlabelled = (pathlib.Path(path).expanduser() / "test").is_dir() and "test" not in folders
    if split in _SYNONYMS and not (unlabelled and split == "test"):
        for name in _SYNONYMS:
            if name in folders:
                return folders[name]
    reason = ", and test has none of their classes" if unlabelled else ""
    raise ValueError(
        f"Unknown split {split!r} of {path}: it must be one of {', '.join(folders)}{reason}."
    )


def open_split(path: str | os.PathLike[str], split: str, corrupt_images: str) -> ImageFolder:
    """List a split and check its pictures.

    They are checked once, before training starts, and in parallel: left out later, they would
    change the number of images, and with it the order of all that follow, in the middle of a run.
    With "stop" only headers and file ends are read (all of the suspicious ones); with "skip" every
    picture is decoded, since whatever passes here must not stop the run any more.

    Args:
      path: the folder of the splits.
      split: name of one of them.
      corrupt_images: "stop" or "skip".

    Raises:
      FileNotFoundError: when a folder is missing.
      ValueError: when the classes of the splits differ, a class is empty, or a picture cannot be
        read.
    """
    return _open_split(str(find_split(path, split)), str(path), corrupt_images)


@functools.lru_cache(maxsize=16)
def _open_split(folder: str, path: str, corrupt_images: str) -> ImageFolder:
    class_names = _common_class_names(path)
    files: list[pathlib.Path] = []
    labels: list[int] = []
    left_out: list[pathlib.Path] = []
    for label, class_name in enumerate(class_names):
        class_folder = pathlib.Path(folder) / class_name
        contents = sorted(file for file in class_folder.rglob("*") if file.is_file())
        pictures = [file for file in contents if file.suffix.lower() in EXTENSIONS]
        left_out += [
            file
            for file in contents
            if file.suffix.lower() not in EXTENSIONS and file.name[0] != "."
        ]
        rule = f"hold pictures ({', '.join(EXTENSIONS)})"
        check_that(pictures, "Every class", rule, f"none in {class_folder}")
        files += pictures
        labels += [label] * len(pictures)
    if left_out:
        some = ", ".join(map(str, left_out[:3])) + (", …" if len(left_out) > 3 else "")
        logging.warning(
            "Left out %d files in %s that are no pictures by their endings: %s.",
            len(left_out), folder, some,
        )  # fmt: skip
    results = inspect_pictures(files, thoroughly=corrupt_images == "skip")
    checked = zip(files, results, strict=True)
    errors = [(file, result) for file, result in checked if isinstance(result, str)]
    if errors and corrupt_images == "stop":
        raise ValueError(
            f"{errors[0][1]} ({len(errors)} of {len(files)} pictures in {folder} cannot be read; "
            "dataset.corrupt_images='skip' leaves them out.)"
        )
    for _, message in errors:
        logging.warning("Skipped: %s", message)
    if errors:
        logging.warning("Skipped %d of %d pictures in %s.", len(errors), len(files), folder)
    kept = {k: result for k, result in enumerate(results) if not isinstance(result, str)}
    if not kept:
        raise ValueError(f"None of the {len(files)} pictures in {folder} can be read.")
    sizes = set(kept.values())
    height, width = next(iter(sizes))
    return ImageFolder(
        files=tuple(files[k] for k in kept),
        labels=tuple(labels[k] for k in kept),
        class_names=class_names,
        native_size=height if len(sizes) == 1 and height == width else None,
        skipped=tuple(file for file, _ in errors),
    )


def _common_class_names(path: str) -> tuple[str, ...]:
    by_split = {name: _class_folders(folder) for name, folder in splits(path).items()}
    first, class_names = next(iter(by_split.items()))
    check_that(class_names, f"{path}/{first}", "hold one folder a class", "none")
    for name, class_names_here in by_split.items():
        if class_names_here != class_names:
            differing = sorted(set(class_names_here) ^ set(class_names))
            raise ValueError(
                f"The splits of {path} must have the same classes, but {first} and {name} differ "
                f"in {', '.join(differing[:5])}."
            )
    return class_names


def _class_folders(folder: pathlib.Path) -> tuple[str, ...]:
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.name[0] != "." and e.is_dir()))


def inspect_pictures(
    files: Sequence[pathlib.Path], *, thoroughly: bool
) -> list[tuple[int, int] | str]:
    """Height and width of each picture, or what is wrong with it.

    Args:
      files: the pictures.
      thoroughly: whether all of each is decoded, instead of its header and its end.
    """
    inspect = functools.partial(_inspect, thoroughly=thoroughly)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(inspect, files))


def _inspect(file: pathlib.Path, *, thoroughly: bool) -> tuple[int, int] | str:
    try:
        end = _ENDS.get(file.suffix.lower())
        if not thoroughly and end is not None:
            with file.open("rb") as stream, decode.open_header(stream, str(file)) as image:
                width, height = image.size
                stream.seek(max(0, file.stat().st_size - 64))
                if end in stream.read():
                    return height, width
        return decode.decode(file.read_bytes(), name=str(file)).shape[:2]
    except ValueError as error:
        return str(error)
    except Exception as error:
        return f"Cannot decode {file}: {error}."
