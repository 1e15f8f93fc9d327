"""The files are written here instruction by instruction, so that no PyTorch is needed."""

import contextlib
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxrobust.torch_weights import files as torch_files
from jaxrobust.torch_weights.files import Placeholder
from tests.torch_writer import (
    KINDS,
    MAGIC,
    LegacyWriter,
    Made,
    Name,
    Persistent,
    Writer,
    pickled,
    program,
    tensor,
)

FORMATS = {"zip": Writer, "legacy": LegacyWriter}


def random(dtype, shape=(2, 3), seed=0):
    return np.asarray(np.random.default_rng(seed).normal(size=shape) * 20).astype(dtype)


def write(path, build, form="zip"):
    """Writes what `build` makes with the writer of a format."""
    writer = FORMATS[form]()
    getattr(writer, form)(path, build(writer))
    return path


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_dtypes(tmp_path, form, kind):
    shapes = {"many": (2, 3), "single": (), "none": (0, 4)}
    arrays = {name: random(KINDS[kind], shape) for name, shape in shapes.items()}

    def build(writer):
        return {name: writer.tensor(array) for name, array in arrays.items()}

    content = torch_files.read(write(tmp_path / "weights", build, form))
    assert list(content) == list(arrays)
    for name, array in arrays.items():
        assert content[name].dtype == array.dtype
        assert content[name].shape == array.shape
        assert content[name].tobytes() == array.tobytes()
        assert not content[name].flags.writeable


@pytest.mark.parametrize("form", FORMATS)
def test_offsets_strides_and_shared_data(tmp_path, form):
    whole = np.arange(24, dtype=np.float32)

    def build(writer):
        first = writer.storage(whole, (None,) if form == "legacy" else ())
        again = writer.again("0", view=first.parts[5:])
        return [
            tensor(first, 0, (24,), (1,)),
            tensor(again, 4, (5, 3), (1, 6)),
            tensor(again, 23, (2, 2), (0, 0)),
            Made("torch._utils._rebuild_parameter", tensor(again, 2, (), ()), True, {}),
        ]

    content = torch_files.read(write(tmp_path / "weights", build, form))
    expected = [whole[4 + row + 6 * np.arange(3)] for row in range(5)]
    np.testing.assert_array_equal(content[0], whole)
    np.testing.assert_array_equal(content[1], expected)
    np.testing.assert_array_equal(content[2], np.full((2, 2), 23))
    assert content[3] == 2
    assert np.shares_memory(content[0], content[1])


def test_legacy_views_of_a_storage(tmp_path):
    def build(writer):
        return tensor(writer.storage(np.arange(9.0), (("1", 4, 3),)), 1, (2,), (1,))

    content = torch_files.read(write(tmp_path / "weights", build, "legacy"))
    np.testing.assert_array_equal(content, [5, 6])


def test_big_endian(tmp_path):
    arrays = [random(KINDS[kind]) for kind in ("Float", "BFloat16", "Bool", "ComplexFloat")]
    writer = Writer()
    writer.zip(tmp_path / "weights", [writer.tensor(array) for array in arrays], byteorder="big")
    content = torch_files.read(tmp_path / "weights")
    for array, expected in zip(content, arrays, strict=True):
        assert array.dtype == expected.dtype
        assert array.tobytes() == expected.tobytes()


