"""The motions that a program claims: components of what it made, and the same objects without one of them.

A motion is judged by what the images lose when it is taken out: every object is moved back along the
component to its mean, all else stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.components import fit_components
from cryoscape.analysis.validation.subject import Subject

LEAST_SHARE = 0.05
"""Of the variance that the program claims; a component with less is not called a motion."""

_CHANGES = 0.05  # of a chain's presence, standard deviation, from which on it comes and goes
_STILL = 1e-4  # A, or share of the density, below which rounding moves things
_NAMED = 3  # stretches of residues that a motion's description names


@dataclass(frozen=True, eq=False)
class ClaimedMotion:
    """A component of what a program claims.

    Attributes
    ----------
    name, where : str
    axis : Tensor, shape of an object, or None
        Of unit norm; None where a chain comes and goes.
    chain : int or None
        Which one.
    score : ndarray, shape (K,)
        Of every object from the claimed mean: rms displacement over all residues, A; the share of the mean
        map's norm; or the share of the chain that is there.
    unit : str
    share : float
        Of the variance claimed; nan for chains.
    """

    name: str
    where: str
    axis: Tensor | None
    chain: int | None
    score: NDArray[np.float64]
    unit: str
    share: float

    def amplitude(self, weight: NDArray[np.float64]) -> float:
        """Standard deviation of the score under populations (K,)."""
        mean = float(weight @ self.score)
        return float(np.sqrt(max(float(weight @ np.square(self.score - mean)), 0.0)))

    def without(self, subject: Subject) -> tuple[Tensor, Tensor | None]:
        """Objects (K, ...) and presence (K, chains) with the motion taken out."""
        objects, present = subject.objects, subject.present
        weight = torch.from_numpy(subject.claimed).float()
        if self.axis is None:
            assert present is not None
            assert self.chain is not None
            still = present.clone()
            still[:, self.chain] = weight @ present[:, self.chain]
            return objects, still
        flat, axis = objects.flatten(1), self.axis.flatten()
        along = (flat - weight @ flat) @ axis
        return objects - (along[:, None] * axis).reshape(objects.shape), present


def claimed_motions(subject: Subject, most: int = 3) -> list[ClaimedMotion]:
    """The leading components of what a program claims, and the chains that come and go.

    Parameters
    ----------
    subject : Subject
    most : int
        Components, at most.

    Returns
    -------
    list of ClaimedMotion
        At least one component, unless all objects are the same.
    """
    flat = subject.objects.flatten(1).numpy().astype(np.float64)
    weight = subject.claimed
    mean = weight @ flat
    # Rows scaled by their populations have, about zero, the covariance that is claimed.
    scaled = np.sqrt(weight)[:, None] * (flat - mean)
    _, axes, variance, total = fit_components(np.concatenate([scaled, -scaled]), most)
    size = float(np.sqrt(subject.objects.shape[1]) if subject.has_structures else np.linalg.norm(mean))
    unit = "A" if subject.has_structures else "of the density"
    found = [
        ClaimedMotion(
            name=f"motion {k + 1}",
            where=_where(subject, axis, (flat - mean) @ axis),
            axis=torch.from_numpy(axis).float().reshape(subject.objects.shape[1:]),
            chain=None,
            score=(flat - mean) @ axis / size,
            unit=unit,
            share=float(v / total),
        )
        for k, (axis, v) in enumerate(zip(axes, variance))
        if np.sqrt(v) > _STILL * size and (k == 0 or v / total >= LEAST_SHARE)
    ]
    return found + _chains(subject)


def _chains(subject: Subject) -> list[ClaimedMotion]:
    if subject.present is None:
        return []
    present = subject.present.numpy().astype(np.float64)
    mean = subject.claimed @ present
    spread = np.sqrt(subject.claimed @ np.square(present - mean))
    names = list(subject.structure.chains) if subject.structure is not None else []
    return [
        ClaimedMotion(
            name=f"chain {names[c] if c < len(names) else c + 1}",
            where="comes and goes",
            axis=None,
            chain=int(c),
            score=present[:, c],
            unit="of the chain",
            share=float("nan"),
        )
        for c in np.flatnonzero(spread > _CHANGES)
    ]


def _where(subject: Subject, axis: NDArray[np.float64], scores: NDArray[np.float64]) -> str:
    """The stretches of residues that move most, with the way that they go between the ends."""
    model = subject.structure
    if model is None:
        return "changes of the map"
    length = np.linalg.norm(axis.reshape(-1, 3), axis=1) * float(np.ptp(scores))
    moved = length > 0.5 * length.max()
    edges = np.flatnonzero(np.diff(moved.astype(int), prepend=0, append=0))
    chain = np.asarray(model.chain_id)
    stretches: list[tuple[int, int]] = []
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist()):
        breaks = np.flatnonzero(chain[start + 1 : stop] != chain[start : stop - 1]) + start + 1
        ends = [start, *breaks.tolist(), stop]
        stretches += list(pairwise(ends))
    ranked = sorted(stretches, key=lambda s: -float(length[s[0] : s[1]].sum()))[:_NAMED]
    parts = [f"{chain[a]}:{model.residue_number[a]}-{model.residue_number[b - 1]}" for a, b in sorted(ranked)]
    return f"{', '.join(parts)}, up to {length.max():.1f} A"
