"""PyTorch's checkpoints as classifiers, and back; PyTorch is not needed.

    classifier = torch_weights.load("imagenet_linf_4.pt", "resnet50")

Files are told apart by their content: torchvision's state dicts, checkpoints of the robustness
library and of others that wrap one, safetensors (`torch_weights.files` says how they are read, and
why nothing in them is executed). `python -m jaxrobust.torch_weights` writes a workdir for the
experiments.
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from jaxrobust import models
from jaxrobust.classifier import Classifier
from jaxrobust.core.checks import check_that, check_type
from jaxrobust.core.files import written_whole
from jaxrobust.torch_weights import layouts, state_dicts

__all__ = ["Opened", "load", "open_file", "save"]


@dataclass(frozen=True)
class Opened:
    """A file of weights, opened for a network.

    Attributes:
      fields: of the network, as `models.create` takes them, its name included.
      variables: its parameters and running statistics.
      found: what the file turned out to be: layout, prefix, where mean and std come from.
    """

    fields: dict[str, Any]
    variables: dict[str, Any]
    found: dict[str, str]

    def classifier(self) -> Classifier:
        """The network with these weights."""
        return Classifier(models.create(**self.fields), self.variables)


def load(
    path: str | Path,
    model_name: str,
    *,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **fields: Any,
) -> Classifier:
    """The classifier in a file of PyTorch or safetensors.

    Args:
      path: of a state dict with torchvision's names, alone or in a checkpoint, under any prefix.
        A copy of the network under a second prefix must be equal; averaged copies, optimizers and
        the like are passed over.
      model_name: a name of `models.names()` that stands for an AlexNet, ResNet or VGG. "alexnet"
        has batch normalisation where the file has it. The `_small` ResNets are the robustness
        library's for CIFAR.
      num_classes: None: as many as the last layer in the file has outputs.
      mean, std: of each channel, on the scale [0, 1], for the normalisation inside the network.
        None: as buffers in the file say (`normalizer.new_mean`, `normalize.mean`, …) or `save`
        wrote them, otherwise ImageNet's, where the network takes three channels.
      **fields: further ones of the network, such as `dtype`.

    Returns:
      a classifier of images in [0, 1] whose arrays, all float32, follow the images' devices.

    Raises:
      FileNotFoundError: when there is no such file.
      ValueError: when it cannot be read, or does not hold exactly this network; the sentence names
        the first differences.
      TypeError: when the network is of another class.

    Example:
      >>> import tempfile, jax
      >>> model = models.create("resnet8_small", num_classes=10, mean=(0.5, 0.5, 0.5))
      >>> saved = Classifier.init(jax.random.key(0), model, (32, 32, 3))
      >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
      >>> save(saved, path)
      >>> loaded = load(path, "resnet8_small")
      >>> loaded.model.num_classes, loaded.mean
      (10, (0.5, 0.5, 0.5))
    """
    return open_file(
        path, model_name, num_classes=num_classes, mean=mean, std=std, **fields
    ).classifier()


def open_file(
    path: str | Path,
    model_name: str,
    *,
    num_classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **fields: Any,
) -> Opened:
    """As `load`, and what the network and the file are."""
    path = Path(path)
    given = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    model = models.create(model_name, num_classes=num_classes, **fields)
    first, last = layouts.ends(model)  # other networks are refused before a long read
    state, metadata = state_dicts.read(path)
    with_norm = any(name.endswith(".running_mean") for name in state)
    if model_name.startswith("alexnet") and not with_norm:
        fields.setdefault("batch_norm", False)
    for field in state_dicts.STRIDES:
        if field in metadata:
            stated = metadata.pop(field)
            got = fields.setdefault(field, stated)
            check_that(got == stated, field, f"be {stated}, as {path} says", got)
    channels, outputs = _channels(state, first), _outputs(state, last)
    fits = num_classes is None or outputs in (None, num_classes)
    check_that(fits, "num_classes", f"be {outputs}, as the last layer in {path} has", num_classes)
    fields = {"name": model_name, "num_classes": num_classes or outputs or 1000, **fields}
    # What they are is found below; how many, the shapes depend on.
    unknown: dict[str, Any] = {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    try:
        matched = state_dicts.match(state, layouts.of(models.create(**fields, **unknown)))
        in_file, used = state_dicts.normalizer(state, matched.rest, channels)
    except ValueError as error:
        raise ValueError(f"{path} holds {error}; expected one.") from error
    wrong = state_dicts.differences(state, matched, [n for n in matched.rest if n not in used])
    under = f" under {state_dicts.short(matched.prefix)!r}" if matched.prefix else ""
    rule = f"hold the tensors of {model_name} (layout: {matched.layout}){under} and no others"
    check_that(not wrong, str(path), rule, wrong)
    found = {"layout": matched.layout, "prefix": matched.prefix}
    for name in ("mean", "std"):
        sources: dict[str, Mapping[str, Any]]
        sources = {"given": given, "file": in_file, "metadata of the file": metadata}
        source = next((source for source, values in sources.items() if name in values), None)
        rule = f"be given for images (height, width, {channels}), as {path} holds none"
        check_that(source or channels == 3, name, rule, None)
        found[name] = source or "ImageNet's, assumed"
        value = sources[source][name] if source else getattr(model, name)
        where = name if source == "given" else f"{name} in {path}"
        _check_channels(name, where, value, channels)
        fields[name] = tuple(float(channel) for channel in value)
    state = {name: state[name] for name in matched.tensors}
    return Opened(fields, state_dicts.variables(state, matched), found)


def _check_channels(name: str, where: str, values: Any, channels: int) -> None:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):  # a file may say anything
        numbers = np.empty(0)
    above_least = numbers > 0 if name == "std" else numbers >= 0
    if numbers.shape != (channels,) or not (above_least & (numbers <= 1)).all():
        count = "1 number" if channels == 1 else f"{channels} numbers"
        least = "above 0" if name == "std" else "from 0"
        raise ValueError(
            f"{where} must be {count} {least} to 1, one for each channel on the scale [0, 1]; "
            f"divide by 255 what is for pixels up to 255, got {reprlib.repr(values)}."
        )


def _outputs(state: state_dicts.State, names: set[str]) -> int | None:
    """How many classes the last layer has; None when it is not there or there are several."""
    counts = {kernel.shape[0] for kernel in _kernels(state, names) if kernel.ndim == 2}
    return counts.pop() if len(counts) == 1 else None


def _channels(state: state_dicts.State, names: set[str]) -> int:
    """How many input channels the first layer has; 3 when it is not there or has none."""
    # Blocks have convolutions of its name, below longer prefixes.
    return next((kernel.shape[1] for kernel in _kernels(state, names) if kernel.ndim == 4), 0) or 3


def _kernels(state: state_dicts.State, names: set[str]) -> list[np.ndarray]:
    """Those of these names, below any prefix, the shortest first."""
    found = [name for name in state if any(f".{name}".endswith(f".{one}") for one in names)]
    return [state[name] for name in sorted(found, key=len)]


def save(classifier: Classifier, path: str | Path) -> None:
    """Write a classifier, whole or not at all, under torchvision's names.

    PyTorch loads the file with `load_state_dict(safetensors.torch.load_file(path))`; it has to
    normalise the images itself, by the mean and std that stand in the file's metadata, and
    torchvision itself has no networks like the `_small` ones.

    Args:
      classifier: of an AlexNet, ResNet or VGG.
      path: of the file, ending in ".safetensors".

    Raises:
      TypeError: when it is another network.
      ValueError: for another ending.

    Example:
      >>> import tempfile
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import Classifier, models, torch_weights
      >>> model = models.create("resnet8_small", num_classes=10)
      >>> classifier = Classifier.init(jax.random.key(0), model, image_shape=(32, 32, 3))
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     torch_weights.save(classifier, f"{folder}/network.safetensors")
      ...     opened = torch_weights.load(f"{folder}/network.safetensors", "resnet8_small")
      >>> image = jnp.full((32, 32, 3), 0.5)
      >>> bool((opened(image) == classifier(image)).all())
      True
    """
    path = Path(path)
    check_that(path.suffix == ".safetensors", "path", "end in .safetensors", path)
    check_type("classifier", classifier, Classifier, "be a Classifier")
    model: Any = classifier.model
    tensors = {}
    for tensor in next(iter(layouts.of(model).values())):
        array: Any = classifier.variables
        for part in tensor.path:
            array = array[part]
        tensors[tensor.name] = tensor.to_torch(np.asarray(array))
    metadata = {
        name: json.dumps(getattr(model, name))
        for name in state_dicts.METADATA
        if getattr(model, name, None) is not None
    }
    with written_whole(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt", **metadata})
