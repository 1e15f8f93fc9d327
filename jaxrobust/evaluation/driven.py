"""Which images of a split stand AutoAttack: a driver, which takes all of them and batches itself.

They are read to the host first. Of several processes each takes every so many-th image on its own
devices; no verdict depends on that.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrobust import attacks
from jaxrobust.core import runtime
from jaxrobust.core.pytrees import as_pytree
from jaxrobust.data import pipeline
from jaxrobust.evaluation import attack_options
from jaxrobust.evaluation.evaluate import fetched


def evaluate(
    classifier: Any,
    dataset: Any,
    split: str,
    attack: Mapping[str, Any],
    *,
    batch_size: int,
    mesh: Mesh,
    key: jax.Array,
    state_file: Path | None = None,
    title: str = "evaluation",
    every: float = 10.0,
) -> dict[str, Any]:
    """Counts over the first images of a split, as `evaluate.evaluate` gives them of an attack.

    Args:
      classifier: callable pytree.
      dataset: what `pipeline.describe` returned, or the `dataset` part of a config.
      split: of the data set.
      attack: {"name": "autoattack", options}; `images` is how many of the first images it is tried
        on, None all.
      batch_size: the most images at once, over all devices.
      mesh: with the axis "data".
      key: an image's key is `fold_in(key, its place in the split)`.
      state_file: where this process notes how far it has come; the same call goes on from there.
      title: of the progress lines.
      every: seconds between two of them.

    Returns:
      `n`, `top1` and the text `right`, of images that are right both clean and attacked; `details`:
      {"version", "broken_by": {attack: number of images}, "seconds": {attack: seconds, of the
      slowest process}, "warnings": sentences}.
    """
    options, limit = attack_options.split_images(attack)
    images, labels, places, total = _own_images(
        dataset, split, limit, batch_size=batch_size, mesh=mesh
    )
    found: dict[str, Any] = {"places": places.tolist(), "broken_by": []}
    found |= {"seconds": {}, "version": "", "warnings": []}
    if len(images):
        record = attacks.autoattack(
            # Weights may lie on devices of all processes.
            jax.device_get(as_pytree(classifier)),
            images,
            labels,
            key=jax.vmap(lambda place: jax.random.fold_in(key, place))(jnp.asarray(places)),
            batch_size=max(1, batch_size // jax.device_count()),
            state_file=state_file,
            title=f"{title}  autoattack",
            every=every if jax.process_index() == 0 else math.inf,
            **options,
        )
        found |= {"broken_by": record.broken_by.tolist(), "seconds": record.seconds}
        found |= {"version": record.version, "warnings": record.warnings}
    names = attacks.complete_options(attack["name"], options)["attacks"]
    return _joined(runtime.from_all_processes(found), names, total)


def _own_images(
    dataset: Any, split: str, limit: int | None, *, batch_size: int, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Images, labels and places in the split of this process's part, and the number of all."""
    parts = []
    with pipeline.evaluation_batches(dataset, split, batch_size=batch_size, mesh=mesh) as batches:
        total = min(limit or batches.num_examples, batches.num_examples)
        seen = 0
        while seen < total:
            batch = next(batches)
            batch = fetched({name: batch[name] for name in ("image", "label", "mask")})
            places = seen + np.arange(batch["mask"].sum(), dtype=np.int32)
            own = (places < total) & (places % jax.process_count() == jax.process_index())
            image, label = (batch[name][batch["mask"]][own] for name in ("image", "label"))
            parts.append((image.astype(np.float32) / np.float32(255), label, places[own]))
            seen += len(places)
    image, label, place = (np.concatenate(part) for part in zip(*parts, strict=True))
    return image, label, place, total


def _joined(parts: list[dict[str, Any]], names: list[str], total: int) -> dict[str, Any]:
    """Of what the processes have found, the counts."""
    broken_by = {
        place: name
        for part in parts
        for place, name in zip(part["places"], part["broken_by"], strict=True)
    }
    right = "".join("0" if broken_by[place] else "1" for place in range(total))
    broken = list(broken_by.values())
    return {
        "n": total,
        "top1": right.count("1"),
        "right": right,
        "details": {
            "version": parts[0]["version"],  # which always has an image
            "broken_by": {name: broken.count(name) for name in names},
            "seconds": {
                name: max(part["seconds"].get(name, 0.0) for part in parts)
                for name in ("clean", *names)
            },
            "warnings": list(dict.fromkeys(one for part in parts for one in part["warnings"])),
        },
    }
