"""A reader of pickles that imports nothing and calls nothing but what is listed in `_BUILDERS`."""

import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

from jaxrobust.torch_weights.files.arrays import (
    numpy_frombuffer,
    numpy_scalar,
    raw_bytes,
    restore_numpy,
    tensor,
)
from jaxrobust.torch_weights.files.names import Placeholder, find


def _call(function: Any, arguments: Any) -> Any:
    """What a known constructor makes of the arguments, a Placeholder for all others."""
    if not isinstance(function, Placeholder) or not isinstance(arguments, tuple):
        raise TypeError(f"{function!r} cannot be called")
    builder = _BUILDERS.get(function.name) if function.arguments is None else None
    return builder(*arguments) if builder else Placeholder(function.name, arguments)


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes in the encoding {encoding!r}")
    return text.encode("latin1")


def _nested(content: bytes) -> Any:
    """A file in a file, of the format that stands above this one."""
    from jaxrobust.torch_weights.files import read_legacy

    return read_legacy(io.BytesIO(content))


def _first(value: Any, *_: Any) -> Any:
    return value


def _of_type(function: Any, kind: Any, arguments: Any, state: Any) -> Any:
    """A tensor with attributes or of another class."""
    return _call(function, arguments)


def _attribute(owner: Any, name: Any, *_: Any) -> Any:
    """So that what a file may name straight away has the same name, and is refused, by a detour."""
    if isinstance(owner, Placeholder) and owner.arguments is None:
        return find(owner.name, name)
    return Placeholder("builtins.getattr", (owner, name))


def _class_by_value(kind: Any, name: Any, bases: Any, members: dict) -> Placeholder:
    return Placeholder(f"{members.get('__module__', '__main__')}.{name}")


_BUILDERS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": lambda data, dtype, *_: data.astype(dtype),
    "torch.nn.parameter.Parameter": _first,
    "torch._tensor._rebuild_from_type": _of_type,
    "torch._tensor._rebuild_from_type_v2": _of_type,
    "torch.storage._load_from_bytes": _nested,
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
    "builtins.bytearray": lambda content=b"", *_: bytearray(raw_bytes(content)),
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
    "numpy._core.multiarray.scalar": numpy_scalar,
    "numpy._core.numeric._frombuffer": numpy_frombuffer,
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
        return find(module, name)

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
            restore_numpy(target, state)
        elif not isinstance(target, dict | list | set | np.ndarray):
            raise TypeError(f"a {type(target).__name__} has no state")

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _reduce
    dispatch[pickle.NEWOBJ_EX[0]] = _reduce_named
    dispatch[pickle.BUILD[0]] = _build


def unpickle(file: BinaryIO, storage: Callable | None = None) -> Any:
    """The object of the pickle at the file's position, which moves to its end.

    Args:
      file: open for reading.
      storage: from the parts of a persistent id, how PyTorch refers to the data of a tensor.
    """
    return _Unpickler(file, storage).load()
