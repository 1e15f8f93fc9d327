"""What each formulation of `cpu_lowering` is worth: python -m experiments.benchmarks.lowering

Every formulation is left out in turn, then all of them, then jaxrobust's compiler options as well;
the time is given in units of the time with everything, so that a figure above 1 is what the
formulation wins there. (Without "layout", "phases" and "weight_gradient" are gone as well.) All
programs of a network are run in turns, in another order each time.
About a quarter of an hour on two cores. To be run anew, with nothing else running, for each version
of jaxlib; a formulation that wins nowhere should go.
"""

import argparse
import sys
import time
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


def measure(
    network: str, rounds: int, tell: Callable[[str], None] = print
) -> dict[str, dict[str, float]]:
    """Medians over the rounds of {work: {variant: time in units of that with everything}}.

    Args:
        network: one of `NETWORKS`.
        rounds: measurements of each program.
        tell: is given one line at a time about what goes on.
    """
    create, size, batch_size = NETWORKS[network]
    classifier = Classifier.init(jax.random.key(0), create(), (size, size, 3))
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.random((batch_size, size, size, 3), np.float32))
    labels = jnp.asarray(generator.integers(0, 10, batch_size))
    programs = {}
    for name, work in WORKS.items():
        for variant in VARIANTS:
            tell(f"{network}: compiling {name}, {variant}")
            programs[name, variant] = _compiled(variant, work, classifier, images, labels)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in programs}
    for turn in range(rounds + 1):
        tell(f"{network}: round {turn} of {rounds}")
        # What has run just before leaves its trace in the caches.
        for index in generator.permutation(len(programs)):
            key = list(programs)[index]
            start = time.perf_counter()
            jax.block_until_ready(programs[key](classifier, images, labels))
            if turn:  # the first warms up
                seconds[key].append(time.perf_counter() - start)
    return {
        name: {
            variant: float(np.median(np.divide(seconds[name, variant], seconds[name, EVERYTHING])))
            for variant in VARIANTS
        }
        for name in WORKS
    }


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.lowering", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9, help="of every program")
    arguments = parser.parse_args(argv)
    runtime.prepare()

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    print(f"jax {jax.__version__}, oneDNN: {'yes' if cpu_compiler.has_onednn() else 'no'}")
    for network in arguments.networks:
        measured = measure(network, arguments.rounds, tell)
        print(f"\n{network.ljust(22)}" + "".join(name.rjust(20) for name in WORKS))
        for variant in VARIANTS[1:]:
            cells = [f"{measured[name][variant]:.2f}".rjust(20) for name in WORKS]
            print(variant.ljust(22) + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
