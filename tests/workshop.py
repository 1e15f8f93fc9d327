"""A working folder with experiments of its own, which do as a file tells them."""

import json
import sys
import textwrap
from pathlib import Path

import pytest

import jaxrobust
from jaxrobust import experiments

# An experiment's process: notes that it ran, does what `what.json` says, leaves its record.
EXPERIMENT = """
import json, os, signal, sys, time
from pathlib import Path

name = Path(__file__).stem
if __name__ == "__main__":
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    Path(f"{name}.pid").write_text(str(os.getpid()))
    with open("ran", "a") as file:
        file.write(name + "\\n")
    what = json.loads(Path("what.json").read_text()).get(name, "well")
    if what == "fail":
        print("first line")
        sys.exit("ValueError: it is wrong.")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        time.sleep(100)
    out.mkdir(exist_ok=True)
    (out / f"{name}.png").write_text("picture")
    if what != "no record":
        (out / f"{name}.json").write_text(json.dumps({"files": [f"{name}.png"]}))
"""
# A training's process: leaves the checkpoint of step 10, or fails after step 5.
TRAINING = """
import json, sys
from pathlib import Path

workdir = Path(next(each for each in sys.argv if each.startswith("--workdir=")).partition("=")[2])
with open("ran", "a") as file:
    file.write(workdir.name + "\\n")
failing = json.loads(Path("what.json").read_text()).get(workdir.name) == "fail"
step = "5" if failing else "10"
(workdir / "std/seed0/checkpoints" / step).mkdir(parents=True, exist_ok=True)
sys.exit(9 if failing else 0)
"""


class Workshop:
    """The folder.

    Attributes:
      folder: current working folder of the test and of what it starts; the modules of its
        `jaxrobust` come before the real ones.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in "abc":
            self.write(f"jaxrobust/experiments/{name}.py", EXPERIMENT)
        self.does()

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def does(self, **what: str) -> None:
        """What stages do from now on; those that are not named end well."""
        self.write("what.json", json.dumps(what))

    def trains(self) -> None:
        """In the place of the library's command, `TRAINING`."""
        self.write("jaxrobust/main.py", TRAINING)

    def ran(self) -> list[str]:
        """The stages that have run since the last call."""
        path = self.folder / "ran"
        names = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return names


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    package = tmp_path / "jaxrobust" / "experiments"
    package.mkdir(parents=True)
    for real, own in ((jaxrobust, package.parent), (experiments, package)):
        text = f"__path__ += {list(real.__path__)!r}\n" + Path(real.__file__).read_text()
        (own / "__init__.py").write_text(text)
        monkeypatch.setattr(real, "__path__", [str(own), *real.__path__])
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield Workshop(tmp_path)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(package)):
            del sys.modules[name]
            delattr(experiments, name.rpartition(".")[2])
