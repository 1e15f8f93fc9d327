"""Images per second of training and attacks, beside PyTorch.

    python -m jaxrobust.experiments.benchmarks.speed

Both libraries do the same work in one run, in turns, so that whatever else the machine does falls
on both; compilation and warm-up are timed apart. `--check` says whether it is the same work.
"""

import os
from collections.abc import Sequence
from typing import Any

# Both libraries share the device's memory; JAX would take most of it for itself.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np

from jaxrobust.core import files, runtime
from jaxrobust.experiments.benchmarks import harness, speed_works
from jaxrobust.experiments.benchmarks.speed_works import OURS, THEIRS, Settings

_TRACED_CALLS = 3


def measure(settings: Settings) -> dict[str, Any]:
    """Measures everything, in turns.

    Returns:
      What the JSON file holds: date, hardware, versions, settings, and for each work what
      `harness.compare` returns, and of each library its median's `images_per_second`, the `spread`
      (interquartile range in units of the median) and, of ours, `flops` of a call and
      `utilisation`.
    """
    subject = speed_works.Subject.create(settings)
    libraries = {OURS: speed_works.our_works(subject)}
    about: dict[str, Any] = {}
    if settings.torch:
        try:
            libraries[THEIRS], about = speed_works.their_works(subject, settings)
        except RuntimeError as error:
            harness.tell(f"{error}: jaxrobust is measured alone.")
    record = harness.describe(settings, about)
    hardware = record["hardware"]
    if hardware["backend"] == "cpu" and hardware.get("load_average", 0) > 1 < hardware["cores"]:
        harness.tell(
            "the machine has other work, from which PyTorch's threads suffer most: try --cores=1."
        )
    flops = speed_works.flops(libraries[OURS])
    timed = {
        name: {
            library: harness.timed(works[name].run, works[name].wait)
            for library, works in libraries.items()
        }
        for name in settings.works
    }
    results = harness.compare(timed, settings.rounds, settings.seconds)
    for name, both in results.items():
        for library in libraries:
            if "seconds" in both[library]:
                low, median, high = np.percentile(both[library]["seconds"], (25, 50, 75)).tolist()
                both[library]["images_per_second"] = settings.batch_size / median
                both[library]["spread"] = (high - low) / median
        if "seconds" in both[OURS] and flops[name] is not None:
            both[OURS]["flops"] = flops[name]
            if settings.peak_tflops:
                per_second = flops[name] * both[OURS]["images_per_second"] / settings.batch_size
                both[OURS]["utilisation"] = per_second / (settings.peak_tflops * 1e12)
    return record | {"results": results}


def _use_cores(count: int) -> None:
    """Keep this process, before either library has started its threads, on so many cores."""
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("cores can be chosen on Linux only.")
    if count > harness.cores():
        raise ValueError(f"cores must be at most the {harness.cores()} there are, got {count}.")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


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
        row.append(f"{flops / record['settings']['batch_size'] / 1e9:.3g}" if flops else "–")
        if used:
            row.append(f"{ours['utilisation']:.0%}" if "utilisation" in ours else "–")
        rows.append(row)
    return harness.table(rows)


def _faster(low: float, high: float) -> str:
    """Which library is, when the middle half of the rounds agrees."""
    return THEIRS if low > 1 else OURS if high < 1 else "unclear"


def trace(settings: Settings, folder: str) -> None:
    """Writes a profile of a few PGD training steps, for TensorBoard or Perfetto."""
    work = speed_works.our_works(speed_works.Subject.create(settings))["PGD-10 training step"]
    measured = harness.timed(work.run, work.wait)
    measured(1)
    with jax.profiler.trace(folder):
        measured(_TRACED_CALLS)


def check(settings: Settings) -> None:
    """Says how far the results of both libraries are apart.

    Raises:
      ValueError: when they are not of the same work.
    """
    differences = speed_works.check(settings)
    for what, (difference, tolerance) in differences.items():
        print(f"{what}: {difference:.2g} apart, at most {tolerance:g} expected")
    if not all(difference <= most for difference, most in differences.values()):
        raise ValueError("jaxrobust and PyTorch do not compute the same.")
    print("jaxrobust and PyTorch compute the same.")


def run(settings: Settings) -> None:
    """Measures, writes the file and prints the table."""
    record = measure(settings)
    files.write_json(settings.out, record)
    hardware = record["hardware"]
    print(
        f"{settings.model} @{settings.image_size}, batches of {settings.batch_size}, images/s on "
        f"{hardware['device']} ({hardware['cores']} cores); ratio: {THEIRS} / {OURS}"
    )
    print(table(record))
    print(f"written to {settings.out}")
    if settings.trace:
        trace(settings, settings.trace)
        print(f"trace written to {settings.trace}")


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    settings = harness.parse(Settings, argv, "speed", __doc__)
    with harness.one_sentence(raised=settings.verbose):
        if settings.cores is not None:
            _use_cores(settings.cores)
        runtime.prepare()
        check(settings) if settings.check else run(settings)


if __name__ == "__main__":
    main()
