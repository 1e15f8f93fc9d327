"""AutoAttack beside its authors' code, from the file of tests/fixtures/make_autoattack.py."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrobust import attacks, models
from jaxrobust.attacks.ensemble import STANDARD
from jaxrobust.data import textured_shapes

FIXTURE = Path(__file__).parent / "fixtures" / "autoattack.json"
RADII = {"linf": 24 / 255, "l2": 2.0}
# Both draw random numbers of their own: so many pictures may end otherwise.
PICTURES_APART = 1


def standing(norm, **part):
    """Which pictures stand ours, and theirs by seed; both bool, (n,) and (seeds, n)."""
    (name,) = part.get("attacks", ("all four",))
    robust = json.loads(FIXTURE.read_text())["robust"][norm][name]
    theirs = np.array([[int(stands) for stands in seed] for seed in robust], bool)
    images, labels, *_ = textured_shapes.draw_batch("test", range(theirs.shape[1]))
    record = attacks.autoattack(
        models.pretrained("quickstart_adv"),
        images,
        labels,
        key=jax.random.key(0),
        epsilon=RADII[norm],
        norm=norm,
        devices=jax.devices()[:1],
        **part,
    )
    return record.robust, theirs


@pytest.mark.slow
@pytest.mark.parametrize("norm", RADII)
def test_the_whole_is_as_strong(norm):
    ours, theirs = standing(norm)
    assert 0 < theirs.sum() < theirs.size
    assert ours.sum() <= theirs.sum() + PICTURES_APART
    assert (ours != theirs[0]).sum() <= 2 * PICTURES_APART


@pytest.mark.slow
@pytest.mark.parametrize("norm", RADII)
@pytest.mark.parametrize("part", STANDARD)
def test_each_part_is_as_strong(norm, part):
    ours, theirs = standing(norm, attacks=(part,))
    by_seed = theirs.sum(1)
    assert by_seed.min() - PICTURES_APART <= ours.sum() <= by_seed.max() + PICTURES_APART
