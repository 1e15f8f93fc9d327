"""Images per second of training and attacks, beside PyTorch: python -m experiments.benchmarks.speed

Both libraries do the same work in one run, in turns, so that whatever else the machine does falls
on both; compilation and warm-up are timed apart. `--check` says whether it is the same work.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Both libraries share the device's memory; JAX would take most of it for itself.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np

from experiments.benchmarks import speed_works
from experiments.benchmarks.speed_works import OURS, THEIRS, Settings, Work
from jaxrobust.core import files, runtime

_MOST_CALLS = 100
_TRACED_CALLS = 3


def _calls(work: Work, calls: int) -> float:
    """Seconds of one call, of several in a row."""
    # On CPU, calls that do not wait for each other would run side by side.
    alone = jax.default_backend() == "cpu"
    start = time.perf_counter()
    for _ in range(calls):
        result = work.run()
        if alone:
            work.wait(result)
    work.wait(result)
    return (time.perf_counter() - start) / calls


def measure(settings: Settings, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Measures everything, in turns.

    Args:
        settings: what to measure.
        tell: is given one line at a time about what goes on.

    Returns:
        What the JSON file holds: date, hardware, versions, settings, and for each work and library
        `first_call_seconds` (tracing, compiling and one call), `seconds` of one call (one for each
        round), their median's `images_per_second`, the `spread` (interquartile range in units of
        the median) and, of ours, `flops` of a call and `utilisation`; or the `error` it ended in.
    """
    subject = speed_works.Subject.create(settings)
    libraries = {OURS: speed_works.our_works(subject)}
    about: dict[str, Any] = {}
    if settings.torch:
        try:
            libraries[THEIRS], about = speed_works.their_works(subject, settings)
        except RuntimeError as error:
            tell(f"{error}: jaxrobust is measured alone.")
    record = describe(settings, about)
    hardware = record["hardware"]
    if hardware["backend"] == "cpu" and hardware.get("load_average", 0) > 1 < hardware["cores"]:
        tell("the machine has other work, from which PyTorch's threads suffer most: try --cores=1.")
    results: dict[str, dict[str, Any]] = {name: {} for name in settings.works}
    flops = speed_works.flops(libraries[OURS])
    calls = {}
    for name in settings.works:
        for library, works in libraries.items():
            tell(f"compiling: {name}, {library}")
            results[name][library] = result = {}
            # A GPU's memory may not suffice for one of them; the others are still worth knowing.
            try:
                result["first_call_seconds"] = _calls(works[name], 1)
                _calls(works[name], 1)
                once = _calls(works[name], 1)
            except RuntimeError as error:
                result["error"] = str(error)
                tell(f"{name}, {library} failed: {str(error).splitlines()[0]}")
                continue
            calls[name, library] = min(_MOST_CALLS, max(1, math.ceil(settings.seconds / once)))
            result |= {"calls": calls[name, library], "seconds": []}
    for turn in range(settings.rounds):
        tell(f"round {turn + 1} of {settings.rounds}")
        # Back and forth, so that neither library always comes after the other.
        for name, library in list(calls)[:: -1 if turn % 2 else 1]:
            taken = _calls(libraries[library][name], calls[name, library])
            results[name][library]["seconds"].append(taken)
    for name, library in calls:
        _summarise(results[name][library], settings, flops[name] if library == OURS else None)
    for both in results.values():
        if all("seconds" in both.get(library, {}) for library in (OURS, THEIRS)):
            ours, theirs = (np.array(both[library]["seconds"]) for library in (OURS, THEIRS))
            low, middle, high = np.percentile(ours / theirs, (25, 50, 75)).tolist()
            both["ratio"] = {"median": middle, "quartiles": [low, high]}
    return record | {"results": results}


def _summarise(result: dict[str, Any], settings: Settings, flops: float | None) -> None:
    low, median, high = np.percentile(result["seconds"], (25, 50, 75)).tolist()
    result |= {"images_per_second": settings.batch_size / median, "spread": (high - low) / median}
    if flops is not None:
        result["flops"] = flops
        if settings.peak_tflops:
            result["utilisation"] = flops / median / (settings.peak_tflops * 1e12)


