"""What all benchmarks share: sets, scores, the machine, result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SimulatedSet:
    """A folder written by `cryoscape simulate`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def star(self) -> Path:
        return self.path / "particles.star"

    @property
    def model(self) -> Path:
        return self.path / "reference.cif"

    @property
    def truth(self) -> Path:
        return self.path / "truth.npz"

    def check(self) -> SimulatedSet:
        """Return the set; leave with a message where a file is missing."""
        for file in (self.star, self.model, self.truth):
            if not file.is_file():
                sys.exit(f"{file} is missing; write the set with `cryoscape simulate`")
        return self


@dataclass(frozen=True)
class Score:
    """CA-RMSD without alignment of decoded structures against the true ones, A."""

    mean: float
    median: float
    per_state: list[float | None]
    trivial: float
    trivial_per_state: list[float]


def score(coords: NDArray[np.float32], truth: Path, rows: NDArray[np.int64] | None = None) -> Score:
    """Compare decoded structures (n, R, 3), in the frame of the reference file, with truth.

    Deliberately not `cryoscape.analysis.evaluation.evaluate`: the same few lines judge every program.
    """
    with np.load(truth) as known:
        states, state = known["coords"].astype(np.float64), known["state"].astype(int)
    if rows is not None:
        state = state[rows]

    def rmsd(found: NDArray, true: NDArray) -> NDArray:
        return np.sqrt(((found - true) ** 2).sum(-1).mean(-1))

    # One particle at a time in float64 would be slow, all at once too large.
    each = np.concatenate(
        [
            rmsd(coords[i : i + 500].astype(np.float64), states[state[i : i + 500]])
            for i in range(0, len(coords), 500)
        ]
    )
    # The first state is the one that the reference model shows.
    trivial = rmsd(states[:1], states)
    return Score(
        mean=float(each.mean()),
        median=float(np.median(each)),
        per_state=[
            float(each[state == s].mean()) if (state == s).any() else None for s in range(len(states))
        ],
        trivial=float(trivial[state].mean()),
        trivial_per_state=[float(v) for v in trivial],
    )


def script_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a script's docstring as it is laid out."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def one_thread() -> dict[str, str]:
    """Environment of a child process that computes on one thread."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


def machine() -> dict[str, Any]:
    """Processor, versions and load, for the result files."""
    import torch

    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def matrix_rate(shape: tuple[int, int, int] = (1024, 1024, 1024), seconds: float = 1.0) -> float:
    """Measured float32 matrix products, FLOP per CPU-second (best of several), on the threads in force."""
    import torch

    m, k, n = shape
    a, b = torch.randn(m, k), torch.randn(k, n)
    best, end = float("inf"), time.process_time() + seconds
    while time.process_time() < end:
        start = time.process_time()
        for _ in range(4):
            torch.mm(a, b)
        best = min(best, (time.process_time() - start) / 4)
    return 2.0 * m * k * n / best


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """Call, and return the result with the CPU-seconds it took."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a result file; dataclasses become objects."""

    def plain(value: Any) -> Any:
        if isinstance(value, Score):
            return asdict(value)
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Path):
            return str(value)
        raise TypeError(f"cannot write {type(value).__name__}")

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=plain) + "\n")
    print(f"written: {path}")


def row_text(row: Any) -> str:
    """A row of results (a dataclass) on one line."""
    return "  ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in asdict(row).values())


def table(header: list[str], rows: list[list[Any]]) -> str:
    """Rows as a Markdown table."""

    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell(v) for v in row) + " |" for row in rows]
    return "\n".join(lines)
