"""Which images a trained network has right: measured once, kept beside its checkpoint.

    found = outcomes.measure(
        "runs/quickstart/std/seed11", data, {"clean": {}, "blurred": {"variant": {…}}}, …
    )
    found["blurred"].top1, found["blurred"].right

A question is {} (the images as they are), {"variant": {"name": filter, options}} or
{"attack": {"name": attack, options}}. Its answer is used again as long as nothing has changed that
could change it: the checkpoint's content, the data and how they are decoded, the compiled program
(its text before compilation, so that a comment changes nothing and a constant does), the version of
JAX and the kind of device.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxrobust import models
from jaxrobust.classifier import Classifier
from jaxrobust.core import digests, runtime
from jaxrobust.core.files import alone, write_json
from jaxrobust.core.named import check_choice
from jaxrobust.data import pipeline
from jaxrobust.evaluation import evaluate
from jaxrobust.training import checkpoints

FOLDER = "outcomes"
# Of a data set's settings those that decide nothing here.
_NOT_EVALUATION = ("augmentation", "train_split", "evaluation_split", "in_memory", "workers")
Question = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """Of one question, over all images of a split in their order.

    Attributes:
      right: bool (n,), the label is the first answer; under an attack: both clean and attacked.
      top5: number of images whose label is among the first five; None under an attack.
      texture: number whose texture's class is the first answer; None where images have none.
    """

    right: np.ndarray
    top5: int | None = None
    texture: int | None = None

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.right)

    @property
    def top1(self) -> int:
        """Number of images that are right."""
        return int(self.right.sum())


def measure(
    folder: str | Path,
    data: pipeline.DatasetInfo,
    questions: Mapping[str, Question],
    *,
    split: str | None = None,
    batch_size: int,
    seed: int = 0,
    classifier: Classifier | None = None,
    title: str = "evaluation",
    every: float = 10.0,
) -> dict[str, Outcome]:
    """The outcomes of a training, those that are missing measured in one pass over the data.

    Args:
      folder: of one run and seed, with its checkpoint.
      data: what `pipeline.describe` returned.
      questions: {name: question}.
      split: None is the data's evaluation split.
      batch_size: the most images at once, over all devices.
      seed: of the attacks; an image's key is `fold_in(key(seed), its index)`.
      classifier: of the newest checkpoint, where it is at hand; None: loaded when it is needed.
      title: of the progress line.
      every: seconds between two of them.

    Returns:
      {name: outcome}, in the order of the questions.

    Raises:
      FileNotFoundError: when there is no checkpoint.
      ValueError: for an unknown filter, attack or option.
    """
    folder, split = Path(folder), split or data.evaluation_split
    description = checkpoints.read_config(folder)
    if description is None:
        raise FileNotFoundError(f"{folder} holds no config.json.")
    model = models.create(**description["model"])
    # Of one process for all: copies of the data may differ in their times.
    identity = runtime.from_first_process(
        {
            "checkpoint": checkpoints.digest(folder),
            "data": pipeline.digest(data, split),
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
        }
    )
    keys = {
        name: _key(question, seed, _program(model, data.image_shape, data.labels, question))
        for name, question in questions.items()
    }
    settings = dataclasses.asdict(data.config)
    place = {key: settings[key] for key in settings if key not in _NOT_EVALUATION}
    path = folder / FOLDER / f"{digests.digest(place | {'split': split})[:16]}.json"
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            waiting = f"Another call measures {folder}: waiting for it to end."
            stack.enter_context(alone(path.with_suffix(".lock"), waiting))
        kept = runtime.from_first_process(_read(path, identity))
        missing = {key: questions[name] for name, key in keys.items() if key not in kept}
        if missing:
            counted = evaluate.evaluate(
                classifier or checkpoints.load(folder),
                data,
                split,
                batch_size=batch_size,
                mesh=runtime.data_mesh(),
                key=jax.random.key(seed),
                attacks_by_name={k: q["attack"] for k, q in missing.items() if "attack" in q},
                variants={k: q["variant"] for k, q in missing.items() if "variant" in q},
                partial_file=path.with_suffix(".partial.json"),
                basis=digests.digest([identity, sorted(missing)]),
                title=title,
                every=every,
            )
            answers = counted["attacks"] | counted["variants"]
            kept |= {key: _kept(answers.get(key, counted)) for key in missing}
            if jax.process_index() == 0:
                write_json(path, {"split": split, "identity": identity, "outcomes": kept})
    return {name: _outcome(kept[key]) for name, key in keys.items()}


def _key(question: Question, seed: int, program: str) -> str:
    """What a question is kept under; the seed is that of attacks."""
    for part in question:
        check_choice("question", part, ("attack", "variant"))
    seeded = {"seed": seed} if "attack" in question else {}
    return json.dumps({**question, **seeded, "program": program}, sort_keys=True)


def _kept(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: counts[name] for name in ("right", "top5", "texture") if name in counts}


def _outcome(kept: Mapping[str, Any]) -> Outcome:
    right = np.frombuffer(kept["right"].encode(), np.uint8) == ord("1")
    return Outcome(right, kept.get("top5"), kept.get("texture"))


def _read(path: Path, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is kept of this checkpoint and these data: {key of a question: counts}."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not there, or damaged: measured anew
        return {}
    if not isinstance(found, dict) or found.get("identity") != identity:
        return {}
    kept = found.get("outcomes")
    return kept if isinstance(kept, dict) else {}


def _program(
    model: nn.Module, image_shape: tuple[int, ...], labels: tuple[str, ...], question: Question
) -> str:
    """A digest of the program that answers a question, for two images."""
    filtered, levels = None, None
    attacked = (evaluate.hashable(question["attack"]),) if "attack" in question else ()
    if "variant" in question:
        filtered, values = evaluate.split_options(question["variant"])
        levels = tuple((name, value.shape, value.dtype) for name, value in values.items())
    return _lowered(model, image_shape, labels, attacked, filtered, levels)


@functools.cache
def _lowered(model, image_shape, labels, attacked, filtered, levels) -> str:
    shape = jax.ShapeDtypeStruct
    drawn = jax.eval_shape(lambda key: Classifier.init(key, model, image_shape), jax.random.key(0))
    batch = {name: shape((2,), np.int32) for name in (*labels, "index")}
    batch |= {"image": shape((2, *image_shape), np.uint8), "mask": shape((2,), np.bool_)}
    traced = evaluate.count.lower(
        drawn,
        batch,
        jax.random.key(0),
        attacked=attacked,
        filtered=filtered,
        levels=levels and {name: shape(size, dtype) for name, size, dtype in levels},
    )
    return digests.digest(traced.as_text())
