"""Maps from a single backward pass."""

import jax

from jaxrobust.core.batching import per_image
from jaxrobust.core.types import AnyClassifier, Images, Labels
from jaxrobust.guided import guided


def logit_gradient(classifier: AnyClassifier, image: Images, label: Labels) -> jax.Array:
    """d logit / d image, for methods of one image that are compiled already."""
    return jax.grad(lambda image: classifier(image)[label])(image)


@per_image()
def vanilla_gradient(
    classifier: AnyClassifier, images: Images, labels: Labels, *, batch_size: int | None = None
) -> jax.Array:
    """The gradient of a class's logit (Simonyan et al. 2014; eq. 7-9 of the paper).

    Raw: signed, for each colour channel, not multiplied by the image.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the classes whose evidence is asked for.
      batch_size: images at once on each device; None: all.

    Returns:
      d logit / d image, of the images' shape, in logits per unit of pixel value.

    Raises:
      TypeError, ValueError: for images, labels or a classifier that are not what is said above.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), 2.0 * image[0, 0, 0]])
      >>> vanilla_gradient(classifier, jnp.zeros((1, 1, 3)), 1).tolist()
      [[[2.0, 0.0, 0.0]]]
    """
    return logit_gradient(classifier, images, labels)


@per_image()
def loss_gradient(
    classifier: AnyClassifier, images: Images, labels: Labels, *, batch_size: int | None = None
) -> jax.Array:
    """The gradient of the cross-entropy (eq. 11-12 of the paper): what an attack ascends.

    It takes the other classes into account, and fades as the classifier grows sure.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the true classes.
      batch_size: images at once on each device; None: all.

    Returns:
      d loss / d image, of the images' shape, in nats per unit of pixel value. Positive where a
      brighter pixel speaks *against* the label.

    Raises:
      TypeError, ValueError: for images, labels or a classifier that are not what is said above.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), -image.sum()])
      >>> loss_gradient(classifier, jnp.zeros((1, 1, 3)), 0).tolist()
      [[[-1.0, -1.0, -1.0]]]
    """
    return jax.grad(lambda image: -jax.nn.log_softmax(classifier(image))[labels])(images)


@per_image(static=("maximum_as_relu",))
def guided_backprop(
    classifier: AnyClassifier,
    images: Images,
    labels: Labels,
    *,
    maximum_as_relu: bool = False,
    batch_size: int | None = None,
) -> jax.Array:
    """Guided backpropagation (Springenberg et al. 2015; eq. 13-15 of the paper).

    The vanilla gradient of `jaxrobust.guided.guided(classifier)`: it passes a ReLU only where both
    the unit and what comes back to it are positive.

    Args:
      classifier: callable pytree from one image to logits (k,); any model with `jax.nn.relu`.
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the classes whose evidence is asked for.
      maximum_as_relu: for models that write their ReLU as max(x, 0); see `guided`.
      batch_size: images at once on each device; None: all.

    Returns:
      Maps of the images' shape, in logits per unit of pixel value, by the guided rule.

    Raises:
      TypeError, ValueError: for images, labels or a classifier that are not what is said above; for
        a classifier without any ReLU.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> classifier = lambda image: jax.nn.relu(image[0, 0]) * jnp.array([1.0, -1.0, 1.0])
      >>> guided_backprop(classifier, jnp.ones((1, 1, 3)), 1).tolist()
      [[[0.0, 0.0, 0.0]]]
    """
    return logit_gradient(guided(classifier, maximum_as_relu=maximum_as_relu), images, labels)


@per_image()
def input_times_gradient(
    classifier: AnyClassifier, images: Images, labels: Labels, *, batch_size: int | None = None
) -> jax.Array:
    """The image times the gradient of a class's logit (Shrikumar et al. 2016).

    For a network of ReLUs without biases the map adds up to the logit.

    Args:
      classifier: callable pytree from one image to logits (k,).
      images: (h, w, c) or (n, h, w, c) in [0, 1].
      labels: () or (n,) integers: the classes whose evidence is asked for.
      batch_size: images at once on each device; None: all.

    Returns:
      Maps of the images' shape, in logits.

    Raises:
      TypeError, ValueError: for images, labels or a classifier that are not what is said above.

    Example:
      >>> import jax.numpy as jnp
      >>> classifier = lambda image: jnp.stack([image.sum(), 2.0 * image[0, 0, 0]])
      >>> input_times_gradient(classifier, jnp.full((1, 1, 3), 0.5), 1).tolist()
      [[[1.0, 0.0, 0.0]]]
    """
    return logit_gradient(classifier, images, labels) * images
