"""Training a decoder against a frozen encoder, as AdaIN's authors do."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrobust.core import files, logs, pytrees
from jaxrobust.core.checks import check_count, check_number, check_that
from jaxrobust.core.interrupts import Interrupts, NotFinite, TrainingStopped
from jaxrobust.core.runtime import data_mesh
from jaxrobust.core.settings import difference, to_plain
from jaxrobust.data import pipeline, sources
from jaxrobust.data.dataset_config import resolve
from jaxrobust.stylization.networks import Decoder, feature_shapes, mirrored_decoder
from jaxrobust.stylization.provenance import describe_source
from jaxrobust.stylization.style_transfer import adain, channel_statistics, fit_to_shape
from jaxrobust.stylization.styles import Styles
from jaxrobust.stylization.weights import (
    DECODER_FILE,
    DESCRIPTION_FILE,
    fingerprint,
    load_decoder,
    save_decoder,
)
from jaxrobust.training import checkpoints
from jaxrobust.version import __version__

Array = jax.Array

# What may change between two calls with one workdir; the rest decides the weights.
_NOT_TRAINING = ("jaxrobust", "steps")


def losses(
    encoder: Callable, decoder: Callable, images: Array, style_images: Array
) -> tuple[Array, Array]:
    """AdaIN's two losses, before they are weighted.

    Args:
      encoder: a callable pytree, one image -> feature maps.
      decoder: a callable pytree, the deepest feature map -> an image.
      images: (n, h, w, 3), floats in [0, 1].
      style_images: (n, h', w', 3).

    Returns:
      the content loss, the mean squared difference of the deepest features of the stylised picture
      from those that it was decoded from; and the style loss, the mean squared difference of the
      channels' means and of their standard deviations from the style's, each, summed over the
      feature maps.
    """

    def losses_of_image(image, style_image):
        style_features = encoder(style_image)
        target = adain(encoder(image)[-1], style_features[-1])
        features = encoder(fit_to_shape(decoder(target), image.shape))
        content_loss = jnp.mean(jnp.square(features[-1] - target))
        style_loss = jnp.zeros(())
        for maps, style_maps in zip(features, style_features, strict=True):
            for value, aim in zip(
                channel_statistics(maps), channel_statistics(style_maps), strict=True
            ):
                style_loss += jnp.mean(jnp.square(value - aim))
        return content_loss, style_loss

    content_losses, style_losses = jax.vmap(losses_of_image)(images, style_images)
    return jnp.mean(content_losses), jnp.mean(style_losses)


@functools.partial(
    jax.jit, static_argnames=("rate", "decay", "weights", "mesh"), donate_argnums=(1, 2)
)
def _train_step(encoder, decoder, state, images, style_images, *, rate, decay, weights, mesh):
    images, style_images = (x.astype(jnp.float32) / 255 for x in (images, style_images))

    def loss_of(decoder):
        parts = losses(encoder, decoder, images, style_images)
        return weights[0] * parts[0] + weights[1] * parts[1], parts

    (loss, parts), gradient = jax.value_and_grad(loss_of, has_aux=True)(decoder)
    change, state = _optimizer(rate, decay).update(gradient, state, decoder)
    decoder = optax.apply_updates(decoder, change)
    decoder, state = jax.lax.with_sharding_constraint(
        (decoder, state), NamedSharding(mesh, PartitionSpec())
    )
    return decoder, state, {"loss": loss, "content_loss": parts[0], "style_loss": parts[1]}


def _optimizer(rate: float, decay: float) -> optax.GradientTransformation:
    return optax.adam(lambda step: rate / (1 + decay * step))


def train_decoder(
    encoder: Callable[[Array], Sequence[Array]],
    dataset_config: Any,
    styles: Styles,
    workdir: str | os.PathLike[str],
    *,
    steps: int,
    batch_size: int = 8,
    learning_rate: float = 1e-4,
    learning_rate_decay: float = 5e-5,
    content_weight: float = 1.0,
    style_weight: float = 10.0,
    seed: int = 0,
    save_every: int = 1000,
    log_every_seconds: float = 10.0,
) -> Decoder:
    """Train the mirrored decoder of an encoder, or go on where an earlier call was interrupted.

    Adam on content_weight * content loss + style_weight * style loss, over the pictures of a data
    set and random style pictures of their size. Both, and so the weights, depend on the seed alone,
    however often the training is interrupted.

    Args:
      encoder: a callable pytree, one image -> its feature maps, the deepest last; kept frozen.
      dataset_config: the content pictures: a `DatasetConfig`, its training split.
      styles: `StyleFolder` or `StyleTextures`.
      workdir: folder for checkpoints, metrics and, at the end, decoder.safetensors.
      steps: number of steps; more than an earlier call's go on from its last.
      batch_size: of content pictures, and of style pictures, over all devices.
      learning_rate: Adam's, at the first step.
      learning_rate_decay: step t has learning_rate / (1 + learning_rate_decay t).
      content_weight: weight of the content loss.
      style_weight: weight of the style loss.
      seed: of the weights, the order of the content pictures and the choice of styles.
      save_every: steps between two checkpoints.
      log_every_seconds: seconds between two lines of progress.

    Returns:
      the decoder.

    Raises:
      ValueError: when an option is out of range, the pictures are too small for the encoder, or the
        folder holds another training.
      NotFinite: when the loss becomes NaN or infinite.
      TrainingStopped: after Ctrl-C or SIGTERM, when the state has been saved.
    """
    for name, count in (("steps", steps), ("batch_size", batch_size), ("save_every", save_every)):
        check_count(name, count)
    numbers = {
        "learning_rate": learning_rate,
        "learning_rate_decay": learning_rate_decay,
        "content_weight": content_weight,
        "style_weight": style_weight,
    }
    for name, value in numbers.items():
        check_number(name, value)
    check_that(learning_rate > 0, "learning_rate", "be above 0", learning_rate)
    folder = Path(workdir)
    mesh = data_mesh()
    resolved, dataset = resolve(dataset_config)
    check_that(dataset.channels == 3, "The data set", "have colours to stylise", dataset.name)
    size = resolved.image_size
    shapes = feature_shapes(encoder, (size, size, 3))
    opened = sources.open_split(resolved, dataset, resolved.train_split)
    description = {
        "jaxrobust": __version__,
        "steps": steps,
        "batch_size": batch_size,
        **numbers,
        "seed": seed,
        "encoder": fingerprint(encoder),
        "feature_maps": [list(leaf.shape) for leaf in shapes],
        "dataset": {
            **describe_source(resolved, dataset, opened),
            "image_size": size,
            "augmentation": resolved.augmentation,
        },
        "styles": styles.describe(),
    }
    batches = pipeline.train_batches(resolved, batch_size=batch_size, seed=seed, mesh=mesh)
    _check_folder(folder, description)
    replicated = NamedSharding(mesh, PartitionSpec())
    encoder = jax.device_put(pytrees.as_pytree(encoder), replicated)
    decoder = mirrored_decoder(encoder, jax.random.key(seed), image_shape=(size, size, 3))
    state = _optimizer(learning_rate, learning_rate_decay).init(decoder)
    decoder, state = jax.device_put((decoder, state), replicated)
    step = functools.partial(
        _train_step,
        rate=learning_rate,
        decay=learning_rate_decay,
        weights=(content_weight, style_weight),
        mesh=mesh,
    )
    done = 0
    progress = logs.Progress(
        "decoder", steps, steps="steps", images=batch_size, every=log_every_seconds
    )
    only = checkpoints.only_training(folder)
    with progress, batches, only, Interrupts() as interrupts:
        _check_folder(folder, description)  # once more: another program may have begun meanwhile
        store = checkpoints.Checkpoints(folder)
        try:
            restored = store.restore(decoder.parameters, state)
            if restored is not None:
                done, parameters, state, position = restored
                batches.set_state(position)
                decoder = decoder.replace(parameters=parameters)
            if done > steps:
                raise ValueError(
                    f"{folder} holds a training of {done} steps, more than steps={steps}: "
                    "give another workdir."
                )
            if done < steps:
                (folder / DECODER_FILE).unlink(missing_ok=True)  # of a shorter training
            files.write_json(folder / DESCRIPTION_FILE, description)
            with (
                contextlib.closing(logs.MetricsWriter(folder, step=done)) as writer,
                _StyleBatches(styles, size, batch_size, seed, done, mesh) as style_batches,
            ):
                unread = []
                while done < steps:
                    images = next(batches)["image"]
                    decoder, state, metrics = step(
                        encoder, decoder, state, images, style_batches.next()
                    )
                    done += 1
                    unread.append(metrics)
                    stop = interrupts.requested(done) and done < steps
                    save = stop or done == steps or done % save_every == 0
                    if save or progress.due() or len(unread) >= 100 or done == 1:
                        _log(unread, done, writer, progress)
                        unread = []
                    if save:
                        store.save(done, decoder.parameters, state, batches.get_state())
                    if stop:
                        store.wait()
                        raise TrainingStopped(
                            f"Stopped at step {done} of {steps}, which is saved: the same command "
                            "goes on from here."
                        )
        finally:
            progress.close()
            store.close()
    if not (folder / DECODER_FILE).exists():
        save_decoder(folder / DECODER_FILE, decoder)
    return load_decoder(folder)


def _check_folder(folder: Path, description: dict[str, Any]) -> None:
    """Raise when the folder holds something else than a part of this very training."""
    path = folder / DESCRIPTION_FILE
    if path.exists():
        before, now = files.read_json(path), to_plain(description)
        differences = difference(before, now, ignored=_NOT_TRAINING)
        if differences:
            raise ValueError(
                f"{folder} holds the training of another decoder ({'; '.join(differences)}): "
                "give another workdir."
            )
    elif checkpoints.runs(folder):
        raise ValueError(f"{folder} holds checkpoints of something else: give another workdir.")


def _log(
    unread: list[dict[str, Array]], done: int, writer: logs.MetricsWriter, progress: logs.Progress
) -> None:
    read = jax.device_get(unread)
    progress.mark(done)
    figures = {name: float(np.mean([metrics[name] for metrics in read])) for name in read[0]}
    if not np.isfinite(figures["loss"]):
        raise NotFinite(
            f"The loss became {figures['loss']} within the {len(read)} steps up to step {done}: "
            "start anew in another workdir with a lower learning rate."
        )
    writer.write(done, figures)
    progress.show(done, figures)


class _StyleBatches:
    """The style pictures of each step, drawn by threads a few steps ahead."""

    _AHEAD = 3

    def __init__(
        self, styles: Styles, size: int, batch_size: int, seed: int, first: int, mesh: Mesh
    ) -> None:
        self._styles, self._size, self._batch_size, self._seed = styles, size, batch_size, seed
        self._sharding = NamedSharding(mesh, PartitionSpec("data"))
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, batch_size))
        self._next = first
        self._ahead: list[list[Future]] = []

    def _draw(self, step: int, place: int) -> np.ndarray:
        rng = np.random.default_rng((self._seed, step, place))
        return self._styles.draw(rng, self._size, augment=True)[0]

    def next(self) -> Array:
        """uint8 (batch_size, size, size, 3), on the devices."""
        while len(self._ahead) < self._AHEAD:
            futures = [
                self._pool.submit(self._draw, self._next, place)
                for place in range(self._batch_size)
            ]
            self._ahead.append(futures)
            self._next += 1
        return jax.device_put(
            np.stack([future.result() for future in self._ahead.pop(0)]), self._sharding
        )

    def __enter__(self) -> _StyleBatches:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(cancel_futures=True)
