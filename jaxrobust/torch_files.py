"""PyTorch's files of weights, read without PyTorch and without running anything in them.

A file that `torch.save` wrote holds a pickle, and a pickle is a program: the usual readers import
what it names and call it. The reader here imports nothing, and calls nothing but the constructors
of tensors and plain containers listed in `_BUILDERS`. As for all else:

- Any other class or function becomes a `Placeholder`: the arguments and optimizers of a training
  library that is not installed, functions that dill wrote by value. The weights beside them open.
- What is well known to act outside the program (`os`, `subprocess`, `eval`, `open`, …) would be as
  harmless, but is refused as soon as it is named: no file of weights needs it. No list of such
  names is complete; what is not on it is a placeholder as well, and does nothing.
"""

import io
import math
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

_MAGIC = 0x1950A86A20F9469CFC6C

_REFUSED = re.compile(
    r"(.*\.)?(os|sys|subprocess)\..*|(.*\.)?builtins\.(eval|exec|execfile|compile|open|file|input"
    r"|__import__|breakpoint)|(pty|shutil|socket|ctypes|importlib|runpy|pdb|bdb|timeit|webbrowser"
    r"|popen2|marshal|pickle|_pickle|cPickle|torch\.hub|torch\.utils\.cpp_extension)\..*"
    r"|(torch|numpy|joblib|dill|dill\._dill|cloudpickle)\.loads?|numpy\.testing\..*\.runstring"
    r"|(io|_io)\.(open|open_code|FileIO)|code\.(interact|Interactive.*)|commands\.get.*",
    re.DOTALL,
)
_SAME_MODULES = {  # as older or other versions call them
    "__builtin__.": "builtins.",
    "copy_reg.": "copyreg.",
    "numpy.core.": "numpy._core.",
    "posix.": "os.",
    "nt.": "os.",
    "torch.cuda.": "torch.",
    "torch.tensor.": "torch._tensor.",
}
_STORAGES = (
    {"Bool": "bool", "Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32"}
    | {"Long": "int64", "Half": "float16", "BFloat16": "bfloat16", "Float": "float32"}
    | {"Double": "float64", "ComplexFloat": "complex64", "ComplexDouble": "complex128"}
    | {"QInt8": "int8", "QUInt8": "uint8", "QInt32": "int32", "Untyped": "uint8"}
)

_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError, MemoryError),
    *(OSError, RuntimeError, struct.error, zlib.error),
    *(zipfile.BadZipFile, pickle.UnpicklingError, safetensors.SafetensorError),
)


class _ProblemError(ValueError):
    """What is wrong with a file, in words that continue a sentence begun with its path."""


class Placeholder:
    """Stands in for a class or function, or for what would have come of calling it; inert.

    Attributes:
      name: the module and name of the class or function, "cox.utils.Parameters".
      arguments: what it was to be called with; None when the file only names it.
      state: what the object was to be restored from, mostly the dict of its attributes; or None.
      items: elements, or (key, value) pairs, that the object was to hold.
    """

    __slots__ = ("arguments", "items", "name", "state")

    def __init__(self, name: str, arguments: tuple | None = None):
        self.name, self.arguments = name, arguments
        self.state: Any = None
        self.items: list = []

    def __repr__(self) -> str:
        return f"<Placeholder of {self.name}>"

    # By these the reader fills containers.
    def append(self, value: Any) -> None:
        self.items.append(value)

    def extend(self, values: list) -> None:
        self.items.extend(values)

    def add(self, value: Any) -> None:
        self.items.append(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))


