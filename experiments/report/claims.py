"""The paper's claims, decided: what the experiments' records say of each, as rows of one table.

Nothing is measured here: the differences, their intervals and the verdicts are those of the records
(which form of several decides claims 3, 3b and 4 stands in `claim_rows`). A claim of which there is
no record is "not measured".
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from experiments import accuracies, statistics
from experiments.report import claim_rows
from experiments.report.claim_rows import NOT_MEASURED, Read

Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """One measure of a claim.

    Attributes:
      architecture: its title.
      measure: what is compared.
      first, second: both sides, mean ± spread over seeds.
      difference: with its 95 % interval.
      verdict: of this measure; empty for one that decides nothing.
    """

    architecture: str
    measure: str
    first: str
    second: str
    difference: str
    verdict: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper.

    Attributes:
      number: in the protocol.
      sentence: what the paper says.
      rule: when it holds.
      experiment: that measures it.
      columns: what `first`, `second` and `difference` of the rows are.
      verdicts: {architecture: verdict}.
      rows: the measures.
    """

    number: str
    sentence: str
    rule: str
    experiment: str
    columns: tuple[str, str, str] = ("STD", "ADV", "ADV − STD")
    verdicts: dict[str, str] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """Over all architectures."""
        known = [verdict for verdict in self.verdicts.values() if verdict != NOT_MEASURED]
        return statistics.all_hold(known) if known else NOT_MEASURED

    def as_json(self) -> dict[str, Any]:
        """All of it, with the verdict over all architectures."""
        return {**dataclasses.asdict(self), "verdict": self.verdict}


def decide(records: Records) -> list[Claim]:
    """All claims, in order.

    Args:
      records: {experiment: its record}, of those that are done.
    """
    architectures = list(
        dict.fromkeys(
            title
            for name, record in records.items()
            if name != "figure20_variants"  # whose titles say STD or ADV as well
            for title in record.get("architectures", {})
        )
    )
    claims = []
    for claim, read in _CLAIMS:
        found = records.get(claim.experiment, {}).get("architectures", {})
        verdicts, rows = {}, []
        for title in architectures:
            verdicts[title] = NOT_MEASURED
            if title in found:
                verdicts[title], lines = read(found[title])
                rows += [Row(title, *line) for line in lines]
        claims.append(dataclasses.replace(claim, verdicts=verdicts, rows=rows))
    return claims


def as_markdown(claims: Sequence[Claim]) -> str:
    """The claims with their verdicts, then the measures behind each.

    Args:
      claims: decided.
    """
    titles = list(dict.fromkeys(title for claim in claims for title in claim.verdicts))
    titles = titles or ["verdict"]
    summary = [
        [
            claim.number,
            claim.sentence,
            *(claim.verdicts.get(title, claim.verdict) for title in titles),
            claim.rule,
        ]
        for claim in claims
    ]
    measures = [[claim.number, *dataclasses.astuple(row)] for claim in claims for row in claim.rows]
    header = ["", "network", "measure", "STD (or the first)", "ADV (or the second)"]
    header += ["difference [95 %]", "verdict"]
    tables = ((["", "claim", *titles, "holds when"], summary), (header, measures))
    return "\n\n".join(
        accuracies.markdown_table(header, rows, left_columns=len(header)) for header, rows in tables
    )


_CLAIMS: list[tuple[Claim, Read]] = [
    (
        Claim(
            "1",
            "Robustness costs clean accuracy",
            "STD − ADV clean > 0 and ADV − STD robust > 0",
            "table1_robustness",
            ("STD", "ADV", "difference, points"),
        ),
        claim_rows.claim_1,
    ),
    (
        Claim(
            "2",
            "Robust sensitivity maps ignore fine texture",
            "for each of three methods, centroid ADV − STD < 0 and share along the silhouette "
            "ADV − STD > 0",
            "figure2_sensitivity_maps",
        ),
        claim_rows.claim_2,
    ),
    (
        Claim(
            "3",
            "First-layer filters are smaller",
            "ADV − STD < 0, BatchNorm folded in",
            "figure4_first_layer",
        ),
        claim_rows.first_layer("l2_norm", "mean l2 norm of the filters"),
    ),
    (
        Claim(
            "3b",
            "Grid- or checkerboard-like patterns in the first layer",
            "ADV − STD > 0; BatchNorm folded in, as in claim 3",
            "figure4_first_layer",
        ),
        claim_rows.first_layer("nyquist_corner_share", "filter energy at the Nyquist corner"),
    ),
    (
        Claim(
            "4",
            "Deep layers look for larger structure, without small colour clutter",
            "both ADV − STD < 0 in the deepest third, in the paper's plain form",
            "figure3_layer_visualization",
        ),
        claim_rows.claim_4,
    ),
    (
        Claim(
            "5",
            "Blur hurts both alike; the median filter turns the order",
            "under blur, STD − ADV stays within 10 points of its value at 0 while both are above "
            "chance + 10; after 5 median filters, ADV − STD > 0",
            "figure6_smoothing",
            ("STD", "ADV", "difference, points"),
        ),
        claim_rows.claim_5,
    ),
    (
        Claim(
            "6",
            "Colour reversal costs both about the same; stylisation favours ADV",
            "the losses differ by less than 10 points (open where nothing is lost); ADV − STD > 0 "
            "on stylised pictures or cue conflicts",
            "table2_variants",
            ("STD", "ADV", "difference, points"),
        ),
        claim_rows.claim_6,
    ),
    (
        Claim(
            "7",
            "Both kinds of features help",
            "STD+ADV − max(STD, ADV) > 0; STD+ADV within 1 point of the best everywhere; ADV+ADV "
            "above STD+STD at low resolution, below it at high (the better and the best are those "
            "of each seed)",
            "figure7_late_fusion",
            ("one", "the other", "difference, points"),
        ),
        claim_rows.claim_7,
    ),
    (
        Claim(
            "8",
            "Guided backprop depends on the parameters",
            "maps of two settings less alike than maps of two seeds of one setting",
            "figure8_sanity_checks",
            ("between settings", "between seeds", "difference"),
        ),
        claim_rows.claim_8,
    ),
]
