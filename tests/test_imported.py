import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from jaxrobust.experiments import figure4_first_layer, trained
from jaxrobust.torch_weights.__main__ import main
from jaxrobust.training import checkpoints, imported
from tests.test_torch_weights import LAYOUTS, MEAN, OTHER, STATE, load, write

FLAGS = ["--model=resnet18", "--dataset=textured_shapes"]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """The networks of these tests have few channels, which the command has no flag for."""
    whole = imported.open_file
    monkeypatch.setattr(imported, "open_file", lambda *a, **kw: whole(*a, width=4, **kw))


@pytest.fixture
def pair(tmp_path, capsys):
    """A workdir with STD and ADV."""
    std = write(tmp_path / "std.pt", LAYOUTS["robustness"])
    adv = write(tmp_path / "adv.pt", {"net": OTHER})
    folder = tmp_path / "public"
    main([str(std), f"--workdir={folder}", *FLAGS])
    main([str(adv), f"--workdir={folder}", *FLAGS, "--epsilon=4/255", "--norm=l2", "--seed=0"])
    return folder, std, adv


def test_what_was_written_opens(pair, capsys):
    folder, std, adv = pair
    printed = capsys.readouterr().out
    assert "layout torchvision under 'module.model.'" in printed
    assert "mean (0.485, 0.456, 0.406) (ImageNet's, assumed)" in printed
    assert f"written to {folder}/adv/seed0" in printed
    for run, path in (("std", std), ("adv", adv)):
        opened, direct = checkpoints.load(folder / run / "seed0"), load(path)
        np.testing.assert_array_equal(
            opened(np.ones((64, 64, 3), np.float32)), direct(np.ones((64, 64, 3), np.float32))
        )
        description = checkpoints.read_config(folder / run / "seed0")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert description["source"]["sha256"] == digest
        assert description["source"]["file"] == path.name
    assert checkpoints.load(folder / "std" / "seed0").model.mean == MEAN


def test_experiments_find_the_pair(pair, tmp_path, capsys):
    folder = pair[0]
    ((standard, adversarial),) = trained.pairs(trained.find(folder))
    assert (standard.run, adversarial.run) == ("std", "adv")
    assert adversarial.title == "ResNet-18 ADV"
    attack = adversarial.config.attack.to_dict()
    assert attack == {"name": "pgd", "norm": "l2", "epsilon": 4 / 255}
    figure4_first_layer.EXPERIMENT.main(
        ["--workdirs", str(folder), "--out", str(tmp_path / "figures")]
    )
    record = json.loads((tmp_path / "figures" / "figure4_first_layer.json").read_text())
    assert record["architectures"]["ResNet-18"]["filters"] == [4, 7, 7, 3]


def test_again_and_something_else(pair):
    folder, std, adv = pair
    before = checkpoints.read_config(folder / "std" / "seed0")
    main([str(std), f"--workdir={folder}", *FLAGS])
    assert checkpoints.read_config(folder / "std" / "seed0") == before
    with pytest.raises(SystemExit, match=r"std/seed0 holds another training: give another workdir"):
        main([str(adv), f"--workdir={folder}", *FLAGS])
    assert checkpoints.read_config(folder / "std" / "seed0") == before
    main([str(adv), f"--workdir={folder}", *FLAGS, "--seed=1"])
    assert len(trained.find(folder)) == 3


def test_again_by_another_version_and_from_a_renamed_file(pair, monkeypatch):
    folder, std, _ = pair
    before = checkpoints.read_config(folder / "std" / "seed0")
    monkeypatch.setattr(imported, "__version__", "99.0")
    renamed = std.rename(std.with_name("renamed.pt"))
    main([str(renamed), f"--workdir={folder}", *FLAGS])
    after = checkpoints.read_config(folder / "std" / "seed0")
    assert (after["jaxrobust"], after["source"]["file"]) == ("99.0", "renamed.pt")
    assert after["source"]["sha256"] == before["source"]["sha256"]
    with pytest.raises(SystemExit, match="std/seed0 holds another training"):
        main([str(renamed), f"--workdir={folder}", *FLAGS, "--mean", "0.5", "0.5", "0.5"])


