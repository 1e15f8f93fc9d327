"""What an experiment returns: numbers, tables, pictures and decided claims, as data.

An experiment formats nothing. `render` turns a `Result` into the terminal's text, Markdown and the
report's page, all from the same JSON.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Number:
    """A figure, perhaps with its spread, as "58.28 ± 0.18"; None is shown as a dash."""

    value: float | None
    digits: int = 3
    spread: float | None = None


@dataclass(frozen=True)
class Spread:
    """Mean ± standard deviation (n - 1) of one value a seed; `label` stands before it."""

    values: Sequence[float | None]
    digits: int = 1
    label: str = ""


@dataclass(frozen=True)
class Change:
    """A difference with its interval, as of `statistics.compare`; `label` goes before it."""

    change: Mapping[str, Any]
    digits: int = 3
    label: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim.

    "holds", "does not hold", "open", "not measured" or "not applicable"; what is open for a reason
    of its own says it behind a colon, as "open: stride" or "open: undertrained", and is coloured as
    what is open.
    """

    text: str


@dataclass(frozen=True)
class Code:
    """A command, or what else is typed as it stands."""

    text: str


Cell = str | Number | Spread | Change | Verdict | Code


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Notes:
    """Sentences, each on a line of its own."""

    sentences: Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      header: of the columns.
      rows: ours.
      paper: rows of figures that the paper prints; they look different.
      caption: above the table.
      left: so many columns are aligned left, the others right.
      folded: on the page, behind its caption.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    paper: Sequence[Sequence[Cell]] = ()
    caption: str = ""
    left: int = 1
    folded: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure in the experiment's folder; `folded` when boxes show the same piece by piece."""

    file: str
    caption: str
    folded: bool = False


@dataclass(frozen=True)
class Strip:
    """A row of small pictures (of `tiles.write`) under its title, coloured as `run`: std or adv."""

    file: str
    title: str
    alt: str
    run: str = ""


@dataclass(frozen=True)
class Panel:
    """One state of a box: strips of pictures, and bars of accuracies, {"std" | "adv": per cent}."""

    title: str
    strips: Sequence[Strip]
    bars: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Box:
    """Panels between which a reader of the page switches; Markdown leaves it out.

    Attributes:
      title: its heading.
      legend: what is switched.
      panels: the states.
      before: what is always shown.
      slide: a slider instead of buttons; it begins at the panel `start`.
    """

    title: str
    legend: str
    panels: Sequence[Panel]
    before: Strip | None = None
    slide: bool = False
    start: int = 0


Part = Text | Notes | Table | Figure | Box


@dataclass(frozen=True)
class Claim:
    """A claim of the paper: stated here, decided by the experiment that holds it.

    Attributes:
      number: in the protocol.
      sentence: what the paper says.
      rule: when it holds.
      columns: what the two sides of its measures and their difference are.
    """

    number: str
    sentence: str
    rule: str
    columns: tuple[str, str, str] = ("STD", "ADV", "ADV − STD")


@dataclass(frozen=True)
class Measure:
    """One measure of a claim: both sides, their difference, and what it decides, if anything."""

    what: str
    first: Cell
    second: Cell
    difference: Cell
    verdict: str = ""


@dataclass(frozen=True)
class Decision:
    """What an experiment says of a claim for one architecture."""

    verdict: str
    measures: Sequence[Measure] = ()


@dataclass(frozen=True)
class Finding:
    """What an experiment found of one architecture, or one data set.

    Attributes:
      numbers: all figures, as JSON has them; "pairs", of `trained.pairs_described`, says which
        trainings they are of, and whether these are enough for a verdict.
      parts: what is shown, in order.
      claims: {number of the claim: what became of it}.
    """

    numbers: Mapping[str, Any]
    parts: Sequence[Part] = ()
    claims: Mapping[str, Decision] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What an experiment found: by title, and what is shown of all together."""

    findings: Mapping[str, Finding]
    parts: Sequence[Part] = ()


def as_json(value: Any) -> Any:
    """A part, a cell or anything made of them as JSON has it; "kind" says what each is.

    Example:
      >>> as_json([Verdict("holds"), "a"])
      [{'kind': 'Verdict', 'text': 'holds'}, 'a']
    """
    if dataclasses.is_dataclass(value):
        fields = {
            each.name: as_json(getattr(value, each.name)) for each in dataclasses.fields(value)
        }
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, Mapping):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    return value


def undecided(value: Any, verdict: str) -> Any:
    """Parts or claims with this verdict wherever anything was decided, or open for another reason.

    Example:
      >>> undecided([Verdict("holds"), Verdict("not measured"), "holds"], "open: undertrained")
      [Verdict(text='open: undertrained'), Verdict(text='not measured'), 'holds']
    """
    if isinstance(value, Mapping):
        return {key: undecided(each, verdict) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [undecided(each, verdict) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = {
        each.name: undecided(getattr(value, each.name), verdict)
        for each in dataclasses.fields(value)
    }
    name = {Verdict: "text", Measure: "verdict", Decision: "verdict"}.get(type(value))
    if name and fields[name].partition(":")[0] in ("holds", "does not hold", "open"):
        fields[name] = verdict
    return type(value)(**fields)


def files(value: Any) -> Iterator[str]:
    """The names of the files that parts refer to, as `as_json` has given them."""
    if isinstance(value, Mapping):
        if isinstance(value.get("file"), str):
            yield value["file"]
        for each in value.values():
            yield from files(each)
    elif isinstance(value, list):
        for each in value:
            yield from files(each)
