"""Boxes in which one switches between pictures: methods, depths, levels of blur."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from experiments.report import markup
from experiments.sensitivity import method_title
from experiments.trained import slug

RUNS = {"std": "STD", "adv": "ADV"}
STYLES = {"paper": "plain", "regularized": "regularised"}


def box(
    title: str,
    legend: str,
    panels: Sequence[tuple[str, str]],
    *,
    before: str = "",
    slide: bool,
    start: int = 0,
) -> str:
    """One box.

    Args:
      title: its heading.
      legend: what is switched.
      panels: (title, HTML) of each state.
      before: HTML that is always shown.
      slide: a slider instead of buttons.
      start: position of the panel that a slider shows first.
    """
    name = slug(f"{title} {legend}")
    if slide:
        controls = (
            f'<div class="slide"><label for="{name}">{escape(legend)}</label>'
            f'<input type="range" id="{name}" min="0" max="{len(panels) - 1}" value="{start}">'
            f'<output for="{name}">{escape(panels[start][0])}</output></div>'
        )
    else:
        choices = "".join(
            f'<label class="choice"><input type="radio" name="{name}" value="{position}"'
            f"{' checked' if position == 0 else ''}><span>{escape(text)}</span></label>"
            for position, (text, _) in enumerate(panels)
        )
        controls = f"<fieldset><legend>{escape(legend)}</legend>{choices}</fieldset>"
    shown = "".join(
        f'<div class="panel" data-title="{escape(text)}">{html}</div>' for text, html in panels
    )
    return (
        f'<div class="compare"><h3>{escape(title)}</h3>'
        f'<div class="controls" hidden>{controls}</div>{before}{shown}</div>\n'
    )


def strip(path: Path, title: str, alt: str, *, run: str = "") -> str:
    """A row of small pictures under its title."""
    with Image.open(path) as row:
        # As many whole pixels for each of the picture's as come to about ten rem a picture.
        width = row.width * max(1, round(160 / row.height))
    return (
        f'<p class="strip-title {run}">{escape(title)}</p>'
        f'<div class="strip" style="max-width:{width}px">'
        f"{markup.image(path, alt, kind='tiles')}</div>"
    )


def maps(title: str, found: Mapping[str, Any], folder: Path) -> str:
    """Sensitivity maps of STD and ADV, by method; empty without rows of pictures."""
    if "tiles" not in found:
        return ""
    tiles = found["tiles"]
    classes = ", ".join(tiles["classes"])
    panels = []
    for name, runs in tiles["methods"].items():
        measures = found["methods"][name]["measures"]
        rows = []
        for run, text in RUNS.items():
            centroid = markup.number(measures["spectral_centroid"][run])
            values = [f"spectral centroid {centroid} cycles/pixel"]
            if "band_share" in measures:
                values.append(f"along the silhouette {markup.number(measures['band_share'][run])}")
            heading = f"{text}: {', '.join(values)}"
            alt = f"{method_title(name)} of {text} for {classes}"
            rows.append(strip(folder / runs[run], heading, alt, run=run))
        panels.append((method_title(name), "".join(rows)))
    before = strip(folder / tiles["images"], "Pictures", f"Pictures: {classes}")
    return box(f"{title}: maps of STD and ADV", "Method", panels, before=before, slide=False)


def depth(title: str, found: Mapping[str, Any], folder: Path) -> str:
    """Images that maximise filters of STD and ADV, by depth."""
    boxes = []
    for style, of_style in found["styles"].items():
        panels = []
        for number, layer in of_style["layers"].items():
            if "tiles" not in layer:
                return ""
            centroid = layer["differences"]["spectral_centroid"]
            rows = [
                strip(
                    folder / layer["tiles"][run],
                    f"{text}: spectral centroid {markup.number(centroid[run])} cycles/pixel",
                    f"Images that maximise filters of conv {number} of {text}",
                    run=run,
                )
                for run, text in RUNS.items()
            ]
            panels.append((f"conv {number}", "".join(rows)))
        heading = f"{title}: what filters look for, {STYLES[style]}"
        boxes.append(box(heading, "Depth", panels, slide=True, start=len(panels) - 1))
    return "".join(boxes)


def smoothing(title: str, found: Mapping[str, Any], folder: Path) -> str:
    """Pictures under blur and median filter, with the accuracies at that level."""
    boxes = []
    for kind, key, legend, unit in (
        ("blur", "sigma", "Gaussian blur", "σ = {:g}"),
        ("median", "times", "Median filter", "{:g} times"),
    ):
        panels = []
        for level in found[kind]["levels"]:
            if "tiles" not in level:
                return ""
            text = unit.format(level[key])
            picture = strip(folder / level["tiles"], "Pictures", f"{legend}, {text}")
            panels.append((text, picture + _bars(level)))
        boxes.append(box(f"{title}: {legend}", legend, panels, slide=True))
    return "".join(boxes)


def _bars(level: Mapping[str, Any]) -> str:
    rows = []
    for run, text in RUNS.items():
        mean = level[run]["mean"]
        rows.append(
            f'<span class="{run}">{text}</span><span class="track"><span class="fill {run}" '
            f'style="width:{mean:.1f}%"></span></span><span>{mean:.1f} %</span>'
        )
    title = '<p class="strip-title">Top-1 accuracy, mean over seeds</p>'
    return f'{title}<div class="bars">{"".join(rows)}</div>'
