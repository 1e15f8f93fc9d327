"""AutoAttack: four attacks one after the other, each on the images that still stand.

Croce & Hein 2020. Every image has its own key, and its search is the same whatever else is in its
batch: so it leaves the batch as soon as its verdict is known, another takes its place, and no
verdict depends on the size of the batches, the order of the images or the number of devices (but
for rounding, where a network gives other last digits in a batch of another size).
"""

import dataclasses
import functools
import time
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxrobust.attacks import doubts, losses, many, norms
from jaxrobust.attacks.auto_pgd import AutoPGD
from jaxrobust.attacks.fast_boundary import FastBoundary
from jaxrobust.attacks.projected_gradient import check_ball
from jaxrobust.attacks.random_squares import RandomSquares
from jaxrobust.attacks.verdicts import Verdicts
from jaxrobust.core import logs, named
from jaxrobust.core.batching import PIXELS_AT_ONCE
from jaxrobust.core.checks import (
    BATCH_AXIS,
    check_count,
    check_images,
    check_key,
    check_labels,
    check_that,
    is_concrete,
    num_classes,
)
from jaxrobust.core.digests import digest
from jaxrobust.core.named import check_choice
from jaxrobust.core.pytrees import as_pytree
from jaxrobust.core.types import AnyClassifier, Number

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
_NAMES = ("apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square")
_STEPS, _QUERIES = 100, 5000
# Classes that a targeted attack aims at, where there are as many.
_TARGETS = 9
# The most images in a batch on each device, and how many times smaller the batch for the last is.
_BATCH, _SMALLER = 256, 4


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """What AutoAttack found.

    Attributes:
      images: float32 (n, h, w, c): misclassified ones within the ball where found, else as given.
      robust: bool (n,): right when clean, and not broken by any attack.
      broken_by: (n,) texts: "clean" where misclassified as it is, the attack that broke it, or "".
      clean_accuracy, robust_accuracy: shares of the n images, in [0, 1].
      seconds: by attack, "clean" first, compilation included.
      attacks: that were run, in this order.
      version: "standard", or "custom" for a part of it or with other numbers of steps.
      epsilon, norm: the ball.
      steps: of each attempt of APGD and FAB.
      queries: of Square.
      warnings: sentences on what makes the result doubtful, as they were warned of.
    """

    images: np.ndarray
    robust: np.ndarray
    broken_by: np.ndarray
    clean_accuracy: float
    robust_accuracy: float
    seconds: dict[str, float]
    attacks: tuple[str, ...]
    version: str
    epsilon: float
    norm: str
    steps: int
    queries: int
    warnings: tuple[str, ...]


@jax.jit
def _look(classifier, images, labels):
    """Logits, and whether the gradient of the cross-entropy is zero in all pixels."""

    def single(image, label):
        def value(image):
            logits = losses.logits_of(classifier, image)
            return losses.cross_entropy(logits, label), logits

        (_, logits), gradient = jax.value_and_grad(value, has_aux=True)(image)
        return logits, jnp.all(gradient == 0)

    return jax.vmap(single, axis_name=BATCH_AXIS)(images, labels)


def _look_at_all(classifier, images, labels, *, size, sharding) -> tuple[np.ndarray, np.ndarray]:
    """`_look` at any number of images, in batches of one size; what fills the last is dropped."""
    parts = []
    for first in range(0, len(images), size):
        chosen = np.arange(first, first + size) % len(images)
        batch = jax.device_put((images[chosen], labels[chosen]), sharding)
        parts.append(jax.device_get(_look(classifier, *batch)))
    logits, zero = (np.concatenate(part)[: len(images)] for part in zip(*parts, strict=True))
    return logits, zero


