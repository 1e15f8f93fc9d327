"""Bits that flip and files that are cut, at places that Hypothesis chooses: nothing goes unnoticed.

`experiments.benchmarks.damage` does the same to whole runs.
"""

import functools
import logging
import os

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrobust.core import files
from jaxrobust.data import sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.training import checkpoints, study
from tests import tiny
from tests.test_checkpoints import TRAINING, classifier, write

FEW = {"derandomize": True, "deadline": None, "database": None}
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


def same(one, other):
    one, other = (jax.tree.leaves(dict(tree)) for tree in (one, other))
    return all(map(np.array_equal, one, other, strict=True)) if len(one) == len(other) else False


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write(folder).close()
    return folder


def test_damaged_checkpoints_never_give_other_weights(trained):
    expected = {step: dict(classifier(step).variables) for step in (10, 20)}
    paths = not_empty(trained)

    @settings(max_examples=50, **FEW)
    @given(PLACES, KINDS)
    def check(place, kind):
        with damaged(paths, place, kind) as path, Heard() as heard:
            try:
                variables = checkpoints.load(trained).variables
            except ValueError as error:
                assert path.name == "config.json"
                assert str(path) in str(error)
                return
            assert same(variables, expected[10 if heard.said else 20]), (path, kind)

    check()


def test_damaged_checkpoints_never_give_another_state(trained, monkeypatch):
    monkeypatch.setattr(checkpoints.Checkpoints, "_set_aside", lambda self, step: None)
    paths = not_empty(trained / "checkpoints" / "20")
    template = dict(classifier().variables)

    @settings(max_examples=25, **FEW)
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


def test_damaged_state_files_never_say_something_else(data_dir, tmp_path):
    study.run(tiny.config(data_dir, steps=2), tmp_path)
    folder = tmp_path / "std" / "seed0"
    reads = {
        folder / "config.json": checkpoints.read_config,
        folder / study.FINISHED: study.finished,
        folder / "metrics.jsonl": lambda folder: files.read_log(folder / "metrics.jsonl", step=int),
    }
    for path in (folder / "outcomes").glob("*.json"):
        reads[path] = lambda _, path=path: files.read_note(path, identity=dict, outcomes=dict)
    whole = {path: read(folder) for path, read in reads.items()}
    assert None not in whole.values()

    @settings(max_examples=200, **FEW)
    @given(PLACES, KINDS)
    def check(place, kind):
        with damaged(sorted(reads), place, kind) as path, Heard() as heard:
            try:
                found = reads[path](folder)
            except ValueError as error:
                heard.said.append(str(error))
                found = None
            if path.suffix == ".jsonl":
                assert all(line in whole[path] for line in found)
                # A cut leaves half a line, as a kill does, which is nothing to speak of.
                assert heard.said or kind == "cut" or found == whole[path]
            elif found is None:
                assert str(path) in heard.said[0]
            else:  # but for the name of the checksum
                assert whole[path].items() <= found.items()

    check()


def test_damaged_records_never_are_other_pictures(tmp_path):
    config, dataset = resolve(DatasetConfig("digits", data_dir=str(tmp_path)))

    def read():
        sources._count_records.cache_clear()
        split = sources.open_split(config, dataset, "test")
        return [(record["image"], record["label"]) for record in map(split.__getitem__, range(360))]

    whole = read()
    paths = not_empty(tmp_path, "digits-test*")

    @settings(max_examples=30, **FEW)
    @given(PLACES, KINDS)
    def check(place, kind):
        with damaged(paths, place, kind) as path:
            try:
                assert read() == whole
            except ValueError as error:
                assert str(path) in str(error)
                assert "\n" not in str(error)

    check()


def test_every_flip_of_a_note_is_noticed_by_its_checksum(tmp_path):
    path = tmp_path / "note.json"
    files.write_json(path, {"right": "0101", "n": 4})
    read = functools.partial(files.read_note, path, right=str)
    for place in range(len(path.read_bytes())):
        for kind in range(8):
            where = (0.0, (place + 0.5) / len(path.read_bytes()))
            with damaged([path], where, kind):
                found = read()
            assert found is None or found["right"] == "0101"
