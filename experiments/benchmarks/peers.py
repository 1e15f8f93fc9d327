"""What comparisons with other libraries start from: a network, pictures, the network in PyTorch."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxrobust import Classifier
from jaxrobust.experiments import pictures, trained
from jaxrobust.models import resnet

# How far the logits of both networks may lie apart, in units of the largest.
_TOLERANCE = 1e-3


@contextlib.contextmanager
def needed(what: str, packages: str) -> Iterator[None]:
    """Says in one sentence which packages an import within it misses.

    Raises:
      RuntimeError: when one is missing.
    """
    try:
        yield
    except ImportError as error:
        raise RuntimeError(
            f"{what} are needed to compare with ({error}): pip install {packages}."
        ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A network, float32 pictures (n, h, w, c) and their classes (n,)."""

    classifier: Classifier
    images: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, training: trained.Trained, count: int) -> "Subject":
        """A trained network and the first pictures of its test split."""
        found = pictures.evaluation_pictures(training.config, count)
        return cls(training.load(), found.images, found.labels)

    def right(self) -> "Subject":
        """With those pictures only that the network has right.

        Raises:
          ValueError: when there is none.
        """
        right = np.asarray(self.classifier(self.images)).argmax(-1) == self.labels
        if not right.any():
            raise ValueError(f"the network must have a picture right, got none of {len(right)}.")
        return Subject(self.classifier, self.images[right], self.labels[right])


def chosen(workdir: str, run: str | None) -> list[trained.Trained]:
    """The trainings that are attacked: the first seed of each run, or of the one asked for.

    Raises:
      FileNotFoundError: when there is none.
      ValueError: when none has that name.
    """
    found: dict[str, trained.Trained] = {}
    for training in trained.find(workdir):
        found.setdefault(training.run, training)
    if run is None:
        return list(found.values())
    if run not in found:
        listed = ", ".join(found)
        raise ValueError(f"run must be one of {listed}, got {run!r}.")
    return [found[run]]


@dataclasses.dataclass(frozen=True, eq=False)
class Twin:
    """The network in PyTorch, with the same weights; pictures there are (n, c, h, w)."""

    network: Any

    def to_torch(self, images: np.ndarray) -> Any:
        """Pictures (n, h, w, c) as a tensor."""
        import torch

        return torch.from_numpy(np.array(images.transpose(0, 3, 1, 2), order="C"))

    def from_torch(self, images: Any) -> np.ndarray:
        """A tensor of pictures as (n, h, w, c)."""
        return images.detach().permute(0, 2, 3, 1).numpy()

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Of pictures (n, h, w, c)."""
        import torch

        with torch.no_grad():
            return self.network(self.to_torch(images)).numpy()


def in_torch(subject: Subject) -> Twin:
    """The subject's network in PyTorch, for attacks.

    Raises:
      RuntimeError: when PyTorch is missing or has no such network here, or when both do not compute
        the same.
    """
    with needed("PyTorch and its attacks", "torch"):
        from jaxrobust.experiments.benchmarks import torch_resnet
    model = subject.classifier.model
    if not isinstance(model, resnet.ResNet):
        raise RuntimeError(f"there is no {type(model).__name__} in PyTorch here, only ResNets.")
    network = torch_resnet.ResNet(model)
    torch_resnet.load(network, subject.classifier)
    twin = Twin(network.requires_grad_(False).eval())
    ours = np.asarray(subject.classifier(subject.images))
    apart = float(np.abs(twin.logits(subject.images) - ours).max() / np.abs(ours).max())
    if not apart <= _TOLERANCE:
        raise RuntimeError(
            f"the logits of both networks must be at most {_TOLERANCE:g} apart, got {apart:g}."
        )
    return twin
