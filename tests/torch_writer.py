"""Writes files as `torch.save` does, instruction by instruction, so that no PyTorch is needed."""

import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
KINDS = {
    "Float": np.float32,
    "Double": np.float64,
    "Half": np.float16,
    "BFloat16": ml_dtypes.bfloat16,
    "Byte": np.uint8,
    "Char": np.int8,
    "Short": np.int16,
    "Int": np.int32,
    "Long": np.int64,
    "Bool": np.bool_,
    "ComplexFloat": np.complex64,
}


class Name:
    """A class or function that the file names."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Made:
    """An object that the file makes by calling something, then fills and sets the state of."""

    def __init__(self, function, *arguments, state=None, items=None, opcode=b"R"):
        self.function = Name(*function.rsplit(".", 1)) if isinstance(function, str) else function
        self.arguments, self.state, self.items, self.opcode = arguments, state, items, opcode


class Persistent:
    """The data of a tensor, kept outside the pickle."""

    def __init__(self, *parts):
        self.parts = parts


def program(value) -> bytes:
    """The instructions that put a value on the stack."""
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Made):
        made = program(value.function) + program(value.arguments) + value.opcode
        if value.items is not None:
            made += program(value.items)[1:]  # what follows the empty container
        return made + (program(value.state) + b"b" if value.state is not None else b"")
    if isinstance(value, Persistent):
        return program(value.parts) + b"Q"
    if isinstance(value, dict):
        return b"}(" + b"".join(program(part) for pair in value.items() for part in pair) + b"u"
    if isinstance(value, list | tuple):
        inner = b"(" + b"".join(map(program, value))
        return b"]" + inner + b"e" if isinstance(value, list) else inner + b"t"
    return pickle.dumps(value, 2)[2:-1]


def pickled(value) -> bytes:
    return b"\x80\x02" + program(value) + b"."


class Writer:
    """Builds tensors and collects the data that belong beside the pickle."""

    def __init__(self):
        self.data = {}

    def storage(self, array, view=()):
        kind = next(kind for kind, dtype in KINDS.items() if array.dtype == dtype)
        key = str(len(self.data))
        self.data[key] = array
        return self.again(key, kind, view)

    def again(self, key, kind="Float", view=()):
        size = self.data[key].size
        return Persistent("storage", Name("torch", f"{kind}Storage"), key, "cuda:0", size, *view)

    def tensor(self, array, view=()):
        steps = tuple(step // array.itemsize for step in array.strides)
        storage = self.storage(np.ravel(array), view)
        return tensor(storage, 0, array.shape, steps)

    def zip(self, path, content, byteorder="little"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", pickled(content))
            archive.writestr("archive/byteorder", byteorder)
            for key, array in self.data.items():
                if byteorder == "big":
                    array = array.byteswap()
                archive.writestr(f"archive/data/{key}", array.tobytes())
            archive.writestr("archive/version", "3\n")

    def legacy(self, path, content, version=1001):
        system = {"protocol_version": version, "little_endian": True, "type_sizes": {"int": 4}}
        parts = [pickled(part) for part in (MAGIC, version, system, content, list(self.data))]
        for array in self.data.values():
            parts.append(struct.pack("<q", array.size) + array.tobytes())
        path.write_bytes(b"".join(parts))


class LegacyWriter(Writer):
    def tensor(self, array, view=(None,)):
        return super().tensor(array, view)


def tensor(storage, offset, shape, steps):
    hooks = Made("collections.OrderedDict")
    return Made("torch._utils._rebuild_tensor_v2", storage, offset, shape, steps, False, hooks)
