"""Methods chosen by name with their options, as configs give them."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any


def get(kind: str, methods: Mapping[str, Callable], name: str) -> Callable:
    """The method of that name.

    Args:
      kind: what these methods are, for the sentence.
      methods: by name.
      name: as a config has it.

    Raises:
      ValueError: for an unknown name.

    Example:
      >>> get("sum", {"total": sum}, "total")([1, 2])
      3
    """
    if name not in methods:
        near = difflib.get_close_matches(str(name), methods, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"{kind} must be one of {', '.join(methods)}, got {name!r}{hint}.")
    return methods[name]


def complete(name: str, method: Callable, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options that a call runs with: those given, and the defaults of the others.

    Args:
      name: of the method.
      method: its options are the keywords that it takes, without `key` and `batch_size`.
      options: those given.

    Raises:
      ValueError: for an unknown option, or one that is missing.

    Example:
      >>> complete("scale", lambda image, *, factor, offset=0.0: None, {"factor": 2.0})
      {'factor': 2.0, 'offset': 0.0}
    """
    known = {
        option: parameter.default
        for option, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and option not in ("key", "batch_size")
    }
    for option in options:
        if option not in known:
            raise ValueError(
                f"{option!r} is no option of {name}; expected some of {', '.join(known)}."
            )
    every = known | dict(options)
    missing = [option for option, value in every.items() if value is inspect.Parameter.empty]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}, got {dict(options)}.")
    return every
