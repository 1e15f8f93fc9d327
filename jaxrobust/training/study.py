"""A study: named runs x seeds of one config, each in its own folder, and one table at the end."""

import math
import statistics
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxrobust.core import files
from jaxrobust.core.interrupts import terminable
from jaxrobust.evaluation.report import report
from jaxrobust.training import checkpoints, train
from jaxrobust.training.run import Run, resolve

FINISHED = "evaluation.json"
"""In the folder of a run and seed that is done: its entry of results.json."""
_RESULTS = "results.json"


@terminable()
def run(config: ConfigDict, workdir: str | Path) -> list[dict[str, Any]]:
    """Train and evaluate every run and seed of a config; what is finished is not done again.

    Args:
      config: runs x seeds; everything is checked before the first step.
      workdir: gets `<run>/seed<k>/` for each training and `results.json`, which keeps the entries
        of finished runs and seeds that are not in this config.

    Returns:
      One entry a run and seed of this config, as in `results.json`.

    Raises:
      ValueError: when the config is wrong, or the workdir holds another config's run.
      NotFinite, TrainingStopped: from the training.
      KeyboardInterrupt: after SIGTERM as well, outside of the training.
    """
    workdir = Path(workdir)
    runs = resolve(config, workdir)
    results: list[dict[str, Any]] = []
    for run in runs:
        results.append(_train_and_evaluate(run))
        if jax.process_index() == 0:
            files.write_json(workdir / _RESULTS, results + _finished_outside(workdir, runs))
    return results


def _finished_outside(workdir: Path, runs: list[Run]) -> list[dict[str, Any]]:
    """What other calls with other runs or seeds have finished in this workdir."""
    here = {run.folder for run in runs}
    paths = sorted(workdir.glob(f"*/seed*/{FINISHED}"))
    notes = [finished(path.parent) for path in paths if path.parent not in here]
    return [note["results"] for note in notes if note is not None]


def finished(folder: str | Path) -> dict[str, Any] | None:
    """What stands in `FINISHED` of a run and seed: {"results": its entry of results.json}.

    Returns:
      None when there is nothing, or when it is damaged, which a warning says.
    """
    return files.read_note(Path(folder) / FINISHED, results=dict)


def _train_and_evaluate(run: Run) -> dict[str, Any]:
    """The entry of one run and seed; what is trained is not trained, what is known not measured."""
    before = finished(run.folder)
    trained = before is not None and checkpoints.readable_step(run.folder) == run.steps
    measured = report(
        run.evaluation,
        None if trained else train.fit(run),
        data=run.data,
        folder=run.folder,
        title=run.title,
        every=run.log_every_seconds,
    )
    results = {"run": run.name, "seed": run.seed, "step": run.steps, **measured}
    content = {"results": results}
    if jax.process_index() == 0 and content != before:
        files.write_json(run.folder / FINISHED, content)
    return results


def mean_and_spread(values: list[float | None]) -> str:
    """ "mean ± standard deviation" (n - 1) of several values, the value alone of one.

    Example:
      >>> mean_and_spread([1.0, 2.0, 3.0]), mean_and_spread([97.5]), mean_and_spread([None])
      ('2.0 ± 1.0', '97.5', '–')
    """
    known = [value for value in values if value is not None and not math.isnan(value)]
    if not known:
        return "–"
    mean = f"{statistics.fmean(known):.1f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.1f}"


