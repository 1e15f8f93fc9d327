"""Which images of a split a classifier has right: clean, attacked, filtered, by their texture."""

import functools
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrobust import attacks, filters
from jaxrobust.core import batching, files, logs
from jaxrobust.core.digests import digest
from jaxrobust.core.pytrees import as_pytree
from jaxrobust.data import pipeline

# Seconds between two notes of how far an evaluation has come.
_SAVE_EVERY = 30.0


def hits(logits: jax.Array, label: jax.Array, top: int = 1) -> jax.Array:
    """Whether the label is among the `top` largest logits, for logits (k,).

    Of equal logits the first counts as larger, as `argmax` has it. Logits that are not finite never
    hit: a comparison with NaN would call them right.
    """
    ahead = (logits > logits[label]) | (
        (logits == logits[label]) & (jnp.arange(logits.shape[0]) < label)
    )
    return (jnp.sum(ahead) < top) & jnp.all(jnp.isfinite(logits))


@functools.partial(jax.jit, static_argnames=("attacked", "filtered"))
def count(
    classifier: Any,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
    *,
    attacked: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = (),
    filtered: tuple[str, tuple[tuple[str, Any], ...]] | None = None,
    levels: Mapping[str, jax.Array] | None = None,
) -> dict[str, Any]:
    """Which and how many images of a padded batch are right: masked sums, never means.

    Args:
      classifier: callable pytree.
      batch: `image` uint8 (n, h, w, c), `label`, `index` and `mask` (n,), perhaps `texture`.
      key: each image's key is `fold_in(key, index)`: the result does not depend on how the split
        is cut into batches or over devices.
      attacked: (attack, its options) pairs, static.
      filtered: a filter and its static options; the images go through it first.
      levels: the filter's other options, traced: a sweep over them is one program.

    Returns:
      int32 scalars `n`, `top1`, `top5`, `not_finite`, of how many a logit is NaN or infinite, and
      `texture` where the batch has textures; `right`: bool (n,), padding included; `attacks`: for
      each attack the same `n`, `top1` and `right`, of images that are right both clean and
      attacked, and `not_finite` of the attacked ones.
    """
    images = batch["image"].astype(jnp.float32) / 255.0
    if filtered is not None:
        name, fixed = filtered
        images = filters.get(name)(images, **dict(fixed), **(levels or {}))
    labels, mask = batch["label"], batch["mask"]
    keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["index"])
    logits = jax.vmap(classifier)(images)

    def total(right):
        return jnp.sum(right & mask, dtype=jnp.int32)

    def not_finite(logits):
        return total(~jnp.all(jnp.isfinite(logits), axis=-1))

    clean = jax.vmap(hits)(logits, labels)
    counts = {
        "n": jnp.sum(mask, dtype=jnp.int32),
        "right": clean,
        "top1": total(clean),
        "not_finite": not_finite(logits),
        "top5": total(jax.vmap(functools.partial(hits, top=5))(logits, labels)),
    }
    if "texture" in batch:
        counts["texture"] = total(jax.vmap(hits)(logits, batch["texture"]))
    counts["attacks"] = []
    for name, options in attacked:
        adversarial = attacks.get(name)(classifier, images, labels, key=keys, **dict(options))
        logits = jax.vmap(classifier)(adversarial)
        robust = clean & jax.vmap(hits)(logits, labels)
        attacked_counts = {"n": counts["n"], "right": robust, "top1": total(robust)}
        counts["attacks"].append(attacked_counts | {"not_finite": not_finite(logits)})
    return counts


