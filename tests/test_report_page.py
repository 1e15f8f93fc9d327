"""The page: complete, closed in itself, and safe whatever stands in records."""

import html.parser
import json
import re

import numpy as np
import pytest
from PIL import Image

from experiments import tiles
from experiments.report import claims, compare, markup, page
from experiments.report.plan import Experiment, Plan, Study
from experiments.report.stages import Outcome

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


def made(tmp_path, **changes):
    """A record of Table 1 and one of Figure 20, with their files."""
    pictures = tmp_path / "figures"
    pictures.mkdir(exist_ok=True)
    (pictures / "table1_robustness.md").write_text(
        f"# Table\n\n## {EVIL}\n\n| | top-1 |\n| :-- | --: |\n| *the paper:* x | 1 |\n| y |  |\n"
    )
    tiles.write(np.zeros((2, 8, 8, 3)), pictures / "table1_robustness.png")
    change = {"mean": 1.0, "low": 0.5, "high": 1.5}
    sides = {"top1": {"by_seed": [90.0]}, "robust_accuracy": {"by_seed": [50.0]}}
    record = {
        "settings": {"steps": 10, "workdirs": ["secret"]},
        "versions": {"jax": "1"},
        "device": "cpu",
        "files": ["table1_robustness.png", "table1_robustness.md"],
        "architectures": {
            EVIL: {
                "pairs": [{"seed": 11}, {"seed": 12}],
                "dataset": "textured_shapes",
                "attacks": {"8/255": {"steps": 10, "restarts": 1}},
                "accuracies": {run: {"clean": sides, "8/255": sides} for run in ("std", "adv")},
                "claim": {
                    "clean": {"std_minus_adv": change, "verdict": "holds"},
                    "robust": {"adv_minus_std": change, "verdict": "open"},
                    "claim_1": "open",
                },
            }
        },
    }
    records = {"table1_robustness": record}
    plan = Plan(
        EVIL,
        EVIL,
        [Study("work", "configs/x.py")],
        [Experiment("table1_robustness"), Experiment("table2_variants")],
        [EVIL],
    )
    outcomes = [
        Outcome("work", "training work", "done", changes.get("seconds", 61.0), EVIL),
        Outcome("table1_robustness", "table1", "done", 5.0, "python"),
        Outcome("table2_variants", "table2 variants", "failed", 1.0, "python", f"{EVIL} is wrong."),
    ]
    return page.render(
        plan, claims.decide(records), records, outcomes, figures=pictures, command=EVIL
    )


def test_the_page_is_whole_and_needs_no_other(tmp_path):
    text = made(tmp_path)
    parsed = Parsed(text)
    assert len(set(parsed.ids)) == len(parsed.ids)
    inside = [link for link in parsed.links if link.startswith("#")]
    # Each claim links to its experiment, of those that are in the plan.
    assert {link[1:] for link in inside} - set(parsed.ids) == {
        claim.experiment for claim in claims.decide({})
    } - {"table1_robustness", "table2_variants"}
    beside = [link for link in parsed.links if not link.startswith("#")]
    assert beside == ["figures/table1_robustness.png", "figures/table1_robustness.json"]
    assert all(source.startswith("data:image/png;base64,") for source in parsed.sources)
    assert all(image["alt"] for image in parsed.images)
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(re.findall("<script>", text)) == 1


def test_what_it_says(tmp_path):
    parsed = Parsed(made(tmp_path))
    said = " ".join(parsed.text)
    for part in ("texture std", "0.1", "trainings of the seeds 11, 12", "too narrow", EVIL):
        assert part in said
    # The failed stage and the last lines of its log, at the top and in its section.
    assert said.count(f"{EVIL} is wrong.") == 2
    assert "secret" not in said


def test_time_stands_in_one_line(tmp_path):
    before, after = (made(tmp_path, seconds=seconds).splitlines() for seconds in (61.0, 120.0))
    different = [a for a, b in zip(before, after, strict=True) if a != b]
    assert len(different) == 1
    assert different[0].startswith(page.TIMES)
    assert "training work 1:01" in different[0]


def test_tables_keep_empty_cells_and_mark_what_is_the_papers():
    text = markup.from_markdown(
        "| a | b | c |\n| :-- | :-- | --: |\n| *the paper:* | | 1 |\n| x | **2** | |"
    )
    assert Parsed(text)
    assert text.count("<td") == 4
    assert '<tr class=of-paper><th scope="row"><em>the paper:</em></th><td></td>' in text
    assert '<td class="number"></td>' in text
    assert "<strong>2</strong>" in text


def test_boxes_have_labels_and_all_panels():
    panels = [("one", "<p>1</p>"), ("two", "<p>2</p>")]
    slider = Parsed(compare.box("Blur", "σ", panels, slide=True, start=1))
    (control,) = slider.inputs
    assert (control["type"], control["max"], control["value"]) == ("range", "1", "1")
    assert slider.labelled[0] == control["id"]
    buttons = Parsed(compare.box("Maps", "Method", panels, slide=False))
    assert [control["value"] for control in buttons.inputs] == ["0", "1"]
    assert len({control["name"] for control in buttons.inputs}) == 1
    assert buttons.text.count("one") == 1


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


def test_claims_as_json(tmp_path):
    written = json.loads(json.dumps([claim.as_json() for claim in claims.decide({})]))
    assert [claim["number"] for claim in written] == ["1", "2", "3", "3b", *"45678"]
