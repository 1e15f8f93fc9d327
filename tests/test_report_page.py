"""The page: complete, closed in itself, and safe whatever stands in records."""

import html.parser
import re

import numpy as np
import pytest
from PIL import Image

from jaxrobust.experiments import claims, page, plan, render, tiles
from jaxrobust.experiments.experiment import Experiment
from jaxrobust.experiments.result import (
    Box,
    Change,
    Claim,
    Code,
    Decision,
    Figure,
    Measure,
    Notes,
    Number,
    Panel,
    Result,
    Spread,
    Strip,
    Table,
    Text,
    Verdict,
    as_json,
)
from jaxrobust.experiments.runner import Outcome

VOID = {"meta", "img", "input", "hr", "br", "link"}
EVIL = '<script>alert("&")</script>'


class Parsed(html.parser.HTMLParser):
    """What a browser would see: balanced tags, identifiers, links, sources."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.text = [], [], [], [], []
        self.images, self.labelled, self.inputs = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert len(found) == len(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if "href" in found:
            self.links.append(found["href"])
        if "src" in found:
            self.sources.append(found["src"])
        if tag == "img":
            self.images.append(found)
        if tag == "label":
            self.labelled.append(found.get("for"))
        if tag == "input":
            self.inputs.append(found)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


EXPERIMENT = Experiment(
    name="figure99",
    title=f"Figure 99 {EVIL}",
    short=EVIL,
    run=lambda arguments: Result({}),
    document=None,
    paper=EVIL,
    claims=[Claim("1", EVIL, EVIL, (EVIL, EVIL, EVIL))],
)
MEASURE = Measure(EVIL, Spread([1.0, 2.0]), EVIL, Change({"mean": 1, "low": 0, "high": 2}), "holds")
STRIP = Strip("tiles.png", EVIL, EVIL, "std")
PARTS = [
    Text(EVIL),
    Notes([EVIL, "plain"]),
    Table(
        ["", EVIL, "command"],
        [[EVIL, Number(0.5, 2), Code(EVIL)], ["row", Verdict("holds"), ""]],
        paper=[["network", Number(58.28, 2, 0.18), Code("long " * 100)]],
        caption=EVIL,
    ),
    Figure("figure.png", EVIL),
    Box(EVIL, EVIL, [Panel(EVIL, [STRIP]), Panel("two", [], {"std": 12.34, "adv": 50.0})], STRIP),
    Box("Blur", EVIL, [Panel("0", []), Panel("1", [])], slide=True, start=1),
]


def made(tmp_path, parts=PARTS, *, name="textured_shapes/shape32", seeds=(11, 12), seconds=61.0):
    """A page with one experiment that is done, one that has failed and one that was not run."""
    pictures = tmp_path / "figures"
    tiles.write(np.zeros((2, 8, 8, 3)), pictures / "tiles.png")
    Image.new("RGB", (901, 10)).save(pictures / "figure.png")
    record = {
        "settings": {"steps": 10, "workdirs": ["secret"], "out": "secret", "tiles": True},
        "versions": {"jax": "1"},
        "device": "cpu",
        "files": ["figure.png", "tiles.png"],
        "architectures": {EVIL: {"pairs": [{"seed": seed} for seed in seeds], "dataset": name}},
        "shown": {
            "findings": {
                EVIL: as_json({"parts": parts, "claims": {"1": Decision("open", [MEASURE])}})
            },
            "parts": as_json([Figure("figure.png", "all"), Text("at the end")]),
        },
    }
    records = {"figure99": record}
    chosen = plan.Plan(
        EVIL,
        EVIL,
        [plan.Study("work", "configs/x.py")],
        [plan.Experiment(name) for name in ("figure99", "figure98", "figure97")],
        [EVIL],
    )
    outcomes = [
        Outcome("work", "training work", "done", seconds, EVIL),
        Outcome("figure99", "figure99", "done", 5.0, EVIL),
        Outcome("figure98", "figure98", "failed", 1.0, "python", f"{EVIL} is wrong."),
        Outcome("figure97", "figure97", "missing", None, "python", f"{EVIL} is missing"),
    ]
    experiments = {"figure99": EXPERIMENT}
    return page.as_html(
        chosen,
        experiments,
        claims.gather(experiments, records),
        records,
        outcomes,
        figures=pictures,
        command=EVIL,
    )


def said(text):
    return " ".join(" ".join(Parsed(text).text).split())


def test_the_page_is_whole_and_needs_no_other(tmp_path):
    text = made(tmp_path)
    parsed = Parsed(text)
    assert len(set(parsed.ids)) == len(parsed.ids)
    inside = {link[1:] for link in parsed.links if link.startswith("#")}
    assert inside <= set(parsed.ids)
    assert {"claims", "evidence", "figure99", "figure98", "trainings", "claim-1"} <= inside
    beside = {link for link in parsed.links if not link.startswith("#")}
    assert beside == {"figures/figure.png", "figures/figure99.json"}
    assert len(parsed.sources) == 4
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert all(image["alt"] for image in parsed.images)
    assert [image.get("class") for image in parsed.images] == ["wide", "tiles", "tiles", "wide"]
    assert not re.search(r"https?://|@import|url\(", text)


def test_whatever_stands_in_records_is_text(tmp_path):
    text = made(tmp_path)
    # The page's own, as it stands in its file; all others are escaped.
    assert text.count("<script>") == 1
    script = (render.TEMPLATES / "page.js").read_text().strip()
    assert f"<script>\n{script}" in text
    # Title, heading, summary, … : what was meant to be read can be read.
    assert said(text).count('alert("&")') > 20


def test_what_it_says(tmp_path):
    text = said(made(tmp_path))
    for part in (
        *("texture std 0.1", "trainings of the seeds 11, 12", "too narrow", "jax 1, on cpu"),
        *("The trainings shown here have other seeds", "how photographs behave"),
        *("the paper: network 58.28 ± 0.18", "STD 12.3 % ADV 50.0 %", "steps 10", "at the end"),
    ):
        assert part in text
    # The failed stage and the last lines of its log, at the top and in its section.
    assert text.count(f"{EVIL} is wrong.") == 2
    assert text.index(f"{EVIL} is wrong.") < text.index("What the paper claims")
    assert text.count(f"{EVIL} is missing") == 2
    assert "secret" not in text


def test_the_evidence_is_that_of_these_trainings(tmp_path):
    text = said(made(tmp_path, seeds=(3, 12)))
    assert "those of the seeds 3 were used in choosing" in text
    assert "texture std" not in said(made(tmp_path, name="imagenet2012"))
    assert "too narrow" not in said(made(tmp_path, seeds=range(11, 17)))


def test_time_stands_in_one_line(tmp_path):
    before, after = (made(tmp_path, seconds=seconds).splitlines() for seconds in (61.0, 120.0))
    different = [a for a, b in zip(before, after, strict=True) if a != b]
    assert len(different) == 1
    assert different[0].startswith('<p id="times">Time taken when last run: 1:07 in all; training')


def test_tables_keep_empty_cells_and_mark_what_is_the_papers(tmp_path):
    table = Table(["a", "b", "c"], [["x", Verdict("does not hold"), ""]], paper=[["y", "", "1"]])
    text = made(tmp_path, [table]).replace("\n", "")
    verdict = '<span class="verdict does-not-hold">does not hold</span>'
    assert f'<td class="number">{verdict}</td><td class="number"></td></tr>' in text
    # What is open for a reason looks like what is open.
    reasons = Table(["a", "b"], [["x", Verdict("open: stride")], ["y", Verdict("not applicable")]])
    shown = made(tmp_path, [reasons])
    assert '<span class="verdict open">open: stride</span>' in shown
    assert '<span class="verdict not-applicable">not applicable</span>' in shown
    assert ".not-applicable {" in shown
    paper = '<tr class="of-paper"><th scope="row"><em>the paper:</em> y</th>'
    assert f'{paper}<td class="number"></td><td class="number">1</td></tr>' in text
    two = made(tmp_path, [Table(["a", "b", "c"], [["x", "y", "z"]], left=2)])
    assert '<td>y</td><td class="number">z</td>' in two.replace("\n", "")


def test_folded_figures_stand_together_behind_a_summary_and_tables_behind_their_caption(tmp_path):
    folded = Figure("figure.png", "folded away", folded=True)
    table = Table(["a"], [["b"]], caption="many figures", folded=True)
    text = made(tmp_path, [folded, table, Text("between"), folded])
    text = text[text.index("<details><summary>many figures</summary>") :]
    assert text.count("<summary>As on paper</summary>") == 1
    assert text.index("between") < text.index("As on paper") < text.index("folded away")
    assert text.count("<figcaption>folded away") == 2


def test_boxes_have_labels_and_all_panels(tmp_path):
    panels = [Panel("one", [STRIP]), Panel("two", [STRIP])]
    slider = Parsed(made(tmp_path, [Box("Blur", "σ", panels, slide=True, start=1)]))
    (control,) = slider.inputs
    assert (control["type"], control["max"], control["value"]) == ("range", "1", "1")
    assert control["id"] in slider.labelled
    buttons = Parsed(made(tmp_path, [Box("A", "Method", panels), Box("B", "Method", panels)]))
    assert [control["value"] for control in buttons.inputs] == ["0", "1", "0", "1"]
    assert ["checked" in control for control in buttons.inputs] == [True, False] * 2
    assert len({control["name"] for control in buttons.inputs}) == 2
    assert buttons.text.count("one") == 2  # on the buttons
    assert len(buttons.images) == 4 + 1


@pytest.mark.parametrize("where", ["page", "markdown"])
def test_a_part_of_an_unknown_kind_is_named(tmp_path, where):
    parts = [{"kind": "Hologram"}]
    shown = {"findings": {"A": {"parts": parts, "claims": {}}}, "parts": []}
    with pytest.raises(ValueError, match=r"kind of experiments/result\.py, got 'Hologram'"):
        made(tmp_path, parts) if where == "page" else render.markdown(EXPERIMENT, shown)
    with pytest.raises(ValueError, match=r"A cell must be .* got 'Hologram'"):
        render.cell_text(parts[0])


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_of_pictures_are_the_pictures(tmp_path, channels):
    images = np.random.default_rng(0).uniform(size=(3, 32, 32, channels)).astype(np.float32)
    name = tiles.write(images, tmp_path / "row.png")
    with Image.open(tmp_path / name) as picture:
        row = np.asarray(picture)
    assert row.shape == (32, 3 * 32 + 2 * 2, 4)
    np.testing.assert_array_equal(
        row[:, 34:66, :3], np.broadcast_to(np.rint(255 * images[1]), (32, 32, 3))
    )
    assert (row[:, 32:34, 3] == 0).all()
    tiles.write(np.zeros((2, 320, 640, channels)), tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as picture:
        assert picture.size == (2 * 320 + 10, 160)
