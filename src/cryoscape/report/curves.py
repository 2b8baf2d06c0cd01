"""Columns of the training record as curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESTRAINTS = {"bond": "bonds", "network": "elastic network", "clash": "clashes"}
TRAIN = "train"
RESTRAINT_FLOOR = 1e-3
"""Nats below which a restraint term is drawn as this on the logarithmic axis."""


@dataclass(frozen=True)
class Curve:
    """One column of the training record over one split.

    Parameters
    ----------
    images : ndarray, shape (n,)
        Images seen.
    values : ndarray, shape (n,)
        The column.
    """

    images: NDArray[np.float64]
    values: NDArray[np.float64]

    def __bool__(self) -> bool:
        return len(self.values) > 0

    def smoothed(self) -> NDArray[np.float64]:
        """Running mean over about a thirtieth of the record, shape (n,)."""
        width = max(1, len(self.values) // 30) | 1
        padded = np.pad(self.values, width // 2, mode="edge")
        return np.convolve(padded, np.full(width, 1 / width), mode="valid")


def curve(metrics: dict[str, np.ndarray] | None, column: str, held_out: bool = False) -> Curve:
    """Pick the finite entries of one column.

    Parameters
    ----------
    metrics : dict of ndarray
        Columns of the training record; `split` says what each row was measured on.
    column : str
        Which one.
    held_out : bool
        The rows measured on held-out particles rather than on training batches.

    Returns
    -------
    Curve
        Empty where the column is missing or has no finite entry.
    """
    if not metrics or column not in metrics:
        return Curve(np.zeros(0), np.zeros(0))
    values = np.asarray(metrics[column], dtype=np.float64)
    images = np.asarray(metrics.get("images", metrics.get("step", np.arange(len(values)))), dtype=np.float64)
    split = np.asarray(metrics.get("split", np.full(len(values), TRAIN))).astype(str)
    keep = np.isfinite(values) & ((split != TRAIN) if held_out else (split == TRAIN))
    return Curve(images[keep], values[keep])


def restraint_curves(metrics: dict[str, np.ndarray] | None) -> dict[str, Curve]:
    """Pick the restraint terms that were ever above zero.

    Parameters
    ----------
    metrics : dict of ndarray
        Columns of the training record.

    Returns
    -------
    dict of Curve
        By what to call them; empty for maps, which have no geometry.
    """
    found = {label: curve(metrics, name) for name, label in RESTRAINTS.items()}
    return {label: term for label, term in found.items() if term and np.any(term.values > 0)}


def progress_column(metrics: dict[str, np.ndarray] | None) -> tuple[str, str]:
    """Return the column that shows best how the fit improves, and what to call it.

    Parameters
    ----------
    metrics : dict of ndarray
        Columns of the training record.

    Returns
    -------
    column, label : str
        In nats a particle.
    """
    if curve(metrics, "gain_nats"):
        return "gain_nats", "gain over one structure"
    return "elbo", "evidence bound (ELBO)"
