"""The paper's variants of the pictures, and which pictures trainings have right on them.

    on = accuracies.measure(one, {"σ = 1": accuracies.blurred(1.0)}, folder=out / "accuracies")
    on["σ = 1"].top1

A training is evaluated under all variants in one pass over the data. What was measured is kept in
the folder, a file for each training and split, and not measured again.
"""

import argparse
import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from experiments import command, statistics, trained
from jaxrobust import __version__, filters, models, plots
from jaxrobust.core import runtime
from jaxrobust.core.files import write_json
from jaxrobust.data import catalog, pipeline, sources
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.data.listing import files_stamp
from jaxrobust.evaluation import evaluate
from jaxrobust.stylization.copy_plan import class_folders
from jaxrobust.training import checkpoints, study

Variant = dict[str, Any]

# Figure 6: pixels along the kernel's side, standard deviations in pixels; 5 x 5, so many times.
BLUR_KERNEL, MEDIAN_KERNEL = 7, 5
SIGMAS = tuple(quarter / 4 for quarter in range(21))
TIMES = tuple(range(6))
# Table 2 reverses about the mean of ImageNet.
REVERSED_ABOUT = (0.485, 0.456, 0.406)
FOLDER = "accuracies"
# What decides, beside the data and the weights, how many are right.
_SOURCES = (
    "filters.py",
    "attacks/*.py",
    "evaluation/*.py",
    "core/*.py",
    "classifier.py",
    "models/*.py",
)
_IGNORED = ("augmentation", "train_split", "in_memory", "workers")


def blurred(sigma: float) -> Variant:
    """Gaussian blur as in Figure 6, `sigma` in pixels."""
    return {"name": "gaussian_blur", "sigma": float(sigma), "kernel_size": BLUR_KERNEL}


def median_filtered(times: int) -> Variant:
    """The median filter of Figure 6, so many times."""
    return {"name": "median_filter", "times": int(times), "kernel_size": MEDIAN_KERNEL}


def reversed_colors() -> Variant:
    """Colours reversed as in Table 2, whatever the data set: about the mean of ImageNet."""
    return {"name": "reverse_colors", "mean": list(REVERSED_ABOUT)}


