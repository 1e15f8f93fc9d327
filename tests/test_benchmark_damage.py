import os
from pathlib import Path

import pytest

from jaxrobust.experiments.benchmarks import damage


def test_a_flip_changes_one_bit_and_no_time(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    os.utime(path, ns=(5, 7))
    damage._flip(path, 3, 6)
    assert path.read_bytes() == bytes(3) + b"\x40" + bytes(6)
    assert path.stat().st_mtime_ns == 7


def test_what_is_silently_other_is_the_failure():
    assert damage._judged(1, 1, "") == damage.SAME
    assert damage._judged(1, 1, "said: it is damaged.") == "the same end, and said: it is damaged."
    assert damage._judged(2, 1, "said: it is damaged.") == "said: it is damaged."
    assert damage._judged(2, 1, "") == damage.OTHER
    assert damage._judged(2, 1, f"{damage.RAW}: KeyError: 'a'").startswith(damage.RAW)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("/copy/run/std/seed0/checkpoints/30 of step 30 cannot be read", True),
        ("/copy/run/std/seed0/checkpoints/30/data/metadata must hold", True),
        ("/copy/run/std/seed0/checkpoints/20 of step 20 cannot be read", False),
        ("/copy/run/std/seed0 holds another training", False),
    ],
)
def test_a_sentence_must_name_what_was_struck(text, named):
    path = Path("run/std/seed0/checkpoints/30/data/metadata")
    assert damage._names(text, path) == named


@pytest.mark.parametrize("work", damage.WORKS)
def test_each_kind_of_work_has_a_command(work, tmp_path):
    arguments = damage._command(work, tmp_path / "work", tmp_path)
    assert arguments[0] == "-m"
    assert str(tmp_path / "work") in " ".join(arguments)


@pytest.mark.slow
def test_flips_of_state_files(tmp_path, capsys):
    arguments = ["flips", "--count", "3", "--files", "*.json", "--folder", str(tmp_path / "flips")]
    damage.main(arguments)
    assert capsys.readouterr().out.splitlines()[-1].startswith("   ")


@pytest.mark.slow
def test_kills_of_preparations(tmp_path, capsys):
    damage.main(
        ["kills", "--count", "2", "--works", "preparation", "--folder", str(tmp_path / "k")]
    )
    assert capsys.readouterr().out.splitlines()[-1] == "   2  the same end"
