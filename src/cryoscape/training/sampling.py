"""Which particles are held out, and which ones each step sees: pure functions of seed and step."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def held_out_mask(n: int, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose particles that are never trained on.

    Parameters
    ----------
    n : int
        Particles.
    fraction : float
        Share that is held out; at least one particle is left to train on.
    seed : int

    Returns
    -------
    ndarray, shape (n,), bool
    """
    mask = np.zeros(n, dtype=bool)
    count = min(round(fraction * n), n - 1)
    mask[np.random.default_rng([seed, 11]).choice(n, size=count, replace=False)] = True
    return mask


class BatchOrder:
    """Endless shuffled passes over the training particles, readable at any step.

    Parameters
    ----------
    rows : ndarray of int
        Training particles.
    batch : int
        Particles a step.
    seed : int
    """

    def __init__(self, rows: NDArray[np.int64], batch: int, seed: int) -> None:
        self._rows = torch.from_numpy(rows)
        self._batch = min(batch, len(rows))
        self._seed = seed
        self._passes: dict[int, Tensor] = {}

    @property
    def rows(self) -> Tensor:
        """All the particles of a pass."""
        return self._rows

    def _pass(self, index: int) -> Tensor:
        if index not in self._passes:
            # A batch spans two passes at most.
            self._passes = {k: v for k, v in self._passes.items() if k == index - 1}
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
            self._passes[index] = self._rows[torch.randperm(len(self._rows), generator=generator)]
        return self._passes[index]

    def at(self, step: int) -> Tensor:
        """Rows of the batch of a step (from 0), shape (batch,)."""
        start, n = step * self._batch, len(self._rows)
        first, offset = divmod(start, n)
        rows = self._pass(first)[offset : offset + self._batch]
        if len(rows) < self._batch:
            rows = torch.cat([rows, self._pass(first + 1)[: self._batch - len(rows)]])
        return rows


def step_generator(seed: int, step: int) -> torch.Generator:
    """Source of the posterior noise of one step."""
    return torch.Generator().manual_seed((seed + 1) * 2_000_003 + step)
