"""Attacks in single steps: what can be stopped, moved to another batch and gone on with.

A search of one image makes one or several attempts, each from another start or towards another
target. An attempt is a walk: it starts without calling the network, and each step calls it once.
`run` does all of it in one program; `attacks.autoattack` takes the steps of many images together
and puts another image in the place of one whose search has ended. Both give the same result.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxrobust.attacks import losses
from jaxrobust.core.checks import check_that
from jaxrobust.core.types import AnyClassifier

Walk = Any  # a pytree of arrays, of the same shapes before and after a step


class Candidate(NamedTuple):
    """A perturbed image (h, w, c), whether it is what was looked for, and how good it is.

    Of two that are both found, or both not, the one of the higher score is kept.
    """

    image: jax.Array
    found: jax.Array
    score: jax.Array


class Search(Protocol):
    """What attacks in single steps have in common; a pytree, so that its numbers are traced.

    Attributes:
      length: static, the number of steps of a walk; its field `taken` counts them.
    """

    @property
    def length(self) -> int: ...

    def start(self, image: jax.Array, label: jax.Array, key: jax.Array) -> Walk:
        """A walk before its first step."""

    def step(
        self,
        classifier: AnyClassifier,
        image: jax.Array,
        label: jax.Array,
        target: jax.Array,
        walk: Walk,
    ) -> tuple[Walk, Candidate]:
        """The walk a step further, and the perturbed image at which the network was called."""


def finished(search: Search, walk: Walk) -> jax.Array:
    """Whether a walk has taken all its steps."""
    return walk.taken >= search.length


def nothing(image: jax.Array) -> Candidate:
    """What a search has before its first step: worse than whatever it comes to."""
    return Candidate(image, jnp.asarray(False), jnp.asarray(-jnp.inf, jnp.float32))


def better(new: Candidate, old: Candidate) -> Candidate:
    """The better of two candidates, the old one among equals."""
    is_better = (new.found & ~old.found) | ((new.found == old.found) & (new.score > old.score))
    return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), new, old)


def run(
    search: Search,
    classifier: AnyClassifier,
    image: jax.Array,
    label: jax.Array,
    key: jax.Array,
    targets: jax.Array,
    *,
    until_found: bool,
) -> Candidate:
    """The best candidate of all attempts, or the first that is found.

    Args:
      search: what is run.
      classifier: callable pytree.
      image: (h, w, c) in [0, 1].
      label: () the true class.
      key: attempt i draws from `fold_in(key, i)`.
      targets: (attempts,) the class that each attempt aims at; untargeted searches ignore it.
      until_found: static; whether what is found ends the search.
    """

    def attempt(index, best):
        def going_on(carry):
            walk, best = carry
            return ~finished(search, walk) & ~(until_found & best.found)

        def step(carry):
            walk, best = carry
            walk, candidate = search.step(classifier, image, label, targets[index], walk)
            return walk, better(candidate, best)

        walk = search.start(image, label, jax.random.fold_in(key, index))
        return jax.lax.while_loop(going_on, step, (walk, best))[1]

    return jax.lax.fori_loop(0, targets.shape[0], attempt, nothing(image))


def runner_up_classes(logits: jax.Array, label: jax.Array, count: int) -> jax.Array:
    """The `count` classes that come next to the label by logits (k,), the nearest first.

    Example:
      >>> import jax.numpy as jnp
      >>> runner_up_classes(jnp.array([3.0, 5.0, 1.0, 4.0]), 1, 2).tolist()
      [3, 0]
    """
    check_that(logits.shape[0] > 1, "classifier", "have at least two classes", logits.shape[0])
    return jax.lax.top_k(losses.others(logits, label), count)[1]


def into_ball(point: jax.Array, image: jax.Array, ball: Any, epsilon: Any) -> jax.Array:
    """The point nearest to the given one in ball and box, as an image."""
    delta = ball.project(point - image, epsilon, -image, 1.0 - image)
    return jnp.clip(image + delta, 0.0, 1.0)
