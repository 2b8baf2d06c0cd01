"""metrics.csv: means of all terms over the last steps, and the evidence bound of held-out particles."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from cryoscape.files import atomic_path
from cryoscape.training.objective import Terms

COLUMNS = (
    "step",
    "images",
    "split",
    "loss",
    "elbo",
    "log_likelihood",
    "kl",
    "weighted_kl",
    "bond",
    "network",
    "clash",
    "penalty",
    "beta",
    "lr",
    "log_z_err",
    "seconds",
)

_NEED_LOG_Z = ("loss", "elbo", "kl", "weighted_kl")


class MetricsLog:
    """Averages terms between two lines of the file.

    Parameters
    ----------
    path : Path
        metrics.csv.
    tensorboard : Path, optional
        Folder for TensorBoard's own files as well.
    """

    def __init__(self, path: Path, tensorboard: Path | None = None) -> None:
        self._path = path
        self._sums: dict[str, float] = {}
        self._count = 0
        self._whole = True
        self._images = 0
        self._seconds = 0.0
        self._clock = time.monotonic()
        self._writer: Any = None
        if tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))

    def add(self, terms: Terms, *, beta: float, lr: float, images: int, whole: bool = True) -> None:
        """Count one step.

        Parameters
        ----------
        terms : Terms
        beta, lr : float
            In force.
        images : int
            Of the batch.
        whole : bool
            Whether the KL term is all there. Without the log Z of the prior neither it nor the bound is
            written: that of held-out particles is, with its error.
        """
        self._whole &= whole
        numbers = terms.numbers()
        for name, value in {**numbers, "beta": beta, "lr": lr}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        self._images += images

    def flush(self, step: int) -> dict[str, float]:
        """Write the means since the last call, and return them."""
        row = {name: value / max(self._count, 1) for name, value in self._sums.items()}
        if not self._whole:
            row = {name: value for name, value in row.items() if name not in _NEED_LOG_Z}
        self._write({"step": step, "images": self._images, "split": "train", **row})
        self._sums, self._count, self._whole = {}, 0, True
        return row

    def held_out(self, step: int, **values: float | None) -> None:
        """Write a line of the held-out particles."""
        self._write({"step": step, "images": self._images, "split": "held_out", **values})

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        return {
            "sums": dict(self._sums),
            "count": self._count,
            "whole": self._whole,
            "images": self._images,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any], step: int) -> None:
        """Go back to a checkpoint: later lines are dropped from the file."""
        self._sums, self._count, self._images = dict(state["sums"]), state["count"], state["images"]
        self._whole = state["whole"]
        self._seconds, self._clock = state["seconds"], time.monotonic()
        if not self._path.is_file():
            return
        with open(self._path, newline="") as stream:
            # A line cut short by a crash lacks its last column; the stump of its step may read as a number.
            whole = [r for r in csv.DictReader(stream) if r.get(COLUMNS[-1])]
            kept = [r for r in whole if int(r["step"]) <= step]
        with atomic_path(self._path) as temporary, open(temporary, "w", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)

    @property
    def seconds(self) -> float:
        """Time spent on the run, all its legs together."""
        return self._seconds + time.monotonic() - self._clock

    def _write(self, row: dict[str, Any]) -> None:
        new = not self._path.exists()
        row = {"seconds": self.seconds, **row}
        shown = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        with open(self._path, "a", newline="") as stream:
            writer = csv.DictWriter(stream, COLUMNS, restval="")
            if new:
                writer.writeheader()
            writer.writerow(shown)
        if self._writer is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])