def table(results: list[dict[str, Any]]) -> str:
    """The results as one text table, a row a run, mean ± standard deviation over its seeds.

    Both conventions of robustness stand side by side: `robust` counts all images, `defended` only
    those that are classified correctly when clean.

    Example:
      >>> clean = {"top1": 80.0, "top5": 99.0, "n": 1000}
      >>> print(table([{"run": "std", "seed": 0, "step": 10, "clean": clean, "attacks": []}]))
           clean
           top-1  top-5
      -----------------
      std   80.0   99.0
      per cent of 1000 images; robust: of all, defended: of those that are right when clean
    """
    rows: dict[str, list[dict]] = {}
    for entry in results:
        rows.setdefault(entry["run"], []).append(entry)
    first = results[0]
    header = [["", ""], ["clean", "top-1"], ["", "top-5"]]
    for attack in first["attacks"]:
        header += [[_attack_title(attack), "robust"], ["", "defended"]]
    if "cue_conflict" in first:
        header += [["cue conflict", "by shape"], ["", "by texture"]]
    lines = [list(column) for column in zip(*header, strict=True)]
    for name, entries in rows.items():
        cells = [name if len(entries) == 1 else f"{name} ({len(entries)} seeds)"]
        cells += [
            mean_and_spread([entry["clean"][key] for entry in entries]) for key in ("top1", "top5")
        ]
        for index in range(len(first["attacks"])):
            cells += [
                mean_and_spread([entry["attacks"][index][key] for entry in entries])
                for key in ("robust_accuracy", "defense_success_rate")
            ]
        if "cue_conflict" in first:
            cells += [
                mean_and_spread([entry["cue_conflict"][key] for entry in entries])
                for key in ("shape", "texture")
            ]
        lines.append(cells)
    return _aligned(lines, rule_after=2) + "\n" + _legend(first)


def attack_in_words(attack: dict[str, Any]) -> str:
    """An attack of results.json with its settings.

    Example:
      >>> settings = {"steps": 20, "step_size": 0.01, "restarts": 1}
      >>> attack_in_words({"name": "pgd", "norm": "linf", "epsilon": 8 / 255, **settings})
      'pgd linf 8/255: steps 20, step size 0.01, restarts 1'
      >>> settings = {"version": "standard", "images": 1000, "n": 1000, "seed": 0}
      >>> attack_in_words({"name": "autoattack", "norm": "linf", "epsilon": 0.1, **settings})
      'autoattack linf 0.1: standard, first 1000 images, seed 0'
    """
    if "version" in attack:
        return f"{_attack_title(attack)}: {', '.join(_ensemble_in_words(attack))}"
    settings = [f"steps {attack['steps']}"] if attack["steps"] else []
    if attack["step_size"] is not None:
        settings.append(f"step size {attack['step_size']:.4g}")
    if attack["restarts"]:
        settings.append(f"restarts {attack['restarts']}")
    return _attack_title(attack) + (f": {', '.join(settings)}" if settings else "")


def _ensemble_in_words(attack: dict[str, Any]) -> list[str]:
    settings = [attack["version"]]
    if attack["version"] != "standard":
        settings = [f"{attack['version']} ({', '.join(attack['attacks'])})"]
        if set(attack["attacks"]) - {"square"}:
            settings.append(f"steps {attack['steps']}")
        if "square" in attack["attacks"]:
            settings.append(f"queries {attack['queries']}")
    some = attack["images"] is not None and attack["images"] <= attack["n"]
    which = f"{'first' if some else 'all'} {attack['n']} images"
    return [*settings, which, f"seed {attack['seed']}"]


def _attack_title(attack: dict[str, Any]) -> str:
    epsilon = attack["epsilon"]
    if epsilon is None:
        return attack["name"]
    as_levels = epsilon * 255
    radius = f"{as_levels:.0f}/255" if abs(as_levels - round(as_levels)) < 1e-6 else f"{epsilon:g}"
    return f"{attack['name']} {attack['norm']} {radius}"


def _legend(entry: dict[str, Any]) -> str:
    lines = [
        f"per cent of {entry['clean']['n']} images; "
        "robust: of all, defended: of those that are right when clean"
    ]
    return "\n".join(lines + [attack_in_words(attack) for attack in entry["attacks"]])


def _aligned(lines: list[list[str]], rule_after: int) -> str:
    # A group's title stands over two columns, so it must not widen its first one.
    widths = [max(len(line[column]) for line in lines[1:]) for column in range(len(lines[0]))]
    for column, title in enumerate(lines[0][:-1]):
        if title:
            widths[column + 1] = max(widths[column + 1], len(title) - widths[column] - 2)
    text = []
    title_line = ""
    offset = 0
    for column, title in enumerate(lines[0]):
        if title:
            title_line = title_line.ljust(offset) + title
        offset += widths[column] + 2
    text.append(title_line)
    for line in lines[1:]:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        text.append("  ".join(cells))
    text.insert(rule_after, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)
