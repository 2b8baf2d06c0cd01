"""Block Gibbs sampling on a coloured graph: all spins of a colour are drawn at once, given the others."""

from __future__ import annotations

import torch
from torch import Tensor

from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, chain_starts, seeded
from cryoscape.priors.samplers.ordered import ColourOrder, swept


@torch.no_grad()
def sweep(
    spins: Tensor, problem: IsingProblem, beta: Tensor | float, uniform: Tensor, fields: Tensor | None = None
) -> Tensor:
    """One pass over all colours.

    p(s_u = +1 | others) = sigmoid(-2 beta (h_u + sum_v J_uv s_v)).

    Parameters
    ----------
    spins : Tensor, shape (..., n)
        +-1, floating; changed in place and returned.
    problem : IsingProblem
    beta : float or Tensor, broadcast to (..., 1)
        Inverse temperatures.
    uniform : Tensor, shape (..., n)
        Random numbers in [0, 1).
    fields : Tensor, shape (..., n), optional
        In place of those of the problem, where every chain has its own.

    Returns
    -------
    Tensor, shape (..., n)
    """
    n, order = len(problem), ColourOrder.of(problem)
    per_chain = None if fields is None else fields.expand_as(spins).reshape(-1, n)
    ordered = order.problem(problem, fields=per_chain)
    scale = torch.as_tensor(beta, dtype=spins.dtype, device=spins.device)
    scale = scale.expand(*spins.shape[:-1], 1).reshape(-1)
    columns = order.columns(spins.reshape(-1, n), problem.fields)
    noise = -0.5 * torch.logit(order.columns(uniform.reshape(-1, n), problem.fields))
    columns = ordered.sweep(columns, noise, scale)
    return spins.copy_(columns[order.inverse].T.reshape(spins.shape))


class BlockGibbs(IsingSampler):
    """Independent chains of block Gibbs sweeps.

    Parameters
    ----------
    sweeps : int
        Passes over all spins, from where the chains start.
    """

    supports_initial_states = True

    def __init__(self, sweeps: int = 100) -> None:
        self.sweeps = sweeps

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
        """Run every chain for `sweeps` sweeps; without initial states they start from fair coins."""
        generator, order = seeded(seed), ColourOrder.of(problem)
        start = chain_starts(problem, num_reads, initial_states, generator)
        columns = order.columns(start, problem.fields)
        columns = swept(order.problem(problem, beta), columns, self.sweeps, generator)
        return IsingSamples(order.rows(columns), info={"sweeps": self.sweeps})
