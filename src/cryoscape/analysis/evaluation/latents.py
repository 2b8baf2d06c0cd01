"""What the latent codes of a run tell of the true states, and of what they ought not to tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.evaluation.latent_metrics import (
    Imbalance,
    Neighbourhood,
    compare_descriptions,
    neighbour_ranks,
    neighbourhood_similarity,
)
from cryoscape.analysis.evaluation.truth import Truth

SAMPLE = 2000
"""Particles whose distances are ranked: time and memory grow with the square."""

NEIGHBOURS = (0.01, 0.05, 0.1, 0.2)
"""Neighbours looked at, as shares of the particles: CryoBench's 200 to 4,000 of 20,000."""

LEAK = 0.9
"""Information imbalance of codes towards pose or optics below which a warning is due."""

_PATHS = ("hinge", "adk", "linear1d", "double-well")
_LEAST = 20


@dataclass(frozen=True)
class LatentEvaluation:
    """Neighbours in the codes against neighbours in the truth, the poses and the optics.

    Parameters
    ----------
    particles : int
        How many were compared, drawn at random.
    truth : str
        What the truth was described by: `cv`, `circle` (cosine and sine of the cv), `subunits` (which are
        there, each weighed by its residues) or `coordinates` (distances without superposition).
    neighbourhood : tuple of Neighbourhood
        One row a number of neighbours.
    imbalance : tuple of Imbalance
        Of the codes with `truth`, `pose`, `view` and `ctf`.
    """

    particles: int
    truth: str
    neighbourhood: tuple[Neighbourhood, ...]
    imbalance: tuple[Imbalance, ...]

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> LatentEvaluation:
        """Inverse of `dataclasses.asdict`."""
        return cls(
            content["particles"],
            content["truth"],
            tuple(Neighbourhood(**row) for row in content["neighbourhood"]),
            tuple(Imbalance(**row) for row in content["imbalance"]),
        )

    @property
    def leaks(self) -> tuple[Imbalance, ...]:
        """Rows of pose and optics that the codes predict: below `LEAK`, and five deviations under chance."""
        return tuple(
            row
            for row in self.imbalance
            if row.name != "truth" and row.from_codes < min(LEAK, row.floor - 5 * row.floor_sd)
        )


def evaluate_latents(
    z: NDArray[Any],
    state: NDArray[np.int64],
    truth: Truth,
    controls: dict[str, NDArray[np.float64]],
    seed: int = 0,
) -> LatentEvaluation | None:
    """Compare codes with the true states and with the imaging.

    Parameters
    ----------
    z : ndarray, shape (n, d)
        Posterior means.
    state : ndarray, shape (n,), int
        True states.
    truth : Truth
        Of the simulation.
    controls : dict of ndarray, shape (n, d)
        From `cryoscape.analysis.evaluation.true_imaging.TrueImaging`.
    seed : int
        Of the sample and the shuffles.

    Returns
    -------
    LatentEvaluation or None
        None for fewer than 20 particles, or particles of one state.
    """
    generator = np.random.default_rng(seed)
    chosen = np.sort(generator.permutation(len(z))[:SAMPLE])
    if len(chosen) < _LEAST or len(np.unique(state[chosen])) < 2:
        return None
    name, places = truth_description(truth)
    codes, known = neighbour_ranks(z[chosen]), neighbour_ranks(places[state[chosen]])
    neighbours = np.unique([max(1, round(share * len(chosen))) for share in NEIGHBOURS])
    rows = [compare_descriptions("truth", codes, known, seed=seed)]
    for control, points in controls.items():
        rows.append(compare_descriptions(control, codes, neighbour_ranks(points[chosen]), seed=seed))
    return LatentEvaluation(
        particles=len(chosen),
        truth=name,
        neighbourhood=tuple(neighbourhood_similarity(known, codes, int(k)) for k in neighbours),
        imbalance=tuple(rows),
    )


def truth_description(truth: Truth) -> tuple[str, NDArray[np.float64]]:
    """Points whose distances say which true states are near to one another.

    Parameters
    ----------
    truth : Truth
        Of S states.

    Returns
    -------
    name : str
        See `LatentEvaluation`.
    points : ndarray, shape (S, d)
    """
    if truth.present is not None:
        size = np.ones(truth.present.shape[1])
        if truth.subunit is not None:
            size = np.bincount(truth.subunit[truth.subunit >= 0], minlength=len(size)).astype(np.float64)
        return "subunits", truth.present.astype(np.float64) * np.sqrt(size)
    if truth.cv is not None and np.ndim(truth.cv) == 1:
        if truth.scenario.startswith("circular"):
            angle = np.deg2rad(truth.cv)
            return "circle", np.stack([np.cos(angle), np.sin(angle)], axis=1)
        if truth.scenario in _PATHS:
            return "cv", np.asarray(truth.cv, dtype=np.float64)[:, None]
    moves = (truth.coords - truth.coords.mean(axis=0, dtype=np.float64)).reshape(len(truth.coords), -1)
    # The S principal scores have the distances of all 3 R coordinates.
    values, vectors = np.linalg.eigh(moves @ moves.T / truth.coords.shape[1])
    return "coordinates", vectors * np.sqrt(np.maximum(values, 0.0))
