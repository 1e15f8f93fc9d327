"""Rows of pictures without frames or titles, for pages on which one switches between them."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxrobust.core.files import written_whole

_SIDE = 160  # pixels; larger pictures are reduced to it
_PARTS = 16  # the gap between two is such a part of their height
MOST = 6  # pictures in a row


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Whether to write them."""
    parser.add_argument(
        "--tiles",
        action="store_true",
        help="also write rows of pictures for the page of jaxrobust.experiments.paper",
    )


def write(images: Any, path: Path) -> str:
    """Write pictures side by side, whole or not at all.

    Args:
      images: floats (n, h, w, 1 or 3) in [0, 1], clipped to that.
      path: of the PNG; its folder is made.

    Returns:
      the file's name.
    """
    pixels = np.rint(255 * np.clip(np.asarray(images, np.float32), 0, 1)).astype(np.uint8)
    height, width, channels = pixels.shape[1:]
    pictures = [Image.fromarray(each if channels == 3 else each[..., 0]) for each in pixels]
    if height > _SIDE:
        width, height = round(width * _SIDE / height), _SIDE
        size = (width, height)
        pictures = [each.resize(size, Image.Resampling.LANCZOS) for each in pictures]
    gap = max(1, height // _PARTS)
    step = width + gap
    row = Image.new("RGBA", (len(pictures) * step - gap, height))  # transparent between them
    for position, picture in enumerate(pictures):
        row.paste(picture.convert("RGBA"), (position * step, 0))
    with written_whole(path) as temporary:
        row.save(temporary, format="PNG", optimize=True)
    return path.name
