"""Ctrl-C and SIGTERM as a request to stop after the step."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after its checkpoint was saved."""


class StopRequest:
    """Whether, and by which signal, a stop was asked for."""

    def __init__(self) -> None:
        self.signal: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note the signals that arrive in the block, in place of what they would do."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.signal = signal.Signals(number).name

        try:
            old = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            # Signals belong to the main thread; elsewhere the caller handles them.
            old = {}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
