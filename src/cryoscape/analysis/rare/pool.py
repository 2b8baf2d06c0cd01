"""Conformations that all images have been compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.populations.ensemble_weights import responsibilities
from cryoscape.analysis.rare.evidence import evidence_table
from cryoscape.analysis.rare.refinement import Conformation, scenes_of
from cryoscape.analysis.rare.selection import Selection
from cryoscape.progress import ProgressReporter

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pool:
    """Conformations, and all images under each.

    Attributes
    ----------
    conformations : tuple of Conformation, length K
    table, expected : ndarray, shape (N, K)
        As of `evidence.evidence_table`.
    """

    conformations: tuple[Conformation, ...]
    table: Array
    expected: Array

    def with_more(self, run: Run, more: Sequence[Conformation], progress: ProgressReporter | None) -> Pool:
        """The same with more conformations."""
        if not more:
            return self
        table, expected = evidence_table(run, scenes_of(run, more), progress=progress)
        return Pool(
            (*self.conformations, *more),
            np.concatenate([self.table, table], axis=1),
            np.concatenate([self.expected, expected], axis=1),
        )

    def shares(self, chosen: Selection) -> Array:
        """Probability of each selected structure given every image, shape (N, len(columns))."""
        part = self.table[:, list(chosen.columns)]
        return responsibilities(part, chosen.weight)
