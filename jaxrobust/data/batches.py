"""The iterator of batches that both paths of the pipeline share."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Any

import jax

from jaxrobust.core.checks import check_count
from jaxrobust.data import sources


class Batches(Iterator[dict[str, jax.Array]], abc.ABC):
    """Iterator of batches, see `train_batches` and `evaluation_batches`.

    Attributes:
      num_examples: number of images of the split.
      batch_size: number of images in a batch, over all devices and processes.
    """

    def __init__(self, split: sources.Split, batch_size: int, seed: int | None) -> None:
        self.num_examples = len(split)
        self.batch_size = batch_size
        self._identity = {
            "dataset": split.dataset_name,
            "split": split.name,
            "examples": len(split),
            "batch_size": batch_size,
            "seed": seed,
        }
        self._step = 0
        self._closed = False

    def __len__(self) -> int:
        """Number of batches of one pass; training has no end, and no length."""
        if self._identity["seed"] is not None:
            raise TypeError("Training batches have no end, and so no length.")
        return -(-self.num_examples // self.batch_size)

    def __next__(self) -> dict[str, jax.Array]:
        if self._closed:
            raise ValueError("These batches are closed.")
        if self._identity["seed"] is None and self._step >= len(self):
            raise StopIteration
        batch = self._batch(self._step)
        self._step += 1
        return batch

    @abc.abstractmethod
    def _batch(self, step: int) -> dict[str, jax.Array]:
        """The batch of a number; asked for in order, but for `set_state`."""

    def get_state(self) -> dict[str, Any]:
        """The state after the last batch handed out, ready for JSON."""
        return {"batches": self._step, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue after the batch at which the state was taken.

        Args:
          state: what `get_state` returned, here or in another run.

        Raises:
          ValueError: when the state belongs to other data, another batch size or another seed.
        """
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise ValueError(
                    f"The data iterator's state has {name} {state.get(name)!r}, expected {value!r}."
                )
        check_count("batches in the data iterator's state", state.get("batches"), least=0)
        self._step = state["batches"]

    def close(self) -> None:
        """End the threads and processes behind the batches."""
        self._closed = True

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
