"""What the commands write: results to stdout, progress and messages to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from cryoscape.progress import ProgressReporter, ProgressTask

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_INTERVAL = 10.0  # s between two plain lines of one task
PLAIN_PAUSE = 1.0  # s between two plain lines at least
PLAIN_MARKS = 10  # plain lines of a task that is quick


class PlainTask:
    """Progress as plain lines: one every ten per cent or ten seconds, never two in a second, and the end."""

    def __init__(self, name: str, total: float | None, unit: str, stream: TextIO) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._stream = stream
        self._done = 0.0
        self._text = ""
        self._start = self._last_time = time.monotonic()
        self._last_mark = 0

    def advance(self, count: float = 1) -> None:
        """Say that `count` more units are done."""
        self._done += count
        now = time.monotonic()
        # Marks passed, counted in whole numbers so that rounding does not let the lines drift.
        mark = int(self._done / self._total * PLAIN_MARKS + 1e-9) if self._total else 0
        quiet = now - self._last_time
        if (mark > self._last_mark and quiet >= PLAIN_PAUSE) or quiet >= PLAIN_INTERVAL:
            self._last_mark, self._last_time = mark, now
            self._line(now)

    def status(self, text: str) -> None:
        """Show `text` from the next line on."""
        self._text = text

    def _line(self, now: float) -> None:
        elapsed = max(now - self._start, 1e-9)
        rate = self._done / elapsed
        parts = [f"{self._name}: {self._done:g}"]
        if self._total:
            parts[0] += f"/{self._total:g}"
        parts[0] += f" {self._unit}".rstrip()
        parts.append(f"{rate:.3g}/s")
        if self._total and 0 < self._done < self._total:
            parts.append(f"{duration((self._total - self._done) / rate)} left")
        elif self._total:
            parts.append(f"took {duration(elapsed)}")
        if self._text:
            parts.append(self._text)
        print(", ".join(parts), file=self._stream, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The last tenth may have been reported already; say the end only where it was not.
        if kind is None and self._total and self._last_mark < PLAIN_MARKS and self._done > 0:
            self._line(time.monotonic())


class PlainReporter:
    """Progress for files, pipes and cluster logs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def task(self, name: str, total: float | None = None, unit: str = "") -> ProgressTask:
        """Open a task that reports in plain lines."""
        return PlainTask(name, total, unit, self._stream or sys.stderr)

    def note(self, text: str) -> None:
        """Print one line."""
        print(text, file=self._stream or sys.stderr, flush=True)


class BarTask:
    """One bar of rich, alive between enter and exit."""

    def __init__(self, progress: Progress, name: str, total: float | None, unit: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=total, unit=unit, text="", rate="")

    def advance(self, count: float = 1) -> None:
        """Say that `count` more units are done."""
        self._progress.advance(self._task, count)
        speed = self._progress.tasks[0].speed
        if speed:
            self._progress.update(self._task, rate=f"{speed:.3g}/s")

    def status(self, text: str) -> None:
        """Show `text` at the end of the bar."""
        self._progress.update(self._task, text=text)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class BarReporter:
    """Progress for a terminal: a bar with rate and time left."""

    def task(self, name: str, total: float | None = None, unit: str = "") -> ProgressTask:
        """Open a bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        return BarTask(progress, name, total, unit)

    def note(self, text: str) -> None:
        """Print one line."""
        print(text, file=sys.stderr, flush=True)


def reporter() -> ProgressReporter:
    """Bars on a terminal, plain lines elsewhere."""
    return BarReporter() if sys.stderr.isatty() else PlainReporter()


def duration(seconds: float) -> str:
    """Write a time span for people: ``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def say(text: str = "") -> None:
    """Print a result."""
    print(text, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a small table: the first column to the left, the others to the right.

    Parameters
    ----------
    header : sequence of str
    rows : sequence of sequences of str
        As many cells each as the header.
    """
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in lines
    ]
    rule = "  ".join("-" * w for w in widths)
    return "\n".join([text[0].rstrip(), rule, *(line.rstrip() for line in text[1:])])