def read(path: str | Path) -> Any:
    """What a PyTorch or safetensors file holds, told apart by its content, never by its name.

    Reads the zip files of PyTorch 1.6 and later, the format before that, and safetensors. Nothing
    in the file is executed. Tensors and parameters come out as read-only NumPy arrays of the same
    dtype (bfloat16 and float8 from `ml_dtypes`) that share memory where the tensors did;
    `torch.Size` is a tuple, `torch.dtype` a NumPy dtype, `torch.device` a string, ordered and
    other dicts are dicts. Attributes set on containers and tensors (a state dict's `_metadata`)
    are left out.

    Args:
      path: of the file, mostly .pth, .pt, .ckpt, .pth.tar or .safetensors.

    Returns:
      the object saved, mostly a dict: nested dicts, lists and tuples of arrays and plain values,
      and a `Placeholder` for each object of another class.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: when it is of another format, cut off or damaged, or refused because it names
        what could execute code.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
      >>> safetensors.numpy.save_file({"fc.bias": np.arange(3.0)}, path)
      >>> read(path)
      {'fc.bias': array([0., 1., 2.])}
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a file of weights.")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; expected a file of weights.")
    with path.open("rb") as file:
        start = file.read(512)
        file.seek(0)
        try:
            if start.startswith(b"PK\x03\x04"):
                return _read_zip(file)
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
                return _read_safetensors(path)
            if not _is_legacy(file):
                raise _ProblemError(
                    f"is not a file that torch.save or safetensors wrote, but {_describe(start)}"
                )
            return _read_legacy(file)
        except _ProblemError as problem:
            raise ValueError(f"{path} {problem}.") from problem.__cause__
        except _DAMAGE as error:
            raise ValueError(
                f"{path} is cut off or damaged: {type(error).__name__}, "
                f"{' '.join(str(error).split()).rstrip('.') or 'it ends too early'}."
            ) from error


def _describe(start: bytes) -> str:
    if not start:
        return "empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (`git lfs pull` fetches the file itself)"
    if start.lstrip().startswith(b"<"):
        return "a web page, as a failed download leaves"
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8")):
        return "an image"
    if start[257:262] == b"ustar":
        return (
            "a tar archive (unpack it; PyTorch's own tar format, before 0.1.10, is not supported)"
        )
    return f"begins with {start[:8]!r}"


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = safetensors.numpy.load_file(path)
    except (AttributeError, KeyError, TypeError) as error:
        raise _ProblemError(f"holds tensors of a dtype that is not supported ({error})") from error
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _read_zip(file: BinaryIO) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise _ProblemError(
            "is cut off: it begins as a zip file of PyTorch and lacks the end of one"
        ) from error
    with archive:
        names = set(archive.namelist())
        pickles = [name for name in names if re.fullmatch("[^/]+/data[.]pkl", name)]
        if len(pickles) != 1:
            raise _ProblemError("is a zip file, but not of torch.save: it lacks a data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = _entry(archive, folder + "byteorder") if folder + "byteorder" in names else b""
        storages: dict[str, np.ndarray] = {}

        def storage(kind: str, of: Placeholder, key: str, location: str, count: int) -> np.ndarray:
            dtype = _storage_dtype(of)
            if key not in storages:
                name = f"{folder}data/{key}"
                size, expected = archive.getinfo(name).file_size, count * dtype.itemsize
                if size != expected:
                    raise _ProblemError(f"is damaged: {name} has {size} bytes, expected {expected}")
                content = np.frombuffer(_entry(archive, name), np.uint8)
                if order.strip() == b"big":
                    content = _swap_bytes(content, of)
                storages[key] = content
            return storages[key].view(dtype)

        return _unpickle(io.BytesIO(_entry(archive, pickles[0])), storage)


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise _ProblemError(f"is a zip file, but not of torch.save: {name} is compressed")
        return archive.read(name)
    except zipfile.BadZipFile as error:
        raise _ProblemError(
            f"is damaged: {name} in it does not match its checksum (or was written without one, "
            "torch.serialization.set_crc32_options(False))"
        ) from error


def _swap_bytes(content: np.ndarray, of: Placeholder) -> np.ndarray:
    dtype = _storage_dtype(of)
    if "Untyped" in of.name:
        raise _ProblemError(
            "was written on a big-endian machine with dtypes that are not supported"
        )
    numbers = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    swapped = content.view(f"u{numbers}").byteswap().view(np.uint8)
    swapped.flags.writeable = False
    return swapped


def _is_legacy(file: BinaryIO) -> bool:
    try:
        return _unpickle(file) == _MAGIC
    except _ProblemError:
        raise
    except _DAMAGE:
        return False
    finally:
        file.seek(0)


def _read_legacy(file: BinaryIO) -> Any:
    """A magic number, a version, the writing machine, the object, keys of storages, their data."""
    magic, version = _unpickle(file), _unpickle(file)
    if (magic, version) != (_MAGIC, 1001):
        raise _ProblemError(f"is of PyTorch's format version {version!r}, expected 1001")
    _unpickle(file)  # always little-endian: big machines swapped when writing
    position = file.tell()
    length = file.seek(0, os.SEEK_END)
    file.seek(position)
    storages: dict[str, tuple[np.ndarray, np.dtype]] = {}

    def storage(kind: str, of: Any, key: Any = None, location: Any = None, count=0, view=None):
        if kind == "module":  # a module's class beside its source code
            return of
        dtype = _storage_dtype(of)
        if key not in storages:
            if not 0 <= count * dtype.itemsize <= length:
                raise _cut_off(count * dtype.itemsize, length)
            storages[key] = (np.empty(count * dtype.itemsize, np.uint8), dtype)
        whole = storages[key][0].view(dtype)
        whole.flags.writeable = False
        if view is None:
            return whole
        _, offset, size = view
        if not 0 <= offset <= offset + size <= whole.size:
            raise ValueError(f"a view of {size} elements at {offset} in a storage of {whole.size}")
        return whole[offset : offset + size]

    content = _unpickle(file, storage)
    keys = _unpickle(file)
    if set(keys) != set(storages):
        raise ValueError("the data do not belong to the tensors")
    for key in keys:
        data, dtype = storages[key]
        header = file.read(8)
        size = int.from_bytes(header, "little") * dtype.itemsize
        if len(header) == 8 and size != data.nbytes:
            raise ValueError(f"a storage of {size} bytes, expected {data.nbytes}")
        read = file.readinto(data.data)  # type: ignore[attr-defined]
        if read != data.nbytes or len(header) != 8:
            raise _cut_off(data.nbytes, read)
    return content


def _cut_off(expected: int, got: int) -> _ProblemError:
    return _ProblemError(f"is cut off: {expected} bytes of a tensor expected, got {got}")


def _storage_dtype(of: Any) -> np.dtype:
    name = of.name if isinstance(of, Placeholder) else repr(of)
    found = re.fullmatch(r"torch\.(?:storage\.)?_?(\w+)Storage", name)
    if found is None or found[1] not in _STORAGES:
        raise _ProblemError(f"holds a {name}, which is not supported")
    return _dtype(_STORAGES[found[1]])


def _dtype(name: str) -> Any:
    """The dtype that PyTorch calls so, None when it is not one."""
    if re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)", name):
        return np.dtype(name)
    if re.fullmatch(r"bfloat16|float8_e4m3fn(uz)?|float8_e5m2(fnuz)?", name):
        return np.dtype(getattr(ml_dtypes, name))
    return None


def _find(module: str, name: str) -> Any:
    """The dtype or Placeholder for a name."""
    full = f"{module}.{name}"
    for other, usual in _SAME_MODULES.items():
        full = re.sub(rf"^{re.escape(other)}", usual, full)
    if _REFUSED.fullmatch(full):
        raise _ProblemError(
            f"is refused: it names {full}, which can execute code or touch files and which weights "
            "never need; nothing in it was executed"
        )
    return (_dtype(name) if module == "torch" else None) or Placeholder(full)


def _call(function: Any, arguments: Any) -> Any:
    """What a known constructor makes of the arguments, a Placeholder for all others."""
    if not isinstance(function, Placeholder) or not isinstance(arguments, tuple):
        raise TypeError(f"{function!r} cannot be called")
    builder = _BUILDERS.get(function.name) if function.arguments is None else None
    return builder(*arguments) if builder else Placeholder(function.name, arguments)


def _tensor(storage, offset, shape, strides, requires_grad=None, hooks=None, *further) -> Any:
    """Of `_rebuild_tensor`, `_v2` (further: metadata) and `_v3` (further: dtype, metadata)."""
    dtype = storage.dtype
    if further and isinstance(further[0], np.dtype):
        dtype, further = further[0], further[1:]
    steps = [step * dtype.itemsize for step in strides]
    # NumPy checks that the elements lie within the storage.
    array = np.ndarray(
        shape, dtype, storage.view(np.uint8), offset=offset * dtype.itemsize, strides=steps
    )
    if further and any((further[0] or {}).values()):
        raise _ProblemError("holds a tensor conjugated or negated lazily, which is not supported")
    array.flags.writeable = False
    return array


def _numpy_dtype(described: Any) -> np.dtype:
    """Of a Placeholder of numpy.dtype: real dtypes have a state that a file must not set."""
    code = described.arguments[0]
    if not re.fullmatch(r"[biufcSUO]\d*", code):
        raise _ProblemError(f"holds a NumPy array of dtype {code!r}, which is not supported")
    order = described.state[1] if described.state else "="
    return np.dtype(code) if order == "|" else np.dtype(code).newbyteorder(order)


def _numpy_scalar(dtype: Placeholder, content: Any) -> Any:
    if _numpy_dtype(dtype).kind == "O":
        return content
    return np.frombuffer(_raw(content), _numpy_dtype(dtype), count=1)[0]


def _restore_numpy(array: Any, state: tuple) -> None:
    _, shape, described, fortran, content = state
    dtype = _numpy_dtype(described)
    unit = 1 if dtype.kind == "O" else dtype.itemsize
    content = list(content) if dtype.kind == "O" else _raw(content)
    # NumPy would trust these figures.
    if min(shape, default=0) < 0 or len(content) != math.prod(shape) * unit:
        raise ValueError(f"an array of shape {shape} does not fit its contents")
    array.__setstate__((1, tuple(shape), dtype, bool(fortran), content))
    array.flags.writeable = False


def _numpy_frombuffer(content: Any, dtype: Placeholder, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(_raw(content), _numpy_dtype(dtype)).reshape(shape, order=order)


def _raw(content: Any) -> bytes:
    """Python 2 wrote bytes as a string."""
    return content.encode("latin1") if isinstance(content, str) else bytes(memoryview(content))


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _first(value: Any, *_: Any) -> Any:
    return value


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes or of another class."""
    return _call(function, arguments)


