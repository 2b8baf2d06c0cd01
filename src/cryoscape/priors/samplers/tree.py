"""Exact samples, log Z and marginals of graphs that are nearly trees, by a tree decomposition.

The work grows as 2^width, where the width of a restricted machine is its smaller side, of a chain 1 and of an
L x L grid L. The decomposition is that of `dwave.samplers.TreeDecompositionSampler`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.samplers.annealing_extra import import_extra
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, seeded
from cryoscape.priors.samplers.bqm import bqm_of, spins_of
from cryoscape.priors.samplers.colouring import degeneracy
from cryoscape.priors.samplers.exact import ExactMoments

MAX_WIDTH = 25
"""Largest width that the decomposition takes."""

QUICK_WIDTH = 15
"""Width up to which a dense graph of some eighty spins takes a few seconds; every further one doubles it."""


def tree_width(problem: IsingProblem) -> int:
    """Width of the decomposition that the min-fill heuristic finds, or a lower bound of it above `MAX_WIDTH`.

    Raises
    ------
    InputError
        If dwave-samplers is not installed.
    """
    # The heuristic is slow on large dense graphs, where a bound is enough.
    bound = degeneracy(len(problem), problem.edges)
    if bound > MAX_WIDTH:
        return bound
    width, _ = import_extra("dwave.samplers.tree.utilities").min_fill_heuristic(bqm_of(problem))
    return int(width)


def tree_moments(problem: IsingProblem, beta: float = 1.0, max_width: int = MAX_WIDTH) -> ExactMoments:
    """Log Z, mean spins, pairs and energy.

    Raises
    ------
    InputError
        If the width is too large, or dwave-samplers is not installed.
    """
    info = _decomposed(problem, beta, 1, True, 0, max_width)[1]
    up = [info["variable_marginals"][u] for u in range(len(problem))]
    equal = {}
    for (u, v), table in info["interaction_marginals"].items():
        equal[u, v] = equal[v, u] = table[1, 1] + table[-1, -1]
    pairs = [2 * equal[u, v] - 1 for u, v in problem.edges.tolist()]
    mean = 2 * torch.tensor(up, dtype=torch.float64) - 1
    product = torch.tensor(pairs, dtype=torch.float64)
    double = problem.double()
    energy = double.fields.cpu() @ mean + double.couplings.cpu() @ product
    return ExactMoments(float(info["log_partition_function"]), mean, product, float(energy) + problem.offset)


def _decomposed(
    problem: IsingProblem, beta: float, num_reads: int, marginals: bool, seed: int, max_width: int
) -> tuple[Tensor, dict[str, Any]]:
    """Spins and the information that comes with them."""
    samplers = import_extra("dwave.samplers")
    width = tree_width(problem)
    if width > min(max_width, MAX_WIDTH):
        raise InputError(
            f"the couplings of these {len(problem)} spins have a tree width of {width} or more, "
            f"and {min(max_width, MAX_WIDTH)} is the limit",
            remedy="Use a sampler of chains: gibbs or tempering.",
        )
    result = samplers.TreeDecompositionSampler().sample(
        bqm_of(problem), num_reads=num_reads, beta=beta, marginals=marginals, seed=seed
    )
    return spins_of(result, range(len(problem))), result.info


class TreeSampler(IsingSampler):
    """Independent samples from the very law, by a tree decomposition.

    Parameters
    ----------
    max_width : int
        Width up to which it is tried; memory and time grow as 2^width.
    """

    exact = True

    def __init__(self, max_width: int = MAX_WIDTH) -> None:
        self.max_width = max_width

    @torch.no_grad()
    def sample_ising(
        self,
        problem: IsingProblem,
        *,
        num_reads: int,
        beta: float = 1.0,
        initial_states: Tensor | None = None,
        seed: int | None = None,
    ) -> IsingSamples:
        """Draw independent samples; `info` has the exact `log_z`.

        Raises
        ------
        InputError
            If the width is too large, dwave-samplers is not installed, or chains are handed over.
        """
        self.refuse_initial_states(initial_states)
        number = int(torch.randint(2**31 - 1, (), generator=seeded(seed)))
        spins, info = _decomposed(problem, beta, num_reads, False, number, self.max_width)
        log_z = float(info["log_partition_function"])
        return IsingSamples(spins.to(problem.fields.device), info={"log_z": log_z, "log_z_err": 0.0})
