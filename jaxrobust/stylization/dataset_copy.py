"""The stylised copy of a data set, in the layout that `jaxrobust.data.image_folder` reads."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxrobust.core import files, logs, pytrees
from jaxrobust.core.checks import check_count, check_that
from jaxrobust.core.interrupts import Interrupts
from jaxrobust.core.named import check_choice
from jaxrobust.core.runtime import data_mesh
from jaxrobust.data import sources
from jaxrobust.data.dataset_config import resolve
from jaxrobust.data.transforms import HostTransform
from jaxrobust.stylization.copy_plan import (
    CopyPlan,
    check_folders,
    class_folders,
    file_names,
    original_names,
    without_small,
)
from jaxrobust.stylization.networks import check_networks
from jaxrobust.stylization.provenance import describe_source
from jaxrobust.stylization.style_transfer import check_strength, stylize_unchecked
from jaxrobust.stylization.styles import Styles
from jaxrobust.stylization.weights import fingerprint
from jaxrobust.version import __version__

Array = jax.Array

FORMATS = ("png", "jpg")
_SPLITS = ("train", "validation", "val", "test")
_PER_DEVICE = 16


class CopyStopped(Exception):
    """The copy was interrupted; the same call goes on."""


def stylize_dataset(
    encoder: Callable[[Array], Sequence[Array]],
    decoder: Callable[[Array], Array],
    dataset_config: Any,
    styles: Styles,
    output: str | os.PathLike[str],
    *,
    split: str | None = None,
    output_split: str | None = None,
    strength: float = 1.0,
    seed: int = 0,
    style_size: int | None = None,
    batch_size: int | None = None,
    file_format: str = "png",
    log_every_seconds: float = 10.0,
) -> Path:
    """Write the stylised copy of one split, or go on where an earlier call was interrupted.

    Every picture gets one random style picture. The copy is
    `<output>/<output_split>/<class>/<name>.png`; until it is complete that folder is called
    `<output_split>.incomplete`. Beside it stand `<output_split>.jsonl`, which names for every
    picture its source, style, seed and strength, and `<output_split>.json`, the settings. Where the
    classes' names are not in the order of the labels, the folders' names begin with the label, so
    that a model trained on the source can be evaluated on the copy. Pictures that are gone from a
    finished copy, or are not what was written, are made again.

    Args:
      encoder: as of `stylize`.
      decoder: as of `stylize`.
      dataset_config: the source: a `DatasetConfig`. Where its image_size is None, pictures of one
        small size keep it; others are resized to a shorter side of 256 and cropped to 224.
      styles: `StyleFolder` or `StyleTextures`.
      output: folder of the copy; made if need be.
      split: of the source; None is its evaluation split.
      output_split: "train", "validation", "val" or "test"; None is that part of `split`'s name.
      strength: from 0 to 1, as of `stylize`.
      seed: decides the style of every picture.
      style_size: height and width of the style pictures in pixels; None is that of the content.
      batch_size: pictures at once, over all devices; None is 16 a device.
      file_format: "png" or "jpg" (quality 95, without subsampling of the colours).
      log_every_seconds: seconds between two lines of progress.

    Returns:
      the finished folder, `<output>/<output_split>`.

    Raises:
      FileNotFoundError: when the source is not there.
      ValueError: when an option is out of range, a picture cannot be read, the pictures are too
        small for the encoder, one of the folders lies inside the other, the output holds something
        else, another copy is being written there, or a picture is not what was written.
      CopyStopped: after Ctrl-C or SIGTERM; what is finished is kept.
    """
    check_strength(strength)
    check_count("seed", seed, least=0)
    check_choice("file_format", file_format, FORMATS)
    mesh = data_mesh()
    batch_size = _PER_DEVICE * mesh.size if batch_size is None else batch_size
    check_count("batch_size", batch_size)
    rule = f"be a multiple of the {mesh.size} devices"
    check_that(batch_size % mesh.size == 0, "batch_size", rule, batch_size)
    resolved, dataset = resolve(dataset_config)
    check_that(dataset.channels == 3, "The data set", "have colours to stylise", dataset.name)
    split = split or resolved.evaluation_split
    if output_split is None:
        output_split = re.split(r"[\[+]", split)[0]
    check_choice("output_split", output_split, _SPLITS)
    check_folders(Path(output), resolved, dataset, styles)
    opened = sources.open_split(resolved, dataset, split)
    if resolved.corrupt_images == "skip":
        opened = without_small(opened)
    if not len(opened):
        raise ValueError(f"Split {split!r} of {resolved.name} holds no images.")
    if resolved.path is not None and getattr(dataset_config, "image_size", None) is None:
        smaller = min(opened.native_size or resolved.image_size, resolved.image_size)
        resolved = dataclasses.replace(resolved, image_size=smaller)
    size = resolved.image_size
    style_size = size if style_size is None else style_size
    check_count("style_size", style_size)
    check_networks(encoder, decoder, (size, size, 3), (style_size, style_size, 3))
    transform = HostTransform.create(opened, resolved, "none")
    originals = original_names(opened, resolved.path)
    plan = CopyPlan(
        split=opened,
        transform=transform,
        styles=styles,
        style_size=style_size,
        seed=seed,
        strength=float(strength),
        class_folders=class_folders(opened),
        originals=originals,
        file_names=file_names(originals, file_format),
        folder=Path(output).expanduser() / output_split,
        file_format=file_format,
    )
    settings = {
        "jaxrobust": __version__,
        "source": describe_source(resolved, dataset, opened),
        "image_size": size,
        "resize_size": transform.resize_size,
        "style_size": style_size,
        "styles": styles.describe(),
        "strength": plan.strength,
        "seed": seed,
        "encoder": fingerprint(encoder),
        "decoder": fingerprint(decoder),
        "file_format": file_format,
    }
    with _only_copy_at(plan.lock):
        if not plan.prepare_output(settings):
            return plan.folder
        for name in plan.class_folders:  # a class without pictures must not vanish from the labels
            (plan.incomplete / name).mkdir(parents=True, exist_ok=True)
        _copy(plan, encoder, decoder, batch_size, mesh, log_every_seconds)
        plan.finish()
    return plan.folder


@contextlib.contextmanager
def _only_copy_at(path: Path) -> Generator[None]:
    """Hold the lock of a file, which is made, and removed at the end.

    Raises:
      ValueError: when another process holds it.
    """
    with files.alone(path, f"writes this copy and holds {path}", wait=False):
        try:
            yield
        finally:
            with contextlib.suppress(PermissionError):  # of Windows, where filelock removes it
                path.unlink(missing_ok=True)


def _copy(
    plan: CopyPlan,
    encoder: Callable,
    decoder: Callable,
    batch_size: int,
    mesh: Any,
    log_every_seconds: float,
) -> None:
    """Make every picture that is not finished."""
    finished = plan.begin()
    todo = [index for index in range(len(plan.split)) if index not in finished]
    networks = jax.device_put(
        (pytrees.as_pytree(encoder), pytrees.as_pytree(decoder)),
        NamedSharding(mesh, PartitionSpec()),
    )
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    progress = logs.Progress("stylised", len(todo), steps="pictures", every=log_every_seconds)
    with (
        progress,
        plan.unfinished_records.open("a") as stream,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        Interrupts() as interrupts,
        contextlib.closing(_read_ahead(plan, pool, todo, batch_size)) as batches,
    ):

        def write(records: Sequence[dict[str, Any]], pictures: Array) -> None:
            names = [record["picture"] for record in records]
            checksums = list(pool.map(plan.write, names, np.asarray(pictures)[: len(names)]))
            for record, checksum in zip(records, checksums, strict=True):
                stream.write(files.json_line(record | {"picture_crc32": checksum}) + "\n")
            stream.flush()
            progress.step(len(records))

        # While the devices work on one batch, the next is read and the one before is written.
        pending: tuple[Sequence[dict[str, Any]], Array] | None = None
        try:
            for contents, styles, records in batches:
                images, style_images = (
                    jax.device_put(_padded(pictures, batch_size), sharding)
                    for pictures in (contents, styles)
                )
                pictures = _stylized_levels(*networks, images, style_images, plan.strength)
                before, pending = pending, (records, pictures)
                if before is not None:
                    write(*before)
                if interrupts.requested(progress.done):
                    break
        finally:
            if pending is not None:  # also when a later picture cannot be read
                write(*pending)
            progress.close()
    if progress.done < len(todo):
        raise CopyStopped(
            f"Stopped after {len(finished) + progress.done} of {len(plan.split)} pictures, which "
            "are kept: the same command goes on from here."
        )


def _padded(pictures: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
    """A batch, the first picture in the place of those that are missing."""
    return np.stack([*pictures, *[pictures[0]] * (batch_size - len(pictures))])


@jax.jit
def _stylized_levels(encoder, decoder, images, style_images, strength):
    images, style_images = (x.astype(jnp.float32) / 255 for x in (images, style_images))
    pictures = stylize_unchecked(encoder, decoder, images, style_images, strength)
    return jnp.round(pictures * 255).astype(jnp.uint8)


def _read_ahead(
    plan: CopyPlan, pool: ThreadPoolExecutor, todo: Sequence[int], batch_size: int
) -> Generator[tuple]:
    """Batches of what `load` returns; the next one is read meanwhile."""
    parts = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    ahead: list[list[Future]] = []
    try:
        for number in range(len(parts)):
            for part in parts[number + len(ahead) : number + 2]:
                ahead.append([pool.submit(plan.load, index) for index in part])
            yield tuple(zip(*[future.result() for future in ahead.pop(0)], strict=True))
    finally:
        for futures in ahead:
            for future in futures:
                future.cancel()
