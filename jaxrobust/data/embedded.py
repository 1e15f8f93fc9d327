"""Data sets that the library makes itself: prepared on first use, without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from jaxrobust.core.files import alone, read_note


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encode an image in the form that TFDS stores without TensorFlow.

    Args:
      image: uint8 (height, width, 1), or (height, width, 3) in the order red, green, blue.

    Returns:
      a file object with the bytes of a PNG.
    """
    ordered = image[..., ::-1] if image.shape[-1] == 3 else image
    # Noise does not compress: a higher level would only cost time.
    _, encoded = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return io.BytesIO(encoded.tobytes())


@contextlib.contextmanager
def only_preparation(title: str, folder: Path) -> Iterator[None]:
    """Of several programs of this library that prepare a data set in a folder, one at a time."""
    with alone(folder / ".preparation.lock", f"prepares {title} in {folder}"):
        yield


def remove_abandoned(folder: Path, *, untouched: float = 0.0) -> None:
    """Remove the unfinished folders that killed preparations have left.

    Args:
      folder: of all versions of a data set.
      untouched: for so many seconds they must not have changed.
    """
    for left in folder.glob("incomplete.*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            newest = max(path.stat().st_mtime for path in [left, *left.rglob("*")])
            if time.time() - newest >= untouched:
                shutil.rmtree(left, ignore_errors=True)


class EmbeddedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder that can prepare its data set anywhere.

    Subclasses put whatever decides the content into `info.metadata`; a set on disk that was made
    from something else is made anew.
    """

    # TFDS would look the code up with importlib_resources, which is none of its requirements.
    code_path = None

    def __init__(self, **options: Any) -> None:
        self._damage: Exception | None = None
        try:
            super().__init__(**options)
        except Exception as error:
            # Of whatever kind TFDS trips over in a damaged description, which is read last.
            if "_data_dir" not in vars(self):
                raise
            self._damage = error

    def is_current(self) -> bool:
        """Whether the data set is on disk, complete, legible, and made from today's metadata."""
        metadata = read_note(Path(self.data_dir) / "metadata.json")
        if metadata is None or self._damage is not None or not self.is_prepared():
            return False
        return metadata == json.loads(json.dumps(self._info().metadata))

    def prepare(self, *, manual_dir: str | None = None) -> None:
        """Prepare the data set as array_record, unless it is current.

        TFDS writes to a folder of its own and renames it once it is complete. Of several processes
        one prepares; the others wait, and find the data set in place. What killed ones have left is
        removed.

        Args:
          manual_dir: folder of what was downloaded by hand, for builders that need it; None is
            downloads/manual in TFDS's folder.

        Raises:
          OSError: when the data set cannot be written, or what it is made of is missing.
        """
        if self.is_current():
            return
        path = Path(self.data_dir)
        title = "/".join([self.name, *self._config().values()])
        with only_preparation(title, path.parent):
            remove_abandoned(path.parent)
            # A new builder, since this one has looked before it waited.
            builder = self._anew()
            if not builder.is_current():
                builder._prepare(path, title, manual_dir)

    def _config(self) -> dict[str, str]:
        return {"config": self.builder_config.name} if self.builder_config else {}

    def _anew(self) -> EmbeddedBuilder:
        """A builder of the same data set that has not looked at the disk before now."""
        return type(self)(data_dir=self.data_dir_root, **self._config())

    def _prepare(self, path: Path, title: str, manual_dir: str | None) -> None:
        builder = self
        if path.exists():
            if self._damage is not None:
                logging.getLogger("jaxrobust").warning(
                    "The description of %s in %s cannot be read (%s: %s): it is prepared anew.",
                    title,
                    path,
                    type(self._damage).__name__,
                    str(self._damage).strip().partition("\n")[0],
                )
            # Moved out of the way in one step, so that nobody ever sees half of a data set.
            outdated = path.parent / f"incomplete.{uuid.uuid4().hex}"
            path.rename(outdated)
            shutil.rmtree(outdated, ignore_errors=True)
            # Without what this one has read of the outdated set.
            builder = self._anew()
        print(f"Preparing {title} in {path} ...", end="", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            silence = io.StringIO()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                builder.download_and_prepare(
                    file_format="array_record",
                    download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
                )
        finally:
            print(f" {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