def _wrong(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (np.argmax(logits, axis=1) != labels) | ~np.isfinite(logits).all(axis=1)


def _keys(key: jax.Array, images: np.ndarray) -> np.ndarray:
    """The data of a key for each image: one key is folded with a checksum of the image."""
    keys = check_key(key, len(images))
    if keys is None:
        raise ValueError("key must be given, got None.")
    kind = jax.random.key_impl(keys)
    usual = jax.random.key_impl(jax.random.key(0))
    check_that(kind == usual, "key", f"be of JAX's default kind, {usual}", kind)
    if keys.ndim == 0:
        contents = np.array([zlib.crc32(image.tobytes()) for image in images], np.uint32)
        keys = jax.vmap(functools.partial(jax.random.fold_in, keys))(contents)
    return np.asarray(jax.random.key_data(keys))


def _sizes(shape: tuple[int, ...], batch_size: int | None, devices: int) -> tuple[int, int]:
    """Of the batches: the usual one and the one for the last images, multiples of the devices."""
    count, height, width, _ = shape
    each = batch_size or max(1, min(_BATCH, PIXELS_AT_ONCE // (height * width)))
    each = min(each, -(-count // devices))
    return each * devices, -(-each // _SMALLER) * devices


def _attack(name: str, epsilon, ball, classes, steps, queries) -> tuple[Any, bool]:
    """The search of that name, and whether it aims at one class after the other."""
    if name == "apgd-ce":
        return AutoPGD(epsilon, steps, ball, losses.cross_entropy), False
    if name == "apgd-dlr":
        # The ratio needs a third logit.
        loss = losses.difference_of_logits_ratio if classes > 2 else losses.margin
        return AutoPGD(epsilon, steps, ball, loss), False
    if name == "apgd-t":
        ratio, lead = losses.targeted_difference_of_logits_ratio, losses.targeted_margin
        return AutoPGD(epsilon, steps, ball, ratio if classes > 3 else lead, targeted=True), True
    if name == "fab-t":
        return FastBoundary(epsilon, steps, ball), True
    return RandomSquares(epsilon, queries, ball), False


def _search(classifier, attack, searched, verdicts, name, *, sizes, sharding, title, every) -> None:
    """One attack on what still stands: what it breaks, and its seconds, go into the verdicts."""
    begun = time.perf_counter() - verdicts.seconds.get(name, 0.0)
    waiting, resumed = verdicts.begin(sizes)
    total = len(waiting) + (0 if resumed is None else int((resumed[0] >= 0).sum()))
    statuses = many.run(
        classifier, attack, searched, waiting, sizes=sizes, sharding=sharding, resumed=resumed
    )
    ended = 0
    with logs.Progress(title, total, every=every) as progress:
        for status in statuses:
            for index, perturbed in status.ended.items():
                if perturbed is not None:
                    verdicts.images[index], verdicts.broken_by[index] = perturbed, name
            ended += len(status.ended)
            progress.mark(ended + status.done)
            if progress.due():
                progress.show(ended, {"standing": (verdicts.broken_by == "").sum()})
            if verdicts.due():
                verdicts.seconds[name] = time.perf_counter() - begun
                verdicts.write(status)
    verdicts.seconds[name] = time.perf_counter() - begun


def check_options(
    *,
    epsilon: Number,
    norm: str | norms.Norm = "linf",
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    steps: int = _STEPS,
    queries: int = _QUERIES,
) -> None:
    """Raise unless the options of `autoattack` are in their ranges.

    Its signature is what configs may name, and their defaults: those of `autoattack`.

    Raises:
      TypeError, ValueError: for a value out of its range.
    """
    check_ball(epsilon=epsilon, norm=norm, steps=steps)
    check_that(epsilon > 0, "epsilon", "be above 0", f"{float(epsilon):g}")
    rule = "be linf or l2 for autoattack"
    check_that(norms.get(norm).name in ("linf", "l2"), "norm", rule, repr(norm))
    check_choice("version", version, ("standard",))
    check_count("queries", queries)
    if attacks is not None:
        several = isinstance(attacks, list | tuple) and 0 < len(attacks) == len(set(attacks))
        check_that(several, "attacks", f"be a list of some of {', '.join(_NAMES)}", repr(attacks))
        for name in attacks:
            check_choice("attacks", name, _NAMES)


def complete_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options that `autoattack` runs with, defaults filled in, as JSON can hold them.

    Raises:
      ValueError: for an unknown option, or one that is missing.

    Example:
      >>> complete_options({"epsilon": 0.1})["attacks"]
      ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """
    complete = named.complete("autoattack", check_options, options)
    complete["norm"] = norms.get(complete["norm"]).name
    complete["attacks"] = list(STANDARD if complete["attacks"] is None else complete["attacks"])
    return complete


def program(classifier: AnyClassifier, image_shape: tuple[int, ...], **options: Any) -> str:
    """The text of what `autoattack` compiles for its searches: where it has changed, measure anew.

    Args:
      classifier: callable pytree, of arrays or of their shapes.
      image_shape: (h, w, c).
      **options: of `autoattack`.
    """
    chosen = complete_options(options)
    check_options(**chosen)
    ball, classes = norms.get(chosen["norm"]), num_classes(classifier, image_shape)
    texts = []
    for name in chosen["attacks"]:
        radius, counts = jnp.float32(chosen["epsilon"]), (chosen["steps"], chosen["queries"])
        attack, targeted = _attack(name, radius, ball, classes, *counts)
        attempts = min(_TARGETS, classes - 1) if targeted else 1
        texts.append(many.lowered(classifier, attack, image_shape, attempts))
    return "\n".join(texts)


def autoattack(
    classifier: AnyClassifier,
    images: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array | Sequence[int],
    *,
    key: jax.Array,
    epsilon: Number,
    norm: str | norms.Norm = "linf",
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    steps: int = _STEPS,
    queries: int = _QUERIES,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    state_file: str | Path | None = None,
    title: str = "autoattack",
    every: float = 10.0,
) -> Record:
    """AutoAttack (Croce & Hein 2020): the robust accuracy that others can compare with.

    In this order: Auto-PGD on the cross-entropy ("apgd-ce"); targeted Auto-PGD on the difference of
    logits ratio, towards the nine nearest classes ("apgd-t"); the targeted fast adaptive boundary
    attack, towards the same ("fab-t"); and the black-box Square attack of 5,000 queries ("square").
    What one attack breaks is not given to the next. A driver, not to be called under `jit`.

    With fewer than ten classes all others are aimed at; with fewer than four, where the ratio is
    not defined, "apgd-t" raises the target's lead over the label in its place, and so says a
    warning. It also warns of what makes a robust accuracy doubtful: logits that look like
    probabilities, outputs that change from call to call, gradients that are zero, images that only
    the black-box attack breaks, and those whose logits an attack makes NaN or infinite.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: floats (n, h, w, c) in [0, 1]; they stay on the host.
      labels: (n,) integers: the true classes.
      key: one key, or one for each image. Of one, each image gets its own by what is in it, so that
        its place in the order does not matter.
      epsilon: radius of the ball, in pixel units, above 0; in l_inf at most 1.
      norm: "linf" or "l2".
      version: "standard".
      attacks: some of "apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "square", to run in this order;
        None: those of the version.
      steps: of each attempt of APGD and FAB.
      queries: of Square.
      batch_size: images at once on each device; None: as many as come to 32 images of 224 x 224
        pixels, at most 256.
      devices: over which a batch is spread; None: all of this process.
      state_file: where to note how far it has come, as .npz; the same call goes on from there after
        an interruption, and the file goes when the call ends.
      title: of the progress lines, on standard error.
      every: seconds between two of them.

    Returns:
      The record.

    Raises:
      TypeError, ValueError: for images, labels or options out of their range, for logits that are
        not finite, and for a state file of another call.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), 1.5])
      >>> images = jnp.stack([jnp.full((1, 1, 3), value) for value in (0.55, 0.9)])
      >>> import warnings
      >>> with warnings.catch_warnings(action="ignore"):  # there are two classes only
      ...     record = autoattack(classifier, images, [0, 0], key=jax.random.key(0), epsilon=0.1)
      >>> record.robust.tolist(), record.broken_by.tolist()
      ([False, True], ['apgd-ce', ''])
    """
    check_options(
        epsilon=epsilon, norm=norm, version=version, attacks=attacks, steps=steps, queries=queries
    )
    names = STANDARD if attacks is None else tuple(attacks)
    standard = names == STANDARD and (steps, queries) == (_STEPS, _QUERIES)
    ball, classifier = norms.get(norm), as_pytree(classifier)
    rule = "be outside of jit and vmap, as it is a driver"
    check_that(is_concrete((images, labels, key)), "autoattack", rule, "traced arrays", TypeError)
    check_that(np.ndim(images) == 4, "images", "have shape (n, h, w, c)", np.shape(images))
    images = np.asarray(check_images(images), np.float32)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    classes = num_classes(classifier, images.shape[1:])
    check_that(classes > 1, "classifier", "have at least two classes", classes)
    labels = np.asarray(check_labels(labels, len(images), classes))
    keys = _keys(key, images)
    devices, auto = devices or jax.local_devices(), (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((len(devices),), ("data",), auto, devices=devices)
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    sizes = _sizes(images.shape, batch_size, mesh.size)
    # Once for all batches: what is on one device alone would be sent again with each.
    classifier = jax.device_put(classifier, NamedSharding(mesh, PartitionSpec()))
    look = functools.partial(_look_at_all, classifier, size=sizes[0], sharding=sharding)

    begun = time.perf_counter()
    logits, zero = look(images, labels)
    infinite = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    got = f"{logits[infinite[0]]} for image {infinite[0]}" if infinite.size else ""
    check_that(not infinite.size, "classifier", "give finite logits", got)
    standing = ~_wrong(logits, labels)
    again, _ = look(images[: sizes[0]], labels[: sizes[0]])
    said = doubts.of_few_classes(names, classes)
    said += doubts.of_clean_images(logits, again, zero, standing)
    # The label is the first of those that stand.
    nearest = np.argsort(-logits, axis=1, kind="stable")[:, 1 : 1 + _TARGETS].astype(np.int32)
    path, settings = None, ""
    if state_file is not None:
        path = Path(state_file)
        # Of a classifier that is a mere function, all is in the program and in what it answers.
        told = [_look.lower(classifier, images[:1], labels[:1]).as_text(), jax.__version__]
        options = [names, float(epsilon), ball.name, steps, queries, *told]
        leaves = jax.tree.leaves(classifier)
        settings = digest(options, images, labels, keys, nearest, standing, *leaves)
    broken_by = np.where(standing, "", "clean").astype("<U8")
    verdicts = Verdicts(path, settings, images, broken_by)
    clean_seconds = time.perf_counter() - begun

    for number, name in enumerate(names):
        if number < verdicts.part:
            continue
        attack, targeted = _attack(name, jnp.float32(epsilon), ball, classes, steps, queries)
        targets = nearest if targeted else np.zeros((len(images), 1), np.int32)
        _search(
            classifier,
            attack,
            many.Searched(images, labels, keys, targets),
            verdicts,
            name,
            sizes=sizes,
            sharding=sharding,
            title=f"{title}  {name} ({number + 1} of {len(names)})",
            every=every,
        )
        # What counts is what the classifier says of the image itself, outside of the attack.
        broken = np.flatnonzero(verdicts.broken_by == name)
        if broken.size:
            wrong = _wrong(look(verdicts.images[broken], labels[broken])[0], labels[broken])
            verdicts.broken_by[broken[~wrong]] = ""
            verdicts.images[broken[~wrong]] = images[broken[~wrong]]
        verdicts.part = number + 1
        verdicts.write()

    said += doubts.of_verdicts(names, verdicts.broken_by)
    broken = np.flatnonzero(np.isin(verdicts.broken_by, names))
    if broken.size:
        said += doubts.of_broken_images(look(verdicts.images[broken], labels[broken])[0])
    for sentence in said:
        warnings.warn(sentence, stacklevel=2)
    if path is not None:
        path.unlink(missing_ok=True)
    robust = verdicts.broken_by == ""
    return Record(
        images=verdicts.images,
        robust=robust,
        broken_by=verdicts.broken_by,
        clean_accuracy=float(standing.mean()),
        robust_accuracy=float(robust.mean()),
        seconds={"clean": clean_seconds} | verdicts.seconds,
        attacks=names,
        version=version if standard else "custom",
        epsilon=float(epsilon),
        norm=ball.name,
        steps=steps,
        queries=queries,
        warnings=tuple(said),
    )
