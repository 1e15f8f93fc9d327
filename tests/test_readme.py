"""Every Python block of the README and of docs/ runs, as it stands, from top to bottom."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxrobust import Classifier, models, torch_weights
from jaxrobust.training import config as configs
from tests import tiny

README = Path(__file__).parents[1] / "README.md"
ROBUSTNESS = README.parent / "docs" / "robustness.md"
STAND_IN = "resnet18_small"
# What takes long: a test does less of it.
SHORTER = {
    "epochs = 90": "epochs = 2",
    "batch_size = 256": "batch_size = 8",
    '"imagenet_linf_4.pt", "resnet50"': f'"imagenet_linf_4.pt", "{STAND_IN}"',
    "epsilon=8 / 255)\nprint": "epsilon=8 / 255, attacks=('apgd-ce', 'fab-t'), steps=5)\nprint",
    "epsilon=4 / 255)\n": "epsilon=4 / 255, attacks=('apgd-ce',), steps=2)\n",
    'norm="l2", batch_size=64)': 'norm="l2", batch_size=64, steps=2, targets=1)',
}
# What runs each command: as it stands, or with other settings or a stand-in for what it needs.
# (Only that the place exists is checked here.)
SMOKE = ".ci/run::configs/paper_smoke.py"
RUN_BY = {
    "pip install -e .": ".ci/run::--config=configs/quickstart.py",
    "python -m jaxrobust.main --config=configs/quickstart.py --workdir=runs/quickstart": (
        ".ci/run::--config=configs/quickstart.py"
    ),
    "python -m jaxrobust.data.prepare fashion_mnist": (
        ".ci/run::python -m jaxrobust.data.prepare fashion_mnist"
    ),
    "python -m jaxrobust.main --config=configs/fashion_mnist.py": (
        ".ci/run::--config=configs/fashion_mnist.py"
    ),
    "python -m jaxrobust.experiments.table1_robustness --workdirs runs/fashion_mnist --steps 20 "
    "--restarts 3 --autoattack 1000": (
        "tests/test_table1_robustness.py::test_figures_are_those_of_the_attack"
    ),
    "python -m jaxrobust.main --config=configs/fashion_mnist_stems.py": SMOKE,
    "python -m jaxrobust.experiments.stride_or_training --workdirs runs/fashion_mnist_stems": SMOKE,
    "python -m jaxrobust.experiments.paper --config=configs/paper_quick.py --out=report": SMOKE,
    'python -m jaxrobust.main --config=configs/quickstart.py --config.seeds="(11,12,13)"': SMOKE,
    "python -m jaxrobust.main --config=configs/figure7_quick.py": SMOKE,
    "python -m jaxrobust.experiments.figure7_late_fusion --workdirs runs/figure7_quick": SMOKE,
    "python -m jaxrobust.torch_weights resnet50.pth --model=resnet50 --workdir=runs/public": (
        "tests/test_imported.py::test_experiments_find_the_pair"
    ),
    "python -m jaxrobust.torch_weights imagenet_linf_4.pt --model=resnet50 --workdir=runs/public "
    "--epsilon=4/255": "tests/test_imported.py::test_experiments_find_the_pair",
    "python -m jaxrobust.experiments.figure4_first_layer --workdirs runs/public": (
        "tests/test_imported.py::test_experiments_find_the_pair"
    ),
    'pip install -e ".[prepare]"': "",  # TensorFlow: not part of the checks
    "python -m jaxrobust.data.prepare imagenet2012": (
        "tests/test_data_prepare.py::test_imagenet_is_refused_until_both_archives_are_there"
    ),
    "python -m jaxrobust.main --config=configs/resnet50_adv.py": (
        "tests/test_imagenet.py::test_resnet50_adv_takes_real_steps_on_mock_imagenet"
    ),
    'pip install -e ".[test]"': ".ci/run::&& pytest",
    "python -m jaxrobust.experiments.benchmarks.speed --model=resnet8_small --image_size=32 "
    "--batch_size=128 --num_classes=10": (
        "tests/test_benchmark_speed.py::test_operations_are_those_of_the_passes"
    ),
    "python -m jaxrobust.experiments.benchmarks.speed --model=resnet50 --batch_size=8": (
        "tests/test_benchmark_speed.py::test_operations_are_those_of_the_passes"
    ),
    "pytest": ".ci/run::&& pytest",
    "pytest -m slow": ".ci/run::pytest -m slow",
}


@pytest.fixture
def own_project(tmp_path, monkeypatch):
    """A folder with a user's pictures and package, as the README supposes them."""
    generator = np.random.default_rng(0)
    for split in ("train", "validation"):
        for kind in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / kind
            folder.mkdir(parents=True)
            for index in range(8):
                pixels = generator.integers(0, 256, (80, 70, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    # In the place of a public checkpoint, a network of the same family.
    model = models.create(STAND_IN, num_classes=10)
    drawn = Classifier(model, tiny.drawn_variables(model, (32, 32, 3)))
    torch_weights.save(drawn, tmp_path / "drawn.safetensors")
    (tmp_path / "drawn.safetensors").rename(tmp_path / "imagenet_linf_4.pt")
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "networks.py").write_text(
        "import flax.linen as nn\n\n\n"
        "class Network(nn.Module):\n"
        "    num_classes: int\n\n"
        "    @nn.compact\n"
        "    def __call__(self, images, *, train):\n"
        "        features = nn.relu(nn.Conv(8, (3, 3), strides=2)(images - 0.5))\n"
        "        return nn.Dense(self.num_classes)(features.mean((1, 2)))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]


def run_blocks(path):
    """What the Python blocks of a page have defined."""
    names = {"__name__": path.stem}
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL):
        for text, shorter in SHORTER.items():
            block = block.replace(text, shorter)
        exec(compile(block, str(path), "exec"), names)
    return names


@pytest.mark.slow
def test_blocks_run(own_project, quickly_compiled):
    names = run_blocks(README)
    assert Image.open("std_and_adv.png").height > 100
    assert names["adversarial"].shape == (8, 32, 32, 3)
    assert names["classifier"](np.zeros((64, 64, 3), np.float32)).shape == (2,)


@pytest.mark.slow
def test_robustness_is_measured_as_its_page_says(own_project, quickly_compiled, capsys):
    names = run_blocks(ROBUSTNESS)
    assert "16 images, AutoAttack custom, linf, ε = 0.0313725" in capsys.readouterr().out
    assert names["record"].attacks == ("apgd-ce",)
    assert names["shares"].shape == (5,)
    configs.check(names["settings"])


@pytest.mark.parametrize(
    "name",
    sorted(set(re.findall(r"python -m (jaxrobust\.experiments\.[\w.]+)", README.read_text()))),
)
def test_experiments_explain_themselves(name, capsys):
    module = importlib.import_module(name)
    main = module.EXPERIMENT.main if hasattr(module, "EXPERIMENT") else module.main
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out


def test_commands_name_configs_that_exist():
    text = README.read_text()
    found = re.findall(r"configs/(\w+)\.py", text) + re.findall(r"`(\w+)\.py`", text)
    existing = {path.stem for path in (README.parent / "configs").glob("*.py")}
    assert existing <= set(found)
    for name in re.findall(r"--config=configs/(\w+)\.py", text):
        assert name in existing
    for key in re.findall(r"--config\.([\w.]+)=", text):
        if key != "x.y":
            value = configs.default()
            for part in key.split("."):
                value = value[part]


def test_every_command_is_run_somewhere():
    blocks = re.findall(r"```bash\n(.*?)```", README.read_text(), flags=re.DOTALL)
    commands = [
        command.partition("  #")[0].strip()
        for line in "".join(blocks).splitlines()
        for command in line.split("&&")
    ]
    assert set(commands) == set(RUN_BY)
    for place in filter(None, RUN_BY.values()):
        path, _, what = place.partition("::")
        text = (README.parent / path).read_text()
        assert (f"def {what}(" if path.endswith(".py") else what) in text


@pytest.mark.parametrize("path", [README, ROBUSTNESS], ids=lambda path: path.stem)
def test_links_lead_to_files_and_headings(path):
    text = path.read_text()
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    for link in re.findall(r"\]\(([^)]*)\)", text):
        if link.startswith("#"):
            assert link[1:] in anchors, link
        elif not link.startswith("https://"):
            assert (path.parent / link).exists(), link
