"""How long steps tell that they are alive.

Library functions take ``progress: ProgressReporter | None`` and never print. The command line
passes a reporter that draws bars (`cryoscape.cli.console`); in a script `None` means silence::

    with reporter_or_silent(progress).task("train", total=2000, unit="steps") as bar:
        for _ in range(2000):
            ...
            bar.advance()
            bar.status("loss 0.98")
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self


class ProgressTask(Protocol):
    """One bar; a context manager that closes it."""

    def advance(self, count: float = 1) -> None:
        """Say that `count` more units are done."""

    def status(self, text: str) -> None:
        """Show a few words beside the bar, for example the loss."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ProgressReporter(Protocol):
    """Whoever shows progress."""

    def task(self, name: str, total: float | None = None, unit: str = "") -> ProgressTask:
        """Open a bar.

        Parameters
        ----------
        name : str
            What is being done, for example ``"train"``.
        total : float, optional
            Units in all; None where it is not known.
        unit : str
            The name of the units, for example ``"images"``.
        """

    def note(self, text: str) -> None:
        """Say one thing worth keeping, as a line of its own."""


class SilentTask:
    """A bar that shows nothing."""

    def advance(self, count: float = 1) -> None:
        """Do nothing."""

    def status(self, text: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Silent:
    """A reporter that shows nothing."""

    def task(self, name: str, total: float | None = None, unit: str = "") -> ProgressTask:
        """Open a bar that shows nothing."""
        return SilentTask()

    def note(self, text: str) -> None:
        """Do nothing."""


def reporter_or_silent(progress: ProgressReporter | None) -> ProgressReporter:
    """Return `progress`, or a silent reporter for None."""
    return Silent() if progress is None else progress
