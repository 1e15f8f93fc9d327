"""The benchmark of AutoAttack: what it compares, that it goes on, and that it needs its peers."""

import json
import sys

import numpy as np
import pytest

from jaxrobust.experiments.benchmarks import autoattack
from jaxrobust.experiments.benchmarks.autoattack import OURS, THEIRS, WHOLE
from tests.test_figure2_sensitivity_maps import write_workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, data_dir):
    return write_workdir(tmp_path_factory.mktemp("work"), data_dir, seeds=(0,))


def test_the_file_holds_every_verdict_and_nothing_is_measured_twice(
    workdir, tmp_path, monkeypatch, capsys
):
    asked = []

    def weaker(subject, norm, epsilon, batch_size):
        """As if another library left every second picture that is right."""

        def attack(part, seed):
            asked.append((part, seed))
            right = np.asarray(subject.classifier(subject.images)).argmax(-1) == subject.labels
            stands = right & (np.arange(len(right)) % 2 == seed % 2)
            return {"robust": "".join("01"[int(one)] for one in stands), "seconds": 2.0}

        return attack

    monkeypatch.setattr(autoattack, "theirs", weaker)
    out = tmp_path / "record.json"

    def measured(*parts):
        flags = [f"--workdir={workdir}", "--run=adv", "--pictures=12", "--epsilon=0.2"]
        autoattack.main([*flags, "--seeds=2", f"--out={out}", "--parts", *parts])
        return json.loads(out.read_text())

    record = measured("apgd-ce")
    assert asked == [("apgd-ce", 0), ("apgd-ce", 1)]
    ((title, found),) = record["results"].items()
    assert "ADV" in title
    one = found["apgd-ce"][OURS]["0"]
    assert len(one["robust"]) == 12
    assert one["broken_by"]["clean"] + one["broken_by"]["apgd-ce"] == one["robust"].count("0")
    assert one["programs"] > 0
    assert set(found["apgd-ce"][THEIRS]) == {"0", "1"}
    shown = capsys.readouterr().out.splitlines()
    share = 100 * one["robust"].count("1") / 12
    assert shown[2].split()[:2] == ["apgd-ce", f"{share:.1f}"]

    again = measured("apgd-ce", "fab-t")
    assert asked[2:] == [("fab-t", 0)]  # in which nothing is random
    assert again["results"][title]["apgd-ce"] == found["apgd-ce"]
    assert WHOLE not in again["results"][title]


def test_what_is_missing_is_one_sentence(workdir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    flags = ["--pictures=12", f"--out={tmp_path / 'record.json'}"]
    with pytest.raises(SystemExit, match="PyTorch and pyautoattack are needed to compare with"):
        autoattack.main([f"--workdir={workdir}", *flags])


def test_it_explains_itself(capsys):
    with pytest.raises(SystemExit) as ended:
        autoattack.main(["--help"])
    assert ended.value.code == 0
    assert "--pictures" in capsys.readouterr().out
