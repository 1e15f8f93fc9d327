"""The classifiers of the project by name, some of them trained, and a user's own by import path."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrobust.classifier import Classifier
from jaxrobust.core.checks import check_count, check_that
from jaxrobust.core.named import check_choice, did_you_mean
from jaxrobust.models import alexnet, late_fusion, layers, resnet, vgg, weight_files

__all__ = [
    "alexnet",
    "create",
    "late_fusion",
    "layers",
    "names",
    "pretrained",
    "pretrained_description",
    "pretrained_names",
    "resnet",
    "vgg",
]

_REGISTRY: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet.alexnet,
    "alexnet_small": alexnet.alexnet_small,
    "late_fusion": late_fusion.LateFusion,
    "resnet8_small": resnet.resnet8_small,
    "wide_resnet50_2": resnet.wide_resnet50_2,
}
for _depth in (18, 34, 50, 101, 152):
    _network = getattr(resnet, f"resnet{_depth}")
    _REGISTRY[f"resnet{_depth}"] = _network
    _REGISTRY[f"resnet{_depth}_small"] = partial(_network, small_images=True)
for _depth in (11, 13, 16, 19):
    for _ending, _batch_norm in (("", {}), ("_bn", {"batch_norm": True})):
        _network = partial(getattr(vgg, f"vgg{_depth}"), **_batch_norm)
        _REGISTRY[f"vgg{_depth}{_ending}"] = _network
        _small = partial(_network, small_images=True, width=16, hidden=256)
        _REGISTRY[f"vgg{_depth}{_ending}_small"] = _small

# Fields that every caller may pass and a user's own module need not have.
_OPTIONAL = ("mean", "std", "dtype")
_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}
_COUNTS = ("num_classes", "width", "hidden", "widening", "stem_stride")


def names() -> tuple[str, ...]:
    """The names that `create` knows, in alphabetical order.

    Example:
      >>> from jaxrobust import models
      >>> [name for name in models.names() if name.startswith("alexnet")]
      ['alexnet', 'alexnet_small']
    """
    return tuple(sorted(_REGISTRY))


def create(name: str, *, num_classes: int | None, **fields: Any) -> nn.Module:
    """Create a network.

    Args:
      name: one of `names()`, or "package.module:Class" for a Linen module of your own whose
        `__call__(images, *, train)` takes images (n, height, width, channels) in [0, 1].
      num_classes: number of logits; None makes a network that returns the features before its
        classifier.
      **fields: further attributes of the module, such as `width`, `mean`, `std` or `dtype`. A
        module of your own is not given the last three unless it declares them. `dtype` may be a
        name, or "auto": bfloat16 on TPU and GPU, float32 on CPU. The `backbones` of "late_fusion"
        are dicts of what this function takes; its `dtype` is for all of them.

    Returns:
      the Linen module, without parameters.

    Raises:
      ValueError: when the name, the number of classes or a field is unknown or impossible.
      TypeError: when the import path names something that is not a Linen module class.

    Example:
      >>> create("resnet8_small", num_classes=10, width=8).width
      8
    """
    for field, value in {"num_classes": num_classes, **fields}.items():
        if field in _COUNTS and value is not None:
            check_count(field, value)
    layers.check_normalization(fields.get("mean"), fields.get("std"))
    if name == "late_fusion":
        fields["backbones"] = _create_backbones(fields.get("backbones"), fields.pop("dtype", None))
    fields = {key: _hashable(value) for key, value in fields.items()}
    if "dtype" in fields:
        fields["dtype"] = _compute_dtype(fields["dtype"])
    if ":" in name:
        module: Callable[..., nn.Module] = _import_module_class(name)
        allowed = _fields(module)
        rule = "declare the field num_classes"
        check_that("num_classes" in allowed, f"Model {name!r}", rule, ", ".join(allowed) or "none")
        fields = {key: fields[key] for key in fields if key in allowed or key not in _OPTIONAL}
    elif name in _REGISTRY:
        module = _REGISTRY[name]
        allowed = _fields(module)
    else:
        hint = did_you_mean(name, names()) or f", known are {', '.join(names())}"
        raise ValueError(
            f'Unknown model {name!r}{hint} (your own is named "package.module:Class").'
        )
    unknown = sorted(set(fields) - set(allowed))
    if unknown:
        raise ValueError(
            f"Model {name!r} has no field {', '.join(unknown)}; its fields are "
            f"{', '.join(allowed)}."
        )
    return module(num_classes=num_classes, **fields)


def pretrained(name: str) -> Classifier:
    """A trained classifier that comes with the package: no training, no download.

    "quickstart_std" and "quickstart_adv" are the two trainings of `configs/quickstart.py`, the
    standard and the adversarial one, on `textured_shapes`: images (32, 32, 3), ten silhouettes.
    `jaxrobust.data.textured_shapes.draw_batch` draws pictures for them.

    Args:
      name: one of `pretrained_names()`.

    Returns:
      a classifier of images in [0, 1], whose arrays follow the images' devices.

    Raises:
      ValueError: for another name, or when the file of weights is damaged.
      OSError: when the file is missing.

    Example:
      >>> from jaxrobust import models
      >>> from jaxrobust.data import textured_shapes
      >>> pictures = textured_shapes.draw_batch("test", range(5))
      >>> models.pretrained("quickstart_adv")(pictures.images).shape
      (5, 10)
      >>> models.pretrained("resnet50")
      Traceback (most recent call last):
      ValueError: pretrained network must be one of quickstart_adv, quickstart_std, got 'resnet50'.
    """
    description, variables = weight_files.read(name)
    return Classifier(create(**description["model"]), variables)


def pretrained_names() -> tuple[str, ...]:
    """The names that `pretrained` knows, in alphabetical order.

    Example:
      >>> from jaxrobust import models
      >>> models.pretrained_names()
      ('quickstart_adv', 'quickstart_std')
    """
    return weight_files.names()


def pretrained_description(name: str) -> dict[str, Any]:
    """What a trained classifier is, how it was trained, and how good it was found to be.

    Args:
      name: one of `pretrained_names()`.

    Returns:
      `model`, as `create` takes it, with mean and std; `image_shape`; `classes`, their names in the
      order of the logits; `run`, `seed`, `steps` and `training`, the settings of the training;
      `jaxrobust`, the version that trained it; `results`, its entry in results.json, in per cent.

    Raises:
      ValueError, OSError: as `pretrained`.

    Example:
      >>> from jaxrobust import models
      >>> description = models.pretrained_description("quickstart_adv")
      >>> description["training"]["dataset"]["name"], description["image_shape"]
      ('textured_shapes', [32, 32, 3])
      >>> description["classes"][:4], sorted(description["results"])
      (['disc', 'square', 'triangle', 'star'], ['attacks', 'clean', 'cue_conflict'])
    """
    return weight_files.read(name)[0]


def _create_backbones(chosen: Any, dtype: Any) -> tuple[nn.Module, ...]:
    described = [isinstance(fields, Mapping) and "name" in fields for fields in chosen or ()]
    rule = "hold the name and fields of at least one network"
    check_that(described and all(described), "backbones", rule, repr(chosen))
    common = {"num_classes": None} | ({} if dtype is None else {"dtype": dtype})
    return tuple(create(**{**fields, **common}) for fields in chosen)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _compute_dtype(dtype: Any) -> Any:
    if dtype == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    if not isinstance(dtype, str):
        return dtype
    check_choice("dtype", dtype, ("auto", *_DTYPES))
    return _DTYPES[dtype]


def _fields(module: Callable[..., nn.Module]) -> tuple[str, ...]:
    fixed = module.args if isinstance(module, partial) else ()
    module_class: Any = module.func if isinstance(module, partial) else module
    declared = [field.name for field in dataclasses.fields(module_class) if field.init]
    return tuple(name for name in declared[len(fixed) :] if name not in ("parent", "name"))


def _import_module_class(path: str) -> type[nn.Module]:
    package, _, attribute = path.partition(":")
    try:
        named = getattr(importlib.import_module(package), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"Cannot import the model {path!r}: {error}.") from error
    is_module = isinstance(named, type) and issubclass(named, nn.Module)
    check_that(is_module, repr(path), "name a flax.linen.Module class", repr(named), TypeError)
    return named
