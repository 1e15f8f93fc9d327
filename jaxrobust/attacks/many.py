"""The searches of many images in full batches: where one has ended, another takes its place.

A search is the same whatever stands beside it, so nothing is lost by this. What is compiled is two
programs for each attack and size of a batch, of which there are two.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding

from jaxrobust.attacks import search
from jaxrobust.core.checks import BATCH_AXIS
from jaxrobust.core.types import AnyClassifier

# The share of a batch that may stand idle before other images take the places.
_IDLE = 1 / 8
# Seconds that the device works before the host looks at it.
_LOOK_EVERY = 2.0
_EMPTY = -1


class Searched(NamedTuple):
    """What the searches of images begin from, on the host; axis 0 is that of images."""

    image: np.ndarray  # (n, h, w, c)
    label: np.ndarray  # (n,)
    key: np.ndarray  # data of the keys, (n, …)
    targets: np.ndarray  # (n, attempts)


class Places(NamedTuple):
    """The images of a batch and how far the search of each has come; axis 0 is that of places."""

    begun: Searched
    attempt: jax.Array
    walk: search.Walk
    best: search.Candidate


@dataclasses.dataclass
class Status:
    """Where the searches are, between two calls of the device.

    Attributes:
      ended: {index of an image: its perturbed image, or None where none was found}, since the last.
      waiting: indices of the images that have no place yet.
      index: (places,) of the image at each place, or -1.
      places: on the device.
      done: how much of the searches that have a place has been done, in searches.
    """

    ended: dict[int, np.ndarray | None]
    waiting: list[int]
    index: np.ndarray
    places: Places
    done: float


def _where(condition, new, old):
    return jax.tree.map(lambda new, old: jnp.where(condition, new, old), new, old)


def _under_way(attack, place):
    return ~search.finished(attack, place.walk) & ~place.best.found


def _begin(attack, begun):
    image, label, key, _ = begun
    walk = attack.start(image, label, _attempt_key(key, 0))
    return Places(begun, jnp.zeros((), jnp.int32), walk, search.nothing(image))


def _attempt_key(key, attempt):
    return jax.random.fold_in(jax.random.wrap_key_data(key), attempt)


@functools.partial(jax.jit, donate_argnums=1)
def _renew(attack, places, new, is_new):
    """The first attempt of the images that are new, the next one of those that have ended one."""

    def single(place, new, is_new):
        again = search.finished(attack, place.walk) & ~place.best.found
        again &= place.attempt + 1 < place.begun.targets.shape[0]
        begun, best = _where(is_new, (new, search.nothing(new.image)), (place.begun, place.best))
        attempt = jnp.where(is_new, 0, place.attempt + again)
        walk = attack.start(begun.image, begun.label, _attempt_key(begun.key, attempt))
        return Places(begun, attempt, _where(is_new | again, walk, place.walk), best)

    return jax.vmap(single)(places, new, is_new)


@functools.partial(jax.jit, donate_argnums=2)
def _advance(classifier, attack, places, limit, enough):
    """All places by as many steps as `limit`, or until fewer than `enough` are still under way."""
    under_way = jax.vmap(functools.partial(_under_way, attack))

    def single(place):
        begun = place.begun
        target = begun.targets[place.attempt]
        walk, candidate = attack.step(classifier, begun.image, begun.label, target, place.walk)
        stepped = place._replace(walk=walk, best=search.better(candidate, place.best))
        return _where(_under_way(attack, place), stepped, place)

    def going_on(carry):
        places, count = carry
        return (count < limit) & (jnp.sum(under_way(places)) >= enough)

    def step(carry):
        places, count = carry
        return jax.vmap(single, axis_name=BATCH_AXIS)(places), count + 1

    places, count = jax.lax.while_loop(going_on, step, (places, jnp.zeros((), jnp.int32)))
    look = (count, under_way(places), places.best.found, places.attempt, places.walk.taken)
    return places, look


@jax.jit
def _take(places, order):
    return jax.tree.map(lambda leaf: leaf[order], places)


def run(
    classifier: AnyClassifier,
    attack: Any,
    searched: Searched,
    waiting: list[int],
    *,
    sizes: tuple[int, int],
    sharding: Sharding,
    resumed: tuple[np.ndarray, list[np.ndarray]] | None = None,
) -> Iterator[Status]:
    """Search every image that waits, and say after each call of the device what has ended.

    Args:
      classifier: callable pytree, on all devices.
      attack: a `search.Search`.
      searched: all images.
      waiting: indices of those to search.
      sizes: of the batches: the usual one, and a smaller one for the last images.
      sharding: of axis 0 over the devices.
      resumed: `index` and the leaves of `places` of an earlier status; None: from the beginning.
    """
    waiting, attempts = list(waiting), searched.targets.shape[1]
    size = sizes[0] if len(waiting) > sizes[1] or resumed else sizes[1]
    index = np.full(size, _EMPTY)
    places = _empty_places(attack, searched, size)
    if resumed is not None:
        index, leaves = resumed
        places = jax.tree.unflatten(jax.tree.structure(places), leaves)
    places = jax.device_put(places, sharding)
    limit, renewing = 4, True
    while waiting or (index != _EMPTY).any():
        occupied = int((index != _EMPTY).sum())
        if not waiting and occupied <= sizes[1] < len(index):
            order = np.argsort(index == _EMPTY, kind="stable")[: sizes[1]]
            places = jax.device_put(_take(places, order), sharding)
            index = index[order]
        is_new = np.zeros(len(index), bool)
        for place in np.flatnonzero(index == _EMPTY)[: len(waiting)]:
            index[place], is_new[place] = waiting.pop(0), True
        if renewing or is_new.any():
            new = jax.device_put(Searched(*(leaf[index] for leaf in searched)), sharding)
            places = _renew(attack, places, new, jax.device_put(is_new, sharding))
        # The device works until an eighth of the places are idle, or about two seconds.
        occupied = int((index != _EMPTY).sum())
        enough = max(1, occupied - max(1, int(_IDLE * len(index))) + 1)
        begun = time.perf_counter()
        places, look = _advance(classifier, attack, places, np.int32(limit), np.int32(enough))
        steps, under_way, found, attempt, taken = jax.device_get(look)
        pace = (time.perf_counter() - begun) / max(int(steps), 1)
        limit = int(np.clip(_LOOK_EVERY / pace, 1, 2 * limit))
        over = (index != _EMPTY) & ~under_way
        renewing = bool((over & ~found & (attempt + 1 < attempts)).any())
        over &= found | (attempt + 1 == attempts)
        perturbed = np.asarray(places.best.image) if (over & found).any() else np.empty(0)
        ended = {
            int(index[place]): perturbed[place] if found[place] else None
            for place in np.flatnonzero(over)
        }
        index = np.where(over, _EMPTY, index)
        here = index != _EMPTY
        done = float(np.sum((attempt + taken / attack.length)[here]) / attempts)
        yield Status(ended, waiting, index, places, done)


def _empty_places(attack, searched, size):
    """Places without images: their searches count as ended."""
    single = jax.eval_shape(
        functools.partial(_begin, attack), Searched(*(leaf[0] for leaf in searched))
    )
    places = jax.tree.map(lambda leaf: np.zeros((size, *leaf.shape), leaf.dtype), single)
    return places._replace(best=places.best._replace(found=np.ones(size, bool)))


def lowered(
    classifier: AnyClassifier, attack: Any, image_shape: tuple[int, ...], attempts: int
) -> str:
    """The text, before compilation, of the programs of a batch of two places.

    Args:
      classifier: callable pytree, of arrays or of their shapes.
      attack: a `search.Search`.
      image_shape: (h, w, c).
      attempts: of each image.
    """
    key = np.asarray(jax.random.key_data(jax.random.key(0)))
    image, label = np.zeros(image_shape, np.float32), np.zeros((), np.int32)
    single = Searched(image, label, key, np.zeros(attempts, np.int32))
    searched = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype), single)
    places = jax.eval_shape(jax.vmap(functools.partial(_begin, attack)), searched)
    renewing = _renew.lower(attack, places, searched, np.zeros(2, bool))
    advancing = _advance.lower(classifier, attack, places, np.int32(1), np.int32(1))
    return renewing.as_text() + advancing.as_text()
