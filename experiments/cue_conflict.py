"""Pictures whose silhouette and texture disagree: what STD and ADV answer, and what they look at.

    python -m jaxrobust.experiments.cue_conflict --workdirs runs/quickstart

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

import numpy as np

from jaxrobust import plots
from jaxrobust.experiments import accuracies, result, sensitivity, trained
from jaxrobust.experiments.experiment import Experiment, whole_number
from jaxrobust.experiments.pictures import evaluation_pictures

_METHOD = "guided_backprop"


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
        type=whole_number(1),
        default=8,
        metavar="N",
        help="drawn, of different classes as far as there are (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> result.Result:
    """Draws the pictures of every architecture, with the networks of the first seed."""
    findings = {}
    for title, pairs in trained.by_architecture(arguments.workdirs).items():
        std = pairs[0][0]
        if not accuracies.has_cue_conflict(std):
            raise ValueError(
                f"--workdirs must be trainings on textured_shapes with the shape as label, "
                f"{std.folder} is on {std.config.dataset.name}."
            )
        pictures = evaluation_pictures(
            std.config, arguments.pictures, per_class=True, split="cue_conflict"
        )
        names = pictures.class_names
        assert pictures.textures is not None
        cues = list(zip(pictures.labels.tolist(), pictures.textures.tolist(), strict=True))
        images = [
            {"index": index, "shape": names[shape], "texture_of": names[texture]}
            for index, (shape, texture) in zip(pictures.index.tolist(), cues, strict=True)
        ]
        rows = [list(pictures.images)]
        captions = [[f"{names[shape]}, texture of {names[texture]}" for shape, texture in cues]]
        for run, training in zip(accuracies.RUNS, pairs[0], strict=True):
            classifier = training.load()
            answers = np.asarray(classifier(pictures.images).argmax(-1), np.int32)
            answered = dataclasses.replace(pictures, labels=answers)
            maps = sensitivity.maps_of(classifier, _METHOD, answered, seed=0)
            rows.append(list(plots.to_picture(maps)))
            captions.append(
                [read(answer, *cue, names) for answer, cue in zip(answers, cues, strict=True)]
            )
            for image, answer in zip(images, answers, strict=True):
                image[run] = names[answer]
        figure = result.Figure(
            f"cue_conflict_{trained.slug(title)}.png",
            f"{title}: silhouette against texture, which one decides?",
        )
        plots.grid(
            rows,
            row_titles=["Picture", "STD sees", "ADV sees"],
            captions=captions,
            title=figure.caption,
            note=f"{sensitivity.method_title(_METHOD)} for the network's own answer. "
            f"{sensitivity.NOTE} Trainings of seed {std.seed}; of each class the first.",
            path=arguments.out / figure.file,
        )
        answered_table = result.Table(
            ["silhouette", "texture of", "STD", "ADV"],
            [[image[key] for key in ("shape", "texture_of", "std", "adv")] for image in images],
            caption="What is answered",
            left=4,
            folded=True,
        )
        numbers = {
            "pairs": trained.pairs_described(pairs[:1]),
            "dataset": std.config.dataset.name,
            "images": images,
        }
        findings[title] = result.Finding(numbers, [figure, answered_table])
    return result.Result(findings)


EXPERIMENT = Experiment(
    name="cue_conflict",
    title="Silhouette against texture: which one decides?",
    short="Shape or texture",
    paper="adversarially robust models pay less attention to fine textures. (How often each "
    "follows which cue is counted in Table 2, below.)",
    run=run,
    document=__doc__,
    add_arguments=add_arguments,
)

if __name__ == "__main__":
    EXPERIMENT.main()
