import json

import matplotlib.image
import numpy as np
import pytest

from jaxrobust.data import catalog, prepare, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.experiments import table3_datasets as table3
from tests import catalog_data

# The table as the paper prints it.
PAPER = """
SVHN [39]	32	10	73,257
CIFAR-10 [28]	32	10	50,000
CIFAR-100 [28]	32	100	50,000
Tiny ImageNet [63]	64	200	100,000
STL-10 [13]	96	10	5,000
Food-101 [5]	≈ 549	101	75,750
Flower-102 [41]	≈ 583	102	1,020
Stanford Dogs [25]	≈ 414	120	12,000
CUB-200 [61]	≈ 426	200	5,994
ImageNet [14]	≈ 460	1,000	1,281,167
"""


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Some data sets of the paper, small, in their own layouts; one of them is damaged."""
    folder = tmp_path_factory.mktemp("tfds")
    for name in ("cifar10", "stanford_dogs", "food101"):
        catalog_data.write(name, folder)
    description = folder / "food101" / "2.0.0" / "dataset_info.json"
    content = json.loads(description.read_text())
    content["splits"][0]["shardLengths"] = ["7"]
    description.write_text(json.dumps(content))
    prepare.prepare("digits", data_dir=str(folder))
    return str(folder)


def run(data_dir, out):
    table3.EXPERIMENT.main(["--data-dir", data_dir, "--out", str(out), "--image-size", "64"])
    return json.loads((out / "table3_datasets.json").read_text())["datasets"]


def rows(text):
    cells = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in cells}


def test_the_papers_figures_stand_beside_ours(data_dir, tmp_path, capsys):
    found = run(data_dir, tmp_path)
    captured = capsys.readouterr()
    table = rows(captured.out)
    for line in PAPER.strip().splitlines():
        title, *figures = line.split("\t")
        assert table[title.partition(" [")[0]][1:6:2] == figures
    assert table["CIFAR-10"] == ["32", "32", "10", "10", "6", "50,000", "5"]
    assert table["SVHN"] == ["—", "32", "—", "10", "—", "73,257", "—"]
    assert table["Digits"] == ["8", "10", "1,437", "360"]
    assert captured.out.index("| Not the paper's |") < captured.out.index("| Digits |")
    assert "## " not in captured.out
    assert "Textured shapes" not in captured.out
    assert (
        (tmp_path / "table3_datasets.md")
        .read_text()
        .endswith(captured.out.partition("\n\nWrote")[0] + "\n")
    )

    # The mean side, of pictures that were decoded to their last pixel.
    config, dataset = resolve(DatasetConfig("stanford_dogs", data_dir=data_dir))
    records = sources.find_builder(config, dataset).as_data_source("test")
    sides = np.array([record["image"].shape[:2] for record in records])
    assert found["stanford_dogs"]["found"]["pixels"] == pytest.approx(sides.mean(), rel=1e-12)
    assert table["Stanford Dogs"][0] == f"≈ {sides.mean():.0f}"


def test_differences_and_what_is_missing_are_named(data_dir, tmp_path, capsys):
    run(data_dir, tmp_path)
    out = capsys.readouterr().out
    assert "- CIFAR-10 has 6 training images where the paper has 50,000." in out
    assert "- CIFAR-10 has 5 evaluation images where the catalogue has 10,000." in out
    assert "Digits has" not in out
    assert "- Food-101: food101 in " in out
    assert "holds 6 records in 'train' where its description states 7" in out
    place = f"--data_dir={data_dir}"
    assert f"- CIFAR-100: python -m jaxrobust.data.prepare cifar100 {place}\n" in out
    assert "- Tiny ImageNet: place tiny-imagenet-200.zip from http://cs231n.stanford.edu/" in out
    assert f"then python -m jaxrobust.data.prepare tiny_imagenet {place}\n" in out


def test_the_sheet_shows_what_was_found(data_dir, tmp_path):
    run(data_dir, tmp_path)
    assert matplotlib.image.imread(tmp_path / "table3_datasets.png").ndim == 3
    picture, caption = table3.example("digits", data_dir, 8)
    config, dataset = resolve(DatasetConfig("digits", data_dir=data_dir))
    first = sources.find_builder(config, dataset).as_data_source("test")[0]["image"]
    assert np.array_equal(picture, first)
    assert caption == "Digits\nfrom 8 × 8"


def test_where_nothing_is_prepared_nothing_is_drawn(tmp_path, capsys):
    out = tmp_path / "out"
    found = run(str(tmp_path / "nowhere"), out)
    assert list(found) == list(catalog.PAPER)
    assert all("prepare" in one for one in found.values())
    assert sorted(path.name for path in out.iterdir()) == [
        "table3_datasets.json",
        "table3_datasets.md",
    ]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("name", "change", "differing"),
    [
        ("imagenet2012", {"pixels": 460 * 1.019}, None),
        ("imagenet2012", {"pixels": 460 * 1.021}, "≈ 470 pixels where the paper has ≈ 460"),
        ("cifar10", {"pixels": 32.5}, "32.5 pixels where the paper has 32"),
        ("food101", {"classes": 100}, "100 classes where the paper has 101"),
        ("digits", {"train": 7}, "7 training images where the catalogue has 1,437"),
    ],
)
def test_small_differences_of_means_alone_are_allowed(name, change, differing):
    dataset = catalog.get(name)
    found = {
        "pixels": dataset.native_size or table3.PAPER[name][0],
        "classes": dataset.num_classes,
        "train": dataset.train_examples,
        "evaluation": dataset.evaluation_examples,
    }
    assert table3.differences(name, found) == []
    said = table3.differences(name, found | change)
    assert said == ([] if differing is None else [f"{dataset.title} has {differing}."])


def test_unreadable_headers_are_named(data_dir, monkeypatch):
    opened = sources.open_split

    def damaged(config, dataset, split):
        found = opened(config, dataset, split)
        records = [{"image": b"GIF", "label": 0}] * len(found)
        return type(found)(**{**vars(found), "records": records})

    monkeypatch.setattr(sources, "open_split", damaged)
    said = table3.measure("cifar10", data_dir)["error"]
    assert said == "Cannot read the size of image 0 of cifar10 test."
