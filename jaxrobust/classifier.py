"""A classifier is a function: one image in [0, 1] in, logits out, weights along as an argument."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrobust.core import folding
from jaxrobust.core.named import did_you_mean
from jaxrobust.core.pytrees import (
    ArrayPytree,
    Callee,
    Parts,
    is_array,
    join_arrays,
    split_arrays,
)
from jaxrobust.core.types import Images

# Convolutions of projection shortcuts stand under a module of this name; the paper's numbering
# ("conv 9", "conv 49") does not count them.
SHORTCUT = "downsample"

_SHORT = 40  # characters of a field that `repr` shows


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _apply(model, variables, images):
    with folding.folded_batch_norm():
        return model.apply(variables, images, train=False)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _init(model, key, image_shape):
    return model.init(key, jnp.zeros((1, *image_shape)), train=False)


@flax.struct.dataclass(eq=False)
class Classifier(ArrayPytree):
    """A Linen model and its variables as a callable pytree.

    The model is static, the variables are leaves: the classifier goes through `jit`, `vmap` and
    `grad` as an ordinary argument, and no weight becomes a constant of a compiled program.
    Calling it evaluates the model in inference mode (`train=False`).

    Attributes:
      model: a Linen module with `__call__(images, *, train)` on (n, h, w, c) images in [0, 1],
        which normalises them itself.
      variables: its collections, `{"params": …, "batch_stats": …}`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import Classifier, models
      >>> model = models.create("resnet8_small", num_classes=10)
      >>> classifier = Classifier.init(jax.random.key(0), model, image_shape=(32, 32, 3))
      >>> classifier(jnp.zeros((32, 32, 3))).shape, classifier(jnp.zeros((4, 32, 32, 3))).shape
      ((10,), (4, 10))
      >>> classifier.conv_layers((32, 32, 3))[:3]
      ['conv1', 'layer1_0/conv1', 'layer1_0/conv2']
    """

    model: nn.Module = flax.struct.field(pytree_node=False)
    variables: Any

    @classmethod
    def init(cls, key: jax.Array, model: nn.Module, image_shape: Sequence[int]) -> "Classifier":
        """The model with freshly drawn weights, for images of shape (h, w, c)."""
        if len(image_shape) != 3:
            raise ValueError(
                f"image_shape must be (height, width, channels), got {tuple(image_shape)}."
            )
        return cls(model, _init(model, key, tuple(image_shape)))

    def __call__(self, images: Images) -> jax.Array:
        """Logits (k,) of one image (h, w, c), or (n, k) of a batch (n, h, w, c), in [0, 1]."""
        images, single = _as_batch(images)
        logits = _apply(self.model, self.variables, images)
        return logits[0] if single else logits

    def __repr__(self) -> str:
        classes = getattr(self.model, "num_classes", None)
        number = _parameters(self.variables)
        known = f", {classes} classes" if isinstance(classes, int) else ""
        return f"Classifier({_architecture(self.model)}, {number}{known})"

    @property
    def mean(self) -> tuple[float, ...]:
        """The pixel value per channel that the model's normalisation maps to zero.

        One value, 0, for a model without a field `mean`: it works on pixels, which is said once.
        """
        return _field(self.model, "mean", 0.0)

    @property
    def std(self) -> tuple[float, ...]:
        """The pixel value per channel that the model's normalisation divides by.

        One value, 1, for a model without a field `std`.
        """
        return _field(self.model, "std", 1.0)

    def conv_layers(self, image_shape: Sequence[int]) -> list[str]:
        """Names of the convolutions of the main path, in depth order.

        Projection shortcuts (any convolution below a module named "downsample") are not counted:
        the paper's "conv 9" is `conv_layers(image_shape)[8]`. A convolution that is called again
        is named "name#2", "name#3", …

        Args:
          image_shape: (h, w, c) of the images.
        """
        names: list[str] = []

        def record(call, args, kwargs, context):
            output = call(*args, **kwargs)
            if context.method_name == "__call__" and _is_convolution(context.module):
                name = "/".join(context.module.path)
                repeats = sum(seen.split("#")[0] == name for seen in names)
                names.append(f"{name}#{repeats + 1}" if repeats else name)
            return output

        # Not through `_apply`: a cached trace would not call the layers again.
        with nn.intercept_methods(record):
            jax.eval_shape(
                lambda variables, images: self.model.apply(variables, images, train=False),
                self.variables,
                jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
            )
        return [name for name in names if SHORTCUT not in name.split("#")[0].split("/")]

    def activations(self, images: Images, layers: Sequence[str]) -> dict[str, jax.Array]:
        """The outputs of the named convolutions, before normalisation and ReLU.

        Args:
          images: (h, w, c) or (n, h, w, c) in [0, 1].
          layers: names as `conv_layers` gives them (shortcuts can be asked for as well).

        Returns:
          {name: (height, width, channels)}, with a leading n for a batch.

        Raises:
          ValueError: for a name that is no convolution of the model.
        """
        images, single = _as_batch(images)
        if isinstance(layers, str):
            raise TypeError(f"layers must be a list of names, got the string {layers!r}.")
        found = _activations(self.model, self.variables, images, tuple(layers))
        return {name: output[0] if single else output for name, output in found.items()}


@functools.partial(jax.jit, static_argnums=(0, 3), inline=True)
def _activations(model, variables, images, layers):
    _, state = model.apply(
        variables,
        images,
        train=False,
        capture_intermediates=lambda module, method: (
            method == "__call__" and _is_convolution(module)
        ),
        mutable=["intermediates"],
    )
    found = {}
    for path, outputs in jax.tree_util.tree_flatten_with_path(
        state["intermediates"], is_leaf=lambda node: isinstance(node, tuple)
    )[0]:
        name = "/".join(entry.key for entry in path[:-1])
        for repeat, output in enumerate(outputs):
            found[f"{name}#{repeat + 1}" if repeat else name] = output
    for name in layers:
        if name not in found:
            hint = did_you_mean(name, found, cutoff=0.3) or f": {', '.join(found)}"
            raise ValueError(
                f"layer {name!r} is none of the model's {len(found)} convolutions{hint}."
            )
    return {name: found[name] for name in layers}


def _is_convolution(module: nn.Module) -> bool:
    """Whatever class it is of: a kernel (height, width, in, out) makes a convolution of images."""
    return jnp.ndim(module.variables.get("params", {}).get("kernel", 0)) == 4


def _field(model: nn.Module, name: str, pixels: float) -> tuple[float, ...]:
    value = getattr(model, name, None)
    if value is None:
        _say_pixels(type(model).__name__)
        return (pixels,)
    return value


@functools.cache
def _say_pixels(kind: str) -> None:
    logging.getLogger("jaxrobust").warning(
        "%s does not have both fields `mean` and `std`: what it lacks is taken to be 0 and 1, "
        "those of pixels as they are.",
        kind,
    )


def _architecture(model: nn.Module) -> str:
    """The class of a module, with the plain fields that are not at their defaults."""
    chosen = [
        f"{field.name}={getattr(model, field.name)!r}"
        for field in dataclasses.fields(model)
        if field.name not in ("num_classes", "mean", "std", "dtype", "name", "parent")
        and getattr(model, field.name) != field.default
        and len(repr(getattr(model, field.name))) <= _SHORT
    ]
    return type(model).__name__ + (f"({', '.join(chosen)})" if chosen else "")


def _parameters(tree: Any) -> str:
    if isinstance(tree, Mapping):  # Linen's collections: running statistics are no parameters
        tree = tree.get("params", tree)
    return f"{sum(np.size(leaf) for leaf in jax.tree.leaves(tree) if is_array(leaf)):,} parameters"


def _as_batch(images: Images) -> tuple[jax.Array, bool]:
    shape = np.shape(images)
    if len(shape) not in (3, 4):
        raise ValueError(
            "images must have shape (height, width, channels) or (n, height, width, channels), "
            f"got {shape}."
        )
    single = len(shape) == 3
    return (jnp.asarray(images)[None] if single else jnp.asarray(images)), single


def mean_pixel(classifier: Any) -> tuple[float, ...]:
    """The pixel value per channel that a classifier's normalisation maps to zero.

    Raises:
      ValueError: when the classifier does not say.
    """
    mean = getattr(classifier, "mean", None)
    if isinstance(mean, tuple | list) and all(isinstance(value, int | float) for value in mean):
        return tuple(mean)
    kind = classifier.kind if isinstance(classifier, Callee) else type(classifier).__name__
    raise ValueError(
        f"baseline must be given: the mean image of a {kind} is known only if "
        "it is a Classifier or from as_classifier(…, mean=…, std=…)."
    )


@flax.struct.dataclass(eq=False)
class FunctionClassifier(ArrayPytree):
    """What `as_classifier` returns: a function and its variables as a callable pytree.

    Attributes:
      apply: the function of the variables and images.
      held: its variables; as `Parts` where some leaves are no arrays, and so part of the program.
      batched: whether it takes (n, h, w, c).
      normalization: mean and std, or None.
    """

    apply: Callable[[Any, jax.Array], jax.Array] = flax.struct.field(pytree_node=False)
    held: Any
    batched: bool = flax.struct.field(pytree_node=False)
    normalization: tuple | None = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return f"FunctionClassifier({self._name()}, {_parameters(self.held)})"

    def _name(self) -> str:
        function = self.variables if self.apply is _call else self.apply
        while isinstance(function, functools.partial):
            function = function.func
        module = getattr(function, "__self__", None)
        if isinstance(module, nn.Module):
            return _architecture(module)
        return getattr(function, "__qualname__", type(function).__name__)

    @property
    def variables(self) -> Any:
        """The variables as they were given."""
        held = self.held
        return join_arrays(held.arrays, held.rest) if isinstance(held, Parts) else held

    @property
    def mean(self) -> tuple[float, ...]:
        """The pixel value per channel that the normalisation maps to zero."""
        return self._normalization()[0]

    @property
    def std(self) -> tuple[float, ...]:
        """The pixel value per channel that the normalisation divides by."""
        return self._normalization()[1]

    def _normalization(self) -> tuple:
        if self.normalization is None:
            raise AttributeError("as_classifier was given no mean and std, so they are not known.")
        return self.normalization

    def __call__(self, images: Images) -> jax.Array:
        """Logits (k,) of one image (h, w, c), or (n, k) of a batch (n, h, w, c), in [0, 1]."""
        images, single = _as_batch(images)
        if self.normalization is not None:
            mean, std = (jnp.asarray(values, images.dtype) for values in self.normalization)
            images = (images - mean) / std
        # Looked at anew in each call: an NNX module may have been trained since.
        held = self.held if isinstance(self.held, Parts) else Parts(*split_arrays(self.held))
        applied = functools.partial(held.use, self.apply)
        logits = applied(images) if self.batched else jax.vmap(applied)(images)
        return logits[0] if single else logits


def _call(function: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    return function(images)


def as_classifier(
    apply: Callable[..., jax.Array],
    variables: Any = None,
    *,
    batched: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> FunctionClassifier:
    """Any `apply(variables, images) -> logits` as a classifier of images in [0, 1].

    Args:
      apply: a function of the weights and one image (h, w, c) or, with `batched`, a batch.
      variables: its weights, a pytree; leaves that are no arrays, as Equinox modules have them, are
        part of the program. None: `apply` is a function of the images alone, which may be a
        pytree itself, as NNX's and Equinox's modules are.
      batched: whether `apply` expects (n, h, w, c) and returns (n, k).
      mean: per channel in [0, 1]; given when `apply` expects normalised input.
      std: per channel in [0, 1]; given together with `mean`.

    Raises:
      TypeError: when `apply` is not callable, or a leaf is neither an array nor hashable.
      ValueError: when only one of `mean` and `std` is given, or a std is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import as_classifier
      >>> classifier = as_classifier(lambda w, image: image.reshape(-1) @ w, jnp.ones((12, 2)))
      >>> classifier(jnp.ones((2, 2, 3))).tolist()
      [12.0, 12.0]
    """
    if not callable(apply):
        raise TypeError(f"apply must be a function, got a {type(apply).__name__}.")
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std go together, got mean={mean} and std={std}.")
    normalization = None
    if mean is not None and std is not None:
        normalization = (tuple(map(float, mean)), tuple(map(float, std)))
        if not all(value > 0 for value in normalization[1]):
            raise ValueError(f"std must be positive, got {std}.")
    if variables is None:
        apply, variables = _call, apply
    traceable = all(is_array(leaf) or _is_number(leaf) for leaf in jax.tree.leaves(variables))
    held = variables if traceable else Parts(*split_arrays(variables))
    return FunctionClassifier(apply, held, batched, normalization)


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, int | float | complex)
