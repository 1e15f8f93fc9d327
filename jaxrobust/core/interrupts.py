"""Why long work ends before its end: it was interrupted, or what it minimises is no number."""

import contextlib
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils


class TrainingStopped(Exception):
    """Training was interrupted after its state had been saved; the same call goes on."""


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite; the last checkpoint is from before that."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Within, SIGTERM is KeyboardInterrupt: work ends with a sentence and leaves nothing half made.

    Programs of several processes are left to JAX, whose coordination service watches for SIGTERM.
    The devices are not asked for: a report's parent must leave them to its stages.
    """

    def stop(kind, frame):
        raise KeyboardInterrupt

    try:
        alone = not jax.distributed.is_initialized()
        previous = signal.signal(signal.SIGTERM, stop) if alone else None
    except ValueError:  # not the main thread: the caller keeps its own handling
        previous = None
    try:
        yield
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)


class Interrupts:
    """Turns Ctrl-C, SIGTERM and a preemption notice into a question asked between two steps."""

    def __enter__(self):
        self._requested = False
        self._previous = {}
        if jax.process_count() > 1:
            return self  # JAX's coordination service watches for SIGTERM itself
        for kind in (signal.SIGINT, signal.SIGTERM):
            try:
                self._previous[kind] = signal.signal(kind, self._note)
            except ValueError:  # not the main thread: the caller keeps its own handling
                break
        return self

    def __exit__(self, *_):
        for kind, handler in self._previous.items():
            signal.signal(kind, handler)

    def _note(self, kind, frame):
        if self._requested and kind == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once
        self._requested = True

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; all processes agree on the same step."""
        if jax.process_count() > 1:
            # A step that all processes can reach.
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested
