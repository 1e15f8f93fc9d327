"""Class activation maps: where in a late layer the evidence for a class lies."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.extend.core as jex
import jax.numpy as jnp

from jaxrobust.classifier import Classifier
from jaxrobust.core import named
from jaxrobust.core.batching import per_image
from jaxrobust.core.types import AnyClassifier, Images, Labels
from jaxrobust.guided import guided, guided_relu
from jaxrobust.guided.relus import Exchange, is_relu
from jaxrobust.saliency.gradients import logit_gradient

# A function of (image, change) that returns the logits of the network whose feature maps went
# through `change`, and the feature maps (before it).
_Tapped = Callable[[jax.Array, Callable], tuple[jax.Array, jax.Array]]


def _check_layer(*, layer, **_):
    if isinstance(layer, bool) or not isinstance(layer, int | str):
        raise TypeError(
            "layer must be the name of a module or the position of a ReLU (-1: the last), "
            f"got {layer!r}."
        )


@per_image(static=("layer",), check=_check_layer)
def grad_cam(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    layer: int | str = -1,
    batch_size: int | None = None,
) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017): the feature maps that speak for a class, enlarged.

    Each feature map counts by the mean over space of the gradient of the class's logit; of the sum
    the positive part is kept (their eq. 1-2) and enlarged bilinearly to the size of the image.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the classes whose evidence is asked for.
      layer: which feature maps. A whole number counts those ReLUs of the network, in order of
        evaluation, that give (height, width, features); the last one, -1, is the usual choice and
        works for any JAX function. A string names a Linen module of a `Classifier` by its path, for
        instance "layer3_5" or "layer4_0/conv2".
      batch_size: images at once on each device; None: all.

    Returns:
      Maps of the images' shape, at least 0, equal in all channels, in no fixed unit (they are not
      scaled to 1).

    Raises:
      TypeError, ValueError: for images, labels or a classifier that are not what is said above; for
        a layer that is not there.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jax.nn.relu(image).mean((0, 1))
      >>> image = jnp.zeros((4, 4, 2)).at[0, :, 1].set(1.0)
      >>> grad_cam(classifier, image, 1)[..., 0].sum(1).tolist()
      [0.25, 0.0, 0.0, 0.0]
    """
    return _grad_cam(classifier, images, labels, layer)


