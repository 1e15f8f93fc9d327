"""Late fusion: the features of several backbones, joined before one linear classifier (§4.2).

    fused = late_fusion.fuse([std, adv], num_classes=10, key=key)

With a single backbone it is the plain start of a fine-tuning: the old classifier replaced by a new
one, for other classes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrobust.classifier import Classifier
from jaxrobust.core.checks import check_count, check_key, check_that, check_type, is_concrete
from jaxrobust.models import layers

Array = jax.Array


class LateFusion(nn.Module):
    """Several networks side by side under one linear classifier, on images in [0, 1].

    Attributes:
      backbones: networks that return features (n, features), made with `num_classes=None`. Their
        parameters stand under "backbones_0", "backbones_1", …, the classifier's under "fc".
      num_classes: number of logits; None returns the joined features instead.
      frozen: whether only the classifier is trained: the backbones stay in inference mode, so
        running statistics do not move either and nothing is dropped out.
    """

    backbones: tuple[nn.Module, ...]
    num_classes: int | None = 1000
    frozen: bool = False

    def __post_init__(self) -> None:
        # Linen would take one object in two places for one network, with one set of weights.
        if len({id(backbone) for backbone in self.backbones}) < len(self.backbones):
            self.backbones = tuple(backbone.clone() for backbone in self.backbones)
        super().__post_init__()

    @property
    def mean(self) -> tuple[float, ...]:
        """The pixel value per channel that the backbones' normalisation maps to zero."""
        return self.backbones[0].mean

    @property
    def std(self) -> tuple[float, ...]:
        """The value per channel that the backbones divide by."""
        return self.backbones[0].std

    @property
    def frozen_parameters(self) -> tuple[str, ...]:
        """Names in `params` that training leaves as they are."""
        names = tuple(f"backbones_{index}" for index in range(len(self.backbones)))
        return names if self.frozen else ()

    @nn.compact
    def __call__(self, images: Array, *, train: bool = False) -> Array:
        """Compute logits (n, num_classes) of images (n, height, width, channels) in [0, 1].

        With `train=True` the collection `batch_stats` must be mutable, and backbones that drop out
        need the rng `dropout`.
        """
        joined = jnp.concatenate(
            [backbone(images, train=train and not self.frozen) for backbone in self.backbones],
            axis=-1,
        )
        if self.num_classes is None:
            return joined
        dtype = jnp.promote_types(jnp.float32, joined.dtype)
        return layers.Dense(self.num_classes, dtype, name="fc")(joined)


def fuse(
    backbones: Sequence[Classifier],
    *,
    num_classes: int,
    key: Array,
    frozen: bool = False,
    allow_same: bool = False,
    image_shape: Sequence[int] = (224, 224, 3),
) -> Classifier:
    """Join trained classifiers at their last layer, under one new linear classifier.

    The features that enter each classifier's last layer are joined to one vector; the old last
    layers are left out. The result is a `Classifier` like any other: attacks, saliency maps and
    filters take it. (`train.train` makes such a network itself, from the trainings that a config
    names: see `jaxrobust.training.fine_tuning`.)

    Args:
      backbones: one or more classifiers, of any architectures, that normalise images alike.
      num_classes: number of new classes.
      key: of the new classifier's weights.
      frozen: whether training leaves the backbones as they are.
      allow_same: allows the same weights twice.
      image_shape: (height, width, channels) of an image that all backbones can take. It only serves
        to find out which of their parameters come before the last layer.

    Returns:
      the fused classifier; the backbones' arrays are those that were handed in.

    Raises:
      TypeError: when a backbone is not a `Classifier`.
      ValueError: when there is none; a model cannot leave out its last layer; two normalise
        differently; or two have the same weights and `allow_same` is not set.

    References:
      Itazuri et al. 2019, What do adversarially robust models look at?, section 4.2.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import Classifier, models
      >>> from jaxrobust.models import late_fusion
      >>> model = models.create("resnet8_small", num_classes=10, width=4)
      >>> std, adv = (Classifier.init(jax.random.key(k), model, (32, 32, 3)) for k in (0, 1))
      >>> fused = late_fusion.fuse([std, adv], num_classes=3, key=jax.random.key(2))
      >>> fused(jnp.zeros((32, 32, 3))).shape
      (3,)
    """
    check_count("num_classes", num_classes)
    check_key(key, None)
    _check_classifiers(backbones)
    check_normalization([backbone.model for backbone in backbones])
    kept = [without_classifier(backbone, image_shape) for backbone in backbones]
    if not allow_same:
        check_different(kept)
    model = LateFusion(tuple(backbone.model for backbone in kept), num_classes, frozen)
    features = sum(_feature_count(backbone, image_shape) for backbone in kept)
    dense = layers.Dense(num_classes).init(key, jnp.zeros((1, features)))
    return Classifier(model, with_backbones({"params": {"fc": dense["params"]}}, kept))


