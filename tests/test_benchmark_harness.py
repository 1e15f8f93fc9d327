"""What the benchmarks share: the turns in which works are timed, and what becomes of them."""

from jaxrobust.experiments.benchmarks import harness


def test_works_that_are_compared_stay_side_by_side():
    called = []
    works = {name: (lambda name=name: called.append(name) or 1.0) for name in "abc"}
    assert harness.in_turns(works, 3) == {name: [1.0] * 3 for name in "abc"}
    assert "".join(called) == "abccbaabc"


def test_shuffled_works_follow_each_other_in_every_order():
    called = []
    works = {name: (lambda name=name: called.append(name) or 1.0) for name in "abc"}
    harness.in_turns(works, 60, shuffled=True)
    rounds = {"".join(called[start : start + 3]) for start in range(0, 180, 3)}
    assert rounds == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_a_work_that_fails_is_named_and_the_others_are_measured():
    def failing(calls):
        raise RuntimeError("out of memory\nand more")

    asked = []

    def ours(calls):
        asked.append(calls)
        return 0.2 if len(asked) == 1 else 0.1

    works = {"a": {"ours": ours, "theirs": failing}, "b": {"ours": ours, "theirs": lambda _: 0.4}}
    found = harness.compare(works, rounds=2, seconds=0.35)
    assert found["a"]["theirs"] == {"error": "out of memory\nand more"}
    assert found["a"]["ours"]["first_call_seconds"] == 0.2
    assert found["a"]["ours"]["calls"] == 4  # of 0.1 s, to last 0.35 s
    assert asked == [1] * 6 + [4] * 4
    assert "ratio" not in found["a"]
    assert found["b"]["ratio"] == {"median": 0.25, "quartiles": [0.25, 0.25]}
