import contextlib
import json

import jax
import matplotlib.image
import numpy as np
import pytest

from experiments import figure2_sensitivity_maps as figure2
from experiments import sensitivity, statistics, trained
from experiments.pictures import evaluation_pictures
from jaxrobust import saliency
from jaxrobust.data import textured_shapes
from jaxrobust.training import checkpoints
from jaxrobust.training.run import resolve
from tests import tiny

SMALL = textured_shapes.Parameters(train_examples=20, test_examples=30, cue_conflict_examples=9)
ATTACK = {"name": "fgsm", "epsilon": 0.05}


def write_workdir(workdir, data_dir, *, seeds=(0, 1), **changes):
    """STD and ADV of each seed as `train` leaves them, of weights that nobody trained."""
    config = tiny.config(
        data_dir, runs={"std": {}, "adv": {"attack": ATTACK}}, seeds=seeds, **changes
    )
    for run in resolve(config, workdir):
        checkpoints.write_config(run.folder, run.description)
        rng = np.random.default_rng([list(config.runs).index(run.name), run.seed])
        variables = jax.tree.map(
            lambda leaf, rng=rng: leaf * rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype),
            tiny.drawn_variables(run.model, run.data.image_shape),
        )
        store = checkpoints.Checkpoints(run.folder)
        store.save(30, dict(variables), {"step": np.zeros(1)}, {})
        store.close()
    return workdir


@contextlib.contextmanager
def drawn_shapes(folder, parameters, *, seeds=(0, 1)):
    """`folder`, with STD and ADV in `work` on textured_shapes drawn with these parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textured_shapes, "PARAMETERS", parameters)
        changes = {"dataset__name": "textured_shapes", "dataset__image_size": None}
        write_workdir(folder / "work", folder, seeds=seeds, **changes)
        yield folder


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Two seeds of STD and ADV on a small set that has masks."""
    with drawn_shapes(tmp_path_factory.mktemp("shapes"), SMALL) as folder:
        yield folder / "work"


@pytest.fixture(scope="module")
def digits(tmp_path_factory, data_dir):
    """One seed of STD and ADV on a set without masks."""
    return write_workdir(tmp_path_factory.mktemp("digits"), data_dir, seeds=(3,))


def centroid(picture):
    """Term by term: the mean radial frequency of all waves, weighted by their power."""
    height, width, _ = picture.shape
    power = (np.abs(np.fft.fft2(picture - picture.mean((0, 1)), axes=(0, 1))) ** 2).sum(-1)
    total = 0.0
    for y in range(height):
        for x in range(width):
            total += power[y, x] * np.hypot(min(y, height - y) / height, min(x, width - x) / width)
    return total / power.sum()


def test_figures_written_are_those_of_the_maps(shapes, tmp_path, capsys):
    figure2.main(["--workdirs", str(shapes), "--out", str(tmp_path), "--images", "12"])
    record = read(tmp_path / "figure2_sensitivity_maps.json")
    (title,) = record["architectures"]
    found = record["architectures"][title]
    assert title == "TinyNetwork"
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1]
    assert list(found["methods"]) == list(saliency.PAPER_METHODS)
    assert [one["class"] for one in found["drawn"]] == list(textured_shapes.SHAPES)
    # The gradients, taken here from the functions themselves, for the true classes.
    models_found = trained.find(shapes)
    pictures = evaluation_pictures(models_found[0].config, 12, per_class=True)
    assert found["index"] == pictures.index.tolist()
    for name, method in (
        ("vanilla_gradient", saliency.vanilla_gradient),
        ("guided_backprop", saliency.guided_backprop),
    ):
        measures = found["methods"][name]["measures"]
        values = {"std": [], "adv": []}
        inside = {"std": [], "adv": []}
        for one in models_found:
            maps = np.asarray(method(one.load(), pictures.images, pictures.labels), np.float64)
            values[one.run].append(np.array([centroid(picture) for picture in maps]))
            energy = (maps**2).sum(-1)
            inside[one.run].append(
                ((energy * pictures.masks).sum((1, 2)) / energy.sum((1, 2))).mean()
            )
        for run in values:
            np.testing.assert_allclose(
                measures["spectral_centroid"][f"{run}_by_seed"],
                [one.mean() for one in values[run]],
                rtol=1e-4,
            )
            assert measures["inside_share"][run] == pytest.approx(np.mean(inside[run]), rel=1e-4)
        change = measures["spectral_centroid"]["difference"]
        expected = statistics.difference(values["std"], values["adv"])
        assert change["mean"] == pytest.approx(expected.mean, abs=1e-6)
        assert change["high"] == pytest.approx(expected.high, abs=1e-5)
        assert change["verdict"] == expected.verdict("negative")
        assert (change["resampled"], change["images"], change["left_out"]) == (
            "seeds and images",
            24,
            0,
        )
        assert "verdict" not in measures["inside_share"]["difference"]
    printed = capsys.readouterr().out
    assert "TinyNetwork: 12 images, 2 pairs of trainings" in printed
    for name in found["methods"]:
        assert printed.count(f"  {sensitivity.method_title(name)} ") == 4
    written = tmp_path / "figure2_sensitivity_maps_tinynetwork.png"
    assert str(written) in printed
    height, width, _ = matplotlib.image.imread(written).shape
    assert width > 12 * 100  # two pictures and their maps side by side
    assert height > 10 * 100


