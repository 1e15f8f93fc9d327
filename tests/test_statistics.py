import dataclasses
import itertools
import json

import numpy as np
import pytest
import scipy.stats

from jaxrobust.experiments import statistics
from jaxrobust.experiments.statistics import Difference, difference


def exact(values):
    """Every equally likely resample of a few seeds with a few images each, by enumeration."""
    per_seed = [
        [np.mean(draw) for draw in itertools.product(value, repeat=len(value))] for value in values
    ]
    outcomes = {}
    for seeds in itertools.product(range(len(values)), repeat=len(values)):
        for means in itertools.product(*(per_seed[seed] for seed in seeds)):
            weight = 1 / np.prod([len(per_seed[seed]) for seed in seeds])
            outcome = round(float(np.mean(means)), 9)
            outcomes[outcome] = outcomes.get(outcome, 0) + weight
    points = np.array(sorted(outcomes))
    weights = np.array([outcomes[point] for point in points])
    return points, np.cumsum(weights / weights.sum())


def test_interval_equals_the_enumeration_of_all_resamples():
    values = [np.array([0.0, 1.0, 5.0]), np.array([2.0, 7.0]), np.array([-3.0, 4.0])]
    base = [np.array([10.0, 20.0, 30.0]), np.array([0.5, -0.5]), np.array([1.0, 2.0])]
    result = difference(base, [one + two for one, two in zip(base, values, strict=True)])
    assert result.mean == pytest.approx((2 + 4.5 + 0.5) / 3)  # not 16 / 7: seeds weigh the same
    points, cumulated = exact(values)
    for end, share in ((result.low, 0.025), (result.high, 0.975)):
        # Between the points that the share, give or take its sampling error, falls on.
        low, high = (points[np.searchsorted(cumulated, share + error)] for error in (-5e-3, 5e-3))
        assert low - 1e-9 <= end <= high + 1e-9
    assert (result.seeds, result.images, result.resampled) == (3, 7, "seeds and images")


def test_standard_deviation_is_the_formulas():
    # Of the statistic: variance of the seeds' means over S, plus that of their images' means.
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, (8, 1)) + rng.normal(0, 3, (8, 50))
    result = difference(np.zeros((8, 50)), values, confidence=0.6827)
    variance = (values.mean(1).var() + np.mean(values.var(1) / 50)) / 8
    assert (result.high - result.low) / 2 == pytest.approx(np.sqrt(variance), rel=0.03)


@pytest.mark.parametrize(("seeds", "images"), [(1, 60), (12, 0), (12, 20)])
def test_the_truth_is_covered(seeds, images):
    rng = np.random.default_rng(1)
    covered = 0
    for repeat in range(300):
        between = 0 if seeds == 1 else 1
        truth = 0.3 + between * rng.normal(size=seeds)
        noise = rng.normal(0, 2, (2, seeds, images or 1))
        image = rng.normal(0, 50, (1, images or 1))  # the same in both: pairing removes it
        first, second = noise[0] + image, noise[1] + image + truth[:, None]
        if not images:
            first, second = first[:, 0], second[:, 0]
        result = difference(list(first), list(second), resamples=500, seed=repeat)
        covered += result.low <= 0.3 <= result.high
    assert 0.88 <= covered / 300 <= 0.985


def test_one_seed_resamples_images_only_and_says_so():
    values = np.random.default_rng(2).normal(1, 2, 400)
    result = difference([np.zeros(400)], [values])
    assert (result.resampled, result.seeds, result.images) == ("images", 1, 400)
    error = values.std() / np.sqrt(400)
    np.testing.assert_allclose(
        [result.low, result.high], values.mean() + 1.96 * error * np.array([-1, 1]), atol=0.02
    )


