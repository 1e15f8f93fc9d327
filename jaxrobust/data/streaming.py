"""Large data sets: read, decoded and augmented on the host while the devices compute."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrobust.data.batches import Batches
from jaxrobust.data.dataset_config import ResolvedConfig
from jaxrobust.data.sources import Split
from jaxrobust.data.transforms import HostTransform

_BATCHES_AHEAD = 2
# Every thread makes a batch of its own, and beyond some number of them Python itself is the limit:
# then there are worker processes.
_MOST_THREADS = 32


class _Padded:
    """A split padded to a multiple of the batch with its first image, marked by "mask"."""

    def __init__(self, split: Split, batch_size: int) -> None:
        self._split = split
        self._length = -(-len(split) // batch_size) * batch_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        real = index < len(self._split)
        return {**self._split[index if real else 0], "mask": real}


class StreamedBatches(Batches):
    """Batches from a Grain pipeline on the host."""

    def __init__(
        self,
        split: Split,
        config: ResolvedConfig,
        augmentation: str,
        *,
        batch_size: int,
        seed: int | None,
        mesh: Mesh,
    ) -> None:
        self._prefetcher: _Prefetcher | None = None
        super().__init__(split, batch_size, seed)
        self._sharding = NamedSharding(mesh, PartitionSpec("data"))
        self._workers = config.workers
        transform = HostTransform.create(split, config, augmentation)
        if seed is None:
            records = grain.MapDataset.source(_Padded(split, batch_size)).seed(0)
        else:
            records = grain.MapDataset.source(split).seed(seed).shuffle().repeat()
        # Batched before it is cut among the processes, so that process p makes the p-th part of
        # every global batch: batches are the same, to the order of their images, for any number.
        # Random maps come before that, so augmentation goes by an image's place among all.
        part = batch_size // jax.process_count()
        self._parts = records.random_map(transform).batch(part)
        self._next_step = 0

    def _batch(self, step: int) -> dict[str, jax.Array]:
        if self._prefetcher is None or step != self._next_step:
            self._stop()
            place = functools.partial(_place, self._sharding, self.batch_size)
            self._prefetcher = _Prefetcher(self._host_batches(step), place)
        batch = self._prefetcher.get()
        self._next_step = step + 1
        return batch

    def _host_batches(self, step: int) -> Iterator[dict[str, np.ndarray]]:
        processes = jax.process_count()
        own = self._parts[step * processes + jax.process_index() :: processes]
        threads = 1 if self._workers else min(os.cpu_count() or 1, _MOST_THREADS)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
        batches = own.to_iter_dataset(options)
        if self._workers:
            batches = batches.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=2)
            )
        return iter(batches)

    def _stop(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def close(self) -> None:
        super().close()
        self._stop()

    def __del__(self) -> None:
        # The thread does not refer to this object, so that forgotten batches do not work on.
        self._stop()


def _place(
    sharding: NamedSharding, batch_size: int, host_batch: dict[str, np.ndarray]
) -> dict[str, jax.Array]:
    def place(array: np.ndarray) -> jax.Array:
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, array, shape)

    return {name: place(array) for name, array in host_batch.items()}


class _Prefetcher:
    """A thread that keeps a few batches ahead on the devices."""

    def __init__(
        self,
        host_batches: Any,
        place: Callable[[dict[str, np.ndarray]], dict[str, jax.Array]],
    ) -> None:
        self._host_batches = host_batches
        self._place = place
        self._queue: queue.Queue = queue.Queue(maxsize=_BATCHES_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)
        self._thread.start()

    def get(self) -> dict[str, jax.Array]:
        """The next batch; raises whatever went wrong while it was made."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            self._queue.put(item)  # Asked again, the answer is the same.
            raise item
        return item

    def close(self) -> None:
        """End the thread, and Grain's threads and processes."""
        self._stopped.set()
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._thread.join()
        self._host_batches.close()

    def _run(self) -> None:
        try:
            for host_batch in self._host_batches:
                self._offer(self._place(host_batch))
                if self._stopped.is_set():
                    return
            self._offer(StopIteration())
        except BaseException as error:
            self._offer(error)

    def _offer(self, item: Any) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=0.1)
                return
