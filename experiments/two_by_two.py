"""Two networks crossed with two attacks in training: what each of the two moves, seed by seed.

The networks differ in nothing but how they take their strides; but for them and the attacks, all
are trained alike.
"""

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn

from jaxrobust import models
from jaxrobust.attacks import complete_options
from jaxrobust.core.settings import difference, to_plain
from jaxrobust.data.dataset_config import resolve
from jaxrobust.experiments import statistics, trained
from jaxrobust.models.resnet import ResNet
from jaxrobust.training import checkpoints
from jaxrobust.training.config import training_part

# Trains what is needed here.
_CONFIG = "configs/fashion_mnist_stems.py"
# The fields of a network that say how it takes its strides: here they may differ.
_STRIDES = ("downsampling", "stem_stride")

# Sorted, the most strided network and the attack of most steps come first.
_Network = tuple[bool, int, str]  # pools, minus the stem's stride, how it takes strides
_Attack = tuple[int, str, str]  # minus its steps, its title, all its options as JSON
_Cells = Mapping[tuple[_Network, _Attack], Mapping[int, trained.Pair]]


@dataclass(frozen=True)
class TwoByTwo:
    """Trainings of two networks, each against two attacks.

    Attributes:
      title: the architecture, and its two networks.
      networks: how they take their strides; the more strided one first.
      attacks: that ADV is trained against; the one of more steps first.
      cells: {(network, attack): pairs of STD and ADV}, of the same seeds in each.
      strided_and_pooled: whether the first network strides and the second pools instead, with
        the same stride of the stem.
    """

    title: str
    networks: tuple[str, str]
    attacks: tuple[str, str]
    cells: Mapping[tuple[str, str], trained.Pairs]
    strided_and_pooled: bool


def find(workdirs: Sequence[str | Path]) -> list[TwoByTwo]:
    """Every two by two among the trainings in some workdirs.

    Of more networks each is crossed with the most strided one; of more attacks, with that of most
    steps. A seed that some cell lacks is named in a warning and left out.

    Raises:
      FileNotFoundError, ValueError: as `trained.find` and `trained.pairs`; when there is no two by
        two, or two trainings would stand in one place of it, or two of them look the same.
    """
    families: dict[str, dict[tuple[_Network, _Attack], dict[int, trained.Pair]]] = {}
    for pair in trained.pairs(trained.find(workdirs, config=_CONFIG)):
        standard, adversarial = pair
        alike = {"STD": _recipe(standard), "ADV": _recipe(adversarial)}
        cells = families.setdefault(json.dumps(alike, sort_keys=True), {})
        try:
            attack = _attack(adversarial.config.attack.to_dict())
        except ValueError as error:  # of weights from elsewhere, not all may be known
            raise ValueError(f"{adversarial.folder}: {error}") from None
        description = checkpoints.read_config(adversarial.folder) or {}
        network = _network(models.create(**description["model"]))
        cell = cells.setdefault((network, attack), {})
        if adversarial.seed in cell:
            raise ValueError(
                f"{cell[adversarial.seed][1].folder} and {adversarial.folder} are the same network "
                f"and seed, trained against {attack[1]}; name fewer workdirs."
            )
        cell[adversarial.seed] = pair
    found = [each for cells in families.values() for each in _crossed(cells)]
    if not found:
        got = []
        (first, _), *_ = listed = sorted(families.items(), key=lambda item: min(item[1]))
        for alike, cells in listed:
            titles = _titles(cells)
            otherwise = "; ".join(difference(json.loads(first), json.loads(alike)))
            got += [
                f"{titles[network]} against {titles[attack]} (seeds {_listed(cell)})"
                + (f", trained otherwise ({otherwise})" if otherwise else "")
                for (network, attack), cell in sorted(cells.items(), key=lambda item: item[0])
            ]
        raise ValueError(
            "Two networks that differ in their strides alone are needed, both trained against the "
            f"same two attacks from the same seeds, got {'; '.join(got)}."
        )
    return _told_apart(found)


def _crossed(cells: _Cells) -> Iterator[TwoByTwo]:
    networks, attacks = (_in_several(keys) for keys in zip(*cells, strict=True))
    titles = _titles(cells)
    for network, attack in itertools.product(networks[1:], attacks[1:]):
        places = list(itertools.product((networks[0], network), (attacks[0], attack)))
        chosen = {
            (titles[one], titles[other]): cells.get((one, other), {}) for one, other in places
        }
        seeds = set.intersection(*map(set, chosen.values()))
        if not seeds:
            continue
        if left_out := set().union(*chosen.values()) - seeds:
            logging.getLogger("jaxrobust").warning(
                "Left out, for want of a training in some cell: seeds %s.", _listed(left_out)
            )
        (first, longer), *_, (second, shorter) = chosen
        pairs = {
            key: [of_seeds[seed] for seed in sorted(seeds)] for key, of_seeds in chosen.items()
        }
        architecture = trained.architecture_title(pairs[first, longer][0][1].architecture)
        yield TwoByTwo(
            title=f"{architecture}, {first} and {second}",
            networks=(first, second),
            attacks=(longer, shorter),
            cells=pairs,
            strided_and_pooled=network[0] and networks[0][:2] == (False, network[1]),
        )


