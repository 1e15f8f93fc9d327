"""How near minimum-norm attacks come, beside foolbox's.

    python -m jaxrobust.experiments.benchmarks.minimum_norm --workdir=runs/quickstart --run=std

Both attack the same network, in JAX and rebuilt in PyTorch with the same weights, on the same
pictures, and each result is judged by the network that it was made for. It needs PyTorch and
foolbox; FAB is compared where pyautoattack, its authors' code, is installed as well.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import util
from importlib.metadata import version
from typing import Any

import numpy as np

from jaxrobust import attacks
from jaxrobust.core import files, runtime
from jaxrobust.experiments.benchmarks import harness, peers
from jaxrobust.experiments.benchmarks.harness import count, setting

OURS, THEIRS = "jaxrobust", "PyTorch"
# Of each attack its name and options with us, and the norm that it makes small.
WORKS: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "DeepFool l_2": ("deepfool", {"norm": "l2"}, "l2"),
    "DeepFool l_inf": ("deepfool", {"norm": "linf"}, "linf"),
    "Carlini & Wagner l_2": ("carlini_wagner", {}, "l2"),
    "FAB l_2": ("fab", {"norm": "l2"}, "l2"),
    "FAB l_inf": ("fab", {"norm": "linf"}, "linf"),
}
_PACKAGES = ("torch", "foolbox", "pyautoattack")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured; the flags of the same names."""

    workdir: str = setting("runs/quickstart", "of a study, or the folder of one run and seed")
    run: str | None = setting(None, "its name in the study; default: all, one seed of each")
    pictures: int = count(100, "of the test split, the first; those that are wrong are left out")
    steps: int = count(1000, "of each descent of Carlini & Wagner")
    works: Sequence[str] = setting(
        tuple(WORKS),
        f"what is measured, of: {', '.join(WORKS)} (default: all)",
        nargs="+",
        choices=tuple(WORKS),
        metavar="ATTACK",
    )
    batch_size: int | None = count(None, "pictures that ours attack at once; default all")
    out: str = harness.file("benchmark_minimum_norm.json")


# From an attack's title to what it makes of the pictures, (n, h, w, c).
Attacks = Mapping[str, Callable[[], np.ndarray]]
# From pictures to whether they are misclassified, (n,).
Judge = Callable[[np.ndarray], np.ndarray]


def our_attacks(subject: peers.Subject, settings: Settings) -> tuple[Attacks, Judge]:
    """Ours, and the network that they attack."""

    def attack(name: str, options: Mapping[str, Any]) -> np.ndarray:
        steps = {"steps": settings.steps} if name == "carlini_wagner" else {}
        options = {**options, **steps, "batch_size": settings.batch_size}
        attacked = attacks.get(name)(subject.classifier, subject.images, subject.labels, **options)
        return np.asarray(attacked)

    def misclassified(images: np.ndarray) -> np.ndarray:
        return np.asarray(subject.classifier(images)).argmax(-1) != subject.labels

    return {
        title: functools.partial(attack, *named) for title, (*named, _) in WORKS.items()
    }, misclassified


def their_attacks(subject: peers.Subject, settings: Settings) -> tuple[Attacks, Judge]:
    """foolbox's, FAB of pyautoattack where there is one, and the network in PyTorch.

    Raises:
      RuntimeError: when foolbox or PyTorch is missing, or the networks do not compute the same.
    """
    with peers.needed("PyTorch and foolbox", "torch foolbox"):
        import foolbox
        import torch
    try:
        from pyautoattack.fab_pt import FABAttack_PT
    except ImportError:
        FABAttack_PT = None
    twin = peers.in_torch(subject)
    network, from_torch = twin.network, twin.from_torch
    images, labels = twin.to_torch(subject.images), torch.from_numpy(subject.labels).long()
    targets = min(9, subject.classifier(subject.images[0]).shape[0] - 1)

    def misclassified(images: np.ndarray) -> np.ndarray:
        return twin.logits(images).argmax(-1) != subject.labels

    def by_foolbox(attack: Any) -> np.ndarray:
        bounded = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
        return from_torch(attack(bounded, images, labels, epsilons=None)[0])

    def by_authors(norm: str) -> np.ndarray:
        """The nearest of all targets; `perturb` would stop at the first inside a radius."""
        attack = FABAttack_PT(network, norm=norm, n_iter=100, targeted=True, device="cpu")
        best, nearest = subject.images.copy(), np.full(len(labels), np.inf)
        for rank in range(2, targets + 2):
            attack.target_class = rank
            found = from_torch(attack.attack_single_run(images, labels, is_targeted=True))
            there = distances(subject.images, found, misclassified(found), norm.lower())
            best[there < nearest] = found[there < nearest]
            nearest = np.minimum(nearest, there)
        return best

    steps, library = settings.steps, foolbox.attacks
    works: dict[str, Callable[[], np.ndarray]] = {
        "DeepFool l_2": lambda: by_foolbox(library.L2DeepFoolAttack()),
        "DeepFool l_inf": lambda: by_foolbox(library.LinfDeepFoolAttack()),
        "Carlini & Wagner l_2": lambda: by_foolbox(library.L2CarliniWagnerAttack(steps=steps)),
    }
    if FABAttack_PT is not None:
        works |= {
            "FAB l_2": lambda: by_authors("L2"),
            "FAB l_inf": lambda: by_authors("Linf"),
        }
    return works, misclassified


