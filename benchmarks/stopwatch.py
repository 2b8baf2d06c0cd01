"""CPU time by part of a training step, from outside: the library's functions are wrapped while it runs."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cryoscape.progress import Silent, SilentTask

# Where the profiler puts the backward pass of each operation.
_BACKWARD = "autograd::engine::evaluate_function: "


class Stopwatch:
    """Exclusive CPU-seconds of named functions, summed step by step.

    A wrapped function that calls another wrapped one is not charged for it, so the parts of a step add up
    to no more than the step.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self._running: list[list[float]] = []
        self._step: dict[str, float] = defaultdict(float)

    def begin(self) -> None:
        """Forget what ran before the first step."""
        self._step = defaultdict(float)
        self._mark = time.process_time()

    def lap(self) -> None:
        """End a step."""
        now = time.process_time()
        self.steps.append({**self._step, "step": now - self._mark})
        self._step = defaultdict(float)
        self._mark = now

    @contextmanager
    def watching(self, parts: dict[str, list[tuple[Any, str]]]) -> Iterator[None]:
        """Wrap functions while the context lasts.

        Parameters
        ----------
        parts : dict of str -> list of (owner, attribute)
            Label, and the functions or methods charged to it.
        """
        originals = []
        try:
            for label, places in parts.items():
                for owner, name in places:
                    originals.append((owner, name, owner.__dict__.get(name)))
                    setattr(owner, name, self._wrap(getattr(owner, name), label))
            yield
        finally:
            for owner, name, function in reversed(originals):
                # An inherited method was covered, not replaced.
                if function is None:
                    delattr(owner, name)
                else:
                    setattr(owner, name, function)

    def _wrap(self, function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            inside = [0.0]
            self._running.append(inside)
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.process_time() - start
                self._running.pop()
                self._step[label] += spent - inside[0]
                if self._running:
                    self._running[-1][0] += spent

        return timed


class StepListener(Silent):
    """Calls `begin()` when training starts and `lap(i)` after every step; silent about all else."""

    def __init__(self, begin: Callable[[], None], lap: Callable[[int], None]) -> None:
        self._begin, self._lap = begin, lap

    def task(self, name: str, total: float | None = None, unit: str = "") -> SilentTask:
        return _Steps(self._begin, self._lap) if name == "training" else SilentTask()


class _Steps(SilentTask):
    def __init__(self, begin: Callable[[], None], lap: Callable[[int], None]) -> None:
        self._begin, self._lap, self._count = begin, lap, 0

    def advance(self, count: float = 1) -> None:
        for _ in range(int(count)):
            self._count += 1
            self._lap(self._count)

    def __enter__(self) -> _Steps:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Arithmetic:
    """FLOPs of one step's matrix products, forward and backward, by kind of product.

    Counted for several steps, of which the smallest stands: now and then a step is followed by a look at the
    held-out particles.
    """

    def __init__(self) -> None:
        self._mode: FlopCounterMode | None = None
        self.flops: dict[str, float] = {}

    def start(self) -> None:
        self._mode = FlopCounterMode(display=False)
        self._mode.__enter__()

    def stop(self) -> None:
        assert self._mode is not None
        self._mode.__exit__(None, None, None)
        counts = self._mode.get_flop_counts().get("Global", {})
        found = {str(operation).removeprefix("aten."): float(flops) for operation, flops in counts.items()}
        if found and (not self.flops or sum(found.values()) < sum(self.flops.values())):
            self.flops = found


class BackwardProfile:
    """CPU-seconds a step of the backward pass, by the operation it belongs to."""

    def __init__(self, steps: int) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self._steps = steps
        self.seconds: dict[str, float] = {}

    def start(self) -> None:
        self._profile.__enter__()

    def stop(self) -> None:
        self._profile.__exit__(None, None, None)
        for event in self._profile.key_averages():
            if event.key.startswith(_BACKWARD):
                name = event.key.removeprefix(_BACKWARD)
                self.seconds[name] = 1e-6 * event.cpu_time_total / self._steps


def backward_shares(seconds: dict[str, float]) -> dict[str, float]:
    """The backward pass as fractions: projection, layers of the networks, everything else."""
    groups: dict[str, float] = defaultdict(float)
    for name, value in seconds.items():
        if "Projection" in name:
            groups["projection"] += value
        elif name in ("AddmmBackward0", "MmBackward0", "TBackward0", "torch::autograd::AccumulateGrad"):
            groups["linear layers"] += value
        else:
            groups["elementwise and indexing"] += value
    total = sum(groups.values()) or 1.0
    return {name: value / total for name, value in groups.items()}


def threads() -> int:
    """Threads that PyTorch computes with."""
    return torch.get_num_threads()
