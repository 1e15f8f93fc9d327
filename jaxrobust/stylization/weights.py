"""AdaIN's networks from files and classifiers, and decoders to files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from jaxrobust.classifier import Classifier
from jaxrobust.core import files
from jaxrobust.core.checks import check_that
from jaxrobust.core.digests import digest
from jaxrobust.models import layers, vgg
from jaxrobust.stylization.networks import Decoder, Encoder, cut
from jaxrobust.torch_weights import files as torch_files

Array = jax.Array

DECODER_FILE = "decoder.safetensors"
"""What a complete training of a decoder writes into its workdir."""

DESCRIPTION_FILE = "decoder.json"
"""What a training of a decoder was begun with; beside it."""

_TENSOR_NAME = re.compile(r"(0|[1-9][0-9]*)\.(weight|bias)", re.ASCII)
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def load_encoder(path: str | os.PathLike[str], *, layer: str = "relu4_1") -> Encoder:
    """Open a VGG encoder as the public PyTorch implementations of AdaIN keep it.

    Args:
      path: of `vgg_normalised.pth`, or of any file with one tensor "i.weight" and "i.bias" for each
        convolution of such an `nn.Sequential`; `.safetensors` as well. The normalisation is the 1x1
        convolution that comes first.
      layer: where the encoder ends.

    Returns:
      the encoder; its feature maps are relu1_1, relu2_1, … and `layer`.

    Raises:
      OSError: when the file cannot be read.
      ValueError: when it holds something else, or has no such layer.
    """
    parameters, operations = _read(path, "pool")
    return cut(parameters, (*operations, "relu"), layer)


def load_decoder(path: str | os.PathLike[str]) -> Decoder:
    """Open a decoder: a public PyTorch file, or what `train_decoder` wrote.

    Args:
      path: of `decoder.pth` (or a `.safetensors` file of that form), or the workdir of a
        `train_decoder` that is complete.

    Raises:
      OSError: when the file cannot be read, or the training is not complete.
      ValueError: when it holds something else.
    """
    path = Path(path)
    if path.is_dir():
        folder, path = path, path / DECODER_FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{folder} holds no {DECODER_FILE}, which a complete training of a decoder writes."
            )
    return Decoder(*_read(path, "upsample"))


def save_decoder(path: str | os.PathLike[str], decoder: Decoder) -> None:
    """Write a decoder, whole or not at all, under the names and shapes of the PyTorch files.

    Args:
      path: of a `.safetensors` file.
      decoder: what to write.
    """
    tensors = {}
    for name, value in decoder.parameters.items():
        kernel = np.asarray(value["kernel"], np.float32).transpose(3, 2, 0, 1)
        tensors[f"{name}.weight"] = np.ascontiguousarray(kernel)
        tensors[f"{name}.bias"] = np.asarray(value["bias"], np.float32)
    with files.written_whole(path) as temporary:
        safetensors.numpy.save_file(tensors, temporary)


def _read(
    path: str | os.PathLike[str], resampling: str
) -> tuple[dict[str, dict[str, Array]], tuple[str, ...]]:
    """The parameters of a file, and the operations that the positions of its tensors imply."""
    path = Path(path)
    tensors = torch_files.read(path)
    rule = 'hold "i.weight" and "i.bias" for each convolution of a Sequential'
    check_that(isinstance(tensors, dict), str(path), rule, f"a {type(tensors).__name__}")
    kernels: dict[int, np.ndarray] = {}
    for name, value in tensors.items():
        named = isinstance(name, str) and _TENSOR_NAME.fullmatch(name)
        check_that(named, str(path), rule, repr(name))
        floating = isinstance(value, np.ndarray) and jnp.issubdtype(value.dtype, np.floating)
        got = f"a {getattr(value, 'dtype', type(value).__name__)} as {name!r}"
        check_that(floating, str(path), f"{rule}, each a floating point array", got)
        position = name.partition(".")[0]
        both = {f"{position}.weight", f"{position}.bias"} <= tensors.keys()
        check_that(both, str(path), rule, f"only one of them for {position}")
        kernels[int(position)] = np.asarray(tensors[f"{position}.weight"], np.float32)
    check_that(kernels, str(path), rule, "no tensors")
    operations: list[str] = []
    channels = None
    parameters: dict[str, dict[str, Array]] = {}
    for position, kernel in sorted(kernels.items()):
        bias = np.asarray(tensors[f"{position}.bias"], np.float32)
        pointwise = kernel.ndim == 4 and kernel.shape[2:] == (1, 1) and not operations
        fits = kernel.ndim == 4 and (pointwise or kernel.shape[2:] == (3, 3))
        if not fits or channels not in (None, kernel.shape[1]) or bias.shape != kernel.shape[:1]:
            raise ValueError(
                f"{path} must hold a chain of 3x3 convolutions, got {position}.weight of shape "
                f"{kernel.shape} and {position}.bias of shape {bias.shape} after "
                f"{channels or 'no'} channels."
            )
        channels = kernel.shape[0]
        first = not operations or operations == ["convolution"]
        room = position - len(operations) - (0 if pointwise else 1)
        if not 0 <= room <= 2 or (room > 0) == first:
            raise ValueError(
                f"{path} must hold a Sequential of reflection paddings, 3x3 convolutions, ReLUs "
                f"and layers that {resampling}, which puts no convolution at {position}."
            )
        operations += [*["relu", resampling][:room], *([] if pointwise else ["pad"]), "convolution"]
        parameters[str(position)] = {
            "kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(bias),
        }
    image_channels = kernels[min(kernels)].shape[1] if resampling == "pool" else channels
    network = "an encoder" if resampling == "pool" else "a decoder"
    rule = f"hold {network} of images of 3 channels"
    check_that(image_channels == 3, str(path), rule, image_channels)
    return parameters, tuple(operations)


def vgg_encoder(classifier: Classifier, *, layer: str = "relu4_1") -> Encoder:
    """The convolutions of a VGG classifier as an encoder.

    Its normalisation becomes the 1x1 convolution in front, batch normalisation goes into the
    convolutions, and the zero padding that it was trained with becomes reflection padding, as in
    AdaIN.

    Args:
      classifier: a `Classifier` of one of the models vgg11, …, vgg19.
      layer: where the encoder ends, as in `load_encoder`.

    Raises:
      TypeError: when it is another model.
      ValueError: when it has no such layer.
    """
    model = getattr(classifier, "model", None)
    if not isinstance(model, vgg.VGG):
        raise TypeError(
            f"classifier must be a Classifier of a VGG model, got {type(model or classifier)}: any "
            "callable pytree image -> list of feature maps is an encoder as well."
        )
    # NumPy's arithmetic is the same on every machine, and so is the fingerprint.
    variables = jax.device_get(classifier.variables)
    params, statistics = variables["params"], variables.get("batch_stats", {})
    mean, std = (np.asarray(value, np.float32) for value in (model.mean, model.std))
    parameters = {"0": {"kernel": np.diag(1 / std)[None, None], "bias": -mean / std}}
    operations = ["convolution"]
    for stage, count in enumerate(model.convolutions, start=1):
        for place in range(1, count + 1):
            weights = dict(params[f"conv{stage}_{place}"])
            if model.batch_norm:
                name = f"bn{stage}_{place}"
                running = statistics[name]
                epsilon = np.float32(layers.BatchNorm.epsilon)
                factor = params[name]["scale"] / np.sqrt(running["var"] + epsilon)
                weights["kernel"] = weights["kernel"] * factor
                shifted = (weights["bias"] - running["mean"]) * factor
                weights["bias"] = shifted + params[name]["bias"]
            operations += ["pad", "convolution", "relu"]
            parameters[str(len(operations) - 2)] = weights
        operations.append("pool")
    return cut(jax.tree.map(jnp.asarray, parameters), operations, layer)


def check_decoder(path: str | os.PathLike[str], encoder: Any) -> None:
    """Raise when a decoder was trained for another encoder; only `train_decoder` says for which.

    Args:
      path: as of `load_decoder`.
      encoder: what it is to decode.

    Raises:
      ValueError: when it was; with both fingerprints.
    """
    path = Path(path)
    description = (path if path.is_dir() else path.parent) / DESCRIPTION_FILE
    if not description.exists() or (path.is_file() and path.name != DECODER_FILE):
        return
    trained, given = files.read_json(description).get("encoder"), fingerprint(encoder)
    if trained != given:
        raise ValueError(
            f"decoder must be one of this encoder, but {description} names another (fingerprint "
            f"{str(trained)[:12]}, the encoder's is {given[:12]})."
        )


def fingerprint(network: Any) -> str:
    """The sha256 of a network's weights and structure, whatever file they came from.

    Args:
      network: a callable pytree.

    Raises:
      TypeError: when it is a plain function, whose weights nobody can see.
    """
    structure = jax.tree.structure(network)
    if jax.tree_util.treedef_is_leaf(structure):
        raise TypeError(
            "encoder and decoder must be pytrees with their weights as leaves, for example "
            f"jax.tree_util.Partial(apply, weights), got a {type(network).__name__}."
        )
    # Functions are named by their address, which every run changes.
    parts: list[Any] = [_ADDRESS.sub("", str(structure))]
    for path, leaf in jax.tree.leaves_with_path(network):
        value = _ADDRESS.sub("", repr(leaf)) if callable(leaf) else np.asarray(leaf)
        parts += [f"{jax.tree_util.keystr(path)} ", value]
    return digest(*parts)
