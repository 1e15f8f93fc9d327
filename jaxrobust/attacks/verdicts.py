"""What AutoAttack has found so far, in memory and on disk."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrobust.attacks import many
from jaxrobust.core import files

# Seconds between two notes on disk.
_SAVE_EVERY = 30.0


class Verdicts:
    """How far a call has come, in memory and on disk: verdicts, images, what is under way."""

    def __init__(self, path: Path | None, settings: str, images: np.ndarray, broken_by: np.ndarray):
        self.path, self.settings = path, settings
        self.images, self.broken_by = images.copy(), broken_by
        self.part, self.seconds = 0, {}
        self.under_way = None
        self.written = time.perf_counter()
        note = _read(path)
        if note is None:
            return
        if note["settings"] != settings:
            raise ValueError(
                f"state_file {path} must be of the same classifier, images and options, got "
                "that of another call: remove it or name another file."
            )
        self.part, self.seconds = note["part"], note["seconds"]
        self.broken_by, self.under_way = note["broken_by"], note["under_way"]
        self.images[note["found"]] = note["images"]

    def write(self, status: many.Status | None = None) -> None:
        """Write the note; without a status the next part begins anew."""
        if self.path is None:
            return
        found = np.flatnonzero((self.broken_by != "") & (self.broken_by != "clean"))
        content: dict[str, Any] = {
            "settings": self.settings,
            "part": self.part,
            "seconds": json.dumps(self.seconds),
            "broken_by": self.broken_by,
            "found": found,
            "images": self.images[found],
        }
        if status is not None:
            leaves = jax.device_get(jax.tree.leaves(status.places))
            content |= {"waiting": np.array(status.waiting, np.int64), "index": status.index}
            content |= {"leaves": len(leaves)}
            content |= {f"leaf{number}": leaf for number, leaf in enumerate(leaves)}
        with files.written_whole(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **content)
        self.written = time.perf_counter()

    def begin(self, sizes: tuple[int, int]) -> tuple[list[int], Any]:
        """The images that wait for a part, and those under way in it, as `many.run` takes them."""
        if self.under_way is None:
            return np.flatnonzero(self.broken_by == "").tolist(), None
        (waiting, index, leaves), self.under_way = self.under_way, None
        if len(index) in sizes:
            return waiting, (index, leaves)
        return index[index >= 0].tolist() + waiting, None  # of another size: begun anew

    def due(self) -> bool:
        """Whether the last note is old enough for another."""
        return time.perf_counter() - self.written > _SAVE_EVERY


def _read(path: Path | None) -> dict[str, Any] | None:
    """What `Verdicts.write` wrote; None when there is nothing, or it is damaged, with a warning."""
    if path is None or not path.exists():
        return None
    try:
        with np.load(path) as file:  # whose parts have checksums
            note = {name: file[name] for name in file.files}
        found: dict[str, Any] = {name: note[name] for name in ("broken_by", "found", "images")}
        found |= {"settings": str(note["settings"]), "part": int(note["part"])}
        found |= {"seconds": json.loads(str(note["seconds"])), "under_way": None}
        if "index" in note:
            leaves = [note[f"leaf{number}"] for number in range(int(note["leaves"]))]
            found["under_way"] = note["waiting"].tolist(), note["index"], leaves
        return found
    except Exception as error:  # of zipfile, NumPy or zlib, according to the place
        logging.getLogger("jaxrobust").warning(
            "%s must hold a note of AutoAttack, got something else (%s: %s). It is left out and "
            "made anew.",
            path,
            type(error).__name__,
            error,
        )
        return None