def test_without_masks_half_of_the_claim_stays_open(digits, tmp_path, capsys):
    # Two workdirs of one training are one training.
    figure2.main(
        [
            "--workdirs",
            str(digits),
            str(digits),
            "--out",
            str(tmp_path),
            "--images",
            "8",
            "--methods",
            "grad_cam",
            "vanilla_gradient",
            "--pictures",
            "2",
            "--batch-size",
            "3",
        ]
    )
    found = read(tmp_path / "figure2_sensitivity_maps.json")["architectures"]["TinyNetwork"]
    assert list(found["methods"]) == ["grad_cam", "vanilla_gradient"]
    method = found["methods"]["vanilla_gradient"]
    assert list(method["measures"]) == ["spectral_centroid", "high_frequency_share"]
    assert method["measures"]["spectral_centroid"]["difference"]["resampled"] == "images"
    assert method["claim_2"] in ("open", "does not hold")
    assert found["claim_2"] in ("open", "does not hold")
    assert not found["masks"]
    assert len(found["drawn"]) == 2
    assert "no masks" in capsys.readouterr().out


def test_measures_of_known_maps():
    rows, columns = np.indices((32, 32))
    masks = np.zeros((2, 32, 32), bool)
    masks[:, 8:24, 8:24] = True
    wave = np.cos(2 * np.pi * columns / 8)
    checkerboard = (-1.0) ** (rows + columns)
    inside = np.where(masks[0], checkerboard, 0.0)
    inside[10:22, 10:22] = 0.0  # within 2 pixels of the edge
    maps = np.stack([wave, inside])[..., None].repeat(3, -1)
    values = figure2.measure(maps, masks)
    assert values["spectral_centroid"][0] == pytest.approx(1 / 8)
    assert values["high_frequency_share"][0] == pytest.approx(0.0, abs=1e-12)
    assert values["inside_share"][1] == 1.0
    assert values["inside_share"][0] == pytest.approx(1 / 4)
    assert values["band_share"][1] == 1.0
    assert list(figure2.measure(maps, None)) == ["spectral_centroid", "high_frequency_share"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdirs", "nowhere"], "nowhere is no folder"),
        (["--images", "5000"], "count must be at most 360"),
        (["--images", "0"], "must be a whole number of at least 1, got '0'"),
        (["--methods", "deepdream"], "invalid choice: 'deepdream'"),
    ],
)
def test_errors_are_one_sentence(arguments, message, digits, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        figure2.main(
            [
                "--workdirs",
                str(digits),
                "--out",
                str(tmp_path),
                "--methods",
                "vanilla_gradient",
                *arguments,
            ]
        )
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error
    assert not list(tmp_path.iterdir())


def test_help_says_what_it_costs(capsys):
    with pytest.raises(SystemExit) as stop:
        figure2.main(["--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "Cost:" in printed
    assert "guided_grad_cam" in printed
