"""The options of an attack as an evaluation asks for it: the attack's own, and how many images."""

from collections.abc import Mapping
from typing import Any

from jaxrobust import attacks
from jaxrobust.core.checks import check_count

# Of the evaluation, for attacks that are costly; the attack does not know it.
_IMAGES = "images"


def is_driven(attack: Mapping[str, Any]) -> bool:
    """Whether an attack, {"name": …, options}, takes the images of a split all at once."""
    return attack["name"] in attacks.DRIVERS


def split_images(attack: Mapping[str, Any]) -> tuple[dict[str, Any], int | None]:
    """The options of an attack that takes all images at once, and of how many images it is asked.

    Example:
      >>> split_images({"name": "autoattack", "epsilon": 0.1, "images": 1000})
      ({'epsilon': 0.1}, 1000)
    """
    options = {key: value for key, value in attack.items() if key not in ("name", _IMAGES)}
    return options, attack.get(_IMAGES)


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """As `attacks.check_options`; AutoAttack may have `images` besides.

    Raises:
      TypeError, ValueError: for an unknown attack or option, a missing one, or a value out of its
        range.
    """
    attack = {**options, "name": name}
    if is_driven(attack):
        options, images = split_images(attack)
        if images is not None:
            check_count(_IMAGES, images)
    attacks.check_options(name, dict(options))


def complete_options(attack: Mapping[str, Any]) -> dict[str, Any]:
    """As `attacks.complete_options`; with `images`, None for all of them, where it is an option.

    Example:
      >>> complete_options({"name": "autoattack", "epsilon": 0.1})["images"] is None
      True
    """
    if not is_driven(attack):
        return attacks.complete_options(attack["name"], attack)
    options, images = split_images(attack)
    return attacks.complete_options(attack["name"], options) | {_IMAGES: images}
