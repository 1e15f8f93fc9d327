"""The rule by which a claim is decided: paired differences and a hierarchical bootstrap.

STD and ADV of the same seed are a pair; where there are values for each image, those of the same
image are compared. The interval comes from resampling seeds and, within them, images; Student's t
interval of the seeds' means stands beside it, and decides by `verdict_over_seeds`.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

NOT_APPLICABLE = "not applicable"
"""The verdict of what cannot be asked of the pictures, as of colours where there are none."""

# With fewer, nothing is decided over seeds.
LEAST_SEEDS = 3

# Images drawn at once: bounds the memory, whatever the numbers of images and resamples.
_DRAWS_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Difference:
    """A mean difference and its bootstrap interval; `dataclasses.asdict` of it goes into JSON.

    Attributes:
      mean: of second - first over the images of each seed, then over seeds.
      low, high: ends of the interval.
      resampled: what the interval covers: "seeds and images"; "seeds" when there is one value a
        seed; "images" when there is a single seed: then another training could turn out otherwise,
        and the interval says nothing about that.
      seeds: number of pairs of trainings.
      images: number of images compared, of all seeds together; 0 when there is one value a seed.
      left_out: number of pairs of values left out because one was not defined (NaN).
      confidence: share of resamples inside the interval.
      resamples: number of bootstrap resamples.
      t_low, t_high: ends of `t_interval` of the seeds' mean differences; None of a single seed.
    """

    mean: float
    low: float
    high: float
    resampled: str
    seeds: int
    images: int
    left_out: int
    confidence: float
    resamples: int
    t_low: float | None = None
    t_high: float | None = None

    def verdict(self, side: str) -> str:
        """Whether the claim that the difference is "positive" (or "negative") stands.

        Returns:
          "holds" when the interval lies wholly on the stated side of 0, "does not hold" when wholly
          on the other, else "open"; an end at 0 lies on neither.

        Raises:
          ValueError: for another side.

        Example:
          >>> difference([[1.0, 2.0, 3.0]], [[3.0, 4.0, 5.0]]).verdict("positive")
          'holds'
        """
        if side not in ("positive", "negative"):
            raise ValueError(f"side must be 'positive' or 'negative', got {side!r}.")
        low, high = (self.low, self.high) if side == "positive" else (-self.high, -self.low)
        return above({"low": low, "high": high}, 0.0)


def _check_seeds(values: Any, name: str) -> list[np.ndarray]:
    """One float array for each seed, () for one value a seed or (n,) for one value an image."""
    if isinstance(values, (str, dict)) or not hasattr(values, "__len__"):
        raise TypeError(f"{name} must hold an array for each seed, got a {type(values).__name__}.")
    if len(values) == 0:
        raise ValueError(f"{name} must hold an array for each seed, got none.")
    arrays = [np.asarray(value, np.float64) for value in values]
    ranks = {array.ndim for array in arrays}
    if ranks not in ({0}, {1}):
        raise ValueError(
            f"{name} must hold, for each seed, either one value or values of shape (images,), "
            f"got shapes {[array.shape for array in arrays]}."
        )
    return arrays


def _paired(first: Any, second: Any, leave_out_undefined: bool) -> tuple[list[np.ndarray], int]:
    """second - first for each seed, without the pairs that are NaN, and how many those were."""
    first, second = _check_seeds(first, "first"), _check_seeds(second, "second")
    if len(first) != len(second):
        raise ValueError(
            f"first and second must hold the same seeds, got {len(first)} and {len(second)}."
        )
    differences, left_out = [], 0
    for seed, (before, after) in enumerate(zip(first, second, strict=True)):
        if before.shape != after.shape:
            raise ValueError(
                "first and second must hold values of the same images, "
                f"got shapes {before.shape} and {after.shape} at position {seed}."
            )
        if np.isinf(before).any() or np.isinf(after).any():
            raise ValueError(f"values must be finite, got infinity at position {seed}.")
        change = after - before
        undefined = np.isnan(change)
        if undefined.any() and not leave_out_undefined:
            raise ValueError(
                f"values must not be NaN, got {undefined.sum()} at position {seed}; with "
                "leave_out_undefined, such pairs are left out and counted."
            )
        left_out += int(undefined.sum())
        kept = change[~undefined]
        if kept.size == 0:
            raise ValueError(f"no pair is left at position {seed}: nothing was given, or all NaN.")
        differences.append(kept)
    return differences, left_out


def _resampled_means(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The means of `count` resamples of the values, each drawn with replacement."""
    if values.size == 1:
        return np.full(count, values[0])
    means = np.empty(count)
    rows = max(1, _DRAWS_AT_ONCE // values.size)
    for start in range(0, count, rows):
        size = (min(rows, count - start), values.size)
        means[start : start + rows] = values[rng.integers(values.size, size=size)].mean(1)
    return means


def difference(
    first: Sequence[Any],
    second: Sequence[Any],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
    leave_out_undefined: bool = False,
) -> Difference:
    """The mean of second - first over seeds and images, with a hierarchical bootstrap interval.

    A resample draws as many seeds as there are, with replacement, and within each seed drawn as
    many of its images as it has, with replacement (anew when a seed is drawn twice); its statistic
    is the mean over the seeds drawn of the means over their images. The interval lies between the
    (1 - confidence) / 2 and (1 + confidence) / 2 quantiles of the resamples' statistics (the
    percentile bootstrap). Pairs stay together throughout. With few seeds the interval is too
    narrow: of intervals from 3 seeds, 3 in 4 rather than 19 in 20 contain the truth when it is the
    seeds that differ.

    Args:
      first: for each seed an array (images,), or one value; position i of both is the same seed,
        position j within it the same image. Seeds may have different numbers of images.
      second: as `first`.
      resamples: at least 1.
      seed: of the resampling; the same input gives the same interval.
      confidence: in (0, 1).
      leave_out_undefined: leave pairs with a NaN out, counted in the result, instead of raising.

    Raises:
      TypeError, ValueError: when the two do not match, hold infinity or NaN, are empty, or consist
        of a single pair of values, which gives no interval; for options out of their range.

    Example:
      >>> change = difference([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])
      >>> round(change.mean, 3), change.resampled, change.verdict("negative")
      (-0.1, 'seeds', 'holds')
    """
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise ValueError(f"resamples must be a whole number of at least 1, got {resamples!r}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")
    values, left_out = _paired(first, second, leave_out_undefined)
    seeds, images = len(values), sum(value.size for value in values)
    if images == 1:
        raise ValueError("a single pair of values gives no interval; give several seeds or images.")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(seeds, size=(resamples, seeds))
    statistics = np.empty((resamples, seeds))
    for position, value in enumerate(values):
        here = drawn == position
        statistics[here] = _resampled_means(value, int(here.sum()), rng)
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistics.mean(1), [tail, 1 - tail])
    single_values = images == seeds
    means = [float(value.mean()) for value in values]
    t_low, t_high = t_interval(means, confidence=confidence) if seeds > 1 else (None, None)
    return Difference(
        mean=float(np.mean(means)),
        low=float(low),
        high=float(high),
        resampled="images" if seeds == 1 else "seeds" if single_values else "seeds and images",
        seeds=seeds,
        images=0 if single_values else images,
        left_out=left_out,
        confidence=float(confidence),
        resamples=resamples,
        t_low=t_low,
        t_high=t_high,
    )


