"""What each formulation of `cpu_lowering` is worth.

    python -m jaxrobust.experiments.benchmarks.lowering

Every formulation is left out in turn, then all of them, then jaxrobust's compiler options as well;
the time is given in units of the time with everything, so that a figure above 1 is what the
formulation wins there. (Without "layout", all others of convolutions are gone as well.) All
programs of a network are run in turns, in another order each time.
About a quarter of an hour on two cores. To be run anew, with nothing else running, for each version
of jaxlib; a formulation that wins nowhere should go.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrobust import attacks, models
from jaxrobust.classifier import Classifier
from jaxrobust.core import cpu_compiler, cpu_lowering, runtime
from jaxrobust.experiments.benchmarks import harness
from jaxrobust.models import resnet

# Few channels; bottlenecks; large kernels and strides.
NETWORKS: dict[str, tuple[Callable[[], Any], int, int]] = {
    "resnet8_small@32": (lambda: models.create("resnet8_small", num_classes=10), 32, 128),
    "bottlenecks@112": (lambda: resnet.ResNet((1, 1, 1, 1), bottleneck=True), 112, 16),
    "alexnet@224": (lambda: models.create("alexnet", num_classes=10, dropout=0.0), 224, 16),
}
EVERYTHING = "everything"
VARIANTS = (
    EVERYTHING,
    *(f"no {name}" for name in cpu_lowering.FORMULATIONS),
    "no formulation at all",
    "nor our options",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags of the same names."""

    networks: Sequence[str] = harness.setting(
        tuple(NETWORKS), "which are measured", nargs="+", choices=list(NETWORKS)
    )
    rounds: int = harness.count(9, "of every program")


def _forward(classifier, images, labels):
    return classifier(images)


def _attack(classifier, images, labels):
    options = {"epsilon": 0.01, "steps": 3, "random_start": False}
    return attacks.pgd(classifier, images, labels, **options)


def _training_gradient(classifier, images, labels):
    def loss(params):
        logits, _ = classifier.model.apply(
            {**classifier.variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    return jax.grad(loss)(classifier.variables["params"])


WORKS = {"forward": _forward, "PGD-3": _attack, "training gradient": _training_gradient}


def _compiled(variant: str, work: Callable, *arguments: Any) -> Any:
    left_out = cpu_lowering.FORMULATIONS if variant in VARIANTS[-2:] else [variant[3:]]
    kept = [name for name in cpu_lowering.FORMULATIONS if name not in left_out]
    plain = variant == VARIANTS[-1]
    jax.clear_caches()
    with cpu_lowering.only(*kept), cpu_compiler.plain_options() if plain else nullcontext():
        return jax.jit(work).lower(*arguments).compile()


def measure(network: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians over the rounds of {work: {variant: time in units of that with everything}}.

    Args:
      network: one of `NETWORKS`.
      rounds: measurements of each program.
    """
    create, size, batch_size = NETWORKS[network]
    classifier = Classifier.init(jax.random.key(0), create(), (size, size, 3))
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.random((batch_size, size, size, 3), np.float32))
    labels = jnp.asarray(generator.integers(0, 10, batch_size))
    programs = {}
    for name, work in WORKS.items():
        for variant in VARIANTS:
            harness.tell(f"{network}: compiling {name}, {variant}")
            programs[name, variant] = _compiled(variant, work, classifier, images, labels)

    works = {
        key: functools.partial(
            harness.timed(functools.partial(program, classifier, images, labels)), 1
        )
        for key, program in programs.items()
    }
    taken = harness.in_turns(works, rounds + 1, shuffled=True)
    return {
        name: {
            # The first round warms up.
            variant: float(
                np.median(np.divide(taken[name, variant][1:], taken[name, EVERYTHING][1:]))
            )
            for variant in VARIANTS
        }
        for name in WORKS
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    settings = harness.parse(Settings, argv, "lowering", __doc__)
    runtime.prepare()
    print(f"jax {jax.__version__}, oneDNN: {'yes' if cpu_compiler.has_onednn() else 'no'}")
    for network in settings.networks:
        measured = measure(network, settings.rounds)
        rows = [
            [variant, *(f"{measured[name][variant]:.2f}" for name in WORKS)]
            for variant in VARIANTS[1:]
        ]
        print("\n" + harness.table([[network, *WORKS], *rows]), flush=True)


if __name__ == "__main__":
    main()
