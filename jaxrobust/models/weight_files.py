"""The trained networks that come with the package: a file of weights each, and their checksums.

A file is safetensors, in which nothing can be executed: the variables as they were trained
(float32, so that the figures measured then are these weights'), and a description. `SHA256SUMS`,
beside them, lists the files; `sha256sum --check` reads it as well.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxrobust.core import digests, files
from jaxrobust.core.checks import check_that
from jaxrobust.core.named import check_choice

FOLDER = Path(__file__).parent / "weights"
_CHECKSUMS = "SHA256SUMS"
_ENDING = ".safetensors"


def names() -> tuple[str, ...]:
    """The networks that there are, in alphabetical order."""
    return tuple(sorted(file.removesuffix(_ENDING) for file in _checksums()))


def read(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A network's description and its variables, after checking the file.

    Raises:
      ValueError: when there is no such network, or the file is not the one that was written.
      OSError: when the file is missing.
    """
    check_choice("pretrained network", name, names())
    path = FOLDER / f"{name}{_ENDING}"
    expected, found = _checksums()[path.name], digests.digest(path)
    rule = f"have the sha256 {expected}, as it will when installed again"
    check_that(found == expected, str(path), rule, found)
    with safetensors.safe_open(path, "numpy") as file:
        description = json.loads(file.metadata()["description"])
        arrays = {key: jnp.asarray(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    return description, unflatten_dict(arrays, sep="/")


def write(name: str, description: Mapping[str, Any], variables: Mapping[str, Any]) -> Path:
    """Write a network's file and list its checksum; returns the file's path.

    Args:
      name: of the network; one of the same name is replaced.
      description: what JSON can hold; at least `model`, the name and fields that `create` takes.
      variables: `{"params": …, "batch_stats": …}`.
    """
    path = FOLDER / f"{name}{_ENDING}"
    arrays = {key: np.asarray(leaf) for key, leaf in flatten_dict(variables, sep="/").items()}
    metadata = {"description": json.dumps(description)}
    with files.written_whole(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(arrays, metadata))
    checksums = _checksums() | {path.name: digests.digest(path)}
    lines = (f"{checksums[file]}  {file}" for file in sorted(checksums))
    files.write_lines(FOLDER / _CHECKSUMS, lines)
    return path


def _checksums() -> dict[str, str]:
    """By the name of the file."""
    lines = (line.split("  ") for line in files.read_lines(FOLDER / _CHECKSUMS))
    return {file: checksum for checksum, file in lines}