def evaluate(
    classifier: Any,
    dataset: Any,
    split: str,
    *,
    batch_size: int,
    mesh: Mesh,
    key: jax.Array,
    attacks_by_name: Mapping[str, Mapping[str, Any]] | None = None,
    variants: Mapping[str, Mapping[str, Any]] | None = None,
    partial_file: Path | None = None,
    basis: str = "",
    title: str = "evaluation",
    every: float = 10.0,
    warn: bool = True,
) -> dict[str, Any]:
    """Counts over one split, as `count` gives them, but as Python integers and texts.

    `right` is a text of one "0" or "1" for each image in the order of the split; `attacks` and
    `variants` are by name. Each image is read and decoded once, however many of them there are.

    Args:
      classifier: callable pytree.
      dataset: what `pipeline.describe` returned, or the `dataset` part of a config.
      split: of the data set.
      batch_size: the most images at once, over all devices.
      mesh: with the axis "data".
      key: of the attacks.
      attacks_by_name: {name: {"name": attack, options}}.
      variants: {name: {"name": filter, options}}.
      partial_file: where to note how far it has come; an interrupted evaluation goes on from there.
      basis: what else the counts depend on; a note of another basis is not gone on from.
      title: of the progress line.
      every: seconds between two progress lines.
      warn: of images whose logits are not finite.
    """
    classifier = as_pytree(classifier)
    chosen = attacks_by_name or {}
    attacked = tuple(map(hashable, chosen.values()))
    swept = {name: split_options(variant) for name, variant in (variants or {}).items()}
    with pipeline.evaluation_batches(dataset, split, batch_size=batch_size, mesh=mesh) as batches:
        size = batches.batch_size
        settings = _settings(classifier, dataset, attacked, swept, size, split, key, basis)
        total, done = {}, 0
        if note := _read_partial(partial_file, settings):
            total, done = note["total"], note["done"]
            batches.set_state(note["position"])
        # Once for all batches: what is on one device alone would be sent again with each.
        classifier = jax.device_put(classifier, NamedSharding(mesh, PartitionSpec()))
        first = jax.process_index() == 0
        noting = partial_file if first else None
        noted = time.perf_counter()
        with logs.Progress(
            title, len(batches), steps="batches", images=size, every=every, active=first
        ) as progress:
            for batch in batches:
                counts = count(classifier, batch, key, attacked=attacked)
                counts["variants"] = {
                    name: count(classifier, batch, key, filtered=filtered, levels=levels)
                    for name, (filtered, levels) in swept.items()
                }
                counts = _as_plain(*fetched((counts, batch["mask"])))
                total = jax.tree.map(lambda a, b: a + b, total, counts) if done else counts
                done += 1
                progress.mark(done)
                if progress.due():
                    progress.show(done)
                if noting and time.perf_counter() - noted > _SAVE_EVERY:
                    noted = time.perf_counter()
                    note = {"settings": settings, "done": done, "total": total}
                    files.write_json(noting, note | {"position": batches.get_state()})
    if total["n"] != batches.num_examples:
        raise RuntimeError(
            f"the split {split} has {batches.num_examples} examples, but {total['n']} were counted."
        )
    if noting:
        noting.unlink(missing_ok=True)
    # Mapping over a tree has sorted the names.
    by_attack = dict(zip(chosen, total["attacks"], strict=True))
    by_variant = {name: total["variants"][name] for name in swept}
    if jax.process_index() == 0 and warn:
        warn_of_infinite([("", total), *by_attack.items(), *by_variant.items()])
    return total | {"attacks": by_attack, "variants": by_variant}


def warn_of_infinite(counted: Iterable[tuple[str, Mapping[str, int]]]) -> None:
    """Say where images count as wrong because the classifier says nothing of them.

    Args:
      counted: name of what was done to the images, "" for nothing, and the counts.
    """
    for name, counts in counted:
        if counts["not_finite"]:
            logging.getLogger("jaxrobust").warning(
                "The logits of %d of %d images%s are NaN or infinite, expected finite ones: these "
                "images count as misclassified.",
                counts["not_finite"],
                counts["n"],
                f" under {name}" if name else "",
            )


def fetched(tree: Any) -> Any:
    """On the host, whole, whichever process's devices hold the parts."""
    if jax.process_count() > 1:
        tree = jax.tree.map(lambda leaf: multihost_utils.process_allgather(leaf, tiled=True), tree)
    return jax.device_get(tree)


def _as_plain(counts: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """Integers, and texts of which images are right: both add up over batches, and go into JSON."""
    return jax.tree.map(
        lambda leaf: (
            int(leaf) if leaf.ndim == 0 else "".join("1" if right else "0" for right in leaf[mask])
        ),
        counts,
    )


def hashable(attack: Mapping[str, Any]) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """An attack and its options as `count` takes them."""
    return attack["name"], tuple(sorted((k, v) for k, v in attack.items() if k != "name"))


def split_options(variant: Mapping[str, Any]) -> tuple[tuple, dict[str, np.ndarray]]:
    """A filter and its options as `count` takes them: what is compiled in, and what is not."""
    options = dict(variant)
    name = options.pop("name")
    filters.check_options(name, options)
    static = batching.static_options(filters.get(name))
    fixed = tuple(sorted((key, value) for key, value in options.items() if key in static))
    levels = {
        key: np.asarray(value, np.float32 if isinstance(value, float) else None)
        for key, value in options.items()
        if key not in static
    }
    return (name, fixed), levels


def _settings(classifier, dataset, attacked, swept, batch_size, split, key, basis) -> str:
    """What the counts depend on, weights included, as one string."""
    described = repr((dataset, attacked, swept, batch_size, split, basis, jax.process_count()))
    return digest(described, *jax.tree.leaves(classifier), jax.random.key_data(key))


def _read_partial(partial_file: Path | None, settings: str) -> dict[str, Any] | None:
    if partial_file is None:
        return None
    note = files.read_note(partial_file, settings=str, done=int, total=dict, position=dict)
    return note if note and note["settings"] == settings else None