def describe(settings: Settings, about: dict[str, Any]) -> dict[str, Any]:
    """Date, hardware, versions and settings, as JSON."""
    device = jax.devices()[0]
    hardware = {"backend": jax.default_backend(), "device": device.device_kind}
    if device.platform == "cpu":
        hardware["device"] = _processor()
    hardware["cores"] = _cores()
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


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _use_cores(count: int) -> None:
    """Keep this process, before either library has started its threads, on so many cores."""
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("cores can be chosen on Linux only.")
    if count > _cores():
        raise ValueError(f"cores must be at most the {_cores()} there are, got {count}.")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(record: dict[str, Any]) -> str:
    """The measurement as text; the ratio is PyTorch's images per second in units of ours."""
    used = "utilisation" in next(iter(record["results"].values())).get(OURS, {})
    rows = [["", OURS, "spread", THEIRS, "spread", "ratio", "faster", "GFLOP/image"]]
    rows[0] += ["utilisation"] if used else []
    for name, both in record["results"].items():
        row = [name]
        for library in (OURS, THEIRS):
            result = both.get(library, {})
            if "images_per_second" in result:
                row += [f"{result['images_per_second']:.4g}/s", f"{result['spread']:.0%}"]
            else:
                row += ["failed" if "error" in result else "–", ""]
        ratio = both.get("ratio")
        row += [f"{ratio['median']:.2f}", _faster(*ratio["quartiles"])] if ratio else ["–", ""]
        ours = both[OURS]
        flops = ours.get("flops")
        per_image = None if flops is None else flops / record["settings"]["batch_size"] / 1e9
        row.append("–" if per_image is None else f"{per_image:.3g}")
        if used:
            row.append(f"{ours['utilisation']:.0%}" if "utilisation" in ours else "–")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _faster(low: float, high: float) -> str:
    """Which library is, when the middle half of the rounds agrees."""
    return THEIRS if low > 1 else OURS if high < 1 else "unclear"


def trace(settings: Settings, folder: str) -> None:
    """Writes a profile of a few PGD training steps, for TensorBoard or Perfetto."""
    work = speed_works.our_works(speed_works.Subject.create(settings))["PGD-10 training step"]
    _calls(work, 1)
    with jax.profiler.trace(folder):
        _calls(work, _TRACED_CALLS)


def _run(settings: Settings, out: str, trace_folder: str | None, only_check: bool) -> None:
    if only_check:
        differences = speed_works.check(settings)
        for what, (difference, tolerance) in differences.items():
            print(f"{what}: {difference:.2g} apart, at most {tolerance:g} expected")
        if not all(difference <= most for difference, most in differences.values()):
            raise ValueError("jaxrobust and PyTorch do not compute the same.")
        print("jaxrobust and PyTorch compute the same.")
        return
    if not Path(out).absolute().parent.is_dir():
        raise ValueError(f"out must lie in a folder that exists, got {out}.")
    record = measure(settings, tell=lambda line: print(line, file=sys.stderr, flush=True))
    files.write_json(out, record)
    hardware = record["hardware"]
    print(
        f"{settings.model} @{settings.image_size}, batches of {settings.batch_size}, images/s on "
        f"{hardware['device']} ({hardware['cores']} cores); ratio: {THEIRS} / {OURS}"
    )
    print(table(record))
    print(f"written to {out}")
    if trace_folder:
        trace(settings, trace_folder)
        print(f"trace written to {trace_folder}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    values = vars(_parser().parse_args(argv))
    values["works"] = tuple(values["works"])
    settings = Settings(**{f.name: values[f.name] for f in dataclasses.fields(Settings)})
    try:
        if settings.cores is not None:
            _use_cores(settings.cores)
        runtime.prepare()
        _run(settings, values["out"], values["trace"], values["check"])
    except (ValueError, TypeError, RuntimeError) as error:
        if values["verbose"]:
            raise
        sys.exit(f"{type(error).__name__}: {error}")


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.speed", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--model", default=default.model, help="name of a model, as in models.create")
    for name, text in (
        ("image_size", "height and width in pixels"),
        ("num_classes", "number of classes"),
        ("batch_size", "images in a batch"),
        ("rounds", "measurements of each work"),
        ("cores", "cores of the CPU that are used; all unless given"),
    ):
        add(f"--{name}", type=_at_least_one, default=getattr(default, name), help=text)
    add(
        "--works",
        nargs="+",
        choices=speed_works.WORKS,
        default=default.works,
        metavar="WORK",
        help=f"what is measured, of: {', '.join(speed_works.WORKS)} (default: all)",
    )
    add("--dtype", default=default.dtype, choices=["auto", "float32", "bfloat16"])
    add("--seconds", type=float, default=default.seconds, help="of one measurement, at least")
    add(
        "--torch",
        action=argparse.BooleanOptionalAction,
        default=default.torch,
        help="compare with PyTorch where there is one",
    )
    modes = ["auto", "none", "default", "max-autotune-no-cudagraphs"]
    add("--torch_compile", default=default.torch_compile, choices=modes)
    add("--peak_tflops", type=float, help="of the device, for the utilisation")
    add("--out", default="benchmark_speed.json", help="the file of all times")
    add("--trace", help="a folder for a profile of PGD training steps")
    add("--check", action="store_true", help="only compare the results of both libraries")
    add("--verbose", action="store_true", help="show where an error comes from")
    return parser


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    main()
