"""Random squares: a search that sees logits only, never a gradient (Andriushchenko et al. 2020)."""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.attacks import losses, norms, pyramids, search
from jaxrobust.attacks.projected_gradient import check_ball
from jaxrobust.core.batching import per_image
from jaxrobust.core.checks import check_count, check_that
from jaxrobust.core.types import AnyClassifier, Images, Labels, Number

# What share of the pixels a square covers at first, and after how many queries it is halved: the
# authors' numbers for 10,000 queries, which AutoAttack takes as they are for 5,000.
_SHARE = 0.8
_HALVED_AFTER = np.array([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])
# Added to a norm that may be 0, as the authors do.
_TINY = 1e-12


def side_lengths(height: int, width: int, norm: norms.Norm) -> np.ndarray:
    """The sides of the squares, in pixels: at first, and from each halving of the share on.

    In l_2 they are odd and at least 3, unless the image is smaller than that.

    Example:
      >>> side_lengths(32, 32, norms.linf).tolist()
      [29, 20, 14, 10, 7, 5, 4, 3, 2, 1]
    """
    shares = _SHARE / 2.0 ** np.arange(len(_HALVED_AFTER) + 1)
    sides = np.rint(np.sqrt(shares * height * width)).astype(np.int32)
    if norm.name == "l2":
        sides = np.maximum(sides, 3)
        sides += sides % 2 == 0
    return np.clip(sides, 1, min(height, width))


def _corner(numbers, side, shape):
    """Row and column from two numbers in [0, 1); as the authors have it, the last is left out."""
    return jnp.floor(numbers * (jnp.array(shape) - side)).astype(jnp.int32)


def _square(corner, side, shape):
    """Which pixels (h, w, 1) are in a square."""

    def inside(length, first):
        place = jnp.arange(length) - first
        return (place >= 0) & (place < side)

    return (inside(shape[0], corner[0])[:, None] & inside(shape[1], corner[1]))[..., None]


def _to_sphere(image, delta, epsilon):
    """The perturbation at the length epsilon, clipped to the box, which never makes it longer."""
    length = jnp.sqrt(jnp.sum(jnp.square(delta)))
    return jnp.clip(image + epsilon * (delta / (_TINY + length)), 0.0, 1.0)


class _Walk(NamedTuple):
    point: jax.Array  # where the network is called next
    best: jax.Array
    margin: jax.Array  # of the best
    key: jax.Array  # of the attempt, the data of a threefry key: an array like the others
    taken: jax.Array  # calls of the network


@flax.struct.dataclass
class RandomSquares:
    """The search: each step calls the network for its logits and asks for no gradient.

    Attributes:
      epsilon: radius of the ball.
      queries: calls of the network in each attempt.
      norm: of the ball, l_inf or l_2.
    """

    epsilon: Number
    queries: int = flax.struct.field(pytree_node=False)
    norm: norms.Norm = flax.struct.field(pytree_node=False)

    def start(self, image, label, key):
        del label
        first = jax.random.fold_in(key, 0)
        if self.norm.name == "linf":
            stripes = jax.random.rademacher(first, image.shape[1:], image.dtype)
            moved = image + self.epsilon * stripes
            point = search.into_ball(moved, image, self.norm, self.epsilon)
        else:
            point = _to_sphere(image, pyramids.tiles(first, image.shape), self.epsilon)
        margin = jnp.full((), -jnp.inf, jnp.float32)
        return _Walk(point, point, margin, jax.random.bits(key, (2,)), jnp.zeros((), jnp.int32))

    def step(self, classifier, image, label, target, walk):
        del target
        logits = losses.logits_of(classifier, walk.point)
        margin = losses.margin(logits, label).astype(jnp.float32)
        found = losses.misclassified(logits, label)
        # Between equal logits a tie decides: such a point is taken though the margin stays at 0.
        accepted = (margin > walk.margin) | (found & (walk.margin <= 0))
        best, margin_of_best = jax.tree.map(
            lambda new, old: jnp.where(accepted, new, old),
            (walk.point, margin),
            (walk.best, walk.margin),
        )
        taken = walk.taken + 1
        propose = self.paint if self.norm.name == "linf" else self.move
        stage = jnp.sum(walk.taken > _HALVED_AFTER)
        key = jax.random.wrap_key_data(walk.key, impl="threefry2x32")
        point = propose(image, best, stage, jax.random.fold_in(key, taken))
        candidate = search.Candidate(walk.point, found, margin)
        return _Walk(point, best, margin_of_best, walk.key, taken), candidate

    @property
    def length(self):
        return self.queries

    def paint(self, image, best, stage, key):
        """In l_inf: a square in which each channel is as low, or as high, as ball and box allow."""
        *shape, channels = image.shape
        side = jnp.asarray(side_lengths(*shape, self.norm))[stage]
        numbers = jax.random.uniform(key, (2 + channels,), image.dtype)
        square = _square(_corner(numbers[:2], side, shape), side, shape)
        # The authors add twice epsilon to the best, and clip: that is always one of the two ends.
        moved = image + self.epsilon * jnp.where(numbers[2:] < 0.5, -1.0, 1.0)
        return jnp.where(square, search.into_ball(moved, image, self.norm, self.epsilon), best)

    def move(self, image, best, stage, key):
        """In l_2: what two squares hold goes into the first, and a pair of pyramids is added.

        Algorithm 3 of the paper; the square of a norm is called energy here.
        """
        *shape, channels = image.shape
        table = pyramids.of_sides(side_lengths(*shape, self.norm))
        side = jnp.asarray(table.sides)[stage]
        numbers = jax.random.uniform(key, (5 + channels,), image.dtype)
        corners = _corner(numbers[:4].reshape(2, 2), side, shape)
        gaining, giving = (_square(corner, side, shape) for corner in corners)
        delta = best - image

        def energy(values):
            return jnp.sum(jnp.square(values), (0, 1))  # of each channel

        old = jnp.where(gaining, delta, 0.0)
        both = energy(jnp.where(gaining | giving, delta, 0.0))
        # What the box took away is given to all channels alike.
        unused = jnp.maximum(jnp.square(self.epsilon) - jnp.sum(energy(delta)), 0.0)
        signs = jnp.where(numbers[5:] < 0.5, -1.0, 1.0)
        pair = pyramids.in_square(table, stage, corners[0], numbers[4] < 0.5, tuple(shape))
        new = pair[..., None] * signs + old / (_TINY + jnp.sqrt(energy(old)))
        new *= jnp.sqrt(unused / channels + both) / (_TINY + jnp.sqrt(energy(new)))
        moved = jnp.where(gaining, new, jnp.where(giving, 0.0, delta))
        return _to_sphere(image, moved, self.epsilon)