def filtered(images: np.ndarray, variant: Variant) -> np.ndarray:
    """The images under a variant, to be looked at."""
    options = dict(variant)
    return np.asarray(filters.get(options.pop("name"))(images, **options))


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Of one training on one variant of a split, in per cent.

    Attributes:
      top1: the label is first.
      top5: the label is among the first five; None where there are at most five classes, and under
        attack.
      texture: the class of the picture's texture is first; None where pictures have none.
      right: float64 (n,), 100 where the label is first, else 0: `top1` is its mean.
    """

    top1: float
    top5: float | None
    texture: float | None
    right: np.ndarray = field(repr=False)


def measure(
    one: trained.Trained,
    variants: Mapping[str, Variant | None],
    *,
    folder: Path | None = None,
    attacks: Mapping[str, Mapping[str, Any]] | None = None,
    dataset: Any = None,
    split: str | None = None,
    batch_size: int | None = None,
    title: str = "",
) -> dict[str, Accuracy]:
    """The accuracies of a training on variants of a split.

    Args:
      one: the training.
      variants: {name: {"name": filter, options}}; None stands for the pictures as they are.
      attacks: {name: {"name": attack, options}}: pictures that are right both clean and attacked.
      folder: of what has been measured, by default beside the checkpoint; a file is used as long as
        it was measured with the same checkpoint, the same data, this code, this version of JAX and
        this kind of device.
      dataset: other data than those of the training's config, as its `dataset`.
      split: None is the data's evaluation split.
      batch_size: images at once over all devices, rounded up to a multiple of their number; None is
        the config's for evaluation.
      title: of the progress line.

    Raises:
      FileNotFoundError, ValueError: when the data cannot be opened, or an option is wrong.
    """
    # Worker processes need a program of their own kind; threads do as well.
    dataset = ConfigDict((dataset or one.config.dataset).to_dict() | {"workers": 0})
    resolved, catalogued = resolve(dataset)
    split = split or resolved.evaluation_split
    identity = _identity(one, resolved, catalogued, split)
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    folder = folder or one.folder / "outcomes"
    path = folder / f"{one.architecture.rpartition(':')[2]}_{one.run}_{one.seed}_{digest[:10]}.json"
    attacks = attacks or {}
    names = {_key(variant): variant for variant in variants.values()}
    known = _read(path, identity)
    missing = {key: variant for key, variant in names.items() if key not in known}
    attacked = {_attack_key(attack): attack for attack in attacks.values()}
    attacked = {key: attack for key, attack in attacked.items() if key not in known}
    if missing or attacked:
        mesh = runtime.data_mesh()
        wanted = batch_size or one.config.evaluation.batch_size
        path.parent.mkdir(parents=True, exist_ok=True)
        counted = evaluate.evaluate(
            one.load(),
            dataset,
            split,
            batch_size=-(-wanted // mesh.size) * mesh.size,
            mesh=mesh,
            key=jax.random.key(0),
            attacks_by_name=attacked,
            variants={key: variant for key, variant in missing.items() if variant is not None},
            each=True,
            partial_file=path.with_suffix(".partial.json"),
            title=title or f"{one.title}, seed {one.seed}",
        )
        found = counted["variants"] | {_key(None): counted}
        found |= {
            key: {"n": counted["n"], "top1": top1, "right": right}
            for key, top1, right in zip(
                attacked, counted["robust"], counted["right_under_attack"], strict=True
            )
        }
        # Another experiment may have written meanwhile.
        known = _read(path, identity) | {key: _kept(counts) for key, counts in found.items()}
        write_json(path, {"identity": identity, "variants": known})
    classes = number_of_classes(one)
    keys = {name: _key(variant) for name, variant in variants.items()}
    keys |= {name: _attack_key(attack) for name, attack in attacks.items()}
    return {name: _accuracy(known[key], classes) for name, key in keys.items()}


def measure_pairs(
    pairs: trained.Pairs, variants: Mapping[str, Variant | None], *, what: str = "", **options: Any
) -> dict[str, list[dict[str, Accuracy]]]:
    """{"std" | "adv": `measure` of each seed} for the pairs of one architecture.

    Args:
      pairs: of trainings.
      variants, options: as for `measure`.
      what: said in the progress line.
    """
    runs: dict[str, list[dict[str, Accuracy]]] = {"std": [], "adv": []}
    for position, pair in enumerate(pairs):
        for index, (run, one) in enumerate(zip(runs, pair, strict=True), start=1):
            number = f"{2 * position + index}/{2 * len(pairs)}"
            title = f"{one.title}, seed {one.seed}{what and f', {what}'} ({number})"
            runs[run].append(measure(one, variants, title=title, **options))
    return runs


def number_of_classes(one: trained.Trained) -> int:
    """Of the data that the training was made for."""
    return (checkpoints.read_config(one.folder) or {})["model"]["num_classes"]


def stylized_dataset(one: trained.Trained, folder: Path) -> ConfigDict:
    """The `dataset` of a config for a stylised copy of a training's data.

    Args:
      one: the training.
      folder: an image folder, as `python -m jaxrobust.stylization copy` writes it.

    Raises:
      FileNotFoundError: when there is no such folder, or no split in it.
      ValueError: when its classes are not those of the training's data set.
    """
    resolved, dataset = resolve(one.config.dataset)
    own = sources.open_split(resolved, dataset, resolved.evaluation_split)
    config = ConfigDict(
        dataclasses.asdict(
            DatasetConfig(name="image_folder", path=str(folder), image_size=resolved.image_size)
        )
    )
    names = pipeline.describe(_only_split(config)).class_names
    if names != class_folders(own):
        raise ValueError(
            f"{folder} must have the classes of {dataset.title}, {_some(class_folders(own))}, "
            f"got {_some(names)}."
        )
    return _only_split(config)


def has_cue_conflict(one: trained.Trained) -> bool:
    """Whether the data have pictures of one class with another's texture, labelled by shape."""
    resolved, dataset = resolve(one.config.dataset)
    by_shape = (dataset.tfds_name or "").startswith("textured_shapes/shape")
    return by_shape and "cue_conflict" in sources.split_sizes(resolved, dataset)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of experiments that evaluate."""
    parser.add_argument(
        "--batch-size",
        type=command.whole_number(1),
        metavar="N",
        help="images at once over all devices (default: as in the config of the training)",
    )


def add_stylized_argument(parser: argparse.ArgumentParser) -> None:
    """Where stylised pictures are, if there are any."""
    parser.add_argument(
        "--stylized",
        type=Path,
        metavar="FOLDER",
        help="a stylised copy of the evaluation pictures (python -m jaxrobust.stylization copy)",
    )


def images_right(runs: Sequence[Mapping[str, Accuracy]], name: str) -> list[np.ndarray]:
    """For each seed, which images are right on a variant, in per cent: what intervals are of."""
    return [one[name].right for one in runs]


def mean_top1(runs: Sequence[Mapping[str, Accuracy]], name: str) -> float:
    """The mean over seeds."""
    return float(np.mean([one[name].top1 for one in runs]))


def with_spread(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation over seeds, for a table."""
    return study.mean_and_spread(list(values))


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (n - 1; None of one) and the values themselves, as JSON."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "by_seed": list(values)}


