"""log Z of a Boltzmann machine by the best way there is."""

from __future__ import annotations

from typing import Literal

from cryoscape.priors.base import LogPartition
from cryoscape.priors.samplers.annealed import CHAINS, TEMPERATURES, annealed_importance
from cryoscape.priors.samplers.annealing_extra import has_extra
from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.exact import MAX_ENUMERATED, Enumeration, enumerated_spins
from cryoscape.priors.samplers.tree import MAX_WIDTH, QUICK_WIDTH, tree_moments, tree_width

PartitionMethod = Literal["auto", "enumeration", "tree", "ais"]


def log_partition(
    problem: IsingProblem,
    *,
    beta: float = 1.0,
    method: PartitionMethod = "auto",
    chains: int = CHAINS,
    temperatures: int = TEMPERATURES,
    seed: int = 0,
) -> LogPartition:
    """Log of the sum of exp(-beta E) over all states, the offset included.

    Parameters
    ----------
    problem : IsingProblem
    beta : float
        Inverse temperature.
    method : {"auto", "enumeration", "tree", "ais"}
        Auto: enumeration where no more than 20 spins are left when a largest set without couplings among them
        is summed out (the smaller side of a restricted machine); a tree decomposition where dwave-samplers is
        installed and the width at most 15; annealed importance sampling otherwise.
    chains, temperatures : int
        Of annealed importance sampling.
    seed : int
        Of annealed importance sampling.

    Returns
    -------
    LogPartition
        Its `method` is the one that was used.

    Raises
    ------
    InputError
        If the problem is too large for the method that is asked for, or dwave-samplers is not installed.
    """
    chosen = quickest_method(problem) if method == "auto" else method
    if chosen == "enumeration":
        return LogPartition(Enumeration(problem, beta).log_z, 0.0, float("inf"), chosen)
    if chosen == "tree":
        return LogPartition(tree_moments(problem, beta, MAX_WIDTH).log_z, 0.0, float("inf"), chosen)
    found = annealed_importance(problem, beta=beta, chains=chains, temperatures=temperatures, seed=seed)
    return LogPartition(found.log_z, found.std_err, found.ess, chosen)


def quickest_method(problem: IsingProblem) -> Literal["enumeration", "tree", "ais"]:
    """How `log_partition` goes about a problem by itself."""
    if enumerated_spins(problem) <= MAX_ENUMERATED:
        return "enumeration"
    if has_extra() and tree_width(problem) <= QUICK_WIDTH:
        return "tree"
    return "ais"
