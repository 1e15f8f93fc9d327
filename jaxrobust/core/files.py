"""Files that are whole or not there."""

import json
from pathlib import Path
from typing import Any


def write_text(path: str | Path, text: str) -> None:
    """Write a text under a temporary name, then rename: a reader never sees half of it.

    Args:
      path: of the file; its folder is made.
      text: all of it, in UTF-8.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "figure" / "table.md"
      >>> write_text(path, "± 1\\n")
      >>> path.read_text(encoding="utf-8"), [each.name for each in path.parent.iterdir()]
      ('± 1\\n', ['table.md'])
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_json(path: str | Path, content: Any) -> None:
    """Write JSON as `write_text` does.

    Args:
      path: of the file; its folder is made.
      content: what `json` can write; NaN and infinity become null, which every reader knows.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "figure" / "settings.json"
      >>> write_json(path, {"steps": 3, "loss": float("nan")})
      >>> json.loads(path.read_text())
      {'steps': 3, 'loss': None}
    """
    write_text(path, json.dumps(_finite(content), indent=2, allow_nan=False) + "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """The settings in a file.

    Raises:
      ValueError: when it holds something else.
    """
    try:
        found = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} must hold settings as JSON, got something else: {error}."
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold settings as JSON, got a {type(found).__name__}.")
    return found


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and content - content != 0:
        return None
    return content