def test_newer_tensors_state_their_dtype(tmp_path):
    array = random(np.uint16)

    def build(writer):
        writer.data["0"] = array.view(np.uint8)
        storage = Persistent("storage", Name("torch.storage", "UntypedStorage"), "0", "cpu", 12)
        dtype = Name("torch", "uint16")
        arguments = (storage, 0, (2, 3), (3, 1), False, {}, dtype)
        return Made("torch._utils._rebuild_tensor_v3", *arguments)

    content = torch_files.read(write(tmp_path / "weights", build))
    assert content.dtype == np.uint16
    np.testing.assert_array_equal(content, array)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values(tmp_path, form, protocol):
    shared = [1]
    values = {
        "numbers": [0, -1, 300, 1 << 80, 2.5, 1 + 2j],
        "constants": (None, True, False),
        "text": "é日本",
        "bytes": b"\x00\xff",
        "tuples": ((), (1,), (1, 2), (1, 2, 3, 4)),
        "sets": [{1, 2}, frozenset([3])],
        "shared": [shared, shared],
        5: bytearray(b"ab"),
        "numpy": [
            *(np.float64(2.5), np.int64(-3), np.bool_(True), np.arange(6.0).reshape(2, 3).T),
            *(np.array(["ab", "c"]), np.array([1, None, "x"], object), np.arange(3, dtype=">i2")),
        ],
    }
    content = pickle.dumps(values, protocol)
    path = tmp_path / "weights"
    if form == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("any name/data.pkl", content)
    else:
        path.write_bytes(b"".join([*map(pickled, (MAGIC, 1001, {})), content, pickled([])]))
    read = torch_files.read(path)
    arrays, read_arrays = values.pop("numpy"), read.pop("numpy")
    assert read == values
    assert [type(value) for value in read["numbers"]] == [int] * 4 + [float, complex]
    assert read["shared"][0] is read["shared"][1]
    for array, expected in zip(read_arrays, arrays, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=")


def test_what_pytorch_writes_besides_tensors(tmp_path):
    def build(_):
        pairs = [["a", 1], ["b", 2]]  # as Python 2 wrote it
        return {
            "ordered": Made("collections.OrderedDict", pairs, state={"_metadata": {"version": 1}}),
            "default": Made("collections.defaultdict", Name("__builtin__", "list"), {"a": 1}),
            "size": Made("torch.Size", (1, 2)),
            "dtype": Name("torch", "bfloat16"),
            "device": Made("torch.device", "cuda", 1),
        }

    content = torch_files.read(write(tmp_path / "weights", build))
    assert content == {
        "ordered": {"a": 1, "b": 2},
        "default": {"a": 1},
        "size": (1, 2),
        "dtype": np.dtype(ml_dtypes.bfloat16),
        "device": "cuda:1",
    }
    assert type(content["ordered"]) is dict


@pytest.mark.parametrize("form", FORMATS)
def test_a_checkpoint_of_a_training_library_that_is_not_here(tmp_path, form):
    """The layout of the robustness library, whose files dill wrote."""
    weight = random(np.float32, (4, 3))

    def build(writer):
        code = Made("dill._dill._create_code", 1, 0, b"t\x00S\x00", Name("__builtin__", "__main__"))
        members = {"__module__": "train"}
        by_value = Made("dill._dill._create_type", Name("builtins", "type"), "Run", (), members)
        return {
            "model": {"module.model.conv1.weight": writer.tensor(weight)},
            "optimizer": Made("torch.optim.sgd.SGD", opcode=b"\x81", state={"lr": 0.1}),
            "schedule": {"lr_lambdas": [Made("dill._dill._create_function", code, {}, "lr")]},
            "args": Made("cox.utils.Parameters", opcode=b"\x81", state={"params": {"eps": 3.0}}),
            "run": Made(by_value, opcode=b"\x81", state={"step": 3}),
            "log": Made("tools.Log", opcode=b"\x81", items={"loss": 1.5}),
            "losses": Made("tools.Series", items=[0.5, 0.25]),
            "epoch": 105,
        }

    content = torch_files.read(write(tmp_path / "weights.ckpt", build, form))
    np.testing.assert_array_equal(content["model"]["module.model.conv1.weight"], weight)
    assert content["epoch"] == 105
    assert content["args"].name == "cox.utils.Parameters"
    assert content["args"].arguments == ()
    assert content["args"].state == {"params": {"eps": 3.0}}
    assert content["optimizer"].state == {"lr": 0.1}
    assert content["log"].items == [("loss", 1.5)]
    assert content["losses"].items == [0.5, 0.25]
    assert (content["run"].name, content["run"].state) == ("train.Run", {"step": 3})
    function = content["schedule"]["lr_lambdas"][0]
    assert repr(function) == "<Placeholder of dill._dill._create_function>"
    assert isinstance(function.arguments[0], Placeholder)


def test_safetensors(tmp_path):
    arrays = {"a": random(np.float32), "b": random(ml_dtypes.bfloat16), "c": random(np.int64, ())}
    save_file(arrays, tmp_path / "weights.pth")  # the name does not matter
    content = torch_files.read(tmp_path / "weights.pth")
    assert content.keys() == arrays.keys()
    for name, array in arrays.items():
        assert content[name].dtype == array.dtype
        assert content[name].tobytes() == array.tobytes()
        assert not content[name].flags.writeable


def calling(opcode, function, argument) -> bytes:
    """A pickle that calls a function when the usual readers open it."""
    module, name = function.rsplit(".", 1)
    function, argument = program(Name(module, name)), program(argument)
    body = {
        "REDUCE": function + b"(" + argument + b"tR",
        "NEWOBJ": function + b"(" + argument + b"t\x81",
        "NEWOBJ_EX": function + b"(" + argument + b"t}\x92",
        "OBJ": b"(" + function + argument + b"o",
        "INST": b"(" + argument + f"i{module}\n{name}\n".encode(),
        "STACK_GLOBAL": program(module) + program(name) + b"\x93(" + argument + b"tR",
    }[opcode]
    return b"\x80\x04" + body + b"."


def zipped(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return path


def legacy(path, content):
    path.write_bytes(b"".join([*map(pickled, (MAGIC, 1001, {})), content, pickled([])]))
    return path


def plain(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("form", [zipped, legacy, plain])
@pytest.mark.parametrize("opcode", ["REDUCE", "OBJ", "INST", "STACK_GLOBAL"])
def test_a_file_that_executes_code_is_refused(tmp_path, form, opcode):
    content = calling(opcode, "os.mkdir", str(tmp_path / "executed"))
    pickle.loads(content)
    (tmp_path / "executed").rmdir()  # so the file is indeed dangerous
    path = form(tmp_path / "weights.pth", content)
    with pytest.raises(ValueError, match=r"weights.pth is refused: it names os.mkdir, which can"):
        torch_files.read(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("opcode", ["REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST", "STACK_GLOBAL"])
def test_what_is_unknown_is_not_even_imported(tmp_path, monkeypatch, opcode):
    module, imported = f"tripwire_{opcode.lower()}", tmp_path / "imported"
    code = f"open({str(imported)!r}, 'w')\nclass Thing:\n    def __new__(*_): 1 / 0\n"
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    content = calling(opcode, f"{module}.Thing", 3)
    thing = torch_files.read(zipped(tmp_path / "weights.pth", content))
    assert (thing.name, thing.arguments) == (f"{module}.Thing", (3,))
    assert not imported.exists()
    with pytest.raises(ZeroDivisionError):  # so the usual reader does import and call it
        pickle.loads(content)
    assert imported.exists()


DANGEROUS = """posix.system nt.system os.path.os.system subprocess.Popen sys.exit io.open
    builtins.eval __builtin__.execfile builtins.__import__ importlib.import_module pickle.loads
    torch.load numpy.load runpy.run_path torch.storage.os.system"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_dangerous_names(tmp_path, name):
    named = name.replace("posix.", "os.").replace("nt.", "os.").replace("__builtin__", "builtins")
    function = Name(*name.rsplit(".", 1))
    for value in (function, {"hook": Made("functools.partial", function, "true")}):
        path = write(tmp_path / "weights", lambda _, value=value: value)
        with pytest.raises(ValueError, match=f"refused: it names {named}, "):
            torch_files.read(path)


def test_a_dangerous_name_by_a_detour(tmp_path):
    module = Made("dill._dill._import_module", "os")
    run = Made(Made("builtins.getattr", module, "system"), "true")
    with pytest.raises(ValueError, match=r"refused: it names os.system"):
        torch_files.read(write(tmp_path / "weights", lambda _: run))
    safe = torch_files.read(write(tmp_path / "weights", lambda _: {"globals": module}))
    assert safe["globals"].name == "os"


def test_nested_data_are_read_by_the_same_rules(tmp_path):
    array = random(np.float32, (6,))
    inner = Writer()
    inner.legacy(tmp_path / "inner", inner.storage(array, (None,)))

    def build(_):
        storage = Made("torch.storage._load_from_bytes", (tmp_path / "inner").read_bytes())
        return tensor(storage, 0, (6,), (1,))

    content = torch_files.read(write(tmp_path / "weights", build))
    np.testing.assert_array_equal(content, array)
    legacy(tmp_path / "inner", calling("REDUCE", "os.mkdir", str(tmp_path / "executed")))
    with pytest.raises(ValueError, match=r"weights is refused: it names os.mkdir"):
        torch_files.read(write(tmp_path / "weights", build))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("offset", "shape", "steps"),
    [
        *((0, (7,), (1,)), (1, (2, 3), (3, 1)), (0, (2, 2), (5, 1)), (-1, (2,), (1,))),
        *((1, (3,), (-1,)), (7, (), ()), (0, (2,), (1, 1)), (0, (-2,), (1,)), (0, ("2",), (1,))),
    ],
)
@pytest.mark.parametrize("form", FORMATS)
def test_tensors_beyond_their_data(tmp_path, form, offset, shape, steps):
    def build(writer):
        storage = writer.storage(np.zeros(6, np.float32), (None,) if form == "legacy" else ())
        return tensor(storage, offset, shape, steps)

    with pytest.raises(ValueError, match="weights is cut off or damaged: "):
        torch_files.read(write(tmp_path / "weights", build, form))


@pytest.mark.parametrize("form", [*FORMATS, "safetensors"])
def test_a_file_cut_off_anywhere(tmp_path, form):
    array = random(np.float32, (40, 5))
    path = tmp_path / "weights"
    if form == "safetensors":
        save_file({"a": array, "b": array}, path)
    else:
        write(path, lambda writer: {"a": writer.tensor(array), "b": writer.tensor(array)}, form)
    whole = path.read_bytes()
    torch_files.read(path)
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"/weights (is cut off|is not a file that)") as raised:
            torch_files.read(path)
        assert "\n" not in str(raised.value)
        if length > 200:
            assert "cut off" in str(raised.value)


def test_a_changed_byte_does_not_pass_unnoticed(tmp_path):
    path = write(tmp_path / "weights", lambda writer: writer.tensor(np.full(50, 7, np.uint8)))
    path.write_bytes(path.read_bytes().replace(b"\x07\x07\x07", b"\x07\x08\x07", 1))
    with pytest.raises(ValueError, match=r"archive/data/0 in it does not match its checksum"):
        torch_files.read(path)


def test_bytes_lost_from_the_middle(tmp_path):
    path = write(tmp_path / "weights", lambda writer: writer.tensor(random(np.float32, (100,))))
    whole = path.read_bytes()
    for start in range(8, len(whole) - 200, 7):
        path.write_bytes(whole[:start] + whole[start + 5 :])
        with pytest.raises(ValueError, match=r"/weights is (cut off|damaged)"):
            torch_files.read(path)


def test_random_damage_is_told_in_a_sentence(tmp_path):
    path = tmp_path / "weights"
    whole = write(
        path, lambda writer: {"a": writer.tensor(random(np.float32))}, "legacy"
    ).read_bytes()
    generator, messages = np.random.default_rng(0), []
    for _ in range(500):
        damaged = bytearray(whole)
        for place in generator.integers(len(whole), size=3):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            torch_files.read(path)  # names and numbers may have changed without a trace
            continue
        with pytest.raises(ValueError, match=r"^/.*/weights (is|holds) [^\n]*\.$") as raised:
            torch_files.read(path)
        messages.append(str(raised.value))
    assert len(messages) > 250


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"", "but empty"),
        (b"<!DOCTYPE html><html>\n<title>Quota exceeded</title>", "but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "but a Git LFS pointer"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "but an image"),
        (b"storages".ljust(257, b"\0") + b"ustar\x0000", "but a tar archive"),
        (b"\x89HDF\r\n\x1a\n", "but begins with"),
        (pickle.dumps({"weight": 1}), "but begins with"),
    ],
)
def test_files_of_other_formats(tmp_path, start, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(start)
    with pytest.raises(ValueError, match=r"weights.pth is not a file that torch.save or") as raised:
        torch_files.read(path)
    assert message in str(raised.value)


def test_errors(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(FileNotFoundError, match=r"weights.pth does not exist; expected a file of"):
        torch_files.read(path)
    with pytest.raises(ValueError, match="is not a file; expected a file of weights"):
        torch_files.read(tmp_path)
    np.savez(path.with_suffix(".npz"), a=1)
    with pytest.raises(ValueError, match=r"is a zip file, but not of torch.save: it lacks a data"):
        torch_files.read(path.with_suffix(".npz"))
    Writer().legacy(path, {}, version=1000)
    with pytest.raises(ValueError, match="format version 1000, expected 1001"):
        torch_files.read(path)
    unknown = Persistent("storage", Name("torch", "QUInt4x2Storage"), "0", "cpu", 1)
    with pytest.raises(ValueError, match=r"holds a torch.QUInt4x2Storage, which is not supported"):
        torch_files.read(write(path, lambda _: unknown))
    missing = Persistent("storage", Name("torch", "FloatStorage"), "5", "cpu", 1)
    with pytest.raises(ValueError, match="archive/data/5"):
        torch_files.read(write(path, lambda _: missing))


@pytest.mark.parametrize("zip_format", [True, False])
def test_agrees_with_pytorch(tmp_path, zip_format):
    torch = pytest.importorskip("torch")
    weight = torch.arange(24.0).reshape(2, 3, 4)
    saved = {
        "state": torch.nn.BatchNorm2d(3).state_dict(),
        "views": [weight.transpose(0, 2), weight[1, ::2, 1:], weight[0, 0, :1].expand(3, 4)],
        "parameter": torch.nn.Parameter(weight.to(torch.bfloat16)),
    }
    torch.save(saved, tmp_path / "weights", _use_new_zipfile_serialization=zip_format)
    content = torch_files.read(tmp_path / "weights")
    assert list(content["state"]) == list(saved["state"])
    pairs = [*zip(content["state"].values(), saved["state"].values(), strict=True)]
    pairs += [*zip(content["views"], saved["views"], strict=True)]
    pairs += [(content["parameter"], saved["parameter"])]
    for array, expected in pairs:
        assert array.dtype.name == str(expected.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(array.astype(np.float64), expected.detach().double().numpy())
