"""Two networks crossed with two attacks in training: what each of the two moves, seed by seed.

The networks differ in nothing but how they take their strides.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import statistics, trained

# The fields of a network that say how it takes its strides: here they may differ.
_STRIDES = ("downsampling", "stem_stride")

# Sorted, the most strided network and the attack of most steps come first.
_Network = tuple[bool, int, str]  # pools, minus the stem's stride, how it takes strides
_Attack = tuple[int, str]  # minus its steps, its title
_Cells = Mapping[tuple[_Network, _Attack], Mapping[int, trained.Pair]]


@dataclass(frozen=True)
class TwoByTwo:
    """Trainings of two networks, each against two attacks.

    Attributes:
      title: the architecture, and its two networks.
      networks: how they take their strides; the more strided one first.
      attacks: that ADV is trained against; the one of more steps first.
      cells: {(network, attack): pairs of STD and ADV}, of the same seeds in each.
    """

    title: str
    networks: tuple[str, str]
    attacks: tuple[str, str]
    cells: Mapping[tuple[str, str], trained.Pairs]


def find(workdirs: Sequence[str | Path]) -> list[TwoByTwo]:
    """Every two by two among the trainings in some workdirs.

    Of more networks each is crossed with the most strided one; of more attacks, with that of most
    steps. A seed that some cell lacks is named in a warning and left out.

    Raises:
      FileNotFoundError, ValueError: as `trained.find` and `trained.pairs`; when there is no two by
        two, or two trainings would stand in one place of it.
    """
    families: dict[Any, dict[tuple[_Network, _Attack], dict[int, trained.Pair]]] = {}
    for pair in trained.pairs(trained.find(workdirs)):
        adversarial = pair[1]
        cells = families.setdefault(trained.setting(adversarial, without=_STRIDES), {})
        attack = _attack(adversarial.config.attack)
        cell = cells.setdefault((_network(adversarial.config.model), attack), {})
        if adversarial.seed in cell:
            raise ValueError(
                f"{cell[adversarial.seed][1].folder} and {adversarial.folder} are the same network "
                f"and seed, trained against {attack[1]}; name fewer workdirs."
            )
        cell[adversarial.seed] = pair
    found = [each for cells in families.values() for each in _crossed(cells)]
    if not found:
        got = [
            f"{_network_title(network)} against {attack} (seeds {_listed(cell)})"
            for cells in families.values()
            for (network, (_, attack)), cell in sorted(cells.items(), key=lambda item: item[0])
        ]
        raise ValueError(
            "Two networks that differ in their strides alone are needed, both trained against the "
            f"same two attacks from the same seeds, got {'; '.join(got)}."
        )
    return found


def _crossed(cells: _Cells) -> Iterator[TwoByTwo]:
    networks = sorted({network for network, _ in cells})
    attacks = sorted({attack for _, attack in cells})
    several_stems = len({stem for _, stem, _ in networks}) > 1
    for network, attack in itertools.product(networks[1:], attacks[1:]):
        places = list(itertools.product((networks[0], network), (attacks[0], attack)))
        chosen = {
            (_network_title(one, with_stem=several_stems), other[1]): cells.get((one, other), {})
            for one, other in places
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
            f"{architecture}, {first} and {second}", (first, second), (longer, shorter), pairs
        )


def _network(model: Mapping[str, Any]) -> _Network:
    how = model.get("downsampling", "stride")
    return how != "stride", -(model.get("stem_stride") or 0), how


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
    """An attack by its steps and in words; one step of PGD from a random start is FGSM-RS.

    Example:
      >>> _attack({"name": "pgd", "steps": 5}), _attack({"name": "pgd", "steps": 1})
      ((-5, 'PGD-5'), (-1, 'FGSM-RS'))
    """
    steps = attack.get("steps", 1)
    if attack["name"] == "pgd" and steps == 1 and attack.get("random_start", True):
        return -1, "FGSM-RS"
    title = attack["name"].rpartition(":")[2].upper()
    return -steps, f"{title}-{steps}" if "steps" in attack else title


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