def _attribute(owner: Any, name: Any, *_: Any) -> Any:
    """So that what a file may name straight away has the same name, and is refused, by a detour."""
    if isinstance(owner, Placeholder) and owner.arguments is None:
        return _find(owner.name, name)
    return Placeholder("builtins.getattr", (owner, name))


def _class_by_value(kind: Any, name: Any, bases: Any, members: dict) -> Placeholder:
    return Placeholder(f"{members.get('__module__', '__main__')}.{name}")


_BUILDERS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": lambda data, dtype, *_: data.astype(dtype),
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.storage._load_from_bytes": lambda content: _read_legacy(io.BytesIO(content)),
    "torch.Size": tuple,
    "torch.device": lambda *parts: ":".join(map(str, parts)),
    "collections.OrderedDict": dict,
    "collections.Counter": dict,
    "collections.defaultdict": lambda factory=None, *content: dict(*content),
    "collections.deque": lambda content=(), *_: list(content),
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "builtins.bytearray": lambda content=b"", *_: bytearray(_raw(content)),
    "_codecs.encode": _encode,
    "copyreg._reconstructor": lambda kind, base, state: _call(
        kind, () if state is None else (state,)
    ),
    "copyreg.__newobj__": lambda kind, *arguments: _call(kind, arguments),
    "builtins.getattr": _attribute,
    "dill._dill._get_attr": _attribute,
    "dill._dill._import_module": lambda name, *_: Placeholder(name),
    "dill._dill._create_type": _class_by_value,
    "numpy._core.multiarray._reconstruct": lambda *_: np.empty(0, np.uint8),
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy._core.numeric._frombuffer": _numpy_frombuffer,
}


