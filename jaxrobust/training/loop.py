"""The steps of one session of training: saved, logged, interrupted at the right moments."""

from collections.abc import Callable

import jax
import numpy as np

from jaxrobust.core.interrupts import NotFinite, TrainingStopped
from jaxrobust.training.step import Recipe, TrainState


class Loop:
    """The steps of one session, with saving, logging and stopping at the right moments."""

    def __init__(self, state, done, batches, store, writer, progress, interrupts) -> None:
        self.state, self.done = state, done
        self.batches, self.store, self.writer = batches, store, writer
        self.progress, self.interrupts = progress, interrupts
        self.unread: list[dict[str, jax.Array]] = []

    def go(
        self,
        step: Callable,
        steps: int,
        *,
        save_every: int,
        recipe: Recipe,
        measure: Callable[[TrainState], float],
        measure_every: float,
    ) -> None:
        """Take the steps that are left.

        Args:
          step: of a state and a batch, returns the new state and its metrics.
          steps: number of steps of the whole training.
          save_every: steps between two checkpoints.
          recipe: for the learning rate that is logged.
          measure: the accuracy of a state on the evaluation split, in per cent.
          measure_every: steps between two measurements, perhaps not whole; 0: never.

        Raises:
          NotFinite: when the loss is NaN or infinite.
          TrainingStopped: when an interrupt was asked for, after a checkpoint.
        """
        while self.done < steps:
            self.state, metrics = step(self.state, next(self.batches))
            self.done += 1
            self.unread.append(metrics)
            last = self.done == steps
            save = last or self.done % save_every == 0
            stop = self.interrupts.requested(self.done)
            # All processes must look at the loss after the same step, whatever their clocks say.
            due = self.progress.due() and jax.process_count() == 1
            if save or stop or self.done == 1 or due or len(self.unread) >= 100:
                self._log(recipe, show=last or self.done == 1 or self.progress.due())
            # Before it is saved: what is missing in an interrupted log is then measured again.
            if measure_every and (last or _passes(self.done, measure_every)):
                self.writer.write(self.done, {"evaluation_top1": measure(self.state)})
            if save or stop:
                self.store.save(
                    self.done,
                    self.state.variables,
                    (self.state.step, self.state.optimizer),
                    self.batches.get_state(),
                )
            if stop and not last:
                self.store.wait()
                raise TrainingStopped(
                    f"Stopped at step {self.done} of {steps}, which is saved: "
                    "the same command goes on from here."
                )

    def _log(self, recipe: Recipe, *, show: bool) -> None:
        """Read the metrics of the steps since the last time (this waits for the devices)."""
        read = jax.device_get(self.unread)
        self.unread = []
        self.progress.mark(self.done)
        losses = [float(metrics["loss"]) for metrics in read]
        for name in ("loss", "weight_norm"):
            values = [float(metrics[name]) for metrics in read]
            if not np.all(np.isfinite(values)):
                first = int(np.flatnonzero(~np.isfinite(values))[0])
                saved = self.store.steps()
                raise NotFinite(
                    f"The {name} of step {self.done - len(read) + first + 1} is {values[first]}; "
                    f"the last checkpoint is of step {saved[-1] if saved else 0}: "
                    "start anew in another workdir with a lower learning rate."
                )
        figures = {
            "loss": float(np.mean(losses)),
            "accuracy": 100 * float(np.mean([metrics["accuracy"] for metrics in read])),
        }
        rate = self.progress.rate()
        self.writer.write(
            self.done,
            figures
            | {"learning_rate": float(recipe.learning_rate_at(self.done - 1))}
            | {"weight_norm": float(read[-1]["weight_norm"])}
            | ({"images_per_second": rate} if rate else {}),
        )
        if show and jax.process_index() == 0:
            self.progress.show(self.done, figures)


def _passes(done: int, every: float) -> bool:
    """Whether a multiple of `every` lies within the last step."""
    return int(done / every + 1e-9) > int((done - 1) / every + 1e-9)
