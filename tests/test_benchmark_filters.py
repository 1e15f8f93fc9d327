"""The filters' benchmark: it measures every round, and only filters that agree with OpenCV's."""

import json

import numpy as np
import pytest

from jaxrobust import filters
from jaxrobust.experiments.benchmarks import filters as benchmark_filters

SMALL = ["--images=3", "--image_size=9", "--times=2", "--rounds=3"]


def test_the_file_holds_every_round(tmp_path, capsys):
    out = tmp_path / "filters.json"
    benchmark_filters.main([*SMALL, "--batch_size=2", f"--out={out}"])
    record = json.loads(out.read_text())
    assert record["settings"]["batch_size"] == 2
    assert {"opencv", "jax"} <= set(record["versions"])
    assert record["hardware"]["opencv_threads"] >= 1
    assert set(record["results"]) == {"median_filter", "gaussian_blur"}
    for both in record["results"].values():
        ours, theirs = (np.array(both[name]["seconds"]) for name in ("jaxrobust", "OpenCV"))
        assert ours.shape == theirs.shape == (3,)
        assert both["ratio"]["median"] == pytest.approx(np.median(ours / theirs))
    assert record["results"]["median_filter"]["difference"] == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["jaxrobust", *record["results"]]


def test_a_filter_that_differs_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setitem(filters.FILTERS, "median_filter", lambda images, **options: images)
    with pytest.raises(SystemExit, match="median_filter and OpenCV's must be at most 0 apart"):
        benchmark_filters.main([*SMALL, f"--out={tmp_path / 'filters.json'}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "flag", ["--images=0", "--kernel_size=7", "--rounds=x", "--out=no/such/folder/filters.json"]
)
def test_bad_flags(flag, capsys):
    with pytest.raises(SystemExit):
        benchmark_filters.main([flag])
    assert flag.split("=")[0] in capsys.readouterr().err
