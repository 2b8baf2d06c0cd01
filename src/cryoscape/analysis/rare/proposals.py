"""Codes that cover what a decoder can make, beyond what the population makes often.

A prior at a temperature, p(z)^(1/T), has the same basins and lower walls, so its samples reach conformations
that the prior hardly has. Real latents move by Langevin steps that Metropolis corrects, bits by single flips.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.components import decode_in_chunks, fit_components
from cryoscape.analysis.populations.likelihood_table import candidate_codes, presence
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.langevin import LogDensity, accepted_by, metropolis_langevin, tuned_step

if TYPE_CHECKING:
    from cryoscape.training.run import Run

TEMPERATURES = (2.0, 4.0, 8.0)
"""Of the prior; N(0, I) becomes 1.4, 2 and 2.8 times as wide."""

_CHAINS, _MAP_CHAINS = 300, 40  # at each temperature
_STEPS = 60
_SWEEPS = 4
_COMPONENTS = 8
_PROJECTIONS = 64


def tempered_codes(prior: LatentPrior, temperature: float, n: int, generator: torch.Generator) -> Tensor:
    """Samples of p(z)^(1/T), shape (n, d), by chains that start from samples of p.

    Parameters
    ----------
    prior : LatentPrior
    temperature : float
        T.
    n : int
    generator : torch.Generator
    """
    start = prior.sample(n, generator)

    def log_density(z: Tensor) -> Tensor:
        return -prior.energy(z) / temperature

    if prior.support == "binary":
        return _flipped(log_density, start, generator)
    scale = start.std(0).clamp_min(1e-6) * temperature**0.5

    def scaled(u: Tensor) -> Tensor:
        return log_density(u * scale)

    step, u = tuned_step(scaled, start / scale, generator=generator)
    chains = metropolis_langevin(scaled, u, step=step, steps=_STEPS, generator=generator)
    return chains.points * scale


@torch.no_grad()
def _flipped(log_density: LogDensity, start: Tensor, generator: torch.Generator) -> Tensor:
    """Metropolis flips of all bits in turn."""
    z, value = start.clone(), log_density(start)
    for k in list(range(z.shape[1])) * _SWEEPS:
        trial = z.clone()
        trial[:, k] = 1 - trial[:, k]
        there = log_density(trial)
        taken = accepted_by(there - value, z.dtype, generator)
        z, value = torch.where(taken[:, None], trial, z), torch.where(taken, there, value)
    return z


def covering_codes(run: Run, count: int, seed: int = 0) -> NDArray[np.float32]:
    """Codes of conformations that cover what a run has found, and what its decoder makes beyond.

    Half are those of `candidate_codes`; the others are samples of the tempered prior, each as far as possible
    from all before.

    Parameters
    ----------
    run : Run
        With an embedding.
    count : int
    seed : int

    Returns
    -------
    ndarray, shape (about count, d), float32
    """
    found = candidate_codes(run, -(-count // 2), seed)
    generator = torch.Generator().manual_seed(seed)
    n = _CHAINS if run.has_structures else _MAP_CHAINS
    hot = torch.cat([tempered_codes(run.prior, t, n, generator) for t in TEMPERATURES]).float().numpy()
    hot = hot[np.isfinite(hot).all(axis=1)]
    pool = np.concatenate([found, hot])
    places = _places(run, pool, seed)
    return pool[_farthest_from(places, len(found), count)]


def _farthest_from(places: NDArray, given: int, count: int) -> NDArray[np.int64]:
    """The first `given` points, and more of the others, each the farthest from all before."""
    chosen = list(range(given))
    distance = np.square(places[:, None] - places[None, :given]).sum(-1).min(axis=1)
    while len(chosen) < count and distance.max() > 0:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.square(places - places[chosen[-1]]).sum(axis=1))
    return np.array(chosen, dtype=np.int64)


def _places(run: Run, z: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    """Points whose distances are about those of the decoded structures, A, or maps."""
    if run.has_structures:
        flat = np.concatenate([part for _, part in decode_in_chunks(run, z)]).reshape(len(z), -1)
        mean, axes, _, _ = fit_components(flat, _COMPONENTS)
        places = (flat - mean) @ axes.T / np.sqrt(flat.shape[1] / 3)
        present = presence(run, z)
        return places if present is None else np.concatenate([places, present], axis=1)
    # Random projections keep distances (Johnson and Lindenstrauss 1984), map by map.
    rng = np.random.default_rng(seed)
    voxels = run.geometry.box**3
    axes = rng.standard_normal((_PROJECTIONS, voxels), dtype=np.float32) / np.sqrt(_PROJECTIONS)
    return np.stack([axes @ run.decode_maps(one[None])[0].ravel() for one in z]).astype(np.float64)