def draw_beside_paper(
    panels: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]],
    papers: Mapping[str, Mapping[str, Mapping[str, tuple[float, float]]]],
    *,
    note: str,
    **options: Any,
) -> None:
    """Bars of STD and ADV, a panel an architecture; the paper's, for ImageNet, pale behind them.

    Args:
      panels: {title: {run: {name of the bar: what `over_seeds` gives}}}.
      papers: {title: {run: {name of the bar: (mean, standard deviation)}}}.
      note, options: of `plots.bars`.
    """

    def grouped(runs: Mapping[str, Mapping[str, tuple[float, Any]]]) -> dict[str, dict]:
        return {
            name: {run.upper(): runs[run][name] for run in runs if np.isfinite(runs[run][name][0])}
            for name in next(iter(runs.values()))
        }

    ours = {
        title: grouped(
            {
                run: {name: (one["mean"], one["std"]) for name, one in of_run.items()}
                for run, of_run in runs.items()
            }
        )
        for title, runs in panels.items()
    }
    theirs = {f"the paper: {title}, ImageNet": grouped(runs) for title, runs in papers.items()}
    spread = "Lines: ± one standard deviation over trainings. "
    plots.bars(ours | theirs, pale=list(theirs), note=spread + note, **options)


def interval(change: dict[str, Any]) -> str:
    """A difference in points with its interval, for a table."""
    return statistics.as_text(change, digits=1)


def markdown_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, left_columns: int = 1
) -> str:
    """Cells as a Markdown table; the first columns are aligned left, the others right.

    Example:
      >>> print(markdown_table(["", "top-1"], [["STD", "99.8"]]))
      |  | top-1 |
      | :-- | --: |
      | STD | 99.8 |
    """
    rule = [":--"] * left_columns + ["--:"] * (len(header) - left_columns)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _identity(
    one: trained.Trained, resolved: DatasetConfig, catalogued: catalog.Dataset, split: str
) -> dict[str, Any]:
    """What the accuracies depend on, so far as it can change under the same name."""
    folder = one.folder.resolve()
    step = checkpoints.newest_step(folder)
    data = {
        key: value for key, value in dataclasses.asdict(resolved).items() if key not in _IGNORED
    }
    if resolved.path is not None:
        data["path"] = str(Path(resolved.path).expanduser().resolve())
    else:
        data["path"] = str(sources.open_builder(resolved, catalogued).data_dir)
    data["files"] = files_stamp(data["path"])
    model = models.create(**(checkpoints.read_config(folder) or {})["model"])
    networks = _networks(model)
    # A module of one's own may have no dtype; one that joins others has theirs.
    dtypes = [getattr(network, "dtype", None) for network in networks]
    return {
        "jaxrobust": __version__,
        "jax": jax.__version__,
        "backend": jax.default_backend(),
        "dtype": ", ".join(np.dtype(dtype).name for dtype in dtypes if dtype is not None) or None,
        "code": _code([type(network) for network in networks]),
        "training": str(folder),
        "step": step,
        "written": (folder / "checkpoints" / str(step)).stat().st_mtime_ns,
        "dataset": data,
        "split": split,
    }


def _networks(model: nn.Module) -> list[nn.Module]:
    """The model, and the networks that it joins, and what they join."""
    joined = [one for one in getattr(model, "backbones", ()) if isinstance(one, nn.Module)]
    return [model, *(network for one in joined for network in _networks(one))]


def _code(classes: Sequence[type]) -> str:
    """A digest of the library's files that decide, and of those of the networks' classes."""
    library = Path(inspect.getfile(filters)).parent
    files = [path for pattern in _SOURCES for path in sorted(library.glob(pattern))]
    digest = hashlib.sha256()
    for path in [*files, *dict.fromkeys(Path(inspect.getfile(each)) for each in classes)]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read(path: Path, identity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What has been measured: {variant as JSON: counts}."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not there, not ours, or damaged: measured anew
        return {}
    if not isinstance(kept, dict) or kept.get("identity") != identity:
        return {}
    known = kept.get("variants")
    return known if isinstance(known, dict) else {}


def _key(variant: Variant | None) -> str:
    return json.dumps(None if variant is None else dict(variant), sort_keys=True)


def _attack_key(attack: Mapping[str, Any]) -> str:
    return "under attack " + json.dumps(dict(attack), sort_keys=True)


def _kept(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: counts[key] for key in ("n", "top1", "top5", "texture", "right") if key in counts}


def _accuracy(counts: Mapping[str, Any], classes: int) -> Accuracy:
    def per_cent(name: str) -> float:
        return 100.0 * counts[name] / counts["n"]

    return Accuracy(
        top1=per_cent("top1"),
        top5=per_cent("top5") if classes > 5 and "top5" in counts else None,
        texture=per_cent("texture") if "texture" in counts else None,
        right=100.0 * (np.frombuffer(counts["right"].encode(), np.uint8) == ord("1")),
    )


def _only_split(config: ConfigDict) -> ConfigDict:
    """An image folder of one split alone has no other to train on."""
    resolved, _ = resolve(config)
    split = resolved.evaluation_split
    return ConfigDict(config.to_dict() | {"train_split": split, "evaluation_split": split})


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")
