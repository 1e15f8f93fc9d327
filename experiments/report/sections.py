"""A section of the page for each experiment: what the paper shows, and what was found here."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from experiments import sensitivity, statistics
from experiments.figure2_sensitivity_maps import CLAIMED, MEASURES
from experiments.report import compare, markup
from experiments.report.stages import Outcome
from experiments.trained import slug

Build = Callable[[str, Mapping[str, Any], Path], str]
_MEASURES = {
    **MEASURES,
    "chroma_energy": "colour energy above half Nyquist",
    "chroma_share": "share of it in the colour energy",
    "l2_norm": "mean l2 norm",
    "nyquist_corner_share": "energy at the Nyquist corner",
}
_FORMS = {"raw": "filters as they are", "folded": "BatchNorm folded in"}


@dataclass(frozen=True)
class Section:
    """One experiment on the page.

    Attributes:
      experiment: its module.
      short: for the navigation.
      title: of the section.
      paper: what the paper shows or says; empty where it says nothing.
      build: HTML of one architecture, besides figures and Markdown.
      in_boxes: how the names of the figures end that the boxes show piece by piece; None: of none.
    """

    experiment: str
    short: str
    title: str
    paper: str = ""
    build: Build | None = None
    in_boxes: str | None = None


def render(
    section: Section, record: Mapping[str, Any] | None, outcome: Outcome, folder: Path
) -> str:
    """The HTML of a section; of an experiment that is not done, why."""
    parts = [f'<section id="{section.experiment}"><h2>{escape(section.title)}</h2>']
    if section.paper:
        parts.append(f'<p class="paper-says">The paper: {escape(section.paper)}</p>')
    if record is None:
        parts.append(not_done(outcome))
    else:
        for title, found in record.get("architectures", {}).items():
            if section.build is not None:
                parts.append(section.build(title, found, folder))
        names = [name for name in record["files"] if "_tiles_" not in name]
        for name in names:
            if name.endswith(".md"):
                parts.append(markup.from_markdown((folder / name).read_text(encoding="utf-8")))
        shown, folded = [], []
        boxes = section.in_boxes is not None and len(names) < len(record["files"])
        for name in names:
            if name.endswith(".png"):
                figure = markup.figure(folder / name, _caption(section, name, record))
                fold = boxes and name.endswith(section.in_boxes or "")
                (folded if fold else shown).append(figure)
        parts += shown
        if folded:
            parts.append(f"<details><summary>As on paper</summary>{''.join(folded)}</details>")
        parts.append(settings(record, outcome))
    return "\n".join([*parts, "</section>\n"])


def not_done(outcome: Outcome) -> str:
    """Why a stage is not done."""
    if outcome.status == "failed":
        return (
            f'<div class="failed"><p><strong>{escape(outcome.title)} failed.</strong> The last '
            f"lines of its log:</p><pre>{escape(outcome.reason)}</pre></div>"
        )
    return f'<div class="failed"><p>{escape(outcome.title)}: {escape(outcome.reason)}.</p></div>'


def settings(record: Mapping[str, Any], outcome: Outcome) -> str:
    """How the figures of a section were made."""
    seeds = {
        title: ", ".join(str(pair["seed"]) for pair in found["pairs"])
        for title, found in record.get("architectures", {}).items()
        if "pairs" in found
    }
    lines = [f"{name} {version}" for name, version in record["versions"].items()]
    rows = [["command", f"<code>{escape(outcome.command)}</code>"]]
    rows += [[escape(f"seeds, {title}"), escape(of)] for title, of in seeds.items()]
    rows += [["made with", escape(", ".join([*lines, f"on {record['device']}"]))]]
    rows += [
        [escape(name.replace("_", " ")), f"<code>{escape(json.dumps(value))}</code>"]
        for name, value in record["settings"].items()
        if name not in ("workdirs", "out", "tiles")
    ]
    name = f"figures/{outcome.name}.json"
    return (
        f"<details><summary>Settings and seeds</summary>"
        f"{markup.table(['', ''], rows, left=2, caption='Settings')}"
        f'<p><a href="{escape(name)}">All figures as JSON</a></p></details>'
    )


def _caption(section: Section, name: str, record: Mapping[str, Any]) -> str:
    """What a figure shows, from its name."""
    rest = name.removeprefix(section.experiment).removesuffix(".png").strip("_")
    for title in record.get("architectures", {}):
        if rest.startswith(slug(title)):
            rest = f"{title} {rest.removeprefix(slug(title)).strip('_')}"
            break
    words = rest.replace("_", " ").strip()
    return f"{section.title} – {words}" if words else section.title


def _difference(change: Mapping[str, Any], digits: int = 3) -> str:
    return escape(statistics.as_text(dict(change), digits=digits))


def _maps(title: str, found: Mapping[str, Any], folder: Path) -> str:
    rows = []
    for name, method in found["methods"].items():
        for measure, one in method["measures"].items():
            decided = one["difference"].get("verdict")
            rows.append(
                [
                    escape(sensitivity.method_title(name)),
                    escape(_MEASURES[measure]),
                    markup.number(one["std"]),
                    markup.number(one["adv"]),
                    _difference(one["difference"]),
                    markup.verdict(decided) if decided and name in CLAIMED else "",
                ]
            )
    caption = escape(f"{title}, {found['images']} pictures, {len(found['pairs'])} seeds")
    return compare.maps(title, found, folder) + markup.table(
        ["method", "measure", "STD", "ADV", "ADV − STD [95 %]", "claim 2"],
        rows,
        left=2,
        caption=caption,
    )


def _layers(title: str, found: Mapping[str, Any], folder: Path) -> str:
    parts = [compare.depth(title, found, folder)]
    for style, of_style in found["styles"].items():
        layers = {f"conv {n}": one["differences"] for n, one in of_style["layers"].items()}
        layers["deepest third"] = of_style["deepest_third"]["differences"]
        rows = [
            [
                name,
                escape(_MEASURES[measure]),
                markup.number(change["std"], 4),
                markup.number(change["adv"], 4),
                _difference(change, 4),
                markup.verdict(change["adv_smaller"]),
            ]
            for name, differences in layers.items()
            for measure, change in differences.items()
        ]
        caption = escape(f"{title}, {compare.STYLES[style]}, {len(found['pairs'])} seeds")
        header = ["layer", "measure", "STD", "ADV", "ADV − STD [95 %]", "smaller"]
        body = markup.table(header, rows, left=2, caption=caption)
        parts.append(f"<details><summary>Figures, {caption}</summary>{body}</details>")
    return "".join(parts)


def _first_layer(title: str, found: Mapping[str, Any], folder: Path) -> str:
    rows = [
        [
            escape(_FORMS[form]),
            escape(_MEASURES[measure]),
            markup.number(change["std"]),
            markup.number(change["adv"]),
            _difference(change),
        ]
        for form, one in found["forms"].items()
        for measure, change in one["differences"].items()
    ]
    caption = escape(f"{title}, {found['filters'][0]} filters, {len(found['pairs'])} seeds")
    header = ["", "measure", "STD", "ADV", "ADV − STD [95 %]"]
    return markup.table(header, rows, left=2, caption=caption)


def _sanity(title: str, found: Mapping[str, Any], folder: Path) -> str:
    names = sensitivity.RUNS
    pairs = [f"{a}-{b}" for a, b in (("random", "std"), ("random", "adv"), ("std", "adv"))]
    rows = []
    for method, one in found["methods"].items():
        for similarity, measured in one["similarities"].items():
            seeds = measured["between_seeds"] or {}
            main = similarity == sensitivity.MAIN_SIMILARITIES[0]
            rows.append(
                [
                    escape(sensitivity.method_title(method)),
                    escape(sensitivity.SIMILARITY_TITLES[similarity]),
                    *(markup.number(measured["between_settings"][pair]["mean"]) for pair in pairs),
                    *(markup.number(seeds[run]["mean"] if seeds else None) for run in names),
                    markup.verdict(one["claim_8"]) if main and method == "guided_backprop" else "",
                ]
            )
    header = ["method", "similarity"]
    header += [" – ".join(names[run] for run in pair.split("-")) for pair in pairs]
    header += [f"{name}, two seeds" for name in names.values()]
    caption = escape(f"{title}, {found['images']} pictures, {len(found['pairs'])} seeds")
    return markup.table([*header, "claim 8"], rows, left=2, caption=caption)


SECTIONS: Sequence[Section] = (
    Section(
        "cue_conflict",
        "Shape or texture",
        "Silhouette against texture: which one decides?",
        "adversarially robust models pay less attention to fine textures. (How often each follows "
        "which cue is counted in Table 2, below.)",
    ),
    Section(
        "table1_robustness",
        "Table 1",
        "Table 1: accuracy, clean and attacked",
        "adversarial training costs 4 to 8 points of clean accuracy on ImageNet; of what is right "
        "when clean it defends 46 to 81 per cent, standard training 0 to 2.",
    ),
    Section(
        "figure2_sensitivity_maps",
        "Figure 2",
        "Figures 2, 13, 14: sensitivity maps",
        "maps of ADV follow the outlines of objects; those of STD look like noise.",
        _maps,
        in_boxes="",
    ),
    Section(
        "figure3_layer_visualization",
        "Figure 3",
        "Figures 3 and 15 to 19: what filters look for, by depth",
        "in deep layers ADV looks for larger, less cluttered structure than STD.",
        _layers,
        in_boxes="",
    ),
    Section(
        "figure4_first_layer",
        "Figure 4",
        "Figure 4: filters of the first layer",
        "filters of ADV are smaller, and some show grids or checkerboards.",
        _first_layer,
    ),
    Section(
        "figure6_smoothing",
        "Figure 6",
        "Figures 5 and 6: accuracy on smoothed pictures",
        "Gaussian blur hurts STD and ADV alike; after median filters ADV is ahead.",
        compare.smoothing,
        in_boxes="_pictures.png",
    ),
    Section(
        "table2_variants",
        "Table 2",
        "Table 2: reversed colours and other textures",
        "both lose by reversed colours; on stylised pictures ADV is ahead of STD.",
    ),
    Section(
        "figure20_variants",
        "Figure 20",
        "Figures 20 to 22: the pictures of all variants",
        "examples of the pictures that were shown to the networks.",
    ),
    Section(
        "figure7_late_fusion",
        "Figure 7",
        "Figure 7: late fusion",
        "STD and ADV joined are the best or close to it on ten data sets; ADV+ADV is ahead of "
        "STD+STD where resolution is low.",
    ),
    Section(
        "table3_datasets",
        "Table 3",
        "Table 3: the data sets",
        "ten data sets of different resolutions, for late fusion.",
    ),
    Section(
        "figure8_sanity_checks",
        "Figure 8",
        "Figures 8 to 12: do the maps depend on the weights?",
        "maps of random, STD and ADV networks differ, guided backprop's too.",
        _sanity,
    ),
)
