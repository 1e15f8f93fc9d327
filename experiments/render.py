"""The one renderer: what experiments have found, as text and as the report's page.

Templates lie in `templates/`; HTML is escaped by Jinja2, wherever a text comes from.
"""

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NoReturn

import jinja2
from PIL import Image

from jaxrobust.experiments import statistics
from jaxrobust.experiments.result import as_json

TEMPLATES = Path(__file__).parent / "templates"
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=jinja2.select_autoescape(["html"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many decimals; with significant digits where those would be all zero.

    Example:
      >>> number(0.1234), number(0.00001234), number(0.0), number(None)
      ('0.123', '1.23e-05', '0.000', '–')
    """
    if value is None:
        return "–"
    small = 0 < abs(value) < 0.5 * 10**-digits
    return f"{value:.3g}" if small else f"{value:.{digits}f}"


def cell_text(cell: Any) -> str:
    """A cell (of `result`, or its JSON) as plain text.

    Example:
      >>> from jaxrobust.experiments.result import Change, Spread
      >>> cell_text(Spread([1.0, 3.0], digits=1, label="STD"))
      'STD 2.0 ± 1.4'
      >>> cell_text(Change({"mean": -0.5, "low": -0.75, "high": 0.0}, digits=2))
      '-0.50 [-0.75, +0.00]'
    """
    cell = as_json(cell)
    if isinstance(cell, str):
        return cell
    kind = cell["kind"]
    if kind in ("Verdict", "Code"):
        return cell["text"]
    if kind == "Number":
        spread = cell["spread"]
        shown = number(cell["value"], cell["digits"])
        return shown if spread is None else f"{shown} ± {number(spread, cell['digits'])}"
    if kind == "Spread":
        shown = _over_seeds(cell["values"], cell["digits"])
    elif kind == "Change":
        shown = statistics.as_text(cell["change"], digits=cell["digits"])
    else:
        _unknown("cell", kind)
    return f"{cell['label']} {shown}" if cell["label"] else shown


def _over_seeds(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None and value == value]
    if not known:
        return "–"
    mean = number(fmean(known), digits)
    return mean if len(known) == 1 else f"{mean} ± {number(stdev(known), digits)}"


def markdown(experiment: Any, shown: Mapping[str, Any]) -> str:
    """What an experiment has found, as Markdown.

    Args:
      experiment: an `Experiment`.
      shown: {"findings": {title: {"parts", "claims"}}, "parts"}, as its record has it.
    """
    claims = {claim.number: claim for claim in experiment.claims}
    return text("result.md", shown=shown, claims=claims)


def text(template: str, **values: Any) -> str:
    """A file of `templates/` with these values, without more than one blank line on end."""
    filled = _ENVIRONMENT.get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", filled).strip() + "\n"


def picture(path: Path) -> dict[str, Any]:
    """A PNG for the page: its width and height in pixels, and the file itself as a data URL."""
    with Image.open(path) as image:
        width, height = image.size
    data = base64.b64encode(path.read_bytes()).decode()
    return {"width": width, "height": height, "source": f"data:image/png;base64,{data}"}


def _markdown_cells(cells: list[Any]) -> str:
    def one(cell: Any) -> str:
        text = cell_text(cell).replace("|", "\\|").replace("\n", " ")
        return f"`{text}`" if not isinstance(cell, str) and cell["kind"] == "Code" else text

    return "| " + " | ".join(map(one, cells)) + " |"


def _unknown(what: str, kind: str) -> NoReturn:
    raise ValueError(f"A {what} must be of a kind of experiments/result.py, got {kind!r}.")


_ENVIRONMENT.globals["unknown"] = _unknown
_ENVIRONMENT.filters |= {
    "cell": cell_text,
    "cells": _markdown_cells,
    "rule": lambda columns, left: "|" + " :-- |" * left + " --: |" * (columns - left),
    "measure_cells": lambda measure: [
        measure[side] for side in ("what", "first", "second", "difference", "verdict")
    ],
    "kebab": lambda text: text.replace(" ", "-"),
}
