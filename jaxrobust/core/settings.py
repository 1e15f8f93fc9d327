"""Settings as plain values, and how two of them differ."""

import json
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict


def to_plain(config: Any) -> Any:
    """The config as plain dicts, lists and numbers, as it stands in `config.json`."""
    if isinstance(config, ConfigDict):
        config = config.copy_and_resolve_references().to_dict()
    return json.loads(json.dumps(config))


def difference(
    old: dict, new: dict, prefix: str = "", *, ignored: Collection[str] = ()
) -> list[str]:
    """Where two plain configs differ, but for the ignored keys, as "key: old, now new".

    Example:
      >>> difference({"seed": 0, "model": {"width": 4}}, {"seed": 1, "model": {"width": 8}})
      ['model.width: 4, now 8', 'seed: 0, now 1']
    """
    differences = []
    for key in sorted((old.keys() | new.keys()) - set(ignored)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            differences += difference(before, after, f"{prefix}{key}.")
        elif before != after:
            differences.append(f"{prefix}{key}: {before!r}, now {after!r}")
    return differences