def test_one_value_a_seed_resamples_seeds_only():
    result = difference([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    assert (result.resampled, result.seeds, result.images) == ("seeds", 3, 0)
    # 27 resamples of 1, 2, 3: the least and the greatest have a share of 1/27 > 0.025 each.
    assert (result.mean, result.low, result.high) == (2.0, 1.0, 3.0)
    same = difference([[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]])
    assert same == result


def test_equal_differences_have_no_width():
    rng = np.random.default_rng(3)
    first = [rng.integers(0, 9, 30) for _ in range(4)]
    result = difference(first, [values + 2 for values in first])
    assert (result.low, result.mean, result.high) == (2.0, 2.0, 2.0)
    assert difference(first, first).verdict("positive") == "open"


def test_t_interval_by_hand_and_as_scipy_has_it():
    # Of 1, 2, 6: mean 3, s² = 7, and t of 2 degrees of freedom is 4.3027 in any table.
    reach = 4.30265 * np.sqrt(7 / 3)
    assert statistics.t_interval([1.0, 2.0, 6.0]) == pytest.approx((3 - reach, 3 + reach), rel=1e-5)
    first, second = np.random.default_rng(5).normal([[0.0], [1.0]], 1, (2, 5))
    for confidence in (0.95, 0.8):
        test = scipy.stats.ttest_rel(second, first)
        found = statistics.t_interval(second - first, confidence=confidence)
        assert found == pytest.approx(tuple(test.confidence_interval(confidence)))
        change = difference(first, second, confidence=confidence)
        assert (change.t_low, change.t_high) == pytest.approx(found)


def test_t_interval_is_of_the_means_of_seeds():
    values = [np.array([0.0, 2.0, np.nan]), np.array([2.0, 4.0, 6.0, 8.0]), np.array([3.0])]
    change = statistics.compare([0 * value for value in values], values, "positive")
    assert (change["t_low"], change["t_high"]) == statistics.t_interval([1.0, 5.0, 3.0])
    assert (change["t_low"] < 0, change["verdict"]) == (True, "holds")  # it does not decide yet
    one_seed = statistics.compare([[0.0, 0.0]], [[1.0, 2.0]])
    assert (one_seed["t_low"], one_seed["t_high"]) == (None, None)
    for wrong in ([1.0], [[1.0, 2.0]], [1.0, np.nan]):
        with pytest.raises(ValueError, match="one for each of at least 2 seeds, got "):
            statistics.t_interval(wrong)
    with pytest.raises(ValueError, match=r"in \(0, 1\), got 95\.$"):
        statistics.t_interval([1.0, 2.0], confidence=95)


def test_the_seed_decides_the_interval_and_chunks_do_not(monkeypatch):
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(2, 3, 40))
    result = difference(first, second)
    assert difference(first, second) == result
    other = difference(first, second, seed=1)
    assert other != result
    assert other.low == pytest.approx(result.low, abs=0.03)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 1000)
    chunked = difference(first, second)
    assert (chunked.low, chunked.high) == pytest.approx((result.low, result.high), abs=0.03)


def test_truth_values_are_numbers():
    first = [np.array([True, False, True, True])] * 2
    second = [np.array([True, False, False, False])] * 2
    assert difference(first, second).mean == -0.5


@pytest.mark.parametrize(
    ("low", "high", "positive", "negative"),
    [
        (0.1, 0.2, "holds", "does not hold"),
        (-0.2, -0.1, "does not hold", "holds"),
        (-0.1, 0.1, "open", "open"),
        (0.0, 0.1, "open", "open"),
        (-0.1, 0.0, "open", "open"),
    ],
)
def test_verdicts(low, high, positive, negative):
    result = Difference((low + high) / 2, low, high, "seeds", 3, 0, 0, 0.95, 100)
    assert result.verdict("positive") == positive
    assert result.verdict("negative") == negative
    with pytest.raises(ValueError, match=r"'positive' or 'negative', got 'above'\.$"):
        result.verdict("above")


@pytest.mark.parametrize(
    ("low", "high", "above", "within"),
    [
        (2.1, 2.2, "holds", "does not hold"),
        (2.0, 2.2, "open", "open"),
        (1.0, 1.9, "does not hold", "holds"),
        (1.0, 2.0, "open", "open"),
        (-2.0, 1.0, "does not hold", "open"),
        (-3.0, 3.0, "open", "open"),
        (-3.0, -2.1, "does not hold", "does not hold"),
        (None, None, "open", "open"),
    ],
)
def test_verdicts_about_a_limit(low, high, above, within):
    change = {"mean": None, "low": low, "high": high}
    assert statistics.above(change, 2.0) == above
    assert statistics.within(change, 2.0) == within