def test_the_classes_of_an_image_folder_are_counted(tmp_path):
    path = write(tmp_path / "std.pt", STATE)
    public = tmp_path / "public"
    flags = [str(path), "--model=resnet18", f"--workdir={public}", "--path"]
    with pytest.raises(SystemExit, match=r"FileNotFoundError: dataset.path must be a folder, got"):
        main([*flags, str(tmp_path / "nowhere")])
    for count in (2, 10):
        for label in range(count):
            picture = tmp_path / f"of{count}" / "val" / f"class{label}" / "picture.png"
            picture.parent.mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(picture)
    with pytest.raises(SystemExit, match=r"must have 10 classes, as .*, got .*of2 with 2\."):
        main([*flags, str(tmp_path / "of2")])
    assert not public.exists()
    main([*flags, str(tmp_path / "of10")])
    description = checkpoints.read_config(public / "std" / "seed0")
    assert description["config"]["dataset"]["path"] == str(tmp_path / "of10")


def test_one_channel(tmp_path):
    first = STATE["conv1.weight"][:, :1].copy()
    grey = write(tmp_path / "std.pt", STATE | {"conv1.weight": first})
    flags = ["--model=resnet18", "--dataset=fashion_mnist", "--mean", "0.3", "--std", "2/5"]
    main([str(grey), f"--workdir={tmp_path / 'public'}", *flags])
    folder = tmp_path / "public" / "std" / "seed0"
    model = checkpoints.load(folder).model
    assert (model.mean, model.std) == ((0.3,), (0.4,))
    assert checkpoints.read_config(folder)["image_shape"] == [28, 28, 1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=imagenet2012"], r"dataset must have 10 classes, as .*std.pt has, got imagen"),
        (["--dataset=imagenet"], "did you mean"),
        (["--dataset=fashion_mnist"], r"must have 3 channels, as .*, got fashion_mnist with 1\."),
        (["--path=pictures", "--dataset=digits"], "at most one of --dataset and --path"),
        (["--epsilon=4", "--norm=l7"], r"norm must be .*got 'l7'"),
        (
            ["--epsilon=4"],
            r"epsilon must be at most 1 in linf, .*, got 4: divide levels by 255",
        ),
        (
            ["--epsilon=0"],
            r"epsilon must be above 0, of pixels in \[0, 1\] .*, got 0; standard training has",
        ),
        (
            ["--epsilon=0", "--norm=l2"],
            r"epsilon must be above 0, of pixels in \[0, 1\] .*, got 0;",
        ),
        (["--norm=l2"], r"--norm must stand beside --epsilon, got 'l2' alone"),
        (
            ["--mean", "123.5", "116", "103.5"],
            r"mean must be .*; divide by 255 .*, got \[123.5, 116",
        ),
        (["--std", "58.4", "57.1", "57.4"], r"std must be .*; divide by 255 .*, got \[58.4, 57.1"),
        (["--run=a/b"], "run must be the name of a folder, got 'a/b'"),
        (["--num_classes=7"], "num_classes must be 10"),
        (["--seed=-1"], "seeds must be different whole numbers"),
    ],
)
def test_errors(tmp_path, flags, message):
    path = write(tmp_path / "std.pt", STATE)
    with pytest.raises(SystemExit, match=message):
        main([str(path), f"--workdir={tmp_path / 'public'}", *FLAGS, *flags])
    assert not (tmp_path / "public").exists()


def test_an_attack_without_a_name(tmp_path):
    path = write(tmp_path / "std.pt", STATE)
    with pytest.raises(ValueError, match="attack must hold the attack's name and its options"):
        imported.write(path, "resnet18", tmp_path / "public", attack={"epsilon": 3})
