"""AutoAttack beside its authors' code.

    python -m jaxrobust.experiments.benchmarks.autoattack --workdir=runs/quickstart --run=adv

Both attack the same network, in JAX and rebuilt in PyTorch with the same weights, on the same
pictures: the whole ensemble, then each of its parts alone on all pictures, theirs with several
seeds. Each result goes into the file at once, and what stands there is not measured again. It needs
PyTorch and pyautoattack, the authors' code as a package.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import util
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import monitoring

from jaxrobust import attacks
from jaxrobust.attacks.ensemble import STANDARD
from jaxrobust.core import files, runtime
from jaxrobust.experiments.benchmarks import harness, peers
from jaxrobust.experiments.benchmarks.harness import count, setting

WHOLE = "all four"
OURS, THEIRS = "jaxrobust", "pyautoattack"
# Radii of whom none is given: those that the field reports for small pictures.
_RADII = {"linf": 8 / 255, "l2": 0.5}
_PACKAGES = ("torch", "pyautoattack")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is measured; the flags of the same names."""

    workdir: str = setting("runs/quickstart", "of a study, or the folder of one run and seed")
    run: str | None = setting(None, "its name in the study; default: all, one seed of each")
    norm: str = setting("linf", "of the ball", choices=tuple(_RADII))
    epsilon: float | None = setting(None, "radius; default 8/255 in linf, 0.5 in l2", type=float)
    pictures: int = count(500, "of the test split, the first")
    seeds: int = count(3, "of theirs for each part that draws random numbers; ours has one")
    parts: Sequence[str] = setting(
        (WHOLE, *STANDARD),
        f"what is measured, of: {WHOLE!r}, {', '.join(STANDARD)} (default: all)",
        nargs="+",
        choices=(WHOLE, *STANDARD),
        metavar="PART",
    )
    batch_size: int = count(250, "pictures at once, ours and theirs")
    out: str = harness.file("benchmark_autoattack.json")


Attack = Callable[[str, int], dict[str, Any]]  # of a part and a seed


def ours(subject: peers.Subject, norm: str, epsilon: float, batch_size: int) -> Attack:
    """Ours: which pictures stand, seconds without compilation and those of it, programs."""
    lowered: list[float] = []
    compiled: list[float] = []
    events = {
        "/jax/core/compile/jaxpr_to_mlir_module_duration": lowered,
        "/jax/core/compile/backend_compile_duration": compiled,
    }

    def note(event: str, duration: float, **_: Any) -> None:
        if event in events:
            events[event].append(duration)

    monitoring.register_event_duration_secs_listener(note)

    def attack(part: str, seed: int) -> dict[str, Any]:
        options: dict[str, Any] = {} if part == WHOLE else {"attacks": (part,)}
        options |= {"epsilon": epsilon, "norm": norm, "batch_size": batch_size}
        jax.clear_caches()  # each part compiles what it needs, whatever ran before
        lowered.clear()
        compiled.clear()
        begun = time.perf_counter()
        record = attacks.autoattack(
            subject.classifier,
            subject.images,
            subject.labels,
            key=jax.random.key(seed),
            **options,
        )
        seconds = time.perf_counter() - begun
        compiling = sum(lowered) + sum(compiled)
        return {
            "robust": "".join("01"[stands] for stands in record.robust.astype(int)),
            "broken_by": {
                name: int((record.broken_by == name).sum()) for name in ("clean", *record.attacks)
            },
            "seconds": seconds - compiling,
            "seconds_compiling": compiling,
            "programs": len(compiled),
            "seconds_by_part": record.seconds,
            "warnings": list(record.warnings),
        }

    return attack


def theirs(subject: peers.Subject, norm: str, epsilon: float, batch_size: int) -> Attack:
    """Theirs: which pictures stand, and seconds."""
    with peers.needed("PyTorch and pyautoattack", "torch pyautoattack"):
        import pyautoattack
        import torch
    twin = peers.in_torch(subject)
    images, labels = twin.to_torch(subject.images), torch.from_numpy(subject.labels).long()

    def attack(part: str, seed: int) -> dict[str, Any]:
        authors = pyautoattack.AutoAttack(
            twin.network, norm=norm.capitalize(), eps=epsilon, seed=seed, device="cpu"
        )
        if part != WHOLE:
            # Not by version="custom", which leaves APGD and FAB five restarts where the standard
            # version has one.
            authors.attacks_to_run = [part]
        begun = time.perf_counter()
        moved, _ = authors.run_standard_evaluation(images, labels, batch_size=batch_size)
        seconds = time.perf_counter() - begun
        stands = twin.logits(twin.from_torch(moved)).argmax(-1) == subject.labels
        return {"robust": "".join("01"[right] for right in stands.astype(int)), "seconds": seconds}

    return attack


