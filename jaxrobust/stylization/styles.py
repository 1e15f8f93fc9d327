"""Where style pictures come from: a folder of paintings, or textures that are drawn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from absl import logging

from jaxrobust.core.checks import check_count, check_that
from jaxrobust.core.named import check_choice
from jaxrobust.data import decode, image_folder, textured_shapes
from jaxrobust.data.listing import files_stamp

LEAST_SIZE = 16
"""The shortest side, in pixels, of a picture in a folder: smaller ones are icons or mistakes."""


class Styles(Protocol):
    """A source of style pictures."""

    def describe(self) -> dict[str, Any]:
        """What decides the pictures, ready for JSON."""

    def draw(
        self, rng: np.random.Generator, size: int, *, augment: bool = False
    ) -> tuple[np.ndarray, str]:
        """A random picture, uint8 (size, size, 3), and its name.

        Args:
          rng: source of randomness.
          size: height and width, in pixels.
          augment: whether to take a random part of the picture, instead of as much as fits.
        """


class StyleFolder:
    """The pictures of a folder and of the folders in it.

    Args:
      path: the folder.
      least_size: the shortest side, in pixels, that a picture may have.
      corrupt_images: what happens to pictures that cannot be read or are too small: "stop", or
        "skip": named in a warning and left out.

    Raises:
      FileNotFoundError: when there is no such folder, or no picture in it.
      ValueError: when a picture cannot be read or is too small.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        least_size: int = LEAST_SIZE,
        corrupt_images: str = "stop",
    ) -> None:
        check_choice("corrupt_images", corrupt_images, ("stop", "skip"))
        self.path = Path(path).expanduser()
        rule, got = "be a folder of pictures", repr(str(path))
        check_that(self.path.is_dir(), "styles", rule, got, FileNotFoundError)
        files = sorted(
            file
            for file in self.path.rglob("*")
            if file.suffix.lower() in image_folder.EXTENSIONS and file.is_file()
        )
        rule = f"be a folder of pictures ({', '.join(image_folder.EXTENSIONS)})"
        check_that(files, "styles", rule, f"none in {self.path}", FileNotFoundError)
        results = image_folder.inspect_pictures(files, thoroughly=corrupt_images == "skip")
        self.files = []
        wrong = []
        for file, result in zip(files, results, strict=True):
            if isinstance(result, str):
                wrong.append(result)
            elif min(result) < least_size:
                wrong.append(
                    f"Style pictures must be at least {least_size} x {least_size} pixels, got "
                    f"{result[0]} x {result[1]} for {file}."
                )
            else:
                self.files.append(file)
        if wrong and (corrupt_images == "stop" or not self.files):
            raise ValueError(
                f"{wrong[0]} ({len(wrong)} of {len(files)} style pictures cannot be used"
                + ("; corrupt_images='skip' leaves them out.)" if self.files else ".)")
            )
        for message in wrong:
            logging.warning("Skipped: %s", message)

    def __len__(self) -> int:
        return len(self.files)

    def describe(self) -> dict[str, Any]:
        """The folder, the number of its pictures, and what tells when one of them changes."""
        return {
            "folder": str(self.path.resolve()),
            "pictures": len(self.files),
            "files_sha256": files_stamp(self.path, self.files),
        }

    def draw(
        self, rng: np.random.Generator, size: int, *, augment: bool = False
    ) -> tuple[np.ndarray, str]:
        """A random picture: its central square, or with `augment` a random crop, mirrored or not.

        Raises:
          ValueError: when it cannot be decoded.
        """
        file = self.files[rng.integers(len(self.files))]
        name = str(file)
        if augment:
            picture = decode.random_resized_crop(file.read_bytes(), size, rng, name=name)
        else:
            picture = decode.decode(file.read_bytes(), name=name)
            picture = decode.resize_and_center_crop(picture, size, size)
        return picture, file.relative_to(self.path).as_posix()


class StyleTextures:
    """Mosaics in random colours, each with one of the textures of `textured_shapes`.

    A texture alone repeats itself within a few pixels: deep in an encoder its features are the same
    everywhere, their standard deviation is 0, and with it AdaIN would take all that there is in the
    content. The tiles, each with two colours of its own, give them something to deviate by.

    Args:
      tiles: number of tiles.
    """

    def __init__(self, tiles: int = 12) -> None:
        check_count("tiles", tiles, least=2)
        self.tiles = tiles

    def describe(self) -> dict[str, Any]:
        """The textures' names and the number of tiles."""
        return {"textures": list(textured_shapes.TEXTURES), "tiles": self.tiles}

    def draw(
        self, rng: np.random.Generator, size: int, *, augment: bool = False
    ) -> tuple[np.ndarray, str]:
        """A random mosaic, and the name of its texture; `augment` changes nothing."""
        del augment
        texture = int(rng.integers(len(textured_shapes.TEXTURES)))
        pattern = textured_shapes.texture_pattern(texture, size, rng)
        centres = rng.uniform(0, size, (self.tiles, 2)).astype(np.float32)
        colors = rng.integers(0, 256, (self.tiles, 2, 3), dtype=np.uint8)
        place = np.arange(size, dtype=np.float32) + 0.5
        rows = np.square(place[:, None] - centres[:, 0])[:, None]
        columns = np.square(place[:, None] - centres[:, 1])[None]
        tile = np.argmin(rows + columns, axis=-1)
        picture = colors[tile, (pattern > 0).astype(np.int8)]
        return picture, textured_shapes.TEXTURES[texture]
