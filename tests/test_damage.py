"""Bits that flip and files that are cut, at places that Hypothesis chooses: nothing goes unnoticed.

`jaxrobust.experiments.benchmarks.damage` does the same to whole runs.
"""

import logging
import os

import jax
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from jaxrobust.core import files
from jaxrobust.data import sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.training import checkpoints, study
from tests.test_checkpoints import TRAINING, classifier, write

# Always the same examples; without shrinking those that fail, whose time nothing would bound.
FEW = {
    "derandomize": True,
    "deadline": None,
    "database": None,
    "phases": [Phase.generate],
}
PLACES = st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
KINDS = st.sampled_from([*range(8), "cut"])


class Heard(logging.Handler):
    """What is warned of meanwhile."""

    def __enter__(self):
        self.said = []
        logging.getLogger("jaxrobust").addHandler(self)
        return self

    def emit(self, record):
        self.said.append(record.getMessage())

    def __exit__(self, *_):
        logging.getLogger("jaxrobust").removeHandler(self)


class damaged:
    """A file with one bit flipped, or cut, and its times as before; whole again at the end."""

    def __init__(self, paths, place, kind):
        self.path = paths[int(place[0] * len(paths))]
        self.whole, self.times = self.path.read_bytes(), self.path.stat()
        content, where = bytearray(self.whole), int(place[1] * len(self.whole))
        if kind == "cut":
            del content[where:]
        else:
            content[where] ^= 1 << kind
        self.content = content

    def _write(self, content):
        self.path.write_bytes(content)
        os.utime(self.path, ns=(self.times.st_atime_ns, self.times.st_mtime_ns))

    def __enter__(self):
        self._write(self.content)
        return self.path

    def __exit__(self, *_):
        self._write(self.whole)


def not_empty(folder, pattern="*"):
    paths = [path for path in folder.rglob(pattern) if path.is_file() and path.stat().st_size]
    assert paths
    return sorted(paths)


def refused(read, *arguments):
    """The sentence with which something is refused, if it is."""
    try:
        read(*arguments)
    except ValueError as error:
        return str(error)
    return ""


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, dict(one), dict(other)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write(folder).close()
    return folder


def test_damaged_checkpoints_never_give_other_weights(trained):
    expected = {step: dict(classifier(step).variables) for step in (10, 20)}
    paths = not_empty(trained)

    @settings(max_examples=30, **FEW)
    @given(PLACES, KINDS)
    def check(place, kind):
        with damaged(paths, place, kind) as path, Heard() as heard:
            if path.name == "config.json" and (said := refused(checkpoints.load, trained)):
                assert str(path) in said
                return
            variables = checkpoints.load(trained).variables
            assert same(variables, expected[10 if heard.said else 20]), (path, kind)

    check()


def test_damaged_checkpoints_never_give_another_state(trained, monkeypatch):
    monkeypatch.setattr(checkpoints.Checkpoints, "_set_aside", lambda self, step: None)
    paths = not_empty(trained / "checkpoints" / "20")
    template = dict(classifier().variables)

    @settings(max_examples=15, **FEW)
    @given(PLACES, KINDS)
    def check(place, kind):
        with damaged(paths, place, kind) as path, Heard() as heard:
            store = checkpoints.Checkpoints(trained)
            try:
                step, variables, training, data = store.restore(template, TRAINING)
            finally:
                store.close()
            assert step == (10 if heard.said else 20), (path, kind)
            assert data == {"batches": step}
            assert same(variables, dict(classifier(step).variables))
            assert same(training, TRAINING)

    check()


def test_damaged_state_files_never_say_something_else(trained):
    right = {"right": "0110", "top5": 3}
    files.write_json(trained / study.FINISHED, {"results": {"run": "std", "clean": {"top1": 50.0}}})
    files.write_json(
        trained / "note.json", {"identity": {"jax": "1"}, "outcomes": {"clean": right}}
    )
    lines = [files.json_line({"step": step, "loss": 0.5 * step}) for step in range(5)]
    files.write_lines(trained / "metrics.jsonl", lines)
    reads = {
        "config.json": lambda: checkpoints.read_config(trained),
        study.FINISHED: lambda: study.finished(trained),
        "note.json": lambda: files.read_note(trained / "note.json", identity=dict, outcomes=dict),
        "metrics.jsonl": lambda: files.read_log(trained / "metrics.jsonl", step=int),
    }
    whole = {name: read() for name, read in reads.items()}
    assert None not in whole.values()

    def holds(found, content):  # but for the name of the checksum
        return content.items() <= found.items()

    @settings(max_examples=100, **FEW)
    @given(PLACES, KINDS)
    def check(place, kind):
        with damaged([trained / name for name in reads], place, kind) as path, Heard() as heard:
            found = []
            said = refused(lambda: found.append(reads[path.name]())) or "".join(heard.said)
            found, content = found[0] if found else None, whole[path.name]
            if path.suffix == ".jsonl":
                assert all(any(holds(line, one) for one in content) for line in found)
                # Without its end the last line is half a line, which is what a kill leaves.
                half = kind == "cut" or path.read_bytes()[-1:] != b"\n"
                assert said or half or len(found) == len(content)
            elif found is None:
                assert str(path) in said
            else:
                assert holds(found, content)

    check()


def test_damaged_records_never_are_other_pictures(tmp_path):
    config, dataset = resolve(DatasetConfig("digits", data_dir=str(tmp_path)))

    def read():
        sources._count_records.cache_clear()
        split = sources.open_split(config, dataset, "test")
        return [(record["image"], record["label"]) for record in map(split.__getitem__, range(360))]

    whole = read()
    paths = not_empty(tmp_path, "digits-test*")

    @settings(max_examples=20, **FEW)
    @given(PLACES, KINDS)
    def check(place, kind):
        with damaged(paths, place, kind) as path:
            if said := refused(read):
                assert str(path) in said
                assert "\n" not in said
            else:
                assert read() == whole

    check()
