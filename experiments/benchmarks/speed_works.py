"""What `speed` measures, with jaxrobust and with PyTorch, and whether it is equal."""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxrobust import attacks, models
from jaxrobust.classifier import Classifier
from jaxrobust.experiments.benchmarks.harness import count, file, setting
from jaxrobust.models import resnet
from jaxrobust.training import config as configs
from jaxrobust.training.run import recipe as recipe_of
from jaxrobust.training.step import Recipe, initial_state, train_step

PGD_STEPS = 10
EPSILON = 0.01
OURS, THEIRS = "jaxrobust", "PyTorch"
WORKS = (
    "forward",
    "input gradient",
    "FGSM attack",
    "PGD-10 attack",
    "standard training step",
    "FGSM training step",
    "PGD-10 training step",
)
_ATTACKS = {
    "FGSM": {"name": "fgsm", "epsilon": EPSILON},
    "PGD-10": {"name": "pgd", "epsilon": EPSILON, "steps": PGD_STEPS},
}
_CHECKED_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured, and how; the flags of the same names."""

    model: str = setting("resnet50", "name of a model, as in models.create")
    image_size: int = count(224, "height and width in pixels")
    num_classes: int = count(1000, "number of classes")
    batch_size: int = count(256, "images in a batch")
    dtype: str = setting("auto", "of the network", choices=["auto", "float32", "bfloat16"])
    works: Sequence[str] = setting(
        WORKS,
        f"what is measured, of: {', '.join(WORKS)} (default: all)",
        nargs="+",
        choices=WORKS,
        metavar="WORK",
    )
    rounds: int = count(7, "measurements of each work")
    seconds: float = setting(0.5, "of one measurement: short work is repeated", type=float)
    torch: bool = setting(
        True, "compare with PyTorch where there is one", action=argparse.BooleanOptionalAction
    )
    torch_compile: str = setting(
        "auto",
        'mode of torch.compile; "auto": "default" on a GPU, else "none"',
        choices=["auto", "none", "default", "max-autotune-no-cudagraphs"],
    )
    # Threads that wait for each other, as PyTorch's do, lose most beside other work.
    cores: int | None = count(None, "of the CPU, for both; 1 is fairest beside other work")
    peak_tflops: float | None = setting(None, "of the device at dtype: utilisation", type=float)
    out: str = file("benchmark_speed.json")
    trace: str | None = setting(None, "a folder for a profile of PGD training steps")
    check: bool = setting(False, "only compare both libraries' results", action="store_true")
    verbose: bool = setting(False, "show where an error comes from", action="store_true")


@dataclasses.dataclass(frozen=True)
class Work:
    """Something to measure: `run()` starts it, `wait(result)` returns when it is done."""

    run: Callable[[], Any]
    wait: Callable[[Any], Any]
    trace: Callable[[], Any] | None = None


@dataclasses.dataclass(frozen=True)
class Subject:
    """The network, its weights and the one batch that every measurement uses."""

    model: Any
    classifier: Classifier
    images: np.ndarray
    labels: np.ndarray
    recipes: Mapping[str, Recipe]
    optimizer: Mapping[str, Any]

    @classmethod
    def create(cls, settings: Settings) -> "Subject":
        model = models.create(
            settings.model, num_classes=settings.num_classes, dtype=settings.dtype
        )
        size = settings.image_size
        shape = (size, size, len(getattr(model, "mean", "RGB")))
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (settings.batch_size, *shape), np.uint8)
        labels = generator.integers(0, settings.num_classes, settings.batch_size, np.int32)
        recipes = {}
        for name, attack in {"standard": None, **_ATTACKS}.items():
            config = configs.default()
            config.attack = attack
            config.schedule.name = "constant"
            # One batch over and over: at the usual rate it would soon be known by heart.
            config.optimizer.learning_rate = 0.001
            recipes[name] = recipe_of(config, steps=1, devices=jax.device_count())
        optimizer = config.optimizer.to_dict()
        del optimizer["decay_norm_and_bias"]
        classifier = Classifier.init(jax.random.key(0), model, shape)
        return cls(model, classifier, images, labels, recipes, optimizer)


@jax.jit
def _forward(classifier, images):
    return classifier(images.astype(jnp.float32) / 255.0)


@jax.jit
def _input_gradient(classifier, images, labels):
    def loss(images):
        return jnp.sum(jax.vmap(attacks.cross_entropy)(classifier(images), labels))

    return jax.grad(loss)(images.astype(jnp.float32) / 255.0)


@functools.partial(jax.jit, static_argnames=("name", "options"))
def _attack(classifier, images, labels, key, *, name, options):
    images = images.astype(jnp.float32) / 255.0
    return attacks.get(name)(classifier, images, labels, key=key, **dict(options))


def our_works(subject: Subject) -> dict[str, Work]:
    """Every work of `WORKS` as training and evaluation run it, on the first device."""
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
    key = jax.random.key(1)
    # Placed as training places them: otherwise the second step would be compiled anew.
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    batch = jax.device_put({"image": subject.images, "label": subject.labels}, sharded)
    images, labels = batch["image"], batch["label"]
    classifier = subject.classifier

    def work(function: Any, *arguments: Any, **options: Any) -> Work:
        return Work(
            functools.partial(function, *arguments, **options),
            jax.block_until_ready,
            functools.partial(function.trace, *arguments, **options),
        )

    def training(recipe: Recipe) -> Work:
        options = {"model": subject.model, "recipe": recipe, "mesh": mesh}
        state = initial_state(jax.random.key(0), image_shape=images.shape[1:], **options)

        def run() -> jax.Array:
            nonlocal state  # donated: the old one is gone
            state, metrics = train_step(state, batch, key, **options)
            return metrics["loss"]

        def trace() -> Any:
            return train_step.trace(state, batch, key, **options)

        return Work(run, jax.block_until_ready, trace)

    works = {
        "forward": work(_forward, classifier, images),
        "input gradient": work(_input_gradient, classifier, images, labels),
    }
    for name, options in _ATTACKS.items():
        options = {"name": options["name"], "options": tuple(sorted(_options(name).items()))}
        works[f"{name} attack"] = work(_attack, classifier, images, labels, key, **options)
    for name, recipe in subject.recipes.items():
        works[f"{name} training step"] = training(recipe)
    return works


def flops(works: Mapping[str, Work]) -> dict[str, float | None]:
    """Operations of one call of each of our works by XLA's count; None where it cannot count."""

    def count(work: Work) -> float | None:
        try:
            # As for a TPU: its lowering is the plain one, while that for CPU hides some of the
            # operations in loops, whose bodies are counted once.
            lowered = work.trace().lower(lowering_platforms=("tpu",))
            return (lowered.cost_analysis() or {}).get("flops")
        except (NotImplementedError, RuntimeError, ValueError):
            return None

    counted = {name: count(work) for name, work in works.items()}
    for name in counted:
        if name.startswith("PGD-10") and counted[name] and counted["input gradient"]:
            # The attack's own loop, counted once as well.
            counted[name] += (PGD_STEPS - 1) * counted["input gradient"]
    return counted