def _told_apart(found: Sequence[TwoByTwo]) -> list[TwoByTwo]:
    """Titles that several would have also say the attacks."""
    counts = Counter(one.title for one in found)
    by_title: dict[str, TwoByTwo] = {}
    for one in found:
        several = counts[one.title] > 1
        title = f"{one.title}, {' and '.join(one.attacks)}" if several else one.title
        if title in by_title:
            first, second = (
                next(iter(each.cells.values()))[0][1].folder for each in (by_title[title], one)
            )
            raise ValueError(
                f"{first} and {second} are trained otherwise, but each is of a two by two of "
                f"{title}; name fewer workdirs."
            )
        by_title[title] = replace(one, title=title)
    return list(by_title.values())


def _in_several(keys: Iterable[Any]) -> list[Any]:
    """Those that occur more than once, in order: what stands in one cell alone is not crossed."""
    return sorted(key for key, count in Counter(keys).items() if count > 1)


def _recipe(training: trained.Trained) -> dict[str, Any]:
    """All that decides what is trained, but for strides, attack and seed."""
    part = training_part(to_plain(training.config))
    data, _ = resolve(training.config.dataset)
    return part | {
        "model": {key: value for key, value in part["model"].items() if key not in _STRIDES},
        "attack": None,
        "dataset": {key: getattr(data, key) for key in ("path", *part["dataset"])},
    }


def _network(model: nn.Module) -> _Network:
    """How a network takes its strides; 0 for a stem of which that is not known.

    Example:
      >>> [_network(models.create(name, num_classes=10)) for name in ("resnet50", "resnet8_small")]
      [(False, -2, 'stride'), (False, -1, 'stride')]
    """
    how, stem = getattr(model, "downsampling", "stride"), getattr(model, "stem_stride", None)
    if stem is None and isinstance(model, ResNet):
        stem = 1 if model.small_images else 2
    return how != "stride", -(stem or 0), how


def _network_title(network: _Network, *, with_stem: bool = False) -> str:
    """How a network takes its strides.

    Example:
      >>> _network_title((False, -2, "stride")), _network_title((True, -2, "max_pool"))
      ('strided', 'max-pooled')
    """
    pools, stem, how = network
    title = f"{how.replace('_', '-')}ed" if pools else "strided"
    return f"{title}, stem stride {-stem or 'as usual'}" if with_stem else title


def _attack(attack: Mapping[str, Any]) -> _Attack:
    """An attack by its steps, in words and whole; a step of PGD from a random start is FGSM-RS.

    Example:
      >>> _attack({"name": "pgd", "epsilon": 0.1, "steps": 5})[:2]
      (-5, 'PGD-5')
      >>> _attack({"name": "pgd", "epsilon": 0.1, "steps": 1})[:2]
      (-1, 'FGSM-RS')
    """
    name, options = attack["name"], complete_options(attack["name"], attack)
    steps = options.get("steps", 1)
    title = name.rpartition(":")[2].upper()
    if name == "pgd" and steps == 1 and options["random_start"]:
        title = "FGSM-RS"
    elif name != "fgsm" and "steps" in options:
        title += f"-{steps}"
    return -steps, title, json.dumps({"name": name, **options}, sort_keys=True)


def _titles(cells: Iterable[tuple[_Network, _Attack]]) -> dict[Any, str]:
    """Of networks and attacks; those that several would have also say in what they differ."""
    networks, attacks = (set(keys) for keys in zip(*cells, strict=True))
    several_stems = len({stem for _, stem, _ in networks}) > 1
    titles: dict[Any, str] = {one: _network_title(one, with_stem=several_stems) for one in networks}
    for attack in attacks:
        _, title, options = attack
        namesakes = [json.loads(other) for _, same, other in attacks if same == title]
        titles[attack] = title
        for key, value in json.loads(options).items():
            if any(other.get(key) != value for other in namesakes):
                shown = f"{value:g}" if isinstance(value, float) else value
                titles[attack] += f", {key.replace('_', ' ')} {shown}"
    return titles


def _listed(seeds: Any) -> str:
    return ", ".join(map(str, sorted(seeds)))


def effects(values: Any) -> dict[str, dict[str, Any]]:
    """What of a measure is the network, what the attack, and whether one depends on the other.

    Args:
      values: (2 networks, 2 attacks, seeds), one value a training.

    Returns:
      "network": the first - the second, averaged over the attacks; "attack": the first - the
      second, averaged over the networks; "interaction": the network's difference under the first
      attack - that under the second. Each as `statistics.compare` gives it, with the "verdict" of
      Student's t interval on "it is above 0", and the differences "by_seed".

    Example:
      >>> found = effects([[[4.0, 5.0], [2.0, 3.0]], [[1.0, 2.0], [1.0, 2.0]]])
      >>> [found[name]["mean"] for name in ("network", "attack", "interaction")]
      [2.0, 1.0, 2.0]
    """
    array = np.asarray(values, np.float64)
    sides = {
        "network": array.mean(1),
        "attack": array.mean(0),
        "interaction": array[0] - array[1],
    }
    found = {}
    for name, (first, second) in sides.items():
        change = statistics.compare(second, first)
        change["verdict"] = statistics.verdict_over_seeds(change, "positive")
        found[name] = change | {"by_seed": (first - second).tolist()}
    return found