@per_image(static=("layer", "maximum_as_relu"), check=_check_layer)
def guided_grad_cam(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    layer: int | str = -1,
    maximum_as_relu: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Guided Grad-CAM (Selvaraju et al. 2017): guided backpropagation times Grad-CAM.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the classes whose evidence is asked for.
      layer: as for `grad_cam`.
      maximum_as_relu: as for `guided_backprop`.
      batch_size: images at once on each device; None: all.

    Returns:
      Maps of the images' shape.

    Raises:
      TypeError, ValueError: as `grad_cam` and `guided_backprop`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jax.nn.relu(image).mean((0, 1))
      >>> image = jnp.zeros((4, 4, 2)).at[0, :, 1].set(1.0)
      >>> guided_grad_cam(classifier, image, 1).sum((0, 1)).tolist()
      [0.0, 0.015625]
    """
    transformed = guided(classifier, maximum_as_relu=maximum_as_relu)
    maps = logit_gradient(transformed, images, labels)
    return maps * _grad_cam(classifier, images, labels, layer)


def _grad_cam(classifier, image, label, layer):
    if isinstance(layer, str):
        tapped = _at_module(classifier, layer, image)
    else:
        tapped = _at_relu(classifier, layer, image)
    features = jax.eval_shape(lambda image: tapped(image, lambda value: value)[1], image)

    def logit(change):
        logits, features = tapped(image, lambda value: value + change)
        return logits[label], features

    gradient, features = jax.grad(logit, has_aux=True)(jnp.zeros(features.shape, features.dtype))
    height, width, channels = features.shape[-3:]
    features, gradient = (
        part.reshape(height, width, channels).astype(jnp.float32) for part in (features, gradient)
    )
    # As a product and a sum: a matrix product would be rounded to bfloat16 on a TPU.
    positive = jax.nn.relu(jnp.sum(features * gradient.mean((0, 1)), axis=-1, keepdims=True))
    enlarged = jax.image.resize(positive, (*image.shape[:2], 1), "bilinear")
    return jnp.broadcast_to(enlarged, image.shape).astype(image.dtype)


def _is_feature_maps(shape: tuple[int, ...]) -> bool:
    """Whether a value holds the feature maps of one image: (height, width, features)."""
    return len(shape) >= 3 and all(n == 1 for n in shape[:-3]) and min(shape[-3:-1]) > 1


def _at_module(classifier: Any, layer: str, image: jax.Array) -> _Tapped:
    """The network around the output of the Linen module of that path."""
    if not isinstance(classifier, Classifier):
        raise ValueError(
            f"layer {layer!r} can be named only in a Classifier, got a "
            f"{type(classifier).__name__}; give the position of a ReLU instead (-1: the last)."
        )
    seen: dict[str, tuple[int, ...]] = {}

    def tapped(image, change):
        found = []
        outside = jex.get_opaque_trace_state(convention="flax")

        def tap(call, args, kwargs, context):
            output = call(*args, **kwargs)
            path = "/".join(context.module.path)
            if context.method_name == "__call__" and hasattr(output, "shape"):
                seen.setdefault(path, output.shape)
                if path == layer and _is_feature_maps(output.shape):
                    if jex.get_opaque_trace_state(convention="flax") != outside:
                        raise ValueError(
                            f"layer {layer!r} lies inside a lifted module (nn.remat, nn.scan, "
                            "nn.jit, …), out of which its feature maps cannot be taken; name the "
                            "lifted module, or give the position of a ReLU."
                        )
                    found.append(output)
                    return change(output) if len(found) == 1 else output
            return output

        # Not through the classifier's own compiled call: a cached trace would not call the layers.
        with nn.intercept_methods(tap):
            logits = classifier.model.apply(classifier.variables, image[None], train=False)[0]
        return logits, found[0] if found else jnp.zeros(())

    jax.eval_shape(lambda image: tapped(image, lambda value: value)[0], image)
    names = [name for name, shape in seen.items() if _is_feature_maps(shape)]
    if layer not in names:
        hint = named.did_you_mean(layer, names, cutoff=0.3) or f"; the last are {names[-4:]}"
        raise ValueError(f"layer {layer!r} is no module that gives feature maps{hint}.")
    return tapped


def _at_relu(classifier: Callable, position: int, image: jax.Array) -> _Tapped:
    """The network around one of its ReLUs, counted over those that give feature maps."""

    # Those in scan, cond and the like cannot be told apart from outside.
    hidden = Exchange(guided_relu)

    def run(image, visit):
        program = jax.make_jaxpr(lambda image: classifier(image))(image)
        return _evaluate(program.jaxpr, program.consts, [image], visit, hidden)[0]

    found = []

    def note(value):
        if _is_feature_maps(value.shape):
            found.append(value.shape)
        return value

    jax.eval_shape(lambda image: run(image, note), image)
    if hidden.count and position < 0:
        raise ValueError(
            f"layer {position} cannot be counted from the end: {hidden.count} ReLUs lie inside "
            f"scan, cond or the like, {len(found)} outside; give a position from 0, or name a "
            "module of a Linen Classifier."
        )
    if not -len(found) <= position < len(found):
        raise ValueError(
            f"layer {position} is out of range: the classifier has {len(found)} ReLUs that give "
            "feature maps (height, width, features)"
            + ("." if found else "; name a module of a Linen Classifier instead.")
        )
    target = position % len(found)

    def tapped(image, change):
        features = []

        def visit(value):
            if not _is_feature_maps(value.shape):
                return value
            features.append(value)
            return change(value) if len(features) == target + 1 else value

        logits = run(image, visit)
        return logits, features[target]

    return tapped


def _evaluate(jaxpr: jex.Jaxpr, consts: Any, args: list, visit: Callable, hidden: Exchange) -> list:
    """The values of a program whose ReLUs' results go through `visit`; called functions inlined.

    `hidden` counts the ReLUs in equations that are not entered.
    """
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom):
        return atom.val if isinstance(atom, jex.Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        if is_relu(equation):
            results = [visit(jax.nn.relu(*operands))]
        elif equation.primitive.name in ("jit", "pjit", "closed_call"):
            inner = equation.params["call_jaxpr" if "call_jaxpr" in equation.params else "jaxpr"]
            results = _evaluate(inner.jaxpr, inner.consts, operands, visit, hidden)
        elif equation.primitive.name in ("remat2", "checkpoint"):
            results = _evaluate(equation.params["jaxpr"], [], operands, visit, hidden)
        else:
            hidden.equation(equation)
            results = _bind(equation, operands)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _bind(equation: jex.JaxprEqn, operands: list) -> list:
    """The results of one equation: a program of its own, which JAX itself knows how to evaluate."""
    inputs: dict[Any, Any] = {
        atom: value
        for atom, value in zip(equation.invars, operands, strict=True)
        if not isinstance(atom, jex.Literal)
    }
    names = ("",) * len(inputs), ("",) * len(equation.outvars)
    origin = jex.DebugInfo("grad_cam", equation.primitive.name, *names)
    program = jex.Jaxpr(
        [], list(inputs), equation.outvars, [equation], equation.effects, debug_info=origin
    )
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(program, []))(*inputs.values())