def _check(*, key, norm, queries, restarts, **ball):
    check_ball(norm=norm, **ball)
    rule = "be linf or l2 for square"
    check_that(norms.get(norm).name in ("linf", "l2"), "norm", rule, repr(norm))
    check_count("queries", queries)
    check_count("restarts", restarts)
    check_that(key is not None, "key", "be given, as squares are drawn at random", key)


@per_image(static=("norm", "queries", "restarts", "until_found"), check=_check)
def square(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    key: jax.Array,
    epsilon: Number,
    norm: str | norms.Norm = "linf",
    queries: int = 5000,
    restarts: int = 1,
    until_found: bool = True,
    batch_size: int | None = None,
) -> jax.Array:
    """Square attack (Andriushchenko et al. 2020, algorithms 1 to 3): random search, no gradient.

    Each query changes the best perturbation in a square at random, and is kept if it raises the
    margin. In l_inf it starts with stripes, and a square gets one of the two ends of the ball in
    each channel; in l_2 it starts with tiles, and what two squares hold is put together in one. The
    squares become smaller by the number of queries. Where this attack is stronger than those with
    gradients, the classifier hides its gradients.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes.
      key: one key, or one for each image.
      epsilon: radius of the ball, in pixel units, at least 0; in l_inf at most 1.
      norm: "linf" or "l2".
      queries: calls of the classifier in each attempt, the start among them, at least 1. More of
        them go on where fewer ended.
      restarts: independent random starts, at least 1.
      until_found: whether the search ends at the first misclassified image, as AutoAttack has it.
        False: all queries are made, and of all misclassified images the one of the largest margin
        is returned.
      batch_size: images at once on each device; None: all.

    Returns:
      Images of the same shape, within `epsilon` of the originals and inside [0, 1]: misclassified
      where the search found such a one, and else those of the largest margin.

    Raises:
      TypeError, ValueError: for images, labels or options out of their range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([jnp.round(8 * image).sum() - 9.0, 0.5])
      >>> image = jnp.full((1, 1, 3), 0.5)
      >>> square(classifier, image, 0, key=jax.random.key(0), epsilon=0.125, queries=50).tolist()
      [[[0.375, 0.375, 0.375]]]
    """
    # Of one image, below the decorator; the signature, which users see, allows more types.
    image, label = jnp.asarray(images), jnp.asarray(labels)
    squares = RandomSquares(epsilon, queries, norms.get(norm))
    aims = jnp.zeros(restarts, jnp.int32)
    return search.run(squares, classifier, image, label, key, aims, until_found=until_found).image
