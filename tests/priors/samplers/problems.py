"""Small machines, and their laws by plain loops."""

import itertools
import math

import numpy as np
import torch

from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.calibration import reference_problem, state_shares
from cryoscape.priors.samplers.exact import state_probabilities

LOG_Z = 11.785533195992425
"""Of `reference_problem` (measured independently)."""


def complete(n, seed=0, strength=0.4, offset=0.0):
    """All pairs of n spins coupled at random, frustrated, in double precision."""
    rng = np.random.default_rng(seed)
    edges = torch.combinations(torch.arange(n), 2)
    couplings = torch.from_numpy(rng.normal(0, strength, len(edges)))
    return IsingProblem(torch.from_numpy(rng.normal(0, 0.5, n)), edges, couplings, offset)


def grid(side, seed=0):
    """Square lattice with random couplings, no side of which can be enumerated when it is large."""
    number = torch.arange(side * side).view(side, side)
    right = torch.stack([number[:, :-1].flatten(), number[:, 1:].flatten()], 1)
    down = torch.stack([number[:-1].flatten(), number[1:].flatten()], 1)
    rng = np.random.default_rng(seed)
    edges = torch.cat([right, down])
    fields = torch.from_numpy(rng.normal(0, 0.3, side * side))
    return IsingProblem(fields, edges, torch.from_numpy(rng.normal(0, 0.5, len(edges))))


def two_wells(n=16, coupling=-0.25, field=0.01):
    """A ferromagnet on a complete graph: two states that chains at beta = 1 do not leave."""
    edges = torch.combinations(torch.arange(n), 2)
    fields = torch.full((n,), field, dtype=torch.float64)
    return IsingProblem(fields, edges, torch.full((len(edges),), coupling).double())


def by_loops(problem, beta=1.0):
    """log Z, mean spins, mean products over the edges and mean energy."""
    h, j = problem.fields.tolist(), problem.couplings.tolist()
    edges = problem.edges.tolist()
    total, mean, pairs, mean_energy = 0.0, np.zeros(len(h)), np.zeros(len(edges)), 0.0
    for s in itertools.product((-1, 1), repeat=len(h)):
        products = np.array([s[u] * s[v] for u, v in edges])
        energy = float(np.dot(h, s)) + float(np.dot(j, products) if edges else 0.0) + problem.offset
        weight = math.exp(-beta * energy)
        total += weight
        mean += weight * np.array(s)
        pairs += weight * products
        mean_energy += weight * energy
    return math.log(total), mean / total, pairs / total, mean_energy / total


def tvd(samples, problem=None, beta=1.0):
    """Total variation between samples and the law of a problem of few spins."""
    law = state_probabilities(problem or reference_problem(), beta)
    return float(0.5 * (state_shares(samples) - law).abs().sum())


def bars_and_stripes():
    """The 14 patterns 3 x 3 whose rows, or whose columns, are all alike, as bits (14, 9)."""
    lines = torch.cartesian_prod(*[torch.arange(2)] * 3).double()
    rows = lines[:, :, None].expand(-1, 3, 3).reshape(-1, 9)
    columns = lines[:, None, :].expand(-1, 3, 3).reshape(-1, 9)
    return torch.cat([rows, columns]).unique(dim=0)


def trained_path(steps=1500, checkpoints=10, lr=0.2):
    """A restricted machine of 9 + 9 learning bars and stripes by the exact gradient, at growing distances."""
    data = bars_and_stripes()
    edges = torch.cartesian_prod(torch.arange(9), torch.arange(9, 18))
    a, b = torch.zeros(9).double(), torch.zeros(9).double()
    w = 0.01 * torch.randn(9, 9, generator=torch.Generator().manual_seed(0)).double()
    hidden = torch.cartesian_prod(*[torch.arange(2)] * 9).double()
    kept = set(np.geomspace(1, steps, checkpoints).astype(int).tolist())
    path = []
    for step in range(1, steps + 1):
        field = hidden @ w.T + a
        p = torch.softmax(hidden @ b + torch.nn.functional.softplus(field).sum(1), 0)
        model, given = torch.sigmoid(field), torch.sigmoid(data @ w + b)
        w += lr * (data.T @ given / len(data) - (model * p[:, None]).T @ hidden)
        a += lr * (data.mean(0) - p @ model)
        b += lr * (given.mean(0) - p @ hidden)
        if step in kept:
            path.append(IsingProblem.of_bits(torch.cat([a, b]), edges, w.flatten().clone()))
    return path
