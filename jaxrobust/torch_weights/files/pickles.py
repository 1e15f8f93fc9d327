"""A reader of pickles that imports nothing and calls nothing but what is listed in `_BUILDERS`.

Nor does it format, compare or hash a whole object that a file describes: a list of a list twice, of
a list twice, … has no end.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

from jaxrobust.torch_weights.files.allowance import Allowance, check_key
from jaxrobust.torch_weights.files.arrays import (
    cast,
    numpy_frombuffer,
    numpy_scalar,
    raw_bytes,
    restore_numpy,
    tensor,
)
from jaxrobust.torch_weights.files.names import Placeholder, find


def _encode(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(encoding, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("bytes in another encoding than latin1")
    return text.encode("latin1")


def _first(value: Any, *_: Any) -> Any:
    return value


def _device(kind: str, number: int | None = None) -> str:
    if not isinstance(kind, str) or not isinstance(number, int | None):
        raise TypeError("a device that is not a name and a number")
    return kind if number is None else f"{kind}:{number}"


def _attribute(owner: Any, name: Any, *_: Any) -> Any:
    """So that what a file may name straight away has the same name, and is refused, by a detour."""
    if isinstance(owner, Placeholder) and owner.arguments is None:
        return find(owner.name, name)
    return Placeholder("builtins.getattr", (owner, name))


def _class_by_value(kind: Any, name: Any, bases: Any, members: dict) -> Placeholder:
    return find(members.get("__module__", "__main__"), name)


def _container(kind: Callable) -> Callable:
    """Its constructor for elements in a container, as pickles have them: never in a tensor."""

    def build(content: Any = (), *_: Any) -> Any:
        if not isinstance(content, list | tuple | set | frozenset | dict):
            raise TypeError(f"a {kind.__name__} of a {type(content).__name__}")
        return kind(content)

    return build


def _set(content: Any) -> set:
    return set(map(check_key, content))


def _frozenset(content: Any) -> frozenset:
    return frozenset(map(check_key, content))


def _dict(content: Any) -> dict:
    pairs = content.items() if isinstance(content, dict) else content
    return {check_key(key): value for key, value in pairs}


_BUILDERS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": tensor,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_device_tensor_from_numpy": cast,
    "torch.nn.parameter.Parameter": _first,
    "torch.Size": _container(tuple),
    "torch.device": _device,
    "collections.OrderedDict": _container(_dict),
    "collections.Counter": _container(_dict),
    "collections.defaultdict": lambda factory=None, *content: _container(_dict)(*content),
    "collections.deque": _container(list),
    "builtins.dict": _container(_dict),
    "builtins.list": _container(list),
    "builtins.tuple": _container(tuple),
    "builtins.set": _container(_set),
    "builtins.frozenset": _container(_frozenset),
    "builtins.complex": complex,
    "builtins.bytearray": lambda content=b"", *_: bytearray(raw_bytes(content)),
    "_codecs.encode": _encode,
    "builtins.getattr": _attribute,
    "dill._dill._get_attr": _attribute,
    "dill._dill._import_module": lambda name, *_: Placeholder(name),
    "dill._dill._create_type": _class_by_value,
    "numpy._core.multiarray._reconstruct": lambda *_: np.empty(0, np.uint8),
    "numpy._core.multiarray.scalar": numpy_scalar,
    "numpy._core.numeric._frombuffer": numpy_frombuffer,
}

# What is called in the place of these, with what: a tensor with attributes or of another class, …
_INSTEAD: dict[str, Callable[..., tuple[Any, Any]]] = {
    "torch._tensor._rebuild_from_type": lambda function, kind, arguments, _: (function, arguments),
    "torch._tensor._rebuild_from_type_v2": lambda function, _, arguments, __: (function, arguments),
    "copyreg._reconstructor": lambda kind, _, state: (kind, () if state is None else (state,)),
    "copyreg.__newobj__": lambda kind, *arguments: (kind, arguments),
}

_Reader: Any = pickle._Unpickler


class _Unpickler(_Reader):
    """Python's reader with each instruction that would import or call something replaced.

    Of the two readers of the standard library this is the one written in Python, since that in C
    insists on a real class wherever an object is made from one.
    """

    dispatch: ClassVar[dict] = dict(_Reader.dispatch)

    def __init__(self, file: BinaryIO, allowance: Allowance, storage: Callable | None):
        super().__init__(file, encoding="latin1")
        # Before it reads, a file makes room for as many bytes as the pickle says.
        self._file_read = lambda size: file.read(min(size, allowance.size))
        self._allowance, self._storage = allowance, storage
        self._builders = _BUILDERS | {"torch.storage._load_from_bytes": self._nested}

    def find_class(self, module: str, name: str) -> Any:
        return find(module, name)

    def persistent_load(self, parts: Any) -> Any:
        if self._storage is None or not isinstance(parts, tuple):
            raise ValueError("tensors in an unexpected place")
        return self._storage(*parts)

    def get_extension(self, code: int) -> None:
        raise ValueError(f"the class of number {code} in the writer's registry")

    def _call(self, function: Any, arguments: Any) -> Any:
        """What a known constructor makes of the arguments, a Placeholder for all others."""
        while True:
            if not isinstance(function, Placeholder) or not isinstance(arguments, tuple):
                raise TypeError(f"a {type(function).__name__} cannot be called")
            known = function.name if function.arguments is None else None
            if known not in _INSTEAD:
                break
            function, arguments = _INSTEAD[known](*arguments)
        if known not in self._builders:
            return Placeholder(function.name, arguments)
        self._allowance.spend_on_copies(arguments)
        made = self._builders[known](*arguments)
        self._allowance.spend_on_array(made)
        return made

    def _nested(self, content: Any) -> Any:
        """A file in a file, of the format that stands above this one."""
        from jaxrobust.torch_weights.files import read_legacy

        return read_legacy(io.BytesIO(content), self._allowance)

    def _instantiate(self, kind: Any, arguments: list) -> None:
        self.append(self._call(kind, tuple(arguments)))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], arguments)

    def _reduce_named(self) -> None:
        named, arguments = self.stack.pop(), self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], (*arguments, named) if named else arguments)

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Placeholder):
            target.state = state
        elif isinstance(target, np.ndarray) and target.flags.writeable:  # only just reconstructed
            restore_numpy(target, state)
            self._allowance.spend_on_array(target)
        elif not isinstance(target, dict | list | set | np.ndarray):
            raise TypeError(f"a {type(target).__name__} has no state")

    def _bytearray(self) -> None:
        # Read and then copied: the usual reader makes as many zeros as the file says first.
        size = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(size)))

    def _long_integer(self) -> None:
        raise ValueError("an integer of more than 255 bytes")

    def _set_items(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict | Placeholder):
            raise TypeError(f"a {type(target).__name__} has no keys")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[check_key(key)] = value

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _make_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _make_frozenset(self) -> None:
        items = self.pop_mark()
        self.append(_frozenset(items))

    def _add_items(self) -> None:
        items, target = self.pop_mark(), self.stack[-1]
        for item in items:
            target.add(check_key(item))

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = _reduce
    dispatch[pickle.NEWOBJ_EX[0]] = _reduce_named
    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.BYTEARRAY8[0]] = _bytearray
    dispatch[pickle.LONG4[0]] = _long_integer
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = lambda self: self._set_items(self.pop_mark())
    dispatch[pickle.DICT[0]] = _make_dict
    dispatch[pickle.ADDITEMS[0]] = _add_items
    dispatch[pickle.FROZENSET[0]] = _make_frozenset


def unpickle(file: BinaryIO, allowance: Allowance, storage: Callable | None = None) -> Any:
    """The object of the pickle at the file's position, which moves to its end.

    Args:
      file: open for reading.
      allowance: how much may be made of the file.
      storage: from the parts of a persistent id, how PyTorch refers to the data of a tensor.
    """
    return _Unpickler(file, allowance, storage).load()