def distances(
    images: np.ndarray, attacked: np.ndarray, misclassified: np.ndarray, norm: str
) -> np.ndarray:
    """Norms of the perturbations (n,), in float64; infinity where the picture is still right."""
    moved = (np.float64(attacked) - images).reshape(len(images), -1)
    order = {"l2": 2, "linf": np.inf}[norm]
    return np.where(misclassified, np.linalg.norm(moved, order, axis=1), np.inf)


def compare(
    subject: peers.Subject, libraries: Mapping[str, tuple[Attacks, Judge]], works: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Runs each attack with each library that has it.

    Returns:
      As JSON, for each attack and library the share of pictures with `success`, the `median`
      distance and all `distances` (None where nothing was found); of two libraries the `ratio` of
      our median to theirs, and the share of pictures of which ours are `nearer`.
    """
    results: dict[str, dict[str, Any]] = {}
    for title in works:
        norm = WORKS[title][2]
        results[title], measured, medians = {}, [], []
        for library, (runs, misclassified) in libraries.items():
            if title not in runs:
                continue
            harness.tell(f"{title}: {library}")
            attacked = np.clip(runs[title](), 0.0, 1.0)
            found = distances(subject.images, attacked, misclassified(attacked), norm)
            median = float(np.median(found))
            medians.append(median)
            measured.append(found)
            results[title][library] = {
                "success": float(np.isfinite(found).mean()),
                "median": _known(median),
                "distances": [_known(distance) for distance in found.tolist()],
            }
        if len(measured) == 2:
            known = np.isfinite(medians).all() and medians[1] > 0
            results[title] |= {
                "ratio": medians[0] / medians[1] if known else None,
                "nearer": float(np.mean(measured[0] < measured[1])),
            }
    return results


def _known(distance: float) -> float | None:
    return distance if np.isfinite(distance) else None


def measure(settings: Settings) -> dict[str, Any]:
    """Attacks each of the chosen networks.

    Returns:
      What the JSON file holds: date, hardware, versions, settings, and for each network its
      `folder`, the number of `pictures` and what `compare` returns as `attacks`.
    """
    results = {}
    for training in peers.chosen(settings.workdir, settings.run):
        subject = peers.Subject.of(training, settings.pictures).right()
        harness.tell(f"{training.title}, {training.folder}: {len(subject.labels)} pictures")
        libraries = {
            OURS: our_attacks(subject, settings),
            THEIRS: their_attacks(subject, settings),
        }
        results[training.title] = {
            "folder": str(training.folder),
            "pictures": len(subject.labels),
            "attacks": compare(subject, libraries, settings.works),
        }
    versions = {name: version(name) for name in _PACKAGES if util.find_spec(name)}
    return harness.describe(settings, versions) | {"results": results}


def table(results: Mapping[str, Any]) -> str:
    """Of one network, one line an attack; the ratio is of the medians, ours in units of theirs."""
    rows = [["", "median " + OURS, THEIRS, "ratio", "nearer", "success " + OURS, THEIRS]]
    for title, both in results.items():
        found = [both.get(library, {}) for library in (OURS, THEIRS)]
        row = [title, *(_text(one.get("median"), ".4f") for one in found)]
        row += [_text(both.get("ratio"), ".3f"), _text(both.get("nearer"), ".0%")]
        rows.append(row + [_text(one.get("success"), ".0%") for one in found])
    return harness.table(rows)


def _text(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    settings = harness.parse(Settings, argv, "minimum_norm", __doc__)
    with harness.one_sentence():
        runtime.prepare()
        record = measure(settings)
        files.write_json(settings.out, record)
    for title, found in record["results"].items():
        print(f"{title} ({found['folder']}), {found['pictures']} pictures that it has right")
        print(table(found["attacks"]))
    print(f"written to {settings.out}")


if __name__ == "__main__":
    main()
