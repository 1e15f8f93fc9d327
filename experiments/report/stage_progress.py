"""What a person sees while a report is made: one line a stage, with the time left."""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jaxrobust.core.logs import clock

_LAST_LINES = 12


class StageProgress:
    """One line a stage, with the time left: what was expected, corrected by what was measured."""

    def __init__(self, minutes: Sequence[float]) -> None:
        self.expected = [60.0 * each for each in minutes]
        self.waiting = dict(enumerate(self.expected))
        self.measured = self.planned = 0.0
        self.begun = self.shown = time.monotonic()
        self.live = sys.stderr.isatty()

    def left(self) -> float:
        """Seconds until the end."""
        # The plan's figures weigh as much as two minutes of measuring.
        factor = (self.measured + 120.0) / (self.planned + 120.0)
        return factor * sum(self.waiting.values())

    def only(self, positions: Sequence[int]) -> None:
        """The others are not asked for."""
        self.waiting = {position: self.waiting[position] for position in positions}

    def reused(self, position: int, title: str) -> None:
        """Done before."""
        self.waiting.pop(position)
        self._line(f"{self._number(position)} {title}: done before")

    def missing(self, position: int, title: str) -> None:
        """Cannot be run."""
        self.waiting.pop(position)
        self._line(f"{self._number(position)} {title}: NOT RUN, its trainings are not done")

    def ended(self, position: int, title: str, seconds: float, failed: Path | None) -> None:
        """Has been run; `failed` is the log of one that failed."""
        self.waiting.pop(position)
        if failed is None:
            self.measured += seconds
            self.planned += self.expected[position]
        end = f"FAILED after {clock(seconds)}, see {failed}" if failed else clock(seconds)
        left = f", {clock(self.left())} left" if self.waiting else ""
        self._line(f"{self._number(position)} {title}: {end}{left}")

    def start(self, position: int, title: str) -> None:
        """The next one begins; on a terminal `show` says so."""
        self.begun = time.monotonic()
        if not self.live:
            left = f"about {clock(self.left())} left in all"
            self._line(f"{self._number(position)} {title}: begins, {left}")

    def show(self, position: int, title: str, log: Path) -> None:
        """How far it is, with the child's own last line; on a terminal only."""
        now = time.monotonic()
        if now - self.shown < 1.0:
            return
        self.shown = now
        begun = now - self.begun
        left = max(self.left() - begun, 0.0)
        if self.live:
            width = os.get_terminal_size(sys.stderr.fileno()).columns
            last = tail(log, 1)
            line = f"{self._number(position)} {title} {clock(begun)}, {clock(left)} left  {last}"
            print(f"\r\x1b[K{line[: width - 1]}", end="", file=sys.stderr, flush=True)

    def _number(self, position: int) -> str:
        return f"[{position + 1}/{len(self.expected)}]"

    def _line(self, text: str) -> None:
        print(f"{chr(13)}\x1b[K{text}" if self.live else text, file=sys.stderr, flush=True)


def tail(path: Path, count: int = _LAST_LINES) -> str:
    """The last lines of a log that hold something."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    lines = [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "\n".join(lines[-count:])
