"""Taking turns: two training programs on one core, never running at the same moment.

Both sides of `peers.py` use it, one of them inside another project's environment, so it needs nothing but
the standard library. A program trains a block of steps, sends the CPU-seconds of each, and sleeps until it
is told to go on; a change of the machine's load therefore falls on both programs alike.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Turns:
    """The side of the program that trains."""

    def __init__(self, read_fd: int, write_fd: int, block: int) -> None:
        """Take the two pipe ends given on the command line and the steps of one turn."""
        self._inbox = os.fdopen(read_fd, "r")
        self._outbox = os.fdopen(write_fd, "w")
        self._block = block
        self._steps: list[float] = []
        self._mark = 0.0

    def ready(self) -> None:
        """Report the CPU-seconds spent on getting ready, and wait for the first turn."""
        self._send({"ready": time.process_time()})
        self._wait()

    def step(self) -> None:
        """Note the end of a training step; at the end of a block, report it and wait."""
        self._steps.append(time.process_time() - self._mark)
        if len(self._steps) >= self._block:
            self.flush()
            self._wait()
        else:
            self._mark = time.process_time()

    def flush(self) -> None:
        """Report the steps not yet reported."""
        if self._steps:
            self._send({"steps": self._steps})
            self._steps = []

    def done(self, **facts: Any) -> None:
        """Report the end of the work, the peak memory and the total CPU time."""
        self.flush()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._send({"done": {"peak_rss_bytes": peak, "cpu_seconds": time.process_time(), **facts}})

    def _send(self, message: dict[str, Any]) -> None:
        self._outbox.write(json.dumps(message) + "\n")
        self._outbox.flush()

    def _wait(self) -> None:
        if not self._inbox.readline():
            raise SystemExit("the benchmark that started this program has gone")
        self._mark = time.process_time()


class Player:
    """The side of the benchmark: one program that trains by turns."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: dict[str, str]) -> None:
        """Start `command` with `--turns READ WRITE` appended; its output goes to `log`."""
        self.name = name
        self.log = log
        self.setup_seconds = 0.0
        self.steps: list[float] = []
        self.facts: dict[str, Any] | None = None
        down_read, down_write = os.pipe()
        up_read, up_write = os.pipe()
        with log.open("w") as out:
            self._process = subprocess.Popen(
                [*command, "--turns", str(down_read), str(up_write)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=(down_read, up_write),
                env=environment,
            )
        os.close(down_read)
        os.close(up_write)
        self._down = os.fdopen(down_write, "w")
        self._up = os.fdopen(up_read, "r")

    def get_ready(self) -> None:
        """Wait until the program stands before its first step."""
        self.setup_seconds = self._receive()["ready"]

    def turn(self) -> None:
        """Let it train one block."""
        self._down.write("go\n")
        self._down.flush()
        message = self._receive()
        self.steps += message.get("steps", [])
        if "done" in message:
            self.facts = message["done"]

    def stop(self) -> None:
        """End the program if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()

    def _receive(self) -> dict[str, Any]:
        line = self._up.readline()
        if not line:
            self.stop()
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
            raise SystemExit(f"{self.name} ended early; the end of {self.log}:\n{tail}")
        return json.loads(line)