def _options(name: str) -> dict[str, Any]:
    return {option: value for option, value in _ATTACKS[name].items() if option != "name"}


def their_works(subject: Subject, settings: Settings) -> tuple[dict[str, Work], dict[str, Any]]:
    """The same in PyTorch, and what to say of its version.

    Raises:
        RuntimeError: when it cannot be compared; the sentence says why.
    """
    if not isinstance(subject.model, resnet.ResNet):
        raise RuntimeError(f"there is no {settings.model} in PyTorch here, only ResNets")
    try:
        from jaxrobust.experiments.benchmarks import torch_resnet
    except ImportError as error:
        raise RuntimeError(f"PyTorch cannot be imported ({error})") from error
    resolved = {}
    for name in _ATTACKS:
        complete = attacks.complete_options(_ATTACKS[name]["name"], _options(name))
        wanted = ("epsilon", "steps", "step_size", "random_start")
        resolved[name] = {option: complete[option] for option in wanted}
    runs, about = torch_resnet.works(
        subject.classifier,
        subject.images,
        subject.labels,
        attacks=resolved,
        optimizer=subject.optimizer,
        compile_mode=settings.torch_compile,
    )
    return {name: Work(run, torch_resnet.wait) for name, run in runs.items()}, about


def check(settings: Settings) -> dict[str, tuple[float, float]]:
    """How far PyTorch's results are from ours, in float32: {what: (difference, tolerance)}.

    Logits and losses: the largest difference, in units of the largest value. The FGSM images: the
    share of the values that differ (where a gradient is all but zero, rounding decides its sign).
    The losses are those of three FGSM training steps, which the updates in between must agree on.

    Raises:
        RuntimeError: when there is no PyTorch to compare with.
    """
    settings = dataclasses.replace(
        settings, dtype="float32", batch_size=min(settings.batch_size, 8)
    )
    with jax.default_matmul_precision("highest"):
        subject = Subject.create(settings)
        theirs, _ = their_works(subject, settings)
        ours = our_works(subject)

        def both(name: str) -> tuple[np.ndarray, np.ndarray]:
            return np.asarray(ours[name].run()), theirs[name].run().cpu().numpy()

        def relative(pair: tuple[np.ndarray, np.ndarray]) -> float:
            return float(np.abs(pair[0] - pair[1]).max() / np.abs(pair[0]).max())

        images, their_images = both("FGSM attack")
        losses = [both("FGSM training step") for _ in range(_CHECKED_STEPS)]
        return {
            "logits": (relative(both("forward")), 1e-3),
            "FGSM images": (float(np.mean(np.abs(images - their_images) > 1e-6)), 1e-2),
            "losses of FGSM training": (max(relative(pair) for pair in losses), 1e-2),
        }
