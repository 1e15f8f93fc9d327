import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxrobust.data import textured_shapes
from jaxrobust.experiments import figure20_variants as figure20
from jaxrobust.experiments import trained
from jaxrobust.experiments.pictures import evaluation_pictures
from tests.test_accuracies import write_pictures
from tests.test_figure2_sensitivity_maps import drawn_shapes, read, write_workdir

# Each class has a cue conflict.
WITHOUT_COLOURS = ["standard", "σ = 1", "σ = 3", "σ = 5", "once", "5 times"]
SMALL = textured_shapes.Parameters(train_examples=20, test_examples=30, cue_conflict_examples=20)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """One seed on a small set with cue conflicts, and a stylised copy of it."""
    with drawn_shapes(tmp_path_factory.mktemp("shapes"), SMALL, seeds=(3,)) as folder:
        names = [f"{number}_{name}" for number, name in enumerate(textured_shapes.SHAPES)]
        write_pictures(folder / "copy", names)
        yield folder


def test_columns_are_the_variants_of_the_same_pictures(shapes):
    one = trained.find(shapes / "work")[0]
    pictures = evaluation_pictures(one.config, 10, per_class=True)
    columns = figure20.columns(one, pictures, shapes / "copy")
    by_title = {column.title: column.images for column in columns}
    assert list(by_title) == [*WITHOUT_COLOURS, "reversed", "cue conflict", "stylized"]
    for position, image in enumerate(pictures.images):
        np.testing.assert_array_equal(by_title["standard"][position], image)
        blurred = cv2.GaussianBlur(image, (7, 7), 3.0)
        np.testing.assert_allclose(by_title["σ = 3"][position], blurred, atol=1e-5)
        once = cv2.medianBlur(image, 5)
        np.testing.assert_array_equal(by_title["once"][position], once)
        mirrored = np.clip(2 * np.array([0.485, 0.456, 0.406]) - image, 0, 1)
        np.testing.assert_allclose(by_title["reversed"][position], mirrored, atol=1e-6)
    # One of each class, in the order of the classes.
    conflicts = evaluation_pictures(one.config, 20, split="cue_conflict")
    for label, image in enumerate(by_title["cue conflict"]):
        of_class = conflicts.images[conflicts.labels == label]
        np.testing.assert_array_equal(image, of_class[0])
    # Pictures of class k in the copy have the level 20 k, at the data's size.
    assert by_title["stylized"].shape == pictures.images.shape
    np.testing.assert_allclose(by_title["stylized"][:, 5, 5, 0] * 255, 20.0 * np.arange(10), atol=1)


def test_grey_pictures_have_no_colours_to_reverse(data_dir, tmp_path):
    one = trained.find(write_workdir(tmp_path, data_dir, seeds=(3,)))[0]
    pictures = evaluation_pictures(one.config, 2)
    grey = dataclasses.replace(pictures, images=pictures.images[..., :1])
    columns = figure20.columns(one, grey, None)
    assert [column.title for column in columns] == WITHOUT_COLOURS
    once = cv2.medianBlur(grey.images[1, ..., 0], 5)
    np.testing.assert_array_equal(columns[4].images[1, ..., 0], once)
    figure20.draw(columns, grey, [0, 1], title="Grey", path=tmp_path / "grey.png")
    assert np.ptp(np.asarray(Image.open(tmp_path / "grey.png").convert("RGB")), axis=-1).max() == 0


def test_sheets_record_and_table(shapes, tmp_path, capsys):
    options = ["--workdirs", str(shapes / "work"), "--out", str(tmp_path)]
    figure20.EXPERIMENT.main([*options, "--pictures", "3", "--stylized", str(shapes / "copy")])
    path = tmp_path / "figure20_variants_textured_shapes.png"
    assert str(path) in capsys.readouterr().out
    width, height = Image.open(path).size
    assert width > 2 * height  # nine columns, three rows
    architectures = read(tmp_path / "figure20_variants.json")["architectures"]
    assert {found["sheet"] for found in architectures.values()} == {str(path)}
    found = architectures["TinyNetwork STD"]
    assert len(found["variants"]) == 9
    assert [one["class"] for one in found["drawn"]] == ["disc", "star", "heart"]
    table = (tmp_path / "figure20_variants.md").read_text()
    assert "| Gaussian blur σ = 3 | gaussian_blur(sigma=3.0, kernel_size=7) |" in table
    first = found["drawn"][0]["index"]
    assert f"Rows: pictures {first} (disc), " in table
    assert "## " not in table  # what is shown is of the data set, not of STD or ADV


def test_several_data_sets_have_a_sheet_each(shapes, data_dir, tmp_path):
    digits = write_workdir(tmp_path / "digits", data_dir, seeds=(3,))
    options = ["--workdirs", str(shapes / "work"), str(digits), "--out", str(tmp_path / "out")]
    figure20.EXPERIMENT.main([*options, "--pictures", "2"])
    sheets = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert sheets == {
        "figure20_variants_textured_shapes.png",
        "figure20_variants_digits.png",
    }
    table = (tmp_path / "out" / "figure20_variants.md").read_text()
    assert table.count("cue conflict") == 1  # digits have none


def test_errors_are_one_sentence(shapes, tmp_path, capsys):
    options = ["--workdirs", str(shapes / "work"), "--out", str(tmp_path / "out")]
    write_pictures(tmp_path / "others", ("cat", "dog"))
    with pytest.raises(SystemExit) as stopped:
        figure20.EXPERIMENT.main([*options, "--stylized", str(tmp_path / "others")])
    assert stopped.value.code == 2
    assert "must have the classes of Textured shapes" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
