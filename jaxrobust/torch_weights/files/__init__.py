"""PyTorch's files of weights, read without PyTorch and without running anything in them.

A file that `torch.save` wrote holds a pickle, and a pickle is a program: the usual readers import
what it names and call it. The reader here imports nothing, and calls nothing but the constructors
of tensors and plain containers listed in `pickles.py`. As for all else:

- Any other class or function becomes a `Placeholder`: the arguments and optimizers of a training
  library that is not installed, functions that dill wrote by value. The weights beside them open.
- What is well known to act outside the program (`os`, `subprocess`, `eval`, `open`, …) would be as
  harmless, but is refused as soon as it is named: no file of weights needs it. No list of such
  names is complete; what is not on it is a placeholder as well, and does nothing.
"""

import io
import os
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy

from jaxrobust.torch_weights.files.allowance import Allowance
from jaxrobust.torch_weights.files.arrays import swap_bytes
from jaxrobust.torch_weights.files.names import Placeholder, ProblemError, storage_dtype
from jaxrobust.torch_weights.files.pickles import unpickle

__all__ = ["Placeholder", "read"]

_MAGIC = 0x1950A86A20F9469CFC6C

_DAMAGE = (
    *(ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError, MemoryError),
    *(OSError, RuntimeError, struct.error, zlib.error),
    *(zipfile.BadZipFile, pickle.UnpicklingError, safetensors.SafetensorError),
)


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
        what could execute code, or asks for more than 8 times as many bytes as it has.

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
        allowance = Allowance(path.stat().st_size)
        start = file.read(512)
        file.seek(0)
        try:
            if start.startswith(b"PK\x03\x04"):
                return _read_zip(file, allowance)
            if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 32:
                return _read_safetensors(path)
            if not _is_legacy(file, allowance):
                raise ProblemError(
                    f"is not a file that torch.save or safetensors wrote, but {_describe(start)}"
                )
            return read_legacy(file, allowance)
        except ProblemError as problem:
            raise ValueError(f"{path} {problem}.") from problem.__cause__
        except _DAMAGE as error:
            raise ValueError(
                f"{path} is cut off or damaged: {type(error).__name__}, "
                f"{' '.join(str(error)[:300].split()).rstrip('.') or 'it ends too early'}."
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
        raise ProblemError(f"holds tensors of a dtype that is not supported ({error})") from error
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def _read_zip(file: BinaryIO, allowance: Allowance) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ProblemError(
            "is cut off: it begins as a zip file of PyTorch and lacks the end of one"
        ) from error
    with archive:
        if sum(info.file_size for info in archive.infolist()) > allowance.size:
            raise ProblemError("is damaged: its entries overlap, or are larger than the file")
        names = set(archive.namelist())
        pickles = [name for name in names if re.fullmatch("[^/]+/data[.]pkl", name)]
        if len(pickles) != 1:
            raise ProblemError("is a zip file, but not of torch.save: it lacks a data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        order = _entry(archive, folder + "byteorder") if folder + "byteorder" in names else b""
        storages: dict[str, np.ndarray] = {}

        def storage(kind: str, of: Placeholder, key: str, location: str, count: int) -> np.ndarray:
            dtype = storage_dtype(of)
            _check_storage(key, count)
            if key not in storages:
                name = f"{folder}data/{key}"
                size, expected = archive.getinfo(name).file_size, count * dtype.itemsize
                if size != expected:
                    raise ProblemError(f"is damaged: {name} has {size} bytes, expected {expected}")
                content = np.frombuffer(_entry(archive, name), np.uint8)
                if order.strip() == b"big":
                    content = swap_bytes(content, of)
                storages[key] = content
            return storages[key].view(dtype)

        return unpickle(io.BytesIO(_entry(archive, pickles[0])), allowance, storage)


def _check_storage(key: Any, count: Any) -> None:
    if not isinstance(key, str) or not isinstance(count, int):
        raise ValueError("a tensor's data that are not a name and a number of elements")


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
            raise ProblemError(f"is a zip file, but not of torch.save: {name} is compressed")
        return archive.read(name)
    except zipfile.BadZipFile as error:
        raise ProblemError(
            f"is damaged: {name} in it does not match its checksum (or was written without one, "
            "torch.serialization.set_crc32_options(False))"
        ) from error


def _is_legacy(file: BinaryIO, allowance: Allowance) -> bool:
    try:
        return unpickle(file, allowance) == _MAGIC
    except ProblemError:
        raise
    except _DAMAGE:
        return False
    finally:
        file.seek(0)


def read_legacy(file: BinaryIO, allowance: Allowance) -> Any:
    """A magic number, a version, the writing machine, the object, keys of storages, their data."""
    magic, version = unpickle(file, allowance), unpickle(file, allowance)
    if not isinstance(version, int):
        version = f"of a {type(version).__name__}"
    if (magic, version) != (_MAGIC, 1001):
        raise ProblemError(f"is of PyTorch's format version {version}, expected 1001")
    unpickle(file, allowance)  # always little-endian: big machines swapped when writing
    position = file.tell()
    length = left = file.seek(0, os.SEEK_END)
    file.seek(position)
    storages: dict[str, tuple[np.ndarray, np.dtype]] = {}

    def storage(kind: str, of: Any, key: Any = None, location: Any = None, count=0, view=None):
        nonlocal left
        if kind == "module":  # a module's class beside its source code
            return of
        dtype = storage_dtype(of)
        _check_storage(key, count)
        if key not in storages:
            size = count * dtype.itemsize
            if not 0 <= size <= left:
                raise _cut_off(size, length)
            left -= size
            storages[key] = (np.empty(size, np.uint8), dtype)
        whole = storages[key][0].view(dtype)
        whole.flags.writeable = False
        if view is None:
            return whole
        _, offset, size = view
        if not 0 <= offset <= offset + size <= whole.size:
            raise ValueError(f"a view of {size} elements at {offset} in a storage of {whole.size}")
        return whole[offset : offset + size]

    content = unpickle(file, allowance, storage)
    keys = unpickle(file, allowance)
    if not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
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


def _cut_off(expected: int, got: int) -> ProblemError:
    return ProblemError(f"is cut off: {expected} bytes of a tensor expected, got {got}")
