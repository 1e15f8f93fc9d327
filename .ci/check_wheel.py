"""A newcomer's way, from the wheel alone and in an empty folder: own network, own pictures.

    python .ci/check_wheel.py WHEEL

WHEEL is the folder that the wheel was installed into. A Linen module without `mean` and `std` and
40 pictures go through README's lines on them and through every experiment that takes them.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

README = Path(__file__).parents[1] / "README.md"
NETWORK = Path(__file__).parents[1] / "tests" / "own_network.py"
# README's lines train for long; how experiments are called, with less to do where they have much.
SHORTER = {"epochs = 90": "epochs = 2", "batch_size = 256": "batch_size = 8"}
EXPERIMENTS = {
    "figure2_sensitivity_maps": (),
    "figure3_layer_visualization": ("--steps=4", "--regularized-steps=4", "--measured-filters=2"),
    "figure4_first_layer": (),
    "figure6_smoothing": (),
    "figure8_sanity_checks": ("--methods", "vanilla_gradient", "guided_backprop"),
    "figure20_variants": (),
    "table1_robustness": ("--steps=2", "--restarts=1"),
    "table2_variants": (),
}


def draw(folder: Path) -> None:
    """Two classes, 12 pictures each to train on and 20 each to judge."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 20)):
        for kind in ("ant", "bee"):
            place = folder / "pictures" / split / kind
            place.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (70, 64, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{index}.png")


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    command = wheel / "bin" / "jaxrobust"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def run(*arguments: str | Path, expect: int = 0) -> str:
            print("+", *arguments[:4], flush=True)
            environment = os.environ | {"PYTHONPATH": str(wheel)}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            ended = subprocess.run(arguments, cwd=folder, env=environment, text=True, **pipes)
            print(ended.stdout, flush=True)
            if ended.returncode != expect:
                sys.exit(f"{arguments} ended with {ended.returncode}, not {expect}.")
            return ended.stdout

        place = "import jaxrobust, sys; sys.exit(not jaxrobust.__file__.startswith(sys.argv[1]))"
        run(sys.executable, "-c", place, str(wheel))
        run(command, expect=2)
        run(command, "--help")
        run(sys.executable, "-m", "jaxrobust", "--help")
        short = ("--config.steps=2", "--config.runs.adv.steps=2")
        short += ("--config.evaluation.attacks.pgd_8.steps=1",)
        config = "--config=configs/quickstart.py"
        first = run(command, "--config=quickstart", *short)
        again = run(sys.executable, "-m", "jaxrobust.main", config, *short)
        if not ("trained 2 of 2 steps" in first and "trained" not in again):
            sys.exit("The second call has trained what the first had.")

        draw(folder)
        (folder / "my_package").mkdir()
        (folder / "my_package" / "networks.py").write_text(NETWORK.read_text())
        blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
        [text] = [block for block in blocks if "my_package.networks:Network" in block]
        for long, shorter in SHORTER.items():
            assert long in text
            text = text.replace(long, shorter)
        run(sys.executable, "-c", text)
        for experiment, options in EXPERIMENTS.items():
            module = f"jaxrobust.experiments.{experiment}"
            run(sys.executable, "-m", module, "--workdirs", "runs/mine", *options)


if __name__ == "__main__":
    main()
