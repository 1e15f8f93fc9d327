"""The page of a report: one HTML file that needs no other."""

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from experiments.report import markup, sections
from experiments.report.claims import Claim
from experiments.report.plan import Plan
from experiments.report.stages import Outcome
from jaxrobust.core.logs import clock
from jaxrobust.data import textured_shapes

_HERE = Path(__file__).parent
# Everything that depends on when and how fast stands in one line, which begins so.
TIMES = '<p id="times">'
_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
$style</style>
</head>
<body>
<a class="skip" href="#claims">To the claims</a>
<header class="top"><h1>$title</h1><p class="lead">$summary</p></header>
<nav aria-label="Sections"><ul>$navigation</ul></nav>
<main>
$content
</main>
<footer>
<p>Made by <code>$command</code></p>
$times
</footer>
<script>
$script</script>
</body>
</html>
""")


def render(
    plan: Plan,
    claims: Sequence[Claim],
    records: Mapping[str, Mapping[str, Any]],
    outcomes: Sequence[Outcome],
    *,
    figures: Path,
    command: str,
) -> str:
    """The page.

    Args:
      plan: of the report.
      claims: decided.
      records: {experiment: its record}, of those that are done.
      outcomes: of all stages.
      figures: folder of the records and their pictures, which lies beside the page.
      command: that makes the report.
    """
    by_name = {outcome.name: outcome for outcome in outcomes}
    shown = [section for section in sections.SECTIONS if section.experiment in by_name]
    known = {section.experiment for section in shown}
    shown += [
        sections.Section(experiment.module, experiment.title, experiment.title)
        for experiment in plan.experiments
        if experiment.module not in known
    ]
    content = [
        _problems(outcomes),
        _claims(claims),
        _evidence(plan, records),
        *(
            sections.render(
                section,
                records.get(section.experiment),
                by_name[section.experiment],
                figures,
            )
            for section in shown
        ),
        _trainings(plan, by_name),
    ]
    links = [("claims", "Claims"), ("evidence", "Evidence")]
    links += [(section.experiment, section.short) for section in shown]
    links.append(("trainings", "Trainings"))
    return _PAGE.substitute(
        title=escape(plan.title),
        summary=escape(plan.summary),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        navigation="".join(f'<li><a href="#{to}">{escape(name)}</a></li>' for to, name in links),
        content="\n".join(content),
        command=escape(command),
        times=_times(outcomes),
    )


def _problems(outcomes: Sequence[Outcome]) -> str:
    """What is not done, at the top."""
    parts = [sections.not_done(one) for one in outcomes if one.status == "failed"]
    missing = [f"{one.title} ({one.reason})" for one in outcomes if one.status == "missing"]
    if missing:
        parts.append(f"<p>{escape('; '.join(missing))}.</p>")
    if not parts:
        return ""
    return '<section id="not-done"><h2>Not done</h2>' + "".join(parts) + "</section>"


def _claims(claims: Sequence[Claim]) -> str:
    cards = []
    for claim in claims:
        verdicts = "".join(
            f"<dt>{escape(title)}</dt><dd>{markup.verdict(verdict)}</dd>"
            for title, verdict in (claim.verdicts or {"": claim.verdict}).items()
        )
        cards.append(
            f'<li><a href="#claim-{claim.number}"><span class="number">{claim.number}</span> '
            f"{escape(claim.sentence)}</a><dl>{verdicts}</dl></li>"
        )
    return (
        '<section id="claims"><h2>What the paper claims, and what was found here</h2>'
        "<p>STD is trained as usual, ADV against an adversary. Pairs are STD and ADV of the same "
        "seed; intervals are 95 % bootstrap intervals over seeds and, within them, images. A claim "
        f"{markup.verdict('holds')} when the interval lies wholly on the stated side, "
        f"{markup.verdict('does not hold')} when wholly on the other; else it is "
        f"{markup.verdict('open')}. The rules were fixed before the "
        "reports were made; what decides claims 3b (BatchNorm folded in) and 4 (the plain images), "
        "that nothing lost decides nothing (6) and that the best is the best of each seed (7) was "
        "settled when some of the figures were known.</p>"
        f'<ul class="cards">{"".join(cards)}</ul>'
        "<p>The measures behind each verdict; ± is one standard deviation over seeds.</p>"
        f"{_claims_table(claims)}</section>"
    )


def _claims_table(claims: Sequence[Claim]) -> str:
    bodies = []
    for claim in claims:
        chips = "".join(
            f"<span>{escape(title)}: {markup.verdict(verdict)}</span>"
            for title, verdict in claim.verdicts.items()
        )
        first, second, difference = map(escape, claim.columns)
        rows = [
            f'<tr class="claim" id="claim-{claim.number}"><th colspan="6" scope="colgroup">'
            f'<div class="head">'
            f"<strong>{claim.number}. {escape(claim.sentence)}</strong> "
            f'(<a href="#{claim.experiment}">figures</a>)<span class="rule">Holds when: '
            f'{escape(claim.rule)}.</span><span class="chips">{chips}</span></div></th></tr>'
        ]
        if claim.rows:
            rows.append(
                '<tr class="columns"><th scope="col">network</th><th scope="col">measure</th>'
                f'<th scope="col">{first}</th><th scope="col">{second}</th>'
                f'<th scope="col">{difference} [95 %]</th><th scope="col">verdict</th></tr>'
            )
        for row in claim.rows:
            rows.append(
                f'<tr><td class="network">{escape(row.architecture)}</td><td class="measure">'
                f'{escape(row.measure)}</td><td data-name="{first}">{escape(row.first)}</td>'
                f'<td data-name="{second}">{escape(row.second)}</td>'
                f'<td class="difference" data-name="{difference}">{escape(row.difference)}</td>'
                f'<td class="decided">{markup.verdict(row.verdict) if row.verdict else ""}</td>'
                "</tr>"
            )
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    return (
        '<div class="box" tabindex="0" role="region" aria-label="Claims">'
        f'<table class="claims">{"".join(bodies)}</table></div>'
    )


def _evidence(plan: Plan, records: Mapping[str, Mapping[str, Any]]) -> str:
    """Where the evidence comes from, in plain words."""
    found = [
        (title, one)
        for record in records.values()
        for title, one in record.get("architectures", {}).items()
        if "pairs" in one
    ]
    seeds: dict[str, list[int]] = {}
    for title, one in found:
        known = {*seeds.get(title, ()), *(pair["seed"] for pair in one["pairs"])}
        seeds[title] = sorted(known)
    datasets = {one["dataset"] for _, one in found if "dataset" in one}
    parts = ['<section id="evidence"><h2>Where the evidence comes from</h2>']
    lines = [f"{title}: trainings of the seeds {_listed(of)}." for title, of in seeds.items()]
    if seeds and max(map(len, seeds.values())) <= 5:
        lines.append(
            "Intervals from so few seeds are too narrow: of intervals from 3 seeds, 3 in 4 rather "
            "than 19 in 20 contain the truth when it is the seeds that differ."
        )
    lines += plan.notes
    parts.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>")
    if any(name.partition("/")[0] == "textured_shapes" for name in datasets):
        paragraphs = (textured_shapes.__doc__ or "").strip().split("\n\n")[1:]
        parts += [f"<p>{markup.inline(' '.join(text.split()))}</p>" for text in paragraphs]
        rows = [
            [escape(name.replace("_", " ")), escape(_value(value))]
            for name, value in dataclasses.asdict(textured_shapes.PARAMETERS).items()
        ]
        parts.append(f"<p>{escape(_chosen_with(seeds))}</p>")
        parts.append(
            "<p>So on these pictures the table shows the mechanism, not how photographs behave.</p>"
        )
        caption = "The generator's parameters; amplitudes are shares of the range of a pixel"
        parts.append(markup.table(["parameter", "value"], rows, caption=caption))
    return "".join([*parts, "</section>"])


def _chosen_with(seeds: Mapping[str, Sequence[int]]) -> str:
    """Whether any of the trainings shown had a part in choosing the generator's parameters."""
    shared = {seed for of in seeds.values() for seed in of} & set(textured_shapes.CHOOSING_SEEDS)
    if not shared:
        return "The trainings shown here have other seeds than those used in choosing."
    return (
        f"Of the trainings shown here, those of the seeds {_listed(sorted(shared))} were used in "
        "choosing: they are no independent evidence."
    )


def _trainings(plan: Plan, by_name: Mapping[str, Outcome]) -> str:
    rows = [
        [
            escape(study.name),
            _command(by_name[study.name].command),
            escape(by_name[study.name].status),
        ]
        for study in plan.studies
    ]
    return (
        '<section id="trainings"><h2>Trainings</h2>'
        + markup.table(["study", "command", "status"], rows, left=3, caption="Trainings")
        + "</section>"
    )


def _command(command: str) -> str:
    """A command; behind a fold where it is long."""
    code = f"<code>{escape(command)}</code>"
    if len(command) < 300:
        return code
    return f"<details><summary>{escape(command[:80])} …</summary>{code}</details>"


def _times(outcomes: Sequence[Outcome]) -> str:
    known = [one for one in outcomes if one.seconds is not None]
    stages = ", ".join(f"{one.title} {clock(one.seconds or 0)}" for one in known)
    total = clock(sum(one.seconds or 0 for one in known))
    return f"{TIMES}Time taken when last run: {total} in all; {escape(stages)}.</p>"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return " to ".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
