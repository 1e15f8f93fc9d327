"""Data sets that the library makes itself: prepared on first use, without TensorFlow."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
import uuid

import cv2
import numpy as np
import tensorflow_datasets as tfds
from etils import epath


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


class EmbeddedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A TFDS builder that can prepare its data set anywhere.

    Subclasses put whatever decides the content into `info.metadata`; a set on disk that was made
    from something else is made anew.
    """

    # TFDS would look the code up with importlib_resources, which is none of its requirements.
    code_path = None

    def is_current(self) -> bool:
        """Whether the data set is on disk, complete, and made from today's metadata."""
        metadata_file = epath.Path(self.data_dir) / "metadata.json"
        if not metadata_file.exists() or not self.is_prepared():
            return False
        current = json.loads(json.dumps(self._info().metadata))
        return json.loads(metadata_file.read_text()) == current

    def prepare(self, *, manual_dir: str | None = None) -> None:
        """Prepare the data set as array_record, unless it is current.

        Two processes may do so at once: TFDS writes to a folder of its own and renames it once it
        is complete, so whoever comes second finds the same data set in place.

        Args:
          manual_dir: folder of what was downloaded by hand, for builders that need it; None is
            downloads/manual in TFDS's folder.

        Raises:
          OSError: when the data set cannot be written, or what it is made of is missing.
        """
        if self.is_current():
            return
        path = epath.Path(self.data_dir)
        if path.exists():
            # Moved out of the way in one step, so that nobody ever sees half of a data set.
            outdated = path.parent / f"incomplete.{uuid.uuid4().hex}"
            with contextlib.suppress(OSError):
                path.rename(outdated)
                outdated.rmtree()
        # A new builder, since this one may have read the outdated set's information.
        config = {"config": self.builder_config.name} if self.builder_config else {}
        builder = type(self)(data_dir=self.data_dir_root, **config)
        title = "/".join(filter(None, [self.name, config.get("config")]))
        print(f"Preparing {title} in {path} ...", end="", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            silence = io.StringIO()
            with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                builder.download_and_prepare(
                    file_format="array_record",
                    download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
                )
        except OSError:
            if not builder.is_current():
                raise
        finally:
            print(f" {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
