"""Time of the filters beside OpenCV: python -m experiments.benchmarks.filters.

Both filter the same float32 pictures in one run, in turns, so that whatever else the machine does
falls on both. OpenCV uses as many threads as it does by default; compilation is timed apart.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments.benchmarks import speed as benchmark_speed
from jaxrobust import filters
from jaxrobust.core import files

OURS, THEIRS = "jaxrobust", "OpenCV"
# How far results may lie apart: the median is a selection, and so exact.
_TOLERANCES = {"median_filter": 0.0, "gaussian_blur": 1e-5}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
      images: how many pictures are filtered in one call.
      image_size: their height and width in pixels; they have 3 channels.
      kernel_size: of the median filter (OpenCV's knows 3 and 5 in float32); the blur's is 7.
      times: how many times the median filter is applied.
      sigma: of the Gaussian blur, in pixels.
      batch_size: pictures that our filters handle at once; None: all.
      rounds: measurements of each filter.
    """

    images: int = 128
    image_size: int = 224
    kernel_size: int = 5
    times: int = 5
    sigma: float = 2.5
    batch_size: int | None = None
    rounds: int = 9


def _works(settings: Settings) -> dict[str, dict[str, Callable[[], Any]]]:
    """For each filter and library, a function that filters all pictures."""
    shape = (settings.images, settings.image_size, settings.image_size, 3)
    pictures = np.random.default_rng(0).random(shape, dtype=np.float32)
    images = jnp.asarray(pictures)

    def our(name: str, **options: Any) -> Callable[[], Any]:
        options |= {"batch_size": settings.batch_size}
        return lambda: jax.block_until_ready(filters.get(name)(images, **options))

    def their_median() -> list[np.ndarray]:
        results = list(pictures)
        for _ in range(settings.times):
            results = [cv2.medianBlur(picture, settings.kernel_size) for picture in results]
        return results

    def their_blur() -> list[np.ndarray]:
        return [cv2.GaussianBlur(picture, (7, 7), settings.sigma) for picture in pictures]

    return {
        "median_filter": {
            OURS: our("median_filter", kernel_size=settings.kernel_size, times=settings.times),
            THEIRS: their_median,
        },
        "gaussian_blur": {
            OURS: our("gaussian_blur", sigma=settings.sigma),
            THEIRS: their_blur,
        },
    }


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(settings: Settings, tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Compares the results, then measures in turns.

    Args:
      settings: what to measure.
      tell: is given one line at a time about what goes on.

    Returns:
      What the JSON file holds: date, hardware, versions, settings, and for each filter the
      `difference` of the results, of each library `first_call_seconds` and `seconds` (one for each
      round), and the `ratio` of our time to OpenCV's in the same round, median and quartiles.

    Raises:
      RuntimeError: when the libraries do not compute the same.
    """
    record = benchmark_speed.describe(settings, {"opencv": cv2.__version__})
    record["hardware"]["opencv_threads"] = cv2.getNumThreads()
    works = _works(settings)
    results: dict[str, Any] = {}
    for name, both in works.items():
        tell(f"comparing: {name}")
        results[name] = {
            library: {"first_call_seconds": _seconds(work), "seconds": []}
            for library, work in both.items()
        }
        pairs = zip(both[OURS](), both[THEIRS](), strict=True)
        difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
        if not difference <= _TOLERANCES[name]:
            raise RuntimeError(
                f"{name} and OpenCV's must be at most {_TOLERANCES[name]:g} apart, "
                f"got {difference:g}."
            )
        results[name]["difference"] = difference
    for turn in range(settings.rounds):
        tell(f"round {turn + 1} of {settings.rounds}")
        for name, both in works.items():
            # Back and forth, so that neither library always comes after the other.
            for library in list(both)[:: -1 if turn % 2 else 1]:
                results[name][library]["seconds"].append(_seconds(both[library]))
    for both in results.values():
        ours, theirs = (np.array(both[library]["seconds"]) for library in (OURS, THEIRS))
        low, middle, high = np.percentile(ours / theirs, (25, 50, 75)).tolist()
        both["ratio"] = {"median": middle, "quartiles": [low, high]}
    if hasattr(os, "getloadavg"):
        record["hardware"]["load_average_at_end"] = os.getloadavg()[0]
    return record | {"results": results}


def lines(record: dict[str, Any]) -> list[str]:
    """The measurement as text, one line a filter."""
    return [
        f"{name}: {OURS} {np.median(both[OURS]['seconds']):.3f} s, "
        f"{THEIRS} {np.median(both[THEIRS]['seconds']):.3f} s, "
        f"ratio {both['ratio']['median']:.2f} "
        f"(quartiles {both['ratio']['quartiles'][0]:.2f} to {both['ratio']['quartiles'][1]:.2f})"
        for name, both in record["results"].items()
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    values = vars(_parser().parse_args(argv))
    out = values.pop("out")
    try:
        if not Path(out).absolute().parent.is_dir():
            raise ValueError(f"out must lie in a folder that exists, got {out}.")
        record = measure(
            Settings(**values), tell=lambda line: print(line, file=sys.stderr, flush=True)
        )
        files.write_json(out, record)
    except (ValueError, TypeError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    settings, hardware = record["settings"], record["hardware"]
    print(
        f"{settings['images']} images of {settings['image_size']} x {settings['image_size']} x 3, "
        f"median {settings['kernel_size']} x {settings['kernel_size']} {settings['times']} times, "
        f"on {hardware['device']} ({hardware['cores']} cores, load "
        f"{hardware.get('load_average', 0.0):.1f})"
    )
    print("\n".join(lines(record)))
    print(f"written to {out}")


def _parser() -> argparse.ArgumentParser:
    default = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.filters", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    for name, text in (
        ("images", "pictures in one call"),
        ("image_size", "height and width in pixels"),
        ("times", "applications of the median filter"),
        ("batch_size", "pictures that our filters handle at once; all unless given"),
        ("rounds", "measurements of each filter"),
    ):
        add(f"--{name}", type=command.whole_number(1), default=getattr(default, name), help=text)
    add("--kernel_size", type=int, choices=[3, 5], default=default.kernel_size, help="the median's")
    add("--sigma", type=float, default=default.sigma, help="the blur's, in pixels")
    add("--out", default="benchmark_filters.json", help="the file of all times")
    return parser


if __name__ == "__main__":
    main()
