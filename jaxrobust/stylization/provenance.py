"""What a copy or a training was made from, so that it never goes on with something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxrobust.data import catalog, sources
from jaxrobust.data.dataset_config import ResolvedConfig
from jaxrobust.data.image_folder import ImageFolder, find_split
from jaxrobust.data.listing import files_stamp


def describe_source(
    resolved: ResolvedConfig, dataset: catalog.Dataset, opened: sources.Split
) -> dict[str, Any]:
    """What decides the pictures of a split, ready for JSON.

    Args:
      resolved: what `resolve` returned.
      dataset: likewise.
      opened: what `sources.open_split` returned.
    """
    description: dict[str, Any] = {
        "name": resolved.name,
        "split": opened.name,
        "pictures": len(opened),
        "classes": list(opened.class_names),
    }
    if resolved.path is None:
        folder = Path(sources.open_builder(resolved, dataset).data_dir).expanduser().resolve()
        return {**description, "data_dir": str(folder), "files_sha256": files_stamp(folder)}
    description["path"] = str(Path(resolved.path).expanduser().resolve())
    if isinstance(opened.records, ImageFolder):
        root = find_split(resolved.path, opened.name)
        description["files_sha256"] = files_stamp(root, opened.records.files)
    return description