def _check_classifiers(backbones: Any) -> None:
    check_type("backbones", backbones, Sequence, "be a list of Classifiers")
    check_that(backbones, "backbones", "hold at least one classifier", "none")
    for position, backbone in enumerate(backbones):
        got = f"a {type(backbone).__name__} at position {position}"
        rule = "be Classifiers of Linen models"
        check_that(isinstance(backbone, Classifier), "backbones", rule, got, TypeError)


def check_normalization(models: Sequence[nn.Module]) -> None:
    """That all networks normalise images alike.

    A fused classifier has one mean image, and networks that were made for images of different
    ranges show it in how they normalise.

    Raises:
      ValueError: when two differ.
    """
    normalizations = [_normalization(model) for model in models]
    for position, (mean, std) in enumerate(normalizations):
        if (mean, std) != normalizations[0]:
            raise ValueError(
                "backbones must normalise images alike, got mean "
                f"{normalizations[0][0]} and std {normalizations[0][1]} at position 0 and "
                f"mean {mean} and std {std} at position {position}."
            )


def without_classifier(backbone: Classifier, image_shape: Sequence[int]) -> Classifier:
    """The features before a classifier's last layer: the same weights without that layer's.

    Args:
      backbone: the classifier.
      image_shape: as for `fuse`.

    Raises:
      ValueError: when its model does not return features when `num_classes` is None, or needs
        parameters that it does not have.
    """
    model = _headless(backbone.model)
    try:
        shapes = jax.eval_shape(
            lambda key: Classifier.init(key, model, image_shape).variables, jax.random.key(0)
        )
    except (TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{type(model).__name__} must return its features when num_classes is None, and take "
            f"images of shape {tuple(image_shape)}, to be a backbone; got: {reason}"
        ) from error
    flat = dict(jax.tree.leaves_with_path(backbone.variables))

    def pick(path, shape):
        array = flat.get(path)
        if array is None or array.shape != shape.shape:
            got = "none" if array is None else f"shape {array.shape}"
            raise ValueError(
                f"{type(model).__name__} without its classifier, for images of shape "
                f"{tuple(image_shape)}, must have only parameters that it has with it, got {got} "
                f"for {jax.tree_util.keystr(path)} of shape {shape.shape}; is image_shape its own?"
            )
        return array

    return Classifier(model, jax.tree.map_with_path(pick, shapes))


def with_backbones(variables: Any, backbones: Sequence[Classifier]) -> dict[str, Any]:
    """A fused network's variables with the weights of its backbones put in their places.

    Args:
      variables: of a `LateFusion`, with its "fc".
      backbones: what `without_classifier` returned, in the order of the network's.
    """
    joined = {name: dict(collection) for name, collection in variables.items()}
    for index, backbone in enumerate(backbones):
        for name, collection in backbone.variables.items():
            joined.setdefault(name, {})[f"backbones_{index}"] = collection
    return joined


def _headless(model: nn.Module) -> nn.Module:
    if not hasattr(model, "num_classes"):
        raise ValueError(
            f"{type(model).__name__} must have a field num_classes and return its features when "
            "that is None, to be a backbone."
        )
    # Whether a network's own backbones were frozen was a matter of its own training.
    thawed: dict[str, Any] = {"frozen": False} if isinstance(model, LateFusion) else {}
    return model.clone(num_classes=None, **thawed)


def _feature_count(backbone: Classifier, image_shape: Sequence[int]) -> int:
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    shape = jax.eval_shape(lambda classifier, images: classifier(images), backbone, images).shape
    rule = "return features (n, features) when num_classes is None"
    check_that(len(shape) == 2, type(backbone.model).__name__, rule, f"shape {shape}")
    return shape[1]


def _normalization(model: nn.Module) -> tuple[tuple[float, ...] | None, ...]:
    """Mean and std per channel; None where a model does not say."""
    return tuple(
        None if value is None else tuple(float(channel) for channel in value)
        for value in (getattr(model, "mean", None), getattr(model, "std", None))
    )


def check_different(backbones: Sequence[Classifier]) -> None:
    """That no two backbones, without their classifiers, have the same weights.

    Raises:
      ValueError: when two have.
    """
    for position, backbone in enumerate(backbones):
        for earlier in range(position):
            if _have_same_weights(backbones[earlier], backbone):
                raise ValueError(
                    f"backbones must be different trainings, got the same weights at positions "
                    f"{earlier} and {position}; allow_same=True takes them all the same."
                )


def _have_same_weights(first: Classifier, second: Classifier) -> bool:
    """Whether two have the same weights, in whatever dtype they compute."""
    left, right = (
        dict(jax.tree.leaves_with_path(classifier.variables)) for classifier in (first, second)
    )
    if left.keys() != right.keys() or not is_concrete([*left.values(), *right.values()]):
        return False
    return all(np.array_equal(leaf, right[path]) for path, leaf in left.items())
