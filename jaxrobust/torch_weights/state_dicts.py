"""State dicts as training libraries wrap them: in checkpoints, under prefixes, with normalisers."""

import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors

from jaxrobust.core.checks import check_count, check_that
from jaxrobust.models.layers import DOWNSAMPLINGS
from jaxrobust.torch_weights import files as torch_files
from jaxrobust.torch_weights.layouts import Tensor

# Where checkpoints keep the weights; copies averaged over the training have other names.
_ENTRIES = ("model", "state_dict", "model_state_dict", "net")
_AVERAGED = re.compile(r"(?:.*?[._])??(?:ema|swa)(?![^._])[^.]*[.]?")
# Buffers of a layer in front of the network, by their last component.
_NORMALIZER = {"mean": ("mean", "new_mean"), "std": ("std", "new_std")}

STRIDES = ("stem_stride", "downsampling")
METADATA = ("mean", "std", *STRIDES)
"""Fields of networks that their tensors do not show."""

State = dict[str, np.ndarray]

# The most characters of a name in a sentence.
_SHOWN = 200


@dataclass(frozen=True)
class Match:
    """Which tensors of a state dict are which arrays of a network.

    Attributes:
      layout: its name.
      prefix: before each name.
      tensors: of the network, by their names with the prefix.
      rest: names of the other tensors, without copies and counters.
    """

    layout: str
    prefix: str
    tensors: dict[str, Tensor]
    rest: list[str]


def read(path: Path) -> tuple[State, dict[str, Any]]:
    """The tensors of the state dict in a file, and the metadata of a safetensors file.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: when it cannot be read or holds no state dict.
    """
    content, where = torch_files.read(path), ""
    passed = set()
    while isinstance(content, dict):
        entry = _entry(content)
        if entry is None:
            break
        if id(content) in passed:
            raise ValueError(f"{path} must hold a state dict, got a dict that contains itself.")
        passed.add(id(content))
        content, where = content[entry], f" as {entry!r}"
    tensors = _tensors(content)
    if not tensors:
        raise ValueError(
            f"{path} must hold a state dict, alone or as {' or '.join(map(repr, _ENTRIES))} of a "
            f"checkpoint, got {_describe(content, where)}."
        )
    return tensors, _metadata(path)


def _entry(checkpoint: Mapping[Any, Any]) -> str | None:
    """Which entry of a checkpoint is the weights, or at least the network."""
    for kind in (dict, torch_files.Placeholder):
        for name in _ENTRIES:
            if isinstance(checkpoint.get(name), kind):
                return name
    return None


def _tensors(content: Any) -> State:
    if not isinstance(content, dict):
        return {}
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, np.ndarray)
    }


def _describe(content: Any, where: str) -> str:
    if isinstance(content, torch_files.Placeholder):
        return f"an object of {content.name}{where}; save its state_dict() instead"
    if not isinstance(content, dict):
        return f"a {type(content).__name__}{where}"
    got = f"a dict of {', '.join(map(reprlib.repr, list(content)[:6])) or 'nothing'}{where}"
    distinct = {id(value): (name, value) for name, value in content.items()}
    holding = next((name for name, value in distinct.values() if _tensors(value)), None)
    if holding is None:
        return got
    return f"{got}; save {reprlib.repr(holding)}, which holds tensors, alone"


def short(name: str) -> str:
    """A name from a file, where it may be of any length, for a sentence."""
    return name if len(name) <= _SHOWN else f"{name[: _SHOWN // 2]}…{name[-_SHOWN // 2 :]}"


def _metadata(path: Path) -> dict[str, Any]:
    """What `save` wrote of a network beside its tensors.

    Raises:
      ValueError: when it is not what `save` writes.
    """
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError:  # a file of PyTorch
        return {}
    found = {}
    for name in METADATA:
        if name in metadata:
            try:
                found[name] = json.loads(metadata[name])
            except (ValueError, RecursionError):
                got = reprlib.repr(metadata[name])
                raise ValueError(
                    f"{name} in {path} must be JSON, as jaxrobust writes it, got {got}."
                ) from None
    if "stem_stride" in found:
        check_count(f"stem_stride in {path}", found["stem_stride"])
    if "downsampling" in found:
        known = found["downsampling"] in DOWNSAMPLINGS
        rule = f"be one of {', '.join(DOWNSAMPLINGS)}"
        check_that(known, f"downsampling in {path}", rule, reprlib.repr(found["downsampling"]))
    return found


