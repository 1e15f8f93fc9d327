"""What a person sees of a long run: the progress line, JSON lines and TensorBoard files."""

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from jaxrobust.core import files


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour.

    Example:
      >>> clock(75), clock(3675)
      ('1:15', '1:01:15')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


# Those that are watched; the innermost has the line.
_watched: list["Progress"] = []


class Progress:
    """One line that says how far a piece of work is, how fast, and how long it will still take.

    On a terminal the line is rewritten; elsewhere a new line is printed each `every` seconds. The
    rate is that of the recent past, without the first call (which compiles). Within a `with`, a
    step that takes long is seen as well: the line is then printed with the time since the last.

    Args:
      title: what is being done.
      total: how many steps there are.
      steps: what they are, in the plural.
      images: images a step.
      every: seconds between two lines that are not on a terminal.
      active: False on all processes but the first, which then print nothing.

    Attributes:
      done: how many steps are complete.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        steps: str = "images",
        images: int = 1,
        every: float = 10.0,
        active: bool = True,
    ):
        self.title, self.total, self.images, self.every = title, total, images, every
        self.steps, self.active = steps, active
        self.done: float = 0
        self.live = sys.stderr.isatty()
        self.begun = time.perf_counter()
        self.printed = self.begun if not self.live else 0.0
        self.marks: list[tuple[float, float]] = []
        self._figures: Mapping[str, float] | None = None
        self._lock, self._closed = threading.Lock(), threading.Event()

    def __enter__(self) -> "Progress":
        _watched.append(self)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        _watched.remove(self)

    def _watch(self) -> None:
        """Print the line whenever nothing has moved for long, until it is closed."""
        pause = 1.0 if self.live else max(self.every, 0.01)
        while not self._closed.wait(pause / 2):
            moved = self.marks[-1][0] if self.marks else self.begun
            # Steps that are quick come first, and with newer figures.
            quiet = time.perf_counter() - max(moved, self.printed) >= 1.5 * pause
            if quiet and _watched[-1:] == [self]:
                since = "last" if self.marks else "start"
                self._print(f"{clock(time.perf_counter() - moved)} since the {since}")

    def step(self, count: int = 1) -> None:
        """Count steps that are complete, and print the line when it is time for one."""
        self.mark(self.done + count)
        if self.due():
            self.show(self.done)

    def due(self) -> bool:
        """Whether it is time for a line: the caller then gathers its figures and calls `show`."""
        return time.perf_counter() - self.printed >= (0.5 if self.live else self.every)

    def mark(self, done: float) -> None:
        """Note that `done` steps are complete; the first mark begins the measuring of the rate."""
        self.done = done
        self.marks.append((time.perf_counter(), done))
        if len(self.marks) > 20:
            del self.marks[1:-15]

    def rate(self) -> float | None:
        """Images a second over the recent marks; None until there are two."""
        if len(self.marks) < 2:
            return None
        (earlier, first), (later, last) = self.marks[max(0, len(self.marks) - 10)], self.marks[-1]
        return (last - first) * self.images / max(later - earlier, 1e-9)

    def show(self, done: float, figures: Mapping[str, float] | None = None) -> None:
        """Print the line."""
        self._figures = figures
        self._print(done=done)

    def _print(self, since: str = "", *, done: float | None = None) -> None:
        self.printed = time.perf_counter()
        done = int(self.done) if done is None else done
        parts = [f"{self.title}  {done}/{self.total} {self.steps}"]
        parts += [f"{name} {value:.4g}" for name, value in (self._figures or {}).items()]
        rate = self.rate()
        if rate:
            parts.append(f"{rate:.4g} images/s")
            parts.append(f"{clock((self.total - done) * self.images / rate)} left")
        line = "  ".join([*parts, since] if since else parts)
        with self._lock:  # a line of the watching thread does not run into another
            if not self.active or self._closed.is_set():
                return
            if self.live:
                print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            else:
                print(line, file=sys.stderr, flush=True)

    def close(self, message: str | None = None) -> None:
        """End the line; `message` is printed in its place. A second call does nothing."""
        with self._lock:
            ended = self._closed.is_set()
            self._closed.set()
            if ended or not self.active:
                return
            if self.live:
                print("\r\x1b[K" if message else "", end="" if message else "\n", file=sys.stderr)
            if message:
                print(message, file=sys.stderr, flush=True)

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self.begun


class MetricsWriter:
    """Scalars to `metrics.jsonl` and to TensorBoard event files in a folder.

    Args:
      folder: of the run.
      step: what was logged after this step is dropped: a resumed run writes it again.
      active: False on all processes but the first, which then write nothing.
    """

    def __init__(self, folder: Path, *, step: int = 0, active: bool = True):
        self.active = active
        if not active:
            return
        from tensorboardX import SummaryWriter  # slow to import, and only runs need it

        path = folder / "metrics.jsonl"
        kept = [line for line in files.read_log(path, step=int) if line["step"] <= step]
        files.write_lines(path, map(files.json_line, kept))
        self._lines = path.open("a")
        # Hides from TensorBoard what an interrupted session logged beyond the checkpoint.
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Append the scalars of one step."""
        if not self.active:
            return
        self._lines.write(files.json_line({"step": step, **scalars}) + "\n")
        self._lines.flush()
        for name, value in scalars.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the files."""
        if self.active:
            self._lines.close()
            self._events.close()
