"""The pictures whose silhouette and texture disagree."""

import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import textured_shapes
from jaxrobust.experiments import cue_conflict, trained
from jaxrobust.experiments.pictures import evaluation_pictures
from tests.test_figure2_sensitivity_maps import drawn_shapes, read, write_workdir

SMALL = textured_shapes.Parameters(train_examples=20, test_examples=20, cue_conflict_examples=30)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    with drawn_shapes(tmp_path_factory.mktemp("shapes"), SMALL, seeds=(3,)) as folder:
        yield folder


def test_records_the_cues_that_were_drawn_and_the_answers_of_the_networks(shapes, tmp_path):
    cue_conflict.EXPERIMENT.main(
        ["--workdirs", str(shapes / "work"), "--out", str(tmp_path), "--pictures", "12"]
    )
    record = read(tmp_path / "cue_conflict.json")
    (found,) = record["architectures"].values()
    drawn = {}
    for index in range(SMALL.cue_conflict_examples):
        image, _, shape, texture = textured_shapes.draw("cue_conflict", index, parameters=SMALL)
        drawn[image.tobytes()] = shape, texture
    std, adv = trained.find(shapes / "work")
    pictures = evaluation_pictures(std.config, 12, per_class=True, split="cue_conflict")
    names = textured_shapes.SHAPES
    assert len(found["images"]) == 12
    for one, pixels in zip(found["images"], pictures.images, strict=True):
        shape, texture = drawn[np.rint(pixels * 255).astype(np.uint8).tobytes()]
        assert (one["shape"], one["texture_of"]) == (names[shape], names[texture])
        assert shape != texture
    for run, trained_one in (("std", std), ("adv", adv)):
        classifier = trained_one.load()
        expected = [names[int(classifier(image).argmax())] for image in pictures.images]
        assert [one[run] for one in found["images"]] == expected
    page = (tmp_path / "cue_conflict.md").read_text()
    for one in found["images"]:
        assert f"| {one['shape']} | {one['texture_of']} | {one['std']} | {one['adv']} |" in page
    width, height = Image.open(tmp_path / record["files"][0]).size
    assert width > 2 * height  # twelve columns, three rows


def test_other_data_sets_have_no_such_pictures(tmp_path, data_dir, capsys):
    write_workdir(tmp_path / "work", data_dir, seeds=(3,))
    with pytest.raises(SystemExit):
        cue_conflict.EXPERIMENT.main(["--workdirs", str(tmp_path / "work"), "--out", str(tmp_path)])
    assert "must be trainings on textured_shapes" in capsys.readouterr().err
