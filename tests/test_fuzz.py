"""Damaged files of weights and pictures: they load as they were, or a sentence names them."""

import io
import resource
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxrobust.data import decode
from jaxrobust.torch_weights import state_dicts
from tests import torch_states
from tests.torch_writer import LegacyWriter, Writer

SHAPES = {"conv1.weight": (4, 3, 3, 3), "bn1.weight": (4,), "fc.weight": (2, 4), "fc.bias": (2,)}
STATE = torch_states.state(SHAPES, {})
PICTURE = np.uint8(torch_states.photographs(1, 24, 32)[0] * 255)

# The same in every run; a limit in milliseconds for each file.
FUZZ = settings(max_examples=100, derandomize=True, database=None, deadline=5000)
MEGABYTES = 300

# Places are shares of a file, in 2 ** 16.
PLACES = st.integers(0, 2**16 - 1)
DAMAGE = st.one_of(
    st.tuples(
        st.just("flip"), st.lists(st.tuples(PLACES, st.integers(1, 255)), min_size=1, max_size=4)
    ),
    st.tuples(st.just("cut"), PLACES),
    st.tuples(st.just("lose"), st.tuples(PLACES, st.integers(1, 40))),
    st.tuples(st.just("insert"), st.tuples(PLACES, st.binary(min_size=1, max_size=9))),
)


def damaged(content, damage):
    kind, how = damage
    changed = bytearray(content)

    def at(place):
        return place * len(content) >> 16

    if kind == "flip":
        for place, bits in how:
            changed[at(place)] ^= bits
    elif kind == "cut":
        del changed[at(how) :]
    elif kind == "lose":
        del changed[at(how[0]) : at(how[0]) + how[1]]
    else:
        changed[at(how[0]) : at(how[0])] = how[1]
    return bytes(changed)


def weights(form, path):
    """A checkpoint as training libraries write it."""
    if form == "safetensors":
        safetensors.numpy.save_file(STATE, path, metadata={"mean": "[0.5, 0.5, 0.5]"})
        return path.read_bytes()
    writer = {"zip": Writer, "legacy": LegacyWriter}[form]()
    tensors = {name: writer.tensor(array) for name, array in STATE.items()}
    getattr(writer, form)(path, {"state_dict": tensors, "epoch": 3, "classes": {("a", 1): "b"}})
    return path.read_bytes()


def outcome(read, name):
    """What was read; or None, after a sentence with the file's name."""
    try:
        return read()
    except (ValueError, OSError) as error:
        message = str(error)
    assert name in message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 1000
    return None


def most_memory():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_weights(tmp_path, form):
    path, before = tmp_path / "weights.pth", most_memory()
    content = weights(form, path)
    loaded = []

    @FUZZ
    @given(DAMAGE)
    def look(damage):
        path.write_bytes(damaged(content, damage))
        found = outcome(lambda: state_dicts.read(path), str(path))
        loaded.append(found is not None)
        if found is not None and form == "zip":  # the only one with checksums
            assert found[0].keys() == STATE.keys()
            for name, array in STATE.items():
                np.testing.assert_array_equal(found[0][name], array)

    look()
    assert not all(loaded)
    assert most_memory() - before < MEGABYTES


@pytest.mark.filterwarnings("ignore::UserWarning")  # PIL's, of TIFF
@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures(kind, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 1 << 20)  # what a damaged header may ask for
    buffer, before = io.BytesIO(), most_memory()
    Image.fromarray(PICTURE).save(buffer, kind)
    content = buffer.getvalue()
    whole, loaded = decode.decode(content), []

    @FUZZ
    @given(DAMAGE)
    def look(damage):
        encoded = damaged(content, damage)
        found = outcome(lambda: decode.decode(encoded, name="dogs/rex"), "dogs/rex")
        loaded.append(found is not None)
        if found is not None:
            assert found.dtype == np.uint8
            assert found.shape[2:] == (3,)
            assert found.size <= 3 * decode.MAX_PIXELS
        if found is not None and kind == "PNG":  # the only one with checksums
            np.testing.assert_array_equal(found, whole)

    look()
    assert not all(loaded)
    assert most_memory() - before < MEGABYTES


@FUZZ
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x02", b"\x80\x04\x95", b"PK\x03\x04"]))
def test_anything_as_weights(tmp_path_factory, rest, start):
    path = Path(tmp_path_factory.getbasetemp()) / "anything.pth"
    path.write_bytes(start + rest)
    outcome(lambda: state_dicts.read(path), str(path))


HEADERS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"RIFF",
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@FUZZ
@given(st.sampled_from(HEADERS), st.binary(max_size=200))
def test_anything_as_a_picture(start, rest):
    outcome(lambda: decode.decode(start + rest, name="dogs/rex"), "dogs/rex")
