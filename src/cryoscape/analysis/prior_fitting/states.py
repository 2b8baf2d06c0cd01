"""The states that a learned prior knows: its components or configurations, joined into basins.

A mixture describes one bent cloud by several Gaussians, and switches by several configurations: such parts
are one state. Two parts belong to the same basin of p(z) if climbing the density from their centres ends
at the same maximum, or at maxima between which the density hardly falls.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.components import posterior
from cryoscape.analysis.states.membership import (
    LARGEST,
    SMALLEST_STATE,
    StateMembership,
    find_states,
    images_held,
    membership_of_weights,
)
from cryoscape.priors.base import CoupledSwitches

if TYPE_CHECKING:
    from cryoscape.priors.base import PriorStates
    from cryoscape.training.run import Run

DIP = 0.5
"""Two maxima are one basin where the density between them falls by less than this, in units of kT."""

LEAST = 1e-3
"""Parts of a smaller population go to the basin that their centre lies in, and make none of their own."""

_DRAWS = 8
_CLIMB = 500
_ALONG = 41


@dataclass(frozen=True, eq=False)
class Basins:
    """Parts of a prior, joined.

    Attributes
    ----------
    label : ndarray, shape (K,), int
        Basin of every part; basins are ordered by their population, the largest first.
    share : ndarray, shape (B,)
        Populations under the prior.
    members : tuple of tuple of str, length B
        Names of the parts of each.
    """

    label: NDArray[np.int64]
    share: NDArray[np.float64]
    members: tuple[tuple[str, ...], ...]


def find_basins(states: PriorStates) -> Basins:
    """Join the parts of a mixture that share a maximum of the density.

    Modal expectation-maximisation climbs from every centre (Li, Ray and Lindsay, JMLR 8, 2007); maxima are
    joined where the density along the straight line between them stays within `DIP` of the lower one.

    Parameters
    ----------
    states : PriorStates
        K Gaussians. Parts without width (configurations of bits) are all different states.

    Returns
    -------
    Basins
    """
    k = len(states.weight)
    group = np.arange(k)
    if float(np.abs(states.covariance).max(initial=0.0)) > 0:
        density = _Density(states)
        peaks = density.climb(states.mean)
        large = states.weight >= min(LEAST, float(states.weight.max()))
        for a in range(k):
            for b in range(a):
                if group[a] != group[b] and density.joined(peaks[a], peaks[b]):
                    group[group == group[a]] = group[b]
        # A small part alone on its own maximum is not called a state: it goes to the likeliest other one.
        keep = np.unique(group[large])
        for i in np.flatnonzero(~np.isin(group, keep)):
            others = np.flatnonzero(np.isin(group, keep))
            group[i] = group[others[density.log_parts(states.mean[i : i + 1])[0, others].argmax()]]
    names, label = np.unique(group, return_inverse=True)
    share = np.bincount(label, weights=states.weight, minlength=len(names))
    order = np.argsort(-share, kind="stable")
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    label = rank[label]
    members = tuple(tuple(states.names[i] for i in np.flatnonzero(label == b)) for b in range(len(names)))
    return Basins(label, share[order].astype(np.float64), members)


class _Density:
    """The mixture as a function of z."""

    def __init__(self, states: PriorStates) -> None:
        self._mean = states.mean.astype(np.float64)
        self._precision = np.linalg.inv(states.covariance.astype(np.float64))
        d = self._mean.shape[1]
        log_det = np.linalg.slogdet(self._precision)[1]
        weight = np.log(np.maximum(states.weight, 1e-300))
        self._constant = weight + 0.5 * (log_det - d * np.log(2 * np.pi))

    def log_parts(self, z: NDArray) -> NDArray[np.float64]:
        """Log of every weighted Gaussian, (n, d) -> (n, K)."""
        residual = z[:, None] - self._mean
        distance = np.einsum("nki,kij,nkj->nk", residual, self._precision, residual)
        return self._constant - 0.5 * distance

    def log_density(self, z: NDArray) -> NDArray[np.float64]:
        """Log density, (n, d) -> (n,)."""
        return np.logaddexp.reduce(self.log_parts(z), axis=1)

    def climb(self, z: NDArray) -> NDArray[np.float64]:
        """Nearest maximum uphill of every point, (n, d) -> (n, d)."""
        z = z.astype(np.float64)
        for _ in range(_CLIMB):
            parts = self.log_parts(z)
            r = np.exp(parts - np.logaddexp.reduce(parts, axis=1)[:, None])
            total = np.einsum("nk,kij->nij", r, self._precision)
            pull = np.einsum("nk,kij,kj->ni", r, self._precision, self._mean)
            moved = np.linalg.solve(total, pull[..., None])[..., 0]
            step, z = float(np.abs(moved - z).max()), moved
            if step < 1e-7 * max(1.0, float(np.abs(z).max())):
                break
        return z

    def joined(self, a: NDArray, b: NDArray) -> bool:
        """Whether the density falls by less than `DIP` between two maxima."""
        line = a + np.linspace(0, 1, _ALONG)[:, None] * (b - a)
        height = self.log_density(line)
        return bool(min(height[0], height[-1]) - height.min() < DIP)


@dataclass(frozen=True, eq=False)
class PriorFindings:
    """What a run's own prior says of its particles.

    Attributes
    ----------
    weights : ndarray, shape (n, B), float32
        Mean over each particle's posterior of the probability of every state given z; a particle whose
        posterior spans two states is shared between them.
    share : ndarray, shape (B,)
        Populations under the prior: not the means of these weights, and no counts.
    particle : ndarray, shape (B,), int
        Row of the embedding that represents the state.
    members : tuple of tuple of str, length B
        Components or configurations that make up each state.
    fields, couplings : ndarray, shape (m,) and (m, m), or None
        Of a Boltzmann prior's switches, kT.
    """

    weights: NDArray[np.float32]
    share: NDArray[np.float64]
    particle: NDArray[np.int64]
    members: tuple[tuple[str, ...], ...]
    fields: NDArray[np.float64] | None = None
    couplings: NDArray[np.float64] | None = None

    def to_dict(self, row: NDArray[np.int64]) -> dict[str, Any]:
        """Return plain values, for JSON; `row` (n,) is that of each particle in its table."""
        return {
            "fields_kt": self.fields,
            "couplings_kt": self.couplings,
            "states": [
                {
                    "state": k + 1,
                    "population": self.share[k],
                    "images": float(self.weights[:, k].sum()),
                    "representative_row": row[self.particle[k]],
                    "parts": list(self.members[k]),
                }
                for k in range(len(self.share))
            ],
        }


def prior_findings(run: Run, seed: int = 0) -> PriorFindings | None:
    """States of the run's own prior, and the particles in them.

    Parameters
    ----------
    run : Run
        With an embedding.
    seed : int
        Of the posterior samples.

    Returns
    -------
    PriorFindings or None
        None where the prior was not learned, or has neither states nor switches. More switches than can be
        listed have couplings and no states.
    """
    prior, found = run.prior, prior_membership(run, seed)
    coupled = prior if isinstance(prior, CoupledSwitches) and run.config.prior.learned else None
    if found is None and coupled is None:
        return None
    n = len(run.embedding.z)
    members: tuple[tuple[str, ...], ...] = ()
    weights, share, particle = np.zeros((n, 0)), np.zeros(0), np.zeros(0, dtype=np.int64)
    if found is not None:
        membership, members = found
        weights, share, particle = membership.weights, membership.share, membership.particle
    return PriorFindings(
        weights.astype(np.float32),
        share,
        particle,
        members,
        None if coupled is None else coupled.fields_kt().double().numpy(),
        None if coupled is None else coupled.couplings_kt().double().numpy(),
    )


def prior_membership(run: Run, seed: int = 0) -> tuple[StateMembership, tuple[tuple[str, ...], ...]] | None:
    """Membership in the states of the run's own prior, and the parts that make up each; None as above."""
    prior = run.prior
    states = prior.states()
    if not run.config.prior.learned or states is None:
        return None
    basins = find_basins(states)
    z, z_sd = posterior(run.embedding, run.path)
    weights = _weights(run, z, z_sd, basins.label, seed)
    source = f"the {run.config.prior.kind} prior's own states"
    return membership_of_weights(weights, z, basins.share, source), basins.members


