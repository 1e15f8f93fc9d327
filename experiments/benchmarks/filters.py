"""Time of the filters beside OpenCV: python -m jaxrobust.experiments.benchmarks.filters.

Both filter the same float32 pictures in one run, in turns. OpenCV uses as many threads as it does
by default; compilation is timed apart.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np

from jaxrobust import filters
from jaxrobust.core import files
from jaxrobust.experiments.benchmarks import harness
from jaxrobust.experiments.benchmarks.harness import count, setting

OURS, THEIRS = "jaxrobust", "OpenCV"
# How far results may lie apart: the median is a selection, and so exact.
_TOLERANCES = {"median_filter": 0.0, "gaussian_blur": 1e-5}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured; the flags of the same names."""

    images: int = count(128, "pictures in one call")
    image_size: int = count(224, "their height and width in pixels; they have 3 channels")
    kernel_size: int = setting(
        5,
        "the median's, as OpenCV's knows it in float32; the blur's is 7",
        type=int,
        choices=[3, 5],
    )
    times: int = count(5, "applications of the median filter")
    sigma: float = setting(2.5, "the blur's, in pixels", type=float)
    batch_size: int | None = count(None, "pictures that our filters handle at once; default all")
    rounds: int = count(9, "measurements of each filter")
    out: str = harness.file("benchmark_filters.json")


def _works(settings: Settings) -> dict[str, dict[str, Callable[[], Any]]]:
    """For each filter and library, a function that filters all pictures."""
    shape = (settings.images, settings.image_size, settings.image_size, 3)
    pictures = np.random.default_rng(0).random(shape, dtype=np.float32)
    images = jnp.asarray(pictures)

    def our(name: str, **options: Any) -> Callable[[], Any]:
        options |= {"batch_size": settings.batch_size}
        return lambda: filters.get(name)(images, **options)

    def their_median() -> list[np.ndarray]:
        results = list(pictures)
        for _ in range(settings.times):
            results = [cv2.medianBlur(picture, settings.kernel_size) for picture in results]
        return results

    def their_blur() -> list[np.ndarray]:
        return [cv2.GaussianBlur(picture, (7, 7), settings.sigma) for picture in pictures]

    median = {"kernel_size": settings.kernel_size, "times": settings.times}
    return {
        "median_filter": {OURS: our("median_filter", **median), THEIRS: their_median},
        "gaussian_blur": {OURS: our("gaussian_blur", sigma=settings.sigma), THEIRS: their_blur},
    }


def measure(settings: Settings) -> dict[str, Any]:
    """Measures in turns and compares the results.

    Returns:
      What the JSON file holds: date, hardware, versions, settings, and for each filter what
      `harness.compare` returns and the `difference` of the results.

    Raises:
      RuntimeError: when the libraries do not compute the same.
    """
    record = harness.describe(settings, {"opencv": cv2.__version__})
    record["hardware"]["opencv_threads"] = cv2.getNumThreads()
    works = _works(settings)
    timed = {
        name: {library: harness.timed(work) for library, work in both.items()}
        for name, both in works.items()
    }
    results = harness.compare(timed, settings.rounds)
    for name, both in works.items():
        pairs = zip(both[OURS](), both[THEIRS](), strict=True)
        difference = max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)
        if not difference <= _TOLERANCES[name]:
            raise RuntimeError(
                f"{name} and OpenCV's must be at most {_TOLERANCES[name]:g} apart, "
                f"got {difference:g}."
            )
        results[name]["difference"] = difference
    if hasattr(os, "getloadavg"):
        record["hardware"]["load_average_at_end"] = os.getloadavg()[0]
    return record | {"results": results}


def table(record: dict[str, Any]) -> str:
    """The measurement as text, one line a filter; the ratio is our time in units of OpenCV's."""
    rows = [["", OURS, THEIRS, "ratio", "quartiles"]]
    for name, both in record["results"].items():
        seconds = [f"{np.median(both[library]['seconds']):.3f} s" for library in (OURS, THEIRS)]
        quartiles = " to ".join(f"{value:.2f}" for value in both["ratio"]["quartiles"])
        rows.append([name, *seconds, f"{both['ratio']['median']:.2f}", quartiles])
    return harness.table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    settings = harness.parse(Settings, argv, "filters", __doc__)
    with harness.one_sentence():
        record = measure(settings)
        files.write_json(settings.out, record)
    hardware = record["hardware"]
    print(
        f"{settings.images} images of {settings.image_size} x {settings.image_size} x 3, "
        f"median {settings.kernel_size} x {settings.kernel_size} {settings.times} times, "
        f"on {hardware['device']} ({hardware['cores']} cores, load "
        f"{hardware.get('load_average', 0.0):.1f})"
    )
    print(table(record))
    print(f"written to {settings.out}")


if __name__ == "__main__":
    main()
