"""Every setting of a run, with the paper's ImageNet training as the default, and its checks.

A file in `configs/` starts from `default()` and changes what is its own. Keys under `model` and
under an attack are the fields of that model and the options of that attack; everywhere else an
unknown key is an error.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict, FieldReference
from ml_collections.config_dict import placeholder

from jaxrobust import attacks, filters
from jaxrobust.core.checks import check_that
from jaxrobust.core.named import check_choice, did_you_mean
from jaxrobust.core.settings import to_plain
from jaxrobust.data import catalog
from jaxrobust.data.dataset_config import DatasetConfig
from jaxrobust.evaluation import attack_options

# What may change between two calls with one workdir: how often to save and print, and what to
# evaluate, which is then done again.
NOT_TRAINING = ("checkpoint", "log_every_seconds", "evaluation", "runs", "seeds")


def training_part(config: dict[str, Any]) -> dict[str, Any]:
    """What of a run's settings decides what is trained, as plain values.

    Where data lie and how fast they are read may change while a run lasts; so may where backbones
    lie, but not which trainings they are, which is described beside the config.
    """
    kept = ("name", "image_size", "train_split", "augmentation", "corrupt_images")
    left_out = {*NOT_TRAINING, "pretrained"}
    if config.get("objective") == {"name": "auto"}:
        left_out.add("objective")  # what a folder means that does not say
    part = {key: value for key, value in config.items() if key not in left_out}
    dataset = config.get("dataset", {})  # what was imported may not say
    return part | {"dataset": {key: dataset.get(key) for key in kept}}


def default() -> ConfigDict:
    """The paper's setting: ResNet-50 on ImageNet, standard training, SGD for 90 epochs.

    Example:
      >>> from jaxrobust import config
      >>> settings = config.default()
      >>> settings.model.name, settings.batch_size, settings.epochs
      ('resnet50', 256, 90.0)
    """
    return ConfigDict(
        {
            # Named variations of this config; each value overrides parts of it.
            "runs": {"std": {}},
            # Trainings from scratch: seeds of the weights, the order of the data and the attacks.
            "seeds": (0,),
            # See data.dataset_config.DatasetConfig; None and "auto" are the catalogue's choice.
            "dataset": dataclasses.asdict(DatasetConfig(name="imagenet2012"))
            # Typed, so that flags can set what is None at first.
            | {key: placeholder(str) for key in ("data_dir", "path", "train_split")}
            | {"evaluation_split": placeholder(str)}
            | {key: placeholder(int) for key in ("image_size", "resize_size")},
            # dtype "auto": bfloat16 on TPU and GPU, float32 on CPU. Other keys: the model's fields.
            "model": {"name": "resnet50", "dtype": "auto"},
            # Fine-tuning instead of training from scratch, with model.name "late_fusion": folders
            # of trainings (see `fine_tuning`), whose backbones get one new classifier together;
            # with `frozen`, that alone is trained.
            "pretrained": {"backbones": (), "frozen": False, "allow_same": False},
            "batch_size": 256,  # of all devices together
            "epochs": FieldReference(90.0, field_type=float),
            "steps": placeholder(int),  # instead of epochs, which must be None then
            "optimizer": {
                "learning_rate": 0.1,
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 1e-4,
                "decay_norm_and_bias": True,
            },
            # "step": times `factor` at each of the boundaries; "cosine": down to 0; "constant".
            # Boundaries and warm-up are shares of the whole training.
            "schedule": {
                "name": "step",
                "boundaries": (1 / 3, 2 / 3),
                "factor": 0.1,
                "warmup": 0.0,
            },
            # What is minimised: one of objectives.OBJECTIVES or "package.module:function", and its
            # own options; "auto" is adversarial with an attack, else standard.
            "objective": {"name": "auto"},
            # None: standard training. Else {"name": one of attacks.ATTACKS, options of it}.
            "attack": None,
            "adversarial_share": 1.0,  # of each batch that is attacked
            # BatchNorm inside the attack: running averages, or the batch's own statistics (then
            # an image's perturbation depends on what else is in its batch).
            "attack_batch_statistics": False,
            "checkpoint": {"every_epochs": 1.0, "every_steps": placeholder(int), "keep": 2},
            "log_every_seconds": 10.0,
            "evaluation": {
                "batch_size": 256,
                "seed": 0,
                # Clean accuracy while training, into metrics.jsonl; None: only at the end.
                "every_epochs": placeholder(float),
                # name -> {"name": attack, options}; step_size None is 1.5 epsilon / steps. Where
                # these two are kept, the radii that the runs train against are added to them, for
                # all runs (`own_radius`). "autoattack" has the options of `attacks.autoattack`, and
                # `images`, the first so many alone: it is costly.
                "attacks": {
                    "pgd_0_005": {"name": "pgd", "epsilon": 0.005, "steps": 10, "restarts": 10},
                    "pgd_0_01": {"name": "pgd", "epsilon": 0.01, "steps": 10, "restarts": 10},
                },
                # name -> {"name": filter, options}: accuracy on filtered images, in the same pass.
                "variants": {},
                # Decided by shape or by texture, on data that has the split; None: when it has.
                "cue_conflict": placeholder(bool),
            },
        }
    )


def for_run(config: ConfigDict, run: str) -> ConfigDict:
    """The config of one named run: its overrides applied, `runs` reduced to it.

    Raises:
      ValueError: when there is no such run, or it overrides a key that does not exist.

    Example:
      >>> from jaxrobust import config
      >>> settings = config.default()
      >>> settings.runs = {"std": {}, "adv": {"attack": {"name": "fgsm", "epsilon": 0.005}}}
      >>> config.for_run(settings, "std").attack, config.for_run(settings, "adv").attack.name
      (None, 'fgsm')
    """
    check_choice("run", run, config.runs)
    single = config.copy_and_resolve_references()
    overrides = single.runs[run].to_dict()
    single.runs = {run: {}}
    plain = to_plain(single)
    _merge(plain, overrides, f"runs.{run}")
    return ConfigDict(plain)


def _merge(config: dict, overrides: dict, where: str) -> None:
    whole = ("attack", "objective")  # another one has other options
    for key, value in overrides.items():
        if isinstance(config.get(key), dict) and not isinstance(value, dict) and key != "attack":
            raise ValueError(f"{where}.{key} must hold some of its keys, got {value!r}.")
        if key not in config:
            raise ValueError(f"{where}.{key} overrides no key of the config{_near(key, config)}.")
        if isinstance(value, dict) and isinstance(config[key], dict) and key not in whole:
            free = key in ("model", "attacks", "variants")
            if free:
                config[key].update(value)
            else:
                _merge(config[key], value, f"{where}.{key}")
        else:
            config[key] = value


def _near(key: str, known: Any) -> str:
    return did_you_mean(key, known) or f"; expected some of {', '.join(known)}"


def check(config: ConfigDict) -> dict[str, ConfigDict]:
    """Raise now what would go wrong later, before any training time is spent.

    Returns:
      {run: its config}, as `for_run` gives it.

    Raises:
      ValueError: one sentence that names the key, its value and what was expected.
    """
    _check_keys(to_plain(config), to_plain(default()), "")
    if not config.runs:
        raise ValueError("runs must name at least one run, got none.")
    for run, overrides in config.runs.items():
        if not run or not isinstance(overrides, ConfigDict):
            raise ValueError(f"runs.{run} must hold the keys that it overrides, got {overrides!r}.")
        for key in ("runs", "seeds"):
            if key in overrides:
                raise ValueError(f"runs.{run}.{key} cannot differ between the runs of a study.")
    _check_seeds(config.seeds)
    runs = {run: for_run(config, run) for run in config.runs}
    for single in runs.values():
        _check_run(single)
    return runs


def _check_keys(config: dict, known: dict, prefix: str) -> None:
    for key in config:
        if key not in known:
            raise ValueError(f"unknown config key {prefix}{key}{_near(key, known)}.")
    for key in known:
        if key not in config:
            raise ValueError(f"config key {prefix}{key} is missing.")
    for key, value in known.items():
        free = key in ("runs", "model", "objective", "attack", "attacks", "variants")
        if isinstance(value, dict) and not isinstance(config[key], dict):
            raise ValueError(f"{prefix}{key} must hold {', '.join(value)}, got {config[key]}.")
        if isinstance(value, dict) and not free:
            _check_keys(config[key], value, f"{prefix}{key}.")


def _check_seeds(seeds: Any) -> None:
    seeds = seeds if isinstance(seeds, (tuple, list)) else (seeds,)
    whole = all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)
    rule = "be different whole numbers in [0, 2**32)"
    check_that(seeds and whole and len(set(seeds)) == len(seeds), "seeds", rule, seeds)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value > 0


def _is_positive(value: Any) -> bool:
    return _is_number(value) and 0 < value < math.inf


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_COUNT, _POSITIVE = "be a whole number above 0", "be a finite number above 0"
_SHARE = "be from 0 to 1"
# Key, what its value must fulfil, and how that is said; what may be None is left out then.
_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("batch_size", _is_count, _COUNT),
    ("steps", _is_count, _COUNT),
    ("epochs", _is_positive, _POSITIVE),
    ("checkpoint.keep", _is_count, _COUNT),
    ("checkpoint.every_steps", _is_count, _COUNT),
    ("checkpoint.every_epochs", _is_positive, _POSITIVE),
    ("evaluation.batch_size", _is_count, _COUNT),
    ("evaluation.every_epochs", _is_positive, _POSITIVE),
    ("optimizer.learning_rate", _is_positive, _POSITIVE),
    ("optimizer.momentum", _is_share, _SHARE),
    ("optimizer.weight_decay", _is_share, _SHARE),
    ("schedule.name", ("step", "cosine", "constant").__contains__, "be step, cosine or constant"),
    ("schedule.factor", _is_positive, _POSITIVE),
    ("schedule.warmup", _is_share, _SHARE),
    ("schedule.boundaries", lambda values: all(map(_is_share, values)), "be numbers from 0 to 1"),
    ("adversarial_share", lambda v: _is_share(v) and v > 0, "be above 0, up to 1"),
    ("objective.name", _is_name, "be the name of an objective"),
    ("model.name", _is_name, "be the name of a model"),
    ("dataset.name", _is_name, "be the name of a data set"),
)
_MAY_BE_NONE = ("steps", "epochs", "checkpoint.every_steps", "evaluation.every_epochs")


def _check_run(config: ConfigDict) -> None:
    if config.steps is None and config.epochs is None:
        raise ValueError("epochs or steps must be set, got None for both.")
    for key, holds, rule in _RULES:
        value = functools.reduce(lambda part, name: part.get(name), key.split("."), config)
        unset = value is None and (
            key in _MAY_BE_NONE
            or (key == "checkpoint.every_epochs" and config.checkpoint.every_steps is not None)
        )
        if not unset and not holds(value):
            raise ValueError(f"{key} must {rule}, got {value!r}.")
    if config.attack is not None:
        _check_options("attack", "attack", attacks, config.attack)
        rule = f"be one that trains ({', '.join(attacks.ATTACKS)} or your own)"
        check_that(config.attack.name not in attacks.DRIVERS, "attack", rule, config.attack.name)
    _check_pretrained(config)
    for name, attack in config.evaluation.attacks.items():
        _check_options(f"evaluation.attacks.{name}", "attack", attack_options, attack)
    for name, variant in config.evaluation.variants.items():
        where, mean = f"evaluation.variants.{name}", variant.get("mean", 0.5)
        _check_options(where, "filter", filters, variant)
        if isinstance(mean, list | tuple):
            channels = catalog.get(config.dataset.name).channels
            rule = f"have one number for each channel, {channels} in {config.dataset.name}"
            check_that(len(mean) == channels, f"{where}.mean", rule, mean)


def _check_pretrained(config: ConfigDict) -> None:
    folders, model = config.pretrained.backbones, config.model.get("name")
    texts = not isinstance(folders, str) and all(
        folder and isinstance(folder, str) for folder in folders
    )
    check_that(texts, "pretrained.backbones", "be names of folders", repr(folders))
    if bool(folders) != (model == "late_fusion"):
        raise ValueError(
            "pretrained.backbones must be given for the model late_fusion, and for it alone; got "
            f"{', '.join(folders) or 'none'} for {model}."
        )
    for key in ("frozen", "allow_same"):
        value = config.pretrained[key]
        check_that(isinstance(value, bool), f"pretrained.{key}", "be True or False", repr(value))
    if folders and config.dataset.image_size is None:
        raise ValueError(
            "dataset.image_size must be given for a fine-tuning: the size that the backbones take."
        )


def _check_options(where: str, kind: str, room: Any, chosen: Any) -> None:
    options = chosen.to_dict() if isinstance(chosen, ConfigDict) else {}
    if "name" not in options:
        raise ValueError(f"{where} must hold the {kind}'s name and its options, got {chosen}.")
    name = options.pop("name")
    try:
        room.check_options(name, options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
