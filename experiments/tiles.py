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
        help="also write rows of pictures for the page of experiments.paper",
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
    pictures = [Image.fromarray(one if one.shape[-1] == 3 else one[..., 0]) for one in pixels]
    height, width = pixels.shape[1:3]
    if height > _SIDE:
        width, height = round(width * _SIDE / height), _SIDE
        pictures = [one.resize((width, height), Image.Resampling.LANCZOS) for one in pictures]
    gap = max(1, height // _PARTS)
    step = width + gap
    row = Image.new("RGBA", (len(pictures) * step - gap, height))  # transparent between them
    for position, one in enumerate(pictures):
        row.paste(one.convert("RGBA"), (position * step, 0))
    with written_whole(path) as temporary:
        row.save(temporary, format="PNG", optimize=True)
    return path.name