def test_undefined_pairs_are_left_out_only_when_asked():
    first = [np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 3.0])]
    second = [np.array([2.0, 5.0, 4.0]), np.array([4.0, np.nan, 6.0])]
    with pytest.raises(ValueError, match=r"must not be NaN, got 1 at position 0; with "):
        difference(first, second)
    result = difference(first, second, leave_out_undefined=True)
    assert (result.mean, result.left_out, result.images) == (2.0, 2, 4)
    assert json.loads(json.dumps(dataclasses.asdict(result)))["left_out"] == 2


def test_undefined_maps_are_left_out_and_counted():
    first = [np.array([1.0, np.nan, 3.0]), np.array([1.0, 2.0, 3.0])]
    second = [np.array([0.0, 0.0, 2.0]), np.array([0.0, 1.0, np.nan])]
    change = statistics.compare(first, second, "negative")
    assert (change["mean"], change["left_out"], change["verdict"]) == (-1.0, 2, "holds")
    none = {"mean": None, "low": None, "high": None, "verdict": "open"}
    assert statistics.compare([np.full(3, np.nan), first[1]], second, "negative") == none
    one_image = statistics.compare([first[0][:2]], [second[0][:2]], "negative")
    assert one_image == none | {"mean": -1.0}
    assert "verdict" not in statistics.compare(first, second, None)
    assert statistics.as_text(none) == "not defined"
    assert statistics.as_text(one_image, digits=1) == "-1.0 one seed: no interval"
    assert np.isnan(statistics.defined_mean(np.full(3, np.nan)))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["holds", "holds"], "holds"),
        (["holds", "open"], "open"),
        (["open", "does not hold"], "does not hold"),
        (["holds", "open: stride"], "open: stride"),
        (["open", "open: stride", "not applicable"], "open: stride"),
        (["open: undertrained", "open: stride"], "open: stride, undertrained"),
        (["does not hold", "open: stride"], "does not hold"),
        (["not applicable", "holds"], "holds"),
        (["not applicable", "open"], "open"),
        (["not applicable"], "not applicable"),
    ],
)
def test_claims_hold_together(verdicts, expected):
    assert statistics.all_hold(verdicts) == expected


def test_one_value_a_seed_needs_several_seeds():
    several = statistics.compare([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], "positive")
    expected = dataclasses.asdict(difference([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]))
    assert several == expected | {"verdict": "holds"}
    single = statistics.compare([1.0], [2.5], "positive")
    assert single == {"mean": 1.5, "low": None, "high": None, "verdict": "open"}


@pytest.mark.parametrize(
    ("first", "second", "options", "message"),
    [
        ([1.0, 2.0], [1.0], {}, r"the same seeds, got 2 and 1\.$"),
        ([[1.0, 2.0]], [[1.0, 2.0, 3.0]], {}, r"got shapes \(2,\) and \(3,\) at position 0\.$"),
        ([[1.0], 2.0], [[1.0], 2.0], {}, r"got shapes \[\(1,\), \(\)\]\.$"),
        ([[[1.0]]], [[[1.0]]], {}, r"got shapes \[\(1, 1\)\]\.$"),
        ([], [], {}, r"got none\.$"),
        ([[]], [[]], {}, r"no pair is left at position 0"),
        ([1.0], [2.0], {}, r"a single pair of values gives no interval"),
        ([[np.nan, 1.0]], [[1.0, 1.0]], {}, r"must not be NaN"),
        ([[np.inf, 1.0]], [[1.0, 1.0]], {}, r"must be finite, got infinity at position 0\.$"),
        ([1.0, 2.0], [1.0, 2.0], {"resamples": 0}, r"at least 1, got 0\.$"),
        ([1.0, 2.0], [1.0, 2.0], {"confidence": 95}, r"in \(0, 1\), got 95\.$"),
    ],
)
def test_bad_input_is_refused(first, second, options, message):
    with pytest.raises(ValueError, match=message):
        difference(first, second, **options)
    with pytest.raises(TypeError, match=r"an array for each seed, got a float\.$"):
        difference(1.0, 2.0)
