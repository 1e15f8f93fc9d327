"""A workdir of weights that were trained elsewhere, as the experiments read it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxrobust import attacks
from jaxrobust.core.checks import check_that
from jaxrobust.core.digests import digest
from jaxrobust.core.settings import to_plain
from jaxrobust.data import image_folder
from jaxrobust.data.dataset_config import DatasetConfig, resolve
from jaxrobust.torch_weights import open_file
from jaxrobust.training import checkpoints
from jaxrobust.training import config as configs
from jaxrobust.version import __version__


def write(
    path: str | Path,
    model_name: str,
    workdir: str | Path,
    *,
    run: str | None = None,
    seed: int = 0,
    attack: Mapping[str, Any] | None = None,
    dataset: DatasetConfig | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Writes `<workdir>/<run>/seed<k>/`, which `checkpoints.load` and the experiments open.

    Its config.json holds what is known of the training and, under `source`, the file's name and
    sha256 and what it turned out to be. Writing the same content again is allowed, from a renamed
    file too.

    Args:
      path: as of `load`.
      model_name: as of `load`.
      workdir: gets the folder; STD and ADV of one pair share it.
      run: its name; None is "adv" with an attack, else "std".
      seed: which of several trainings it is; STD and ADV of one seed are a pair.
      attack: what is known of the one that it was trained with, as in a config, {"name": "pgd",
        "norm": "linf", "epsilon": 4 / 255}; None for standard training.
      dataset: that it classifies; None is ImageNet.
      **options: further ones of `load`.

    Returns:
      what config.json holds.

    Raises:
      FileNotFoundError, TypeError: as `load`; FileNotFoundError also without the image folder.
      ValueError: as `load`; and when the data set has another number of classes or channels, the
        attack is none or its epsilon out of range, or the folder holds another training.
    """
    path = Path(path)
    run = run or ("std" if attack is None else "adv")
    if Path(run).name != run:
        raise ValueError(f"run must be the name of a folder, got {run!r}.")
    resolved, known = resolve(dataset or DatasetConfig(name="imagenet2012"))
    config = configs.default()
    config.dataset.update(vars(dataset or DatasetConfig(name="imagenet2012")))
    config.runs, config.seeds = {run: {}}, (seed,)
    if attack is not None:
        # How many steps it took may not be known; all else is checked.
        config.attack = {"steps": 1, **attack} if attack.get("name") == "pgd" else dict(attack)
    configs.check(config)
    if attack is not None:
        _check_epsilon(to_plain(config.attack))
    config.attack = None if attack is None else dict(attack)
    classes = known.num_classes
    if resolved.path is not None:
        classes = len(
            image_folder.open_split(
                resolved.path, resolved.evaluation_split, resolved.corrupt_images
            ).class_names
        )
    opened = open_file(path, model_name, **options)
    fields = dict(opened.fields)
    for kind, has, got in (
        ("classes", fields["num_classes"], classes),
        ("channels", len(fields["mean"]), known.channels),
    ):
        rule = f"have {has} {kind}, as {path} has"
        check_that(got == has, "dataset", rule, f"{resolved.path or known.name} with {got}")
    # Of float32 weights float32 is asked, whatever trainings here compute in.
    fields = {"dtype": "float32", **fields}
    config.model = {
        name: value for name, value in fields.items() if name not in ("num_classes", "mean", "std")
    }
    plain = to_plain(config)
    description = {
        "jaxrobust": __version__,
        "run": run,
        "seed": seed,
        "model": fields,
        "image_shape": [resolved.image_size, resolved.image_size, known.channels],
        # The other keys describe trainings of this library.
        "config": {
            key: plain[key] for key in ("attack", "dataset", "evaluation", "model", "runs", "seeds")
        },
        "source": {"file": path.name, "sha256": digest(path), **opened.found},
    }
    checkpoints.write(
        Path(workdir) / run / f"seed{seed}", description, opened.variables, identity=_identity
    )
    return description


def _check_epsilon(attack: dict[str, Any]) -> None:
    options = attacks.complete_options(attack["name"], attack)
    if options["epsilon"] == 0:
        raise ValueError(
            "epsilon must be above 0, of pixels in [0, 1] as in 4/255, got 0; standard training "
            "has none."
        )


def _identity(description: dict[str, Any]) -> list[Any]:
    """What stays the same when the library is another version or the file has another name."""
    config, source = description.get("config", {}), description.get("source", {})
    return [
        *(description.get(key) for key in ("model", "image_shape")),
        *(config.get(key) for key in ("attack", "dataset")),
        source.get("sha256"),
    ]