def measure(settings: Settings) -> dict[str, Any]:
    """Attacks each of the chosen networks; goes on with what stands in the file.

    Returns:
      What the file holds: date, hardware, versions, settings, and `results` by network, part,
      library and seed.
    """
    epsilon = settings.epsilon or _RADII[settings.norm]
    versions = {name: version(name) for name in _PACKAGES if util.find_spec(name)}
    record = harness.describe(settings, versions) | {"epsilon": epsilon, "results": {}}
    path = Path(settings.out)
    if path.exists():
        earlier = json.loads(path.read_text())
        same = ("norm", "pictures", "batch_size", "workdir")
        if earlier["epsilon"] == epsilon and all(
            earlier["settings"][name] == getattr(settings, name) for name in same
        ):
            record["results"] = earlier["results"]
    for training in peers.chosen(settings.workdir, settings.run):
        subject = peers.Subject.of(training, settings.pictures)
        found = record["results"].setdefault(training.title, {"folder": str(training.folder)})
        given = (subject, settings.norm, epsilon, settings.batch_size)
        libraries = {OURS: ours(*given), THEIRS: theirs(*given)}
        for part in settings.parts:
            for library, attack in libraries.items():
                # Ours needs one, and nothing is random in FAB.
                once = library == OURS or part in (WHOLE, "fab-t")
                seeds = 1 if once else settings.seeds
                for seed in range(seeds):
                    kept = found.setdefault(part, {}).setdefault(library, {})
                    if str(seed) not in kept:
                        harness.tell(f"{training.title}: {part}, {library}, seed {seed}")
                        kept[str(seed)] = attack(part, seed)
                        files.write_json(path, record)
    return record


def table(results: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Of one network, one line a part: per cent that stand, of theirs by seed; seconds."""
    header = [
        "per cent that stand",
        OURS,
        THEIRS,
        "by both",
        "seconds",
        THEIRS,
        "ratio",
        "compiling",
    ]
    rows = [header]
    for part in parts:
        our, their = results[part][OURS]["0"], results[part][THEIRS]
        seconds = float(np.median([one["seconds"] for one in their.values()]))
        both = [
            mine == other for mine, other in zip(our["robust"], their["0"]["robust"], strict=True)
        ]
        rows.append(
            [
                part,
                f"{_stands(our):.1f}",
                " / ".join(f"{_stands(one):.1f}" for one in their.values()),
                f"{100 * np.mean(both):.1f}",
                f"{our['seconds']:.1f}",
                f"{seconds:.1f}",
                f"{our['seconds'] / seconds:.2f}",
                f"{our['seconds_compiling']:.1f}, {our['programs']} programs",
            ]
        )
    return harness.table(rows)


def _stands(found: Mapping[str, Any]) -> float:
    return 100 * found["robust"].count("1") / len(found["robust"])


def main(argv: Sequence[str] | None = None) -> None:
    """The command; `argv` without the program's name."""
    settings = harness.parse(Settings, argv, "autoattack", __doc__)
    with harness.one_sentence():
        runtime.prepare("")
        record = measure(settings)
    for title, found in record["results"].items():
        print(f"{title} ({found['folder']}), {settings.norm}, radius {record['epsilon']:.4g}")
        print(table(found, settings.parts))
        whole = found.get(WHOLE, {}).get(OURS, {}).get("0")
        if whole:
            total = sum(whole["seconds_by_part"].values())
            shares = {name: part / total for name, part in whole["seconds_by_part"].items()}
            print("share of the time:", ", ".join(f"{n} {s:.0%}" for n, s in shares.items()))
            print("broken by:", ", ".join(f"{n} {c}" for n, c in whole["broken_by"].items()))
    print(f"written to {settings.out}")


if __name__ == "__main__":
    main()