def states_of_run(run: Run, n_states: int | None = None, seed: int = 0) -> StateMembership:
    """States to make maps of: those of the run's own prior, or of a mixture deconvolved from its codes.

    A learned prior that has states speaks for itself, unless a number is asked for, or more than `LARGEST` of
    its states hold enough images for a map. Those with fewer are left out.

    Parameters
    ----------
    run : Run
        With an embedding.
    n_states : int, optional
        How many, of the deconvolved mixture.
    seed : int
        Of posterior samples and groups.

    Returns
    -------
    StateMembership

    Raises
    ------
    InputError
        As `find_states`.
    """
    own = None if n_states is not None else prior_membership(run, seed)
    if own is not None:
        found = own[0]
        kept = images_held(found.weights) >= SMALLEST_STATE
        if 1 <= int(kept.sum()) <= LARGEST:
            z, _ = posterior(run.embedding, run.path)
            return membership_of_weights(found.weights[:, kept], z, found.share[kept], found.source)
    return find_states(run, n_states, seed)


def _weights(run: Run, z: NDArray, z_sd: NDArray, label: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Mean over the posterior of the probability of every basin, shape (N, B)."""
    prior, generator = run.prior, torch.Generator().manual_seed(seed)
    joined = torch.from_numpy(np.eye(int(label.max()) + 1)[label]).float()
    mean, sd = torch.from_numpy(z).float(), torch.from_numpy(z_sd).float()
    total = torch.zeros(len(z), joined.shape[1])
    with torch.no_grad():
        if prior.support == "binary":
            return (prior.responsibilities(mean) @ joined).double().numpy()
        for _ in range(_DRAWS):
            draw = mean + sd * torch.randn(mean.shape, generator=generator)
            parts = [prior.responsibilities(part) @ joined for part in draw.split(20_000)]
            total += torch.cat(parts)
    return (total / _DRAWS).double().numpy()
