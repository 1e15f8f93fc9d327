"""The configs that come with the package: by name, from any folder."""

import ast
from pathlib import Path

from jaxrobust.core.named import did_you_mean

# In a clone a link to the folder beside the package.
FOLDER = Path(__file__).parents[1] / "configs"


def summaries() -> dict[str, str]:
    """{name: first line of its docstring} of all configs, in alphabetical order.

    Example:
      >>> summaries()["table1"][:20]
      'Table 1 of the paper'
    """
    return {path.stem: _summary(path) for path in sorted(FOLDER.glob("*.py"))}


def find(config: str | Path) -> Path:
    """The file that a config names.

    Args:
      config: a file's path; or a config of the package, as "quickstart", "quickstart.py" or
        "configs/quickstart.py", wherever the program was started.

    Raises:
      FileNotFoundError: when there is neither.

    Example:
      >>> find("quickstart").name, find("configs/quickstart.py").name
      ('quickstart.py', 'quickstart.py')
    """
    path = Path(config)
    if path.is_file():
        return path
    packaged = FOLDER / f"{path.name.removesuffix('.py')}.py"
    if path.parent in (Path(), Path("configs")) and packaged.is_file():
        return packaged
    hint = did_you_mean(path.stem, list(summaries()), cutoff=0.5)
    raise FileNotFoundError(
        f"--config must be a file or one of the package's configs, got {str(config)!r}, which is "
        f"neither{hint}; python -m jaxrobust lists them."
    )


def is_plan(path: Path) -> bool:
    """Whether a file defines the plan of a report, and not a config of trainings."""
    return "def get_plan(" in path.read_text(encoding="utf-8", errors="replace")


def _summary(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
