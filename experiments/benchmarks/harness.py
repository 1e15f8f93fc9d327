"""What the benchmarks share: their flags, works timed in turns, where they ran, their tables."""

import argparse
import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jaxrobust.experiments.experiment import whole_number

_MOST_CALLS = 100
Key = TypeVar("Key")
Settings = TypeVar("Settings")


def setting(default: Any, help: str, **options: Any) -> Any:
    """A field of a dataclass of settings that is a flag as well; options as of `add_argument`."""
    return dataclasses.field(default=default, metadata={"help": help, **options})


def count(default: int | None, help: str) -> Any:
    """A `setting` that is a whole number of at least 1."""
    return setting(default, help, type=whole_number(1), metavar="N")


def file(default: str) -> Any:
    """A `setting` that names the file of all times, in a folder that exists."""

    def parse(text: str) -> str:
        if not Path(text).absolute().parent.is_dir():
            raise argparse.ArgumentTypeError(f"must lie in a folder that exists, got {text}")
        return text

    return setting(default, "the file of all times", type=parse)


def parse(settings: type[Settings], argv: Sequence[str] | None, name: str, text: str) -> Settings:
    """What a command was given, as a dataclass of `setting`s; help is the first line of `text`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m jaxrobust.experiments.benchmarks.{name}", description=text.splitlines()[0]
    )
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        parser.add_argument(f"--{field.name}", default=field.default, **field.metadata)
    return settings(**vars(parser.parse_args(argv)))


@contextlib.contextmanager
def one_sentence(*, raised: bool = False) -> Iterator[None]:
    """Ends the program with the sentence of an error; `raised`: with all of it."""
    try:
        yield
    except (ValueError, TypeError, RuntimeError, FileNotFoundError) as error:
        if raised:
            raise
        sys.exit(f"{type(error).__name__}: {error}")


def tell(line: str) -> None:
    """What goes on, to whoever waits."""
    print(line, file=sys.stderr, flush=True)


def timed(
    run: Callable[[], Any], wait: Callable[[Any], Any] = jax.block_until_ready
) -> Callable[[int], float]:
    """A function that runs some work so many times in a row and returns the seconds of one time."""

    def measure(calls: int) -> float:
        # On CPU, calls that do not wait for each other would run side by side.
        alone = jax.default_backend() == "cpu"
        start = time.perf_counter()
        for _ in range(calls):
            result = run()
            if alone:
                wait(result)
        wait(result)
        return (time.perf_counter() - start) / calls

    return measure


def in_turns(
    works: Mapping[Key, Callable[[], float]], rounds: int, *, shuffled: bool = False
) -> dict[Key, list[float]]:
    """The seconds that each work returns in each round: what else the machine does falls on all.

    They are called back and forth, so that works that are compared stay side by side, or shuffled,
    so that what ran just before, which leaves its trace in the caches, is always something else.
    """
    taken: dict[Key, list[float]] = {key: [] for key in works}
    order, generator = list(works), random.Random(0)
    for turn in range(rounds):
        tell(f"round {turn + 1} of {rounds}")
        for key in order:
            taken[key].append(works[key]())
        if shuffled:
            generator.shuffle(order)
        else:
            order.reverse()
    return taken


def compare(
    works: Mapping[str, Mapping[str, Callable[[int], float]]], rounds: int, seconds: float = 0.0
) -> dict[str, dict[str, Any]]:
    """Times each work with each library, in turns, in measurements of so many seconds at least.

    Args:
      works: {work: {library: what `timed` returned}}, ours first.
      rounds: measurements of each.
      seconds: of one measurement.

    Returns:
      As JSON, for each work and library `first_call_seconds` (tracing and compiling included), then
      `calls` in a row and `seconds` of one call (one for each round), or the `error` it ended in;
      of two libraries the `ratio` of our time to the other's in the same round, median and
      quartiles.
    """
    results: dict[str, dict[str, Any]] = {name: {} for name in works}
    measurements = {}
    for name, libraries in works.items():
        for library, work in libraries.items():
            tell(f"compiling: {name}, {library}")
            results[name][library] = result = {}
            # A GPU's memory may not suffice for one of them; the others are still worth knowing.
            try:
                result["first_call_seconds"], _, once = (work(1) for _ in range(3))
            except RuntimeError as error:
                result["error"] = str(error)
                tell(f"{name}, {library} failed: {str(error).splitlines()[0]}")
                continue
            result["calls"] = min(_MOST_CALLS, max(1, math.ceil(seconds / once)))
            measurements[name, library] = functools.partial(work, result["calls"])
    for (name, library), taken in in_turns(measurements, rounds).items():
        results[name][library]["seconds"] = taken
    for both in results.values():
        measured = [result["seconds"] for result in both.values() if "seconds" in result]
        if len(measured) == 2:
            low, middle, high = np.percentile(np.divide(*measured), (25, 50, 75)).tolist()
            both["ratio"] = {"median": middle, "quartiles": [low, high]}
    return results


def describe(settings: Any, about: Mapping[str, Any]) -> dict[str, Any]:
    """Date, hardware, versions (`about` among them) and settings, as JSON."""
    device = jax.devices()[0]
    hardware: dict[str, Any] = {
        "backend": jax.default_backend(),
        "device": _processor() if device.platform == "cpu" else device.device_kind,
        "cores": cores(),
    }
    if hasattr(os, "getloadavg"):
        hardware["load_average"] = os.getloadavg()[0]
    packages = ("jax", "jaxlib", "flax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware,
        "versions": {"python": platform.python_version(), **versions, **about},
        "settings": dataclasses.asdict(settings),
    }


def cores() -> int | None:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text, the first column to the left.

    Example:
      >>> print(table([["", "seconds"], ["forward", "0.1"]]))
               seconds
      forward      0.1
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
