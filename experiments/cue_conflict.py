"""Pictures whose silhouette and texture disagree: what STD and ADV answer, and what they look at.

    python -m experiments.cue_conflict --workdirs runs/quickstart

draws, for every architecture trained on `textured_shapes`, pictures of the split `cue_conflict`,
each a silhouette with the texture of another class, and under each picture the answer of STD and of
ADV with the map of its guided backpropagation for that answer: the picture at the top of the
README. How often each answers by shape and by texture, over the whole split and all seeds, is what
table2_variants measures.

Cost: seconds.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import accuracies, command, sensitivity, trained
from experiments.pictures import Pictures, evaluation_pictures
from jaxrobust import plots
from jaxrobust.classifier import Classifier

_NAME = "cue_conflict"
_METHOD = "guided_backprop"


def answers(classifier: Classifier, pictures: Pictures) -> np.ndarray:
    """The class with the largest logit, int32 (n,)."""
    return np.asarray(classifier(pictures.images).argmax(-1), np.int32)


def read(answer: int, shape: int, texture: int, names: Sequence[str]) -> str:
    """An answer in words, and which cue it follows.

    Example:
      >>> read(1, 0, 1, ["star", "cross"]), read(0, 0, 1, ["star", "cross"])
      ('cross (texture)', 'star (shape)')
      >>> read(2, 0, 1, ["star", "cross", "ring"])
      'ring (neither)'
    """
    cue = {texture: "texture", shape: "shape"}.get(answer, "neither")
    return f"{names[answer]} ({cue})"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many pictures."""
    parser.add_argument(
        "--pictures",
        type=command.whole_number(1),
        default=8,
        metavar="N",
        help="drawn, of different classes as far as there are (default: %(default)s)",
    )


def examine(arguments: argparse.Namespace) -> tuple[dict[str, Any], list[Path]]:
    """Draws the pictures of every architecture, with the networks of the first seed."""
    architectures, written = {}, []
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        std, adv = pairs[0]
        if not accuracies.has_cue_conflict(std):
            raise ValueError(
                f"--workdirs must be trainings on textured_shapes with the shape as label, "
                f"{std.folder} is on {std.config.dataset.name}."
            )
        pictures = evaluation_pictures(
            std.config, arguments.pictures, per_class=True, split="cue_conflict"
        )
        textures, names = pictures.textures, pictures.class_names
        assert textures is not None
        rows: list[list[np.ndarray]] = [list(pictures.images)]
        texts = [
            [
                f"{names[shape]}, texture of {names[texture]}"
                for shape, texture in zip(pictures.labels, textures, strict=True)
            ]
        ]
        said = {}
        for run, one in (("std", std), ("adv", adv)):
            classifier = one.load()
            said[run] = answers(classifier, pictures)
            answered = dataclasses.replace(pictures, labels=said[run])
            maps = sensitivity.maps_of(classifier, _METHOD, answered, seed=0)
            rows.append(list(plots.to_picture(maps)))
            texts.append(
                [
                    read(*each, names)
                    for each in zip(said[run], pictures.labels, textures, strict=True)
                ]
            )
        path = arguments.out / f"{_NAME}_{trained.slug(title)}.png"
        plots.grid(
            rows,
            row_titles=["Picture", *(f"{sensitivity.RUNS[run]} sees" for run in said)],
            captions=texts,
            title=f"{title}: silhouette against texture, which one decides?",
            note=f"{sensitivity.method_title(_METHOD)} for the network's own answer. "
            f"{sensitivity.NOTE} Trainings of seed {std.seed}; of each class the first.",
            path=path,
        )
        written.append(path)
        architectures[title] = {
            "pairs": trained.pairs_described(pairs[:1]),
            "dataset": std.config.dataset.name,
            "images": [
                {
                    "index": int(pictures.index[position]),
                    "shape": names[pictures.labels[position]],
                    "texture_of": names[textures[position]],
                    **{run: names[values[position]] for run, values in said.items()},
                }
                for position in range(len(pictures))
            ],
        }
    return architectures, written


def main(argv: Sequence[str] | None = None) -> None:
    """Draws the figures and writes what was answered."""
    command.run(_NAME, argv, document=__doc__, examine=examine, add_arguments=add_arguments)


if __name__ == "__main__":
    main()
