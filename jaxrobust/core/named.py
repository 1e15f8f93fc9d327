"""What is chosen by name, as configs do it: a value among others, a method with its options."""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def did_you_mean(name: Any, choices: Iterable[Any], *, cutoff: float = 0.6) -> str:
    """The three choices nearest to a name, for the end of a sentence; "" when none is near.

    Args:
      name: as it was given.
      choices: those that there are.
      cutoff: how alike two names must be, from 0 to 1.

    Example:
      >>> print(f"Unknown model 'resnet51'{did_you_mean('resnet51', ['resnet50', 'vgg11'])}.")
      Unknown model 'resnet51' (did you mean 'resnet50'?).
    """
    nearest = difflib.get_close_matches(str(name), map(str, choices), cutoff=cutoff)
    return f" (did you mean {' or '.join(map(repr, nearest))}?)" if nearest else ""


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise unless an option is one of the choices.

    Raises:
      ValueError: with the choices, and the nearest of them.

    Example:
      >>> check_choice("format", "jpeg", ["png", "jpg"])
      Traceback (most recent call last):
      ValueError: format must be one of png, jpg, got 'jpeg' (did you mean 'jpg'?).
    """
    choices = list(choices)
    if value not in choices:
        listed, hint = ", ".join(map(str, choices)), did_you_mean(value, choices)
        raise ValueError(f"{name} must be one of {listed}, got {value!r}{hint}.")


def check_options(name: str, options: Iterable[str], choices: Iterable[str]) -> None:
    """Raise unless a method of that name has all of these options.

    Raises:
      ValueError: with the first option that is none of the choices.
    """
    choices = list(choices)
    for option in options:
        if option not in choices:
            hint = did_you_mean(option, choices)
            raise ValueError(
                f"{option!r} is no option of {name}{hint}; expected some of {', '.join(choices)}."
            )


def get(kind: str, methods: Mapping[str, Callable | str], name: str) -> Callable:
    """The method of that name, or one of a user's own by its import path.

    Args:
      kind: what these methods are, for the sentence.
      methods: by name: functions, or their import paths.
      name: as a config has it; "package.module:function" is imported.

    Raises:
      ValueError: for an unknown name, or a path at which there is nothing.

    Example:
      >>> get("sum", {"total": sum}, "total")([1, 2]), get("sum", {}, "math:fsum")([1, 2])
      (3, 3.0)
    """
    if ":" not in str(name):
        check_choice(kind, name, methods)
    method = methods.get(name, name)
    if not callable(method):
        module, _, function = method.partition(":")
        try:
            method = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{kind} {name!r} cannot be imported: {error}.") from error
    if not callable(method):
        raise ValueError(f"{kind} {name!r} must be a function, got a {type(method).__name__}.")
    return method


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
    defaults = {
        option: parameter.default
        for option, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and option not in ("key", "batch_size")
    }
    check_options(name, options, defaults)
    completed = defaults | dict(options)
    missing = [option for option, value in completed.items() if value is inspect.Parameter.empty]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}, got {dict(options)}.")
    return completed