def match(state: State, layouts: Mapping[str, list[Tensor]]) -> Match:
    """The layout, and the prefix, under which most tensors of a network are found.

    Raises:
      ValueError: when the state dict holds two different networks; with their prefixes.
    """
    matches = {
        layout: _prefixes(state, {tensor.name for tensor in tensors})
        for layout, tensors in layouts.items()
    }
    layout = max(matches, key=lambda name: matches[name][0])  # the first of equals
    most, prefixes = matches[layout]
    prefix, *further = sorted(prefixes, key=lambda name: (bool(_averaged(name)), len(name)))
    tensors = {prefix + tensor.name: tensor for tensor in layouts[layout]}
    copies = set()
    for other in further:
        names = [name for name in tensors if name in state]
        twins = [other + name.removeprefix(prefix) for name in names]
        if all(
            twin in state and np.array_equal(state[twin], state[name])
            for name, twin in zip(names, twins, strict=True)
        ):
            copies |= set(twins)
        elif most == len(tensors) and (_averaged(prefix) or not _averaged(other)):
            places = f"under {short(prefix)!r} and under {short(other)!r}"
            raise ValueError(f"two different networks, {places}")
    rest = [
        name
        for name in state
        if name not in tensors
        and name not in copies
        and not _of_another_copy(name, prefix, tensors)
        and not name.endswith("num_batches_tracked")
    ]
    return Match(layout, prefix, tensors, rest)


def _of_another_copy(name: str, prefix: str, tensors: Iterable[str]) -> bool:
    """Whether a name lies under an averaged prefix beside the network's, not inside it."""
    averaged = _averaged(name)
    around = averaged[: averaged.rstrip(".").rfind(".") + 1]
    inside = len(around) > len(prefix) and any(tensor.startswith(around) for tensor in tensors)
    return averaged not in ("", _averaged(prefix)) and not inside


def _averaged(name: str) -> str:
    """The prefix, such as "model_ema.", of the averaged copy that a name is of; "" of none."""
    averaged = _AVERAGED.match(name)
    return averaged[0] if averaged else ""


def _prefixes(names: Iterable[str], wanted: set[str]) -> tuple[int, list[str]]:
    """How many of the wanted names are there under the best prefixes, and these."""
    counts: Counter[str] = Counter({"": 0})
    lengths = {len(name) for name in wanted}  # few, whereas a name may have any number of dots
    for name in names:
        for length in lengths:
            start = len(name) - length
            if (start == 0 or (start > 0 and name[start - 1] == ".")) and name[start:] in wanted:
                counts[name[:start]] += 1
    most = max(counts.values())
    return most, [prefix for prefix, count in counts.items() if count == most]


def normalizer(
    state: State, names: Iterable[str], channels: int
) -> tuple[dict[str, tuple[float, ...]], set[str]]:
    """The mean and std that a layer in front of a network keeps, and the tensors they are from.

    Args:
      state: the state dict.
      names: of the tensors outside the network.
      channels: how many numbers each is.

    Raises:
      ValueError: when there are several.
    """
    normalizations: dict[str, tuple[float, ...]] = {}
    used = set()
    for name in names:
        for field, endings in _NORMALIZER.items():
            if name.rpartition(".")[2] not in endings or state[name].size != channels:
                continue
            # Its shortest decimal is the same float32.
            values = state[name].ravel().astype(np.float32)
            numbers = tuple(float(str(value)) for value in values)
            first = normalizations.setdefault(field, numbers)
            if first != numbers:
                raise ValueError(f"several normalisations, {field} {first} and {numbers}")
            used.add(name)
    return normalizations, used


def differences(state: State, matched: Match, rest: Iterable[str]) -> str:
    """What is missing, of another shape or dtype, not finite, or left over; "" when nothing is."""
    missing, wrong = [], []
    for name, tensor in matched.tensors.items():
        if name not in state:
            missing.append(name)
        elif state[name].shape != tensor.torch_shape:
            wrong.append(f"{name} of shape {state[name].shape} instead of {tensor.torch_shape}")
        elif not jnp.issubdtype(state[name].dtype, jnp.floating):
            wrong.append(f"{name} of dtype {state[name].dtype} instead of a floating point one")
        elif not _finite(state[name]):
            wrong.append(f"{name} with numbers that are not finite")
    parts = []
    for kind, names in (("missing", missing), ("other", wrong), ("left over", list(rest))):
        if names:
            shown = ", ".join(map(short, names[:3])) + (", …" if len(names) > 3 else "")
            parts.append(f"{len(names)} {kind} ({shown})")
    return "; ".join(parts)


def _finite(array: np.ndarray) -> bool:
    with np.errstate(over="ignore"):  # of float64
        return bool(np.isfinite(array.astype(np.float32, copy=False)).all())


def variables(state: State, matched: Match) -> dict[str, Any]:
    """The network's variables; takes them out of the state dict one by one."""
    made: dict[str, Any] = {}
    for name, tensor in matched.tensors.items():
        here = made
        for part in tensor.path[:-1]:
            here = here.setdefault(part, {})
        here[tensor.path[-1]] = jnp.asarray(tensor.from_torch(state.pop(name)))
    return made
