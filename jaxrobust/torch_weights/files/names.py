"""What the names in a pickle stand for: dtypes, inert placeholders, and those that are refused."""

import re
from typing import Any

import ml_dtypes
import numpy as np

_REFUSED = re.compile(
    r"(.*\.)?(os|sys|subprocess)\..*|(.*\.)?builtins\.(eval|exec|execfile|compile|open|file|input"
    r"|__import__|breakpoint)|(pty|shutil|socket|ctypes|importlib|runpy|pdb|bdb|timeit|webbrowser"
    r"|popen2|marshal|pickle|_pickle|cPickle|torch\.hub|torch\.utils\.cpp_extension)\..*"
    r"|(torch|numpy|joblib|dill|dill\._dill|cloudpickle)\.loads?|numpy\.testing\..*\.runstring"
    r"|(io|_io)\.(open|open_code|FileIO)|code\.(interact|Interactive.*)|commands\.get.*",
    re.DOTALL,
)

# Characters of a name: the longest are of functions in functions, as dill names them.
_LONGEST = 500

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


class ProblemError(ValueError):
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


def find(module: str, name: str) -> Any:
    """The dtype or Placeholder for a name."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise TypeError(f"a name that is a {type(name).__name__}")
    if len(module) + len(name) > _LONGEST:
        raise ValueError(f"a name of {len(module) + len(name)} characters")
    full = f"{module}.{name}"
    for other, usual in _SAME_MODULES.items():
        if full.startswith(other):
            full = usual + full.removeprefix(other)
    if _REFUSED.fullmatch(full):
        raise ProblemError(
            f"is refused: it names {full}, which can execute code or touch files and which weights "
            "never need; nothing in it was executed"
        )
    return (named_dtype(name) if module == "torch" else None) or Placeholder(full)


def named_dtype(name: str) -> Any:
    """The dtype that PyTorch calls so, None when it is not one."""
    if re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)", name):
        return np.dtype(name)
    if re.fullmatch(r"bfloat16|float8_e4m3fn(uz)?|float8_e5m2(fnuz)?", name):
        return np.dtype(getattr(ml_dtypes, name))
    return None


def storage_dtype(of: Any) -> np.dtype:
    """The dtype of the elements of a class of storages."""
    name = of.name if isinstance(of, Placeholder) else type(of).__name__
    found = re.fullmatch(r"torch\.(?:storage\.)?_?(\w+)Storage", name)
    if found is None or found[1] not in _STORAGES:
        raise ProblemError(f"holds a {name}, which is not supported")
    return named_dtype(_STORAGES[found[1]])
