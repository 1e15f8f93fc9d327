"""Small files that ask for much: each ends soon, in a sentence, and takes little memory."""

import io
import json
import pickle
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxrobust import models, torch_weights
from jaxrobust.torch_weights import files as torch_files
from jaxrobust.torch_weights import state_dicts
from tests.torch_writer import MAGIC, LegacyWriter, Made, Name, Persistent, Writer, pickled, tensor

SECONDS, BYTES = 5, 40 << 20


def refused(path, message, read=torch_files.read):
    """What reading a file says, after looking at how long it takes and how much memory."""
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(ValueError, match=message) as raised:
        read(path)
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert seconds < SECONDS
    assert peak < BYTES + 30 * path.stat().st_size
    return str(raised.value)


def zipped(path, program):
    """A file of PyTorch that holds instructions as they are."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04" + program + b".")
    return path


def written(path, build):
    writer = Writer()
    writer.zip(path, build(writer))
    return path


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def test_a_number_of_bytes_that_are_not_there(tmp_path):
    claim = b"\x80\x05\x96" + (4 << 30).to_bytes(8, "little") + b"abc."
    header = b"".join(map(pickled, (MAGIC, 1001, {})))
    (tmp_path / "legacy").write_bytes(header + claim)
    refused(tmp_path / "legacy", "cut off or damaged")
    refused(zipped(tmp_path / "zip", claim[2:-1]), "cut off or damaged")
    (tmp_path / "plain").write_bytes(claim)
    refused(tmp_path / "plain", "is not a file that torch.save or safetensors wrote")


# Of a tensor of 100 million elements, all of them one.
COPIES = {
    "list": lambda array: Made("builtins.list", array),
    "tuple": lambda array: Made("builtins.tuple", array),
    "set": lambda array: Made("builtins.set", array),
    "size": lambda array: Made("torch.Size", array),
    "deque": lambda array: Made("collections.deque", array),
    "bytearray": lambda array: Made("builtins.bytearray", array),
    "astype": lambda array: Made(
        "torch._utils._rebuild_device_tensor_from_numpy", array, Name("torch", "float64"), "cpu"
    ),
    "frombuffer": lambda array: Made(
        "numpy.core.numeric._frombuffer", array, Made("numpy.dtype", "u1"), (100_000_000,), "C"
    ),
    "alone": lambda array: array,
}


@pytest.mark.parametrize("copy", COPIES)
def test_tensors_larger_than_their_data(tmp_path, copy):
    def build(writer):
        storage = writer.storage(np.zeros(1, np.uint8))
        return {"state_dict": COPIES[copy](tensor(storage, 0, (100_000_000,), (0,)))}

    path = written(tmp_path / "weights", build)
    assert path.stat().st_size < 1000
    refused(path, "more than 8 times as large as the file")


def test_an_expanded_tensor_of_some_size_opens(tmp_path):
    def build(writer):
        return tensor(writer.storage(np.ones(1, np.float32)), 0, (500, 500), (0, 0))

    np.testing.assert_array_equal(
        torch_files.read(written(tmp_path / "weights", build)), np.ones((500, 500))
    )


# Each uses one large object over and over: it is put into the memo, and called for 20,000 times.
REPEATED = {
    "bytearray": ("builtins.bytearray", b"B" + (50_000).to_bytes(4, "little") + bytes(50_000)),
    "encode": ("_codecs.encode", text("a" * 50_000) + b"X\x06\0\0\0latin1"),
    "list": ("builtins.list", b"(" + b"N" * 50_000 + b"l"),
    "dict": ("builtins.dict", b"(" + b"".join(b"K%cN" % i for i in range(255)) * 200 + b"d"),
    "arguments": ("torch.nn.parameter.Parameter", b"N" * 50_000),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_copies_of_one_object_without_end(tmp_path, kind):
    function, argument = REPEATED[kind]
    module, name = function.rsplit(".", 1)
    program = b"c%b\n%b\nq\0(%btq\1](" % (module.encode(), name.encode(), argument)
    program += b"h\0h\1R" * (2_000 if kind != "dict" else 20_000) + b"e"
    refused(zipped(tmp_path / "weights", program), "more than 8 times as large as the file")


def test_a_nested_file_over_and_over(tmp_path):
    inner = LegacyWriter()
    inner.legacy(tmp_path / "inner", inner.storage(np.zeros(50_000, np.uint8), (None,)))
    content = (tmp_path / "inner").read_bytes()
    program = b"ctorch.storage\n_load_from_bytes\nq\0(B%btq\1](" % (
        len(content).to_bytes(4, "little") + content
    )
    program += b"h\0h\1R" * 2_000 + b"e"
    refused(zipped(tmp_path / "weights", program), "more than 8 times as large as the file")


def test_names_without_end(tmp_path):
    program = text("a." * 25_000) + b"q\0X\1\0\0\0bq\1](" + b"h\0h\1\x93" * 5_000 + b"e"
    refused(zipped(tmp_path / "weights", program), "a name of 50001 characters")


def doubled(times, close):
    """A container of the same one twice, of the same one twice, …: 2 ** times of the first."""
    return b")q\0000" + (b"(h\0h\0" + close + b"q\0000") * times + b"h\0"


def test_keys_that_take_for_ever_to_hash(tmp_path):
    key = doubled(60, b"t")
    for number, program in enumerate(
        (
            b"}" + key + b"Ns",
            b"}(" + key + b"Nu",
            b"(" + key + b"Nd",
            b"(" + key + b"\x91",
            b"\x8f(" + key + b"\x90",
            b"cbuiltins\nset\n(](" + key + b"etR",
            b"cbuiltins\ndict\n(](" + key + b"N\x86etR",
        )
    ):
        refused(zipped(tmp_path / f"weights{number}", program), "a key of more than")


def test_what_takes_for_ever_to_print(tmp_path):
    nested = doubled(60, b"l")
    module, size = b"ctorch\nFloatStorage\n", b"K\1"
    for number, program in enumerate(
        (
            nested + b")R",
            b"c_codecs\nencode\n(X\1\0\0\0a" + nested + b"tR",
            b"ctorch\ndevice\n(" + nested + b"tR",
            b"(X\7\0\0\0storage" + nested + b"X\1\0\0\x000X\1\0\0\0c" + size + b"tQ",
            b"(X\7\0\0\0storage" + module + nested + b"X\1\0\0\0c" + size + b"tQ",
            b"cdill._dill\n_create_type\n(N" + nested + b")}tR",
            b"cbuiltins\ngetattr\n(ca\nb\n" + nested + b"tR",
        )
    ):
        refused(zipped(tmp_path / f"weights{number}", program), "weights")
    version = b"\x80\2" + nested + b"."
    (tmp_path / "legacy").write_bytes(pickled(MAGIC) + version + pickled({}) + pickled({}))
    refused(tmp_path / "legacy", "format version of a list, expected 1001")


def test_storages_that_are_not_there(tmp_path):
    """Each claims as much as the file is long."""

    def build(writer):
        name = Name("torch", "ByteStorage")
        return [Persistent("storage", name, str(k), "cpu", 20_000, None) for k in range(5_000)]

    writer = LegacyWriter()
    writer.legacy(tmp_path / "weights", build(writer))
    refused(tmp_path / "weights", "is cut off")


def test_entries_of_a_zip_file_that_overlap(tmp_path):
    """Each is the headers and contents of all after it: 200 of 100 kB in a file of 130 kB."""
    path, names = tmp_path / "weights", [f"archive/data/{k}" for k in range(200)]
    tail, places = bytes(100_000), []
    for name in reversed(names):
        info = zipfile.ZipInfo(name)
        info.CRC, info.compress_size, info.file_size = zlib.crc32(tail), len(tail), len(tail)
        tail = info.FileHeader(False) + tail
        places.append((info, len(tail)))
    storages = [
        Persistent("storage", Name("torch", "ByteStorage"), str(k), "cpu", info.file_size)
        for k, (info, _) in enumerate(reversed(places))
    ]
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(storages))
        archive.fp.write(tail)
        for info, length in places:
            info.header_offset = archive.fp.tell() - length
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
        archive.start_dir = archive.fp.tell()
    path.write_bytes(content.getvalue())
    refused(path, "entries overlap|Overlapped entries")


def test_a_number_of_many_digits(tmp_path):
    number = pickle.dumps(1 << (8 * 10_000), 2)[2:-1]
    refused(zipped(tmp_path / "weights", number), "an integer of more than 255 bytes")


def test_a_shape_of_numbers_that_take_for_ever_to_multiply(tmp_path):
    dtype = Made("numpy.dtype", "u1", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    shape = (1 << 2030,) * 6000
    array = Made("numpy._core.multiarray._reconstruct", Name("numpy", "ndarray"), (0,), b"b")
    array.state = (1, shape, dtype, False, b"")
    refused(written(tmp_path / "weights", lambda _: array), "a shape or strides that are not a few")


@pytest.mark.parametrize(
    "program", [b"}q\0X\5\0\0\0modelh\0s", b"}q\0X\3\0\0\0net}X\3\0\0\0neth\0ss"]
)
def test_a_checkpoint_that_contains_itself(tmp_path, program):
    refused(zipped(tmp_path / "weights", program), "contains itself", state_dicts.read)


def test_a_checkpoint_of_many_without_tensors(tmp_path):
    """What is described of it is looked at once, however often it is there."""
    inner = b"}(" + b"".join(text(f"{k}") + b"N" for k in range(5_000)) + b"uq\0"
    program = b"}(" + text("a") + inner
    program += b"".join(text(f"b{k}") + b"h\0" for k in range(20_000)) + b"u"
    refused(zipped(tmp_path / "weights", program), "must hold a state dict", state_dicts.read)


def opened(path):
    return torch_weights.open_file(path, "resnet8_small")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file that opens, so that JAX has seen the network before memory is looked at."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    torch_weights.save(models.pretrained("quickstart_std"), path)
    opened(path)
    return path


def test_a_name_of_dots(tmp_path, weights):
    for number, name in enumerate(("." * 300_000, "a." * 150_000 + "weight", "ema." * 75_000)):
        path = tmp_path / f"weights{number}"
        save_file({name: np.zeros(1, np.float32)}, path)
        refused(path, "1 left over" if "ema" not in name else "missing", opened)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"mean": "[" * 100_000}, "mean in .* must be JSON"),
        ({"mean": "0.5, 0.5"}, "mean in .* must be JSON"),
        ({"mean": "[" * 900 + "0.5" + "]" * 900}, "mean in .* must be 3 numbers"),
        ({"mean": '{"a": 1}'}, "mean in .* must be 3 numbers"),
        ({"mean": json.dumps([10**400] * 3)}, "mean in .* must be 3 numbers"),
        ({"std": "[0, 0, 0]"}, "std in .* must be 3 numbers above 0"),
        ({"stem_stride": '"two"'}, "stem_stride in .* must be a whole number of at least 1"),
        ({"downsampling": "[[]]"}, "downsampling in .* must be one of"),
    ],
    ids=range(8),
)
def test_metadata_of_safetensors(tmp_path, weights, metadata, message):
    path = tmp_path / "weights.safetensors"
    save_file(torch_files.read(weights), path, metadata=metadata)
    refused(path, message, opened)