def t_interval(values: Sequence[float], *, confidence: float = 0.95) -> tuple[float, float]:
    """Student's t interval of the mean of one value a seed: mean ± t · s / sqrt(n).

    s is the standard deviation with n - 1 degrees of freedom, as t has (95 %: 12.71 for two seeds,
    4.30 for three, 2.78 for five). Unlike the bootstrap's, it is wide enough with few seeds, if
    their values are about normally distributed.

    Args:
      values: finite, at least 2: the difference of each pair of trainings.
      confidence: in (0, 1).

    Raises:
      ValueError: for fewer values, one that is not finite, or a confidence out of its range.

    Example:
      >>> [round(end, 2) for end in t_interval([1.0, 2.0, 3.0])]
      [-0.48, 4.48]
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or array.size < 2 or not np.isfinite(array).all():
        raise ValueError(f"values must be finite, one for each of at least 2 seeds, got {values}.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}.")
    factor = scipy.stats.t.ppf((1 + confidence) / 2, array.size - 1)
    reach = factor * array.std(ddof=1) / np.sqrt(array.size)
    return float(array.mean() - reach), float(array.mean() + reach)


def compare(first: Sequence[Any], second: Sequence[Any], side: str | None = None) -> dict[str, Any]:
    """`difference` as JSON, with its verdict, also of what gives no interval.

    Args:
      first, second: as for `difference`; NaN where not defined.
      side: on which the difference is claimed to lie, "positive" or "negative"; None: no claim.

    Returns:
      The fields of `Difference` and, with a side, the "verdict". Without an interval (low and high
      are None) and open when a single pair of values is defined; without a mean as well when none
      is for some seed.

    Example:
      >>> compare([1.0], [3.0], "positive")
      {'mean': 2.0, 'low': None, 'high': None, 'verdict': 'open'}
    """
    changes = [np.subtract(after, before) for before, after in zip(first, second, strict=True)]
    defined = [int(np.sum(~np.isnan(change))) for change in changes]
    if min(defined) > 0 and sum(defined) > 1:
        change = difference(first, second, leave_out_undefined=True)
        return dataclasses.asdict(change) | ({"verdict": change.verdict(side)} if side else {})
    mean = float(np.nanmean(changes[0])) if defined == [1] else None
    return {"mean": mean, "low": None, "high": None} | ({"verdict": "open"} if side else {})


def verdict_over_seeds(change: Mapping[str, Any], side: str) -> str:
    """What Student's t interval of a difference of `compare` says of it; open below three seeds.

    Args:
      change: of `compare`.
      side: on which the difference is claimed to lie, "positive" or "negative".

    Example:
      >>> change = compare([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], "positive")
      >>> change["verdict"], verdict_over_seeds(change, "positive")
      ('holds', 'open')
    """
    if change.get("seeds", 1) < LEAST_SEEDS:
        return "open"
    sign = {"positive": 1.0, "negative": -1.0}[side]
    low, high = sorted((sign * change["t_low"], sign * change["t_high"]))
    return above({"low": low, "high": high}, 0.0)


def above(change: Mapping[str, Any], limit: float) -> str:
    """Whether a difference of `compare` lies above a limit.

    Returns:
      "holds" when its interval lies above, "does not hold" when below, else "open".

    Example:
      >>> [above({"low": low, "high": low + 1}, -1.0) for low in (-0.5, -1.5, -3.0)]
      ['holds', 'open', 'does not hold']
    """
    if change["low"] is None:
        return "open"
    if change["low"] > limit:
        return "holds"
    return "does not hold" if change["high"] < limit else "open"


def within(change: Mapping[str, Any], limit: float) -> str:
    """Whether a difference of `compare` lies within ±limit.

    Returns:
      "holds" when its interval lies inside, "does not hold" when wholly outside, else "open".

    Example:
      >>> [within({"low": low, "high": low + 4}, 10.0) for low in (-5.0, 7.0, 11.0, -20.0)]
      ['holds', 'open', 'does not hold', 'does not hold']
    """
    low, high = change["low"], change["high"]
    if low is None:
        return "open"
    if -limit < low and high < limit:
        return "holds"
    return "does not hold" if low > limit or high < -limit else "open"


def as_text(change: dict[str, Any], digits: int = 4) -> str:
    """What `compare` found, for a table.

    Example:
      >>> as_text({"mean": -0.5, "low": -0.75, "high": 0.0}, digits=2)
      '-0.50 [-0.75, +0.00]'
    """
    if change["mean"] is None:
        return "not defined"
    mean, low, high = (
        "" if value is None else f"{value:+.{digits}f}"
        for value in (change["mean"], change["low"], change["high"])
    )
    return f"{mean} [{low}, {high}]" if low else f"{mean} one seed: no interval"


def all_hold(verdicts: Iterable[str]) -> str:
    """The verdict of several claims together; what is not measured leaves it open.

    What is not applicable has no say. What is "open: " for some reason leaves the whole open for
    the same reason.

    Example:
      >>> all_hold(["holds", "holds"]), all_hold(["holds", "open"]), all_hold([])
      ('holds', 'open', 'open')
      >>> all_hold(["holds", "open", "open: stride"]), all_hold(["holds", "not applicable"])
      ('open: stride', 'holds')
    """
    different = set(verdicts)
    if different == {NOT_APPLICABLE}:
        return NOT_APPLICABLE
    different.discard(NOT_APPLICABLE)
    if "does not hold" in different:
        return "does not hold"
    if different == {"holds"}:
        return "holds"
    reasons = sorted(each.removeprefix("open: ") for each in different if each.startswith("open: "))
    return f"open: {', '.join(reasons)}" if reasons else "open"


def defined_mean(values: np.ndarray) -> float:
    """The mean without the values that are not defined; NaN when none is.

    Example:
      >>> defined_mean(np.array([1.0, np.nan, 3.0]))
      2.0
    """
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
