"""The class behind `as_dimod_sampler`; importing it needs dimod."""

from __future__ import annotations

from typing import Any

import dimod
import numpy as np
import torch

from cryoscape.priors.samplers.base import IsingSampler
from cryoscape.priors.samplers.bqm import problem_of


class IsingDimodSampler(dimod.Sampler):
    """A sampler of Boltzmann machines with the face of dimod.

    Parameters
    ----------
    sampler : IsingSampler
    """

    def __init__(self, sampler: IsingSampler) -> None:
        self.ising_sampler = sampler
        self._parameters: dict[str, Any] = {"num_reads": [], "beta": [], "seed": []}
        if sampler.supports_initial_states:
            self._parameters["initial_states"] = []

    @property
    def parameters(self) -> dict[str, Any]:
        """What `sample` takes."""
        return self._parameters

    @property
    def properties(self) -> dict[str, Any]:
        """Whether the samples are exact."""
        return {"exact": self.ising_sampler.exact}

    def sample(
        self,
        bqm: dimod.BinaryQuadraticModel,
        *,
        num_reads: int = 1,
        beta: float = 1.0,
        seed: int | None = None,
        initial_states: Any = None,
        **kwargs: Any,
    ) -> dimod.SampleSet:
        """Draw samples of exp(-beta energy), in the type of the model's variables.

        Parameters
        ----------
        bqm : dimod.BinaryQuadraticModel
        num_reads : int
        beta : float
        seed : int, optional
        initial_states : samples-like, optional
            One for every read, in the type of the model's variables.
        **kwargs
            Ignored with a warning, as is the custom of dimod.
        """
        self.remove_unknown_kwargs(**kwargs)
        problem, labels = problem_of(bqm)
        states = None
        if initial_states is not None:
            rows, names = dimod.as_samples(initial_states)
            columns = {name: column for column, name in enumerate(names)}
            states = torch.from_numpy(np.where(rows[:, [columns[v] for v in labels]] > 0, 1, -1))
        found = self.ising_sampler.sample_ising(
            problem, num_reads=num_reads, beta=beta, initial_states=states, seed=seed
        )
        vectors = {} if found.log_weight is None else {"log_weight": found.log_weight.double().cpu().numpy()}
        spins = found.spins.cpu()
        answer = dimod.SampleSet.from_samples(
            (spins.numpy(), labels),
            dimod.SPIN,
            energy=problem.energy(spins).numpy(),
            info=dict(found.info),
            sort_labels=False,
            **vectors,
        )
        return answer.change_vartype(bqm.vartype, inplace=False)
