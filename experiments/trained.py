"""Trained models and pictures to look at: what every experiment starts from."""

import argparse
import json
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxrobust import checkpoints
from jaxrobust.classifier import Classifier
from jaxrobust.data import catalog, pipeline, sources
from jaxrobust.data.dataset_config import resolve
from jaxrobust.data.transforms import HostTransform

_QUICKSTART = "python -m jaxrobust.main --config=configs/quickstart.py"
_BATCH = 128
# What may differ between the two of a pair.
_NOT_ARCHITECTURE = ("dtype", "mean", "std", "num_classes")


@dataclass(frozen=True)
class Trained:
    """One training that has a checkpoint.

    Attributes:
      workdir: where it was found.
      folder: of this run and seed.
      run: its name in the config.
      seed: of the training.
      architecture: the model's name in the config.
      title: for figures, as "ResNet-50 ADV"; more where that would name two runs.
      adversarial: whether it was trained with an attack.
      config: all settings of the training.
    """

    workdir: Path
    folder: Path
    run: str
    seed: int
    architecture: str
    title: str
    adversarial: bool
    config: ConfigDict = field(repr=False, compare=False)

    def load(self) -> Classifier:
        """The classifier of the newest checkpoint."""
        return checkpoints.load(self.folder)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Evaluation images as the networks see them.

    Attributes:
      images: float32 (n, h, w, 3) in [0, 1].
      labels: int32 (n,).
      masks: bool (n, h, w), True inside the silhouette; None where the data set has none.
      class_names: one for each class.
      index: int32 (n,), positions in the split.
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None
    class_names: tuple[str, ...]
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every experiment: which trainings, and where its figures go."""
    parser.add_argument(
        "--workdirs",
        nargs="+",
        type=Path,
        default=[Path("runs/quickstart")],
        metavar="FOLDER",
        help="workdirs of trainings, or folders of single ones (default: runs/quickstart)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/figures"),
        metavar="FOLDER",
        help="folder of the figures (default: %(default)s)",
    )


def find(workdirs: str | Path | Sequence[str | Path]) -> list[Trained]:
    """The trainings in some workdirs: STD before ADV, in the order of workdirs and seeds.

    A training without a checkpoint yet is named in a warning and left out.

    Args:
      workdirs: of studies, or folders of one run and seed; one or several.

    Raises:
      FileNotFoundError: when a folder is none, or holds no training with a checkpoint.
      ValueError: when what describes a training cannot be read.
    """
    found: dict[Path, Trained] = {}
    for workdir in map(Path, [workdirs] if isinstance(workdirs, str | Path) else workdirs):
        if not workdir.is_dir():
            raise FileNotFoundError(
                f"{workdir} is no folder; {_QUICKSTART} trains the models of the quickstart."
            )
        here = []
        for folder in checkpoints.runs(workdir):
            if checkpoints.newest_step(folder) is None:
                logging.getLogger("jaxrobust").warning("%s has no checkpoint yet.", folder)
            else:
                here.append(_read(workdir, folder))
        if not here:
            raise FileNotFoundError(
                f"{workdir} holds no training with a checkpoint; {_QUICKSTART} trains the models "
                "of the quickstart."
            )
        here.sort(key=lambda one: (one.architecture, one.adversarial, one.run, one.seed))
        for one in here:
            found.setdefault(one.folder.resolve(), one)
    return _told_apart(list(found.values()))


def _read(workdir: Path, folder: Path) -> Trained:
    try:
        description = checkpoints.read_config(folder) or {}
        config = ConfigDict(description["config"])
        adversarial = config.attack is not None
        architecture = config.model.name
        return Trained(
            workdir=workdir,
            folder=folder,
            run=description["run"],
            seed=description["seed"],
            architecture=architecture,
            title=f"{architecture_title(architecture)} {'ADV' if adversarial else 'STD'}",
            adversarial=adversarial,
            config=config,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{folder / 'config.json'} does not describe a training of this library "
            f"({type(error).__name__}: {error})."
        ) from error


def slug(title: str) -> str:
    """A title as part of a file's name.

    Example:
      >>> slug("ResNet-8 (small)")
      'resnet_8_small'
    """
    return re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")


def architecture_title(name: str) -> str:
    """How an architecture is written.

    Example:
      >>> [architecture_title(name) for name in ("resnet50", "alexnet", "resnet8_small")]
      ['ResNet-50', 'AlexNet', 'ResNet-8 (small)']
    """
    families = {"resnet": "ResNet", "alexnet": "AlexNet", "vgg": "VGG"}
    match = re.fullmatch(r"([a-z]+?)(\d*)(?:_(\w+))?", name)
    if match is None or match[1] not in families:
        return name.rpartition(":")[2]
    depth = f"-{match[2]}" if match[2] else ""
    return families[match[1]] + depth + (f" ({match[3]})" if match[3] else "")


def _told_apart(trained: list[Trained]) -> list[Trained]:
    """Titles that would name several runs also say the data set, the run or the workdir."""
    additions = (
        lambda one: catalog.get(one.config.dataset.name).title,
        lambda one: one.run,
        lambda one: one.workdir.name,
    )
    result = []
    for one in trained:
        same = [
            other
            for other in trained
            if other.title == one.title and _origin(other) != _origin(one)
        ]
        parts = []
        for addition in additions:
            if any(addition(other) != addition(one) for other in same):
                parts.append(addition(one))
                same = [other for other in same if addition(other) == addition(one)]
        result.append(replace(one, title=f"{one.title}, {', '.join(parts)}") if parts else one)
    return result


def _origin(one: Trained) -> tuple[Path, str]:
    # The folder of one run and seed may stand for its workdir.
    return one.folder.resolve().parent, one.run


def pairs(trained: Sequence[Trained]) -> list[tuple[Trained, Trained]]:
    """STD and ADV of the same architecture, data set and seed, of one workdir where it has both.

    A training without a partner is named in a warning and left out.

    Raises:
      ValueError: when there is no pair, or an ADV training could belong to several STD ones.
    """
    found = []
    for adversarial in (one for one in trained if one.adversarial):
        partners = [
            one for one in trained if not one.adversarial and _setting(one) == _setting(adversarial)
        ]
        near = [one for one in partners if _home(one) == _home(adversarial)]
        partners = near or partners
        if len(partners) > 1:
            raise ValueError(
                f"{adversarial.folder} could be paired with any of "
                f"{', '.join(str(one.folder) for one in partners)}; name fewer workdirs."
            )
        found += [(standard, adversarial) for standard in partners]
    paired = {one.folder for pair in found for one in pair}
    alone = [str(one.folder) for one in trained if one.folder not in paired]
    if not found:
        raise ValueError(
            "STD and ADV trainings of one architecture, data set and seed are needed, got "
            f"{', '.join(alone) or 'no training'}."
        )
    if alone:
        logging.getLogger("jaxrobust").warning(
            "Left out, for want of a partner of the other kind: %s.", ", ".join(alone)
        )
    return found


def _home(one: Trained) -> Path:
    """The workdir, also of a training that was named by its own folder."""
    folder = one.folder.resolve()
    return folder.parent.parent if one.workdir == one.folder else one.workdir.resolve()


def _setting(one: Trained) -> tuple[Any, ...]:
    model = one.config.model.to_dict()
    fields = {key: value for key, value in model.items() if key not in _NOT_ARCHITECTURE}
    data = one.config.dataset
    size = resolve(data)[0].image_size
    return json.dumps(fields, sort_keys=True), data.name, data.path, size, one.seed


def pictures(
    config: Any, count: int, *, per_class: bool = False, split: str | None = None
) -> Pictures:
    """The first evaluation images of a training's data set, as its networks see them.

    Args:
      config: of the training.
      count: number of images.
      per_class: take them evenly from the classes, the first images of each: all first ones, then
        all second ones, …; a remainder goes to classes spread over all of them. Reads the split
        as far as the last image that it needs.
      split: its name; None is the config's evaluation split.

    Raises:
      ValueError: when the split has too few images, of some class with `per_class`.
      FileNotFoundError: when the data set is not prepared; the sentence names the command.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count must be a whole number of at least 1, got {count!r}.")
    # Worker processes do not pay for some images.
    resolved, dataset = resolve(ConfigDict(config.dataset.to_dict() | {"workers": 0}))
    opened = sources.open_split(resolved, dataset, split or resolved.evaluation_split)
    if count > len(opened):
        raise ValueError(
            f"count must be at most {len(opened)}, the images of the split {opened.name!r} of "
            f"{opened.dataset_name}, got {count}."
        )
    wanted = _evenly(count, opened.num_classes) if per_class else None
    images, labels, index, turns = [], [], [], []
    taken = np.zeros(opened.num_classes, int)
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    with pipeline.evaluation_batches(
        resolved, opened.name, batch_size=_BATCH, mesh=mesh
    ) as batches:
        for batch in batches:
            batch = jax.device_get(batch)
            for position in np.flatnonzero(batch["mask"]):
                label = batch["label"][position]
                if wanted is not None and taken[label] >= wanted[label]:
                    continue
                turns.append((taken[label], label) if per_class else (0, 0))
                taken[label] += 1
                images.append(batch["image"][position])
                labels.append(label)
                index.append(batch["index"][position])
                if len(images) == count:
                    break
            if len(images) == count:
                break
    if len(images) < count:
        assert wanted is not None
        short = int(np.argmax(wanted - taken))
        raise ValueError(
            f"count must leave at most {taken[short]} images for class {short}, all that "
            f"{opened.name!r} of {opened.dataset_name} has, got {count}."
        )
    order = sorted(range(count), key=turns.__getitem__)  # stable: by index without per_class
    places = np.array(index, np.int32)[order]
    return Pictures(
        images=np.stack(images)[order].astype(np.float32) / np.float32(255),
        labels=np.array(labels, np.int32)[order],
        masks=_masks(opened, HostTransform.create(opened, resolved, "none"), places),
        class_names=opened.class_names or tuple(map(str, range(opened.num_classes))),
        index=places,
    )


def _evenly(count: int, classes: int) -> np.ndarray:
    """How many images of each class, the remainder spread over the classes."""
    wanted = np.full(classes, count // classes)
    rest = count % classes
    wanted[np.arange(rest) * classes // max(rest, 1)] += 1
    return wanted


def _masks(split: sources.Split, transform: HostTransform, index: np.ndarray) -> np.ndarray | None:
    """Masks, cut and resized as their images are."""
    if "mask" not in split.records[int(index[0])]:
        return None
    rng = np.random.default_rng(0)  # asked for, not used: nothing is augmented
    made = [
        transform({"image": split.records[int(i)]["mask"], "index": int(i)}, rng)["image"]
        for i in index
    ]
    return np.stack(made)[..., 0] >= 128
