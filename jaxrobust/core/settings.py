"""Settings as plain values, and how two of them differ."""

import json
from typing import Any

from ml_collections import ConfigDict


def to_plain(config: Any) -> Any:
    """The config as plain dicts, lists and numbers, as it stands in `config.json`."""
    if isinstance(config, ConfigDict):
        config = config.copy_and_resolve_references().to_dict()
    return json.loads(json.dumps(config))


def difference(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Where two plain configs differ, as "key: old, now new"."""
    found = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += difference(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}: {before!r}, now {after!r}")
    return found
