"""Which images a trained network has right: measured once, kept beside its checkpoint.

    found = outcomes.measure(
        "runs/quickstart/std/seed11", data, {"clean": {}, "blurred": {"variant": {…}}}, …
    )
    found["blurred"].top1, found["blurred"].right

A question is {} (the images as they are), {"variant": {"name": filter, options}} or
{"attack": {"name": attack, options}}; AutoAttack has `images`, for the first so many alone. Its
answer is used again as long as nothing has changed that could change it: the checkpoint's content,
the data and how they are decoded, the compiled program (its text before compilation, so that a
comment changes nothing and a constant does), the version of JAX and the kind of device.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from jaxrobust import models
from jaxrobust.attacks import ensemble
from jaxrobust.classifier import Classifier
from jaxrobust.core import digests, runtime
from jaxrobust.core.files import alone, read_note, write_json
from jaxrobust.core.named import check_choice
from jaxrobust.data import pipeline
from jaxrobust.evaluation import attack_options, driven, evaluate
from jaxrobust.training import checkpoints

FOLDER = "outcomes"
# Of a data set's settings those that decide nothing here.
_NOT_EVALUATION = ("augmentation", "train_split", "evaluation_split", "in_memory", "workers")
Question = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
    """Of one question, over the images of a split in their order: all, or the first so many.

    Attributes:
      right: bool (n,), the label is the first answer; under an attack: both clean and attacked.
      top5: number of images whose label is among the first five; None under an attack.
      texture: number whose texture's class is the first answer; None where images have none.
      details: of AutoAttack, as `driven.evaluate` gives them; else None.
      not_finite: of how many a logit is NaN or infinite: they count as wrong, and are warned of.
    """

    right: np.ndarray
    top5: int | None = None
    texture: int | None = None
    details: Mapping[str, Any] | None = None
    not_finite: int = 0

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
      FileNotFoundError: when there is no checkpoint that can be read.
      ValueError: for an unknown filter, attack or option, or a damaged config.json.
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
            stack.enter_context(alone(path.with_suffix(".lock"), f"measures {folder}"))
        kept = runtime.from_first_process(_read(path, identity))
        missing = {key: questions[name] for name, key in keys.items() if key not in kept}
        if missing:
            answers = _answers(
                classifier or checkpoints.load(folder),
                data,
                split,
                missing,
                path=path,
                identity=identity,
                batch_size=batch_size,
                mesh=runtime.data_mesh(),
                key=jax.random.key(seed),
                title=title,
                every=every,
            )
            for answered in answers:
                kept |= answered
                if jax.process_index() == 0:
                    write_json(path, {"split": split, "identity": identity, "outcomes": kept})
    found = {name: _outcome(kept[key]) for name, key in keys.items()}
    if jax.process_index() == 0:
        # Whenever they are asked for, not only when they are measured.
        counted = {
            name if questions[name] else "": {"not_finite": one.not_finite, "n": one.n}
            for name, one in found.items()
        }
        evaluate.warn_of_infinite(counted.items())
    return found


def _answers(
    classifier: Classifier,
    data: pipeline.DatasetInfo,
    split: str,
    missing: Mapping[str, Question],
    *,
    path: Path,
    identity: Mapping[str, Any],
    **options: Any,
) -> Iterator[dict[str, dict[str, Any]]]:
    """What is kept of each question: first what one pass over the data answers, then the others."""
    alone_asked = {key: one for key, one in missing.items() if _is_driven(one)}
    together = {key: one for key, one in missing.items() if key not in alone_asked}
    if together:
        counted = evaluate.evaluate(
            classifier,
            data,
            split,
            attacks_by_name={k: q["attack"] for k, q in together.items() if "attack" in q},
            variants={k: q["variant"] for k, q in together.items() if "variant" in q},
            partial_file=path.with_suffix(".partial.json"),
            basis=digests.digest([identity, sorted(together)]),
            warn=False,  # `measure` does, by the names of the questions
            **options,
        )
        answers = counted["attacks"] | counted["variants"]
        yield {key: _kept(answers.get(key, counted)) for key in together}
    for key, question in alone_asked.items():
        state_file = _state_file(path, question["attack"], basis=[identity, key])
        counted = driven.evaluate(
            classifier, data, split, question["attack"], state_file=state_file, **options
        )
        yield {key: _kept(counted)}


def _state_file(path: Path, attack: Mapping[str, Any], *, basis: Any) -> Path:
    """Where this process notes how far an attack has come; notes of another basis are removed."""
    asked = digests.digest(attack_options.complete_options(attack))[:8]
    current = digests.digest([basis, jax.process_count()])[:8]
    if jax.process_index() == 0:
        for note in path.parent.glob(f"{path.stem}.{asked}.*.npz"):
            if f".{current}." not in note.name:
                note.unlink(missing_ok=True)
    return path.with_suffix(f".{asked}.{current}.{jax.process_index()}.npz")


def _is_driven(question: Question) -> bool:
    return "attack" in question and attack_options.is_driven(question["attack"])


def _key(question: Question, seed: int, program: str) -> str:
    """What a question is kept under; the seed is that of attacks."""
    for part in question:
        check_choice("question", part, ("attack", "variant"))
    seeded = {"seed": seed} if "attack" in question else {}
    if _is_driven(question):
        name, options = question["attack"]["name"], attack_options.complete_options
        question = {"attack": {"name": name, **options(question["attack"])}}
    return json.dumps({**question, **seeded, "program": program}, sort_keys=True)


def _kept(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: counts[name]
        for name in ("right", "top5", "texture", "details", "not_finite")
        if name in counts
    }


def _outcome(kept: Mapping[str, Any]) -> Outcome:
    right = np.frombuffer(kept["right"].encode(), np.uint8) == ord("1")
    others = {name: value for name, value in kept.items() if name != "right"}
    return Outcome(right, **others)


def _read(path: Path, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What is kept of this checkpoint and these data: {key of a question: counts}."""
    found = read_note(path, identity=dict, outcomes=dict)
    return found["outcomes"] if found and found["identity"] == identity else {}


def _program(
    model: nn.Module, image_shape: tuple[int, ...], labels: tuple[str, ...], question: Question
) -> str:
    """A digest of the program that answers a question, for two images."""
    if _is_driven(question):
        options, _ = attack_options.split_images(question["attack"])
        return _lowered_driven(model, image_shape, json.dumps(options, sort_keys=True))
    filtered, levels = None, None
    attacked = (evaluate.hashable(question["attack"]),) if "attack" in question else ()
    if "variant" in question:
        filtered, values = evaluate.split_options(question["variant"])
        levels = tuple((name, value.shape, value.dtype) for name, value in values.items())
    return _lowered(model, image_shape, labels, attacked, filtered, levels)


@functools.cache
def _lowered(model, image_shape, labels, attacked, filtered, levels) -> str:
    shape, drawn = jax.ShapeDtypeStruct, _drawn(model, image_shape)
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


@functools.cache
def _lowered_driven(model, image_shape, options) -> str:
    drawn = _drawn(model, image_shape)
    return digests.digest(ensemble.program(drawn, image_shape, **json.loads(options)))


def _drawn(model, image_shape):
    """The shapes of a network's weights, in a classifier."""
    return jax.eval_shape(lambda key: Classifier.init(key, model, image_shape), jax.random.key(0))