_Reader: Any = pickle._Unpickler


class _Unpickler(_Reader):
    """Python's reader with each instruction that would import or call something replaced.

    Of the two readers of the standard library this is the one written in Python, since that in C
    insists on a real class wherever an object is made from one.
    """

    dispatch: ClassVar[dict] = dict(_Reader.dispatch)

    def __init__(self, file: BinaryIO, storage: Callable | None):
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        return _find(module, name)

    def persistent_load(self, parts: Any) -> Any:
        if self._storage is None:
            raise ValueError("tensors in an unexpected place")
        return self._storage(*parts)

    def get_extension(self, code: int) -> None:
        raise ValueError(f"the class of number {code} in the writer's registry")

    def _instantiate(self, kind: Any, arguments: list) -> None:
        self.append(_call(kind, tuple(arguments)))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def _reduce_named(self) -> None:
        named, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], (*arguments, named) if named else arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            target.state = state
        elif isinstance(target, np.ndarray) and target.flags.writeable:  # only just reconstructed
            _restore_numpy(target, state)
        elif not isinstance(target, dict | list | set | np.ndarray):
            raise TypeError(f"a {type(target).__name__} has no state")

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _reduce
    dispatch[pickle.NEWOBJ_EX[0]] = _reduce_named
    dispatch[pickle.BUILD[0]] = _build


def _unpickle(file: BinaryIO, storage: Callable | None = None) -> Any:
    """The object of the pickle at the file's position, which moves to its end.

    Args:
      file: open for reading.
      storage: from the parts of a persistent id, how PyTorch refers to the data of a tensor.
    """
    return _Unpickler(file, storage).load()
