"""Samplers that behave like hardware: importing this needs dimod."""

import dimod
import numpy as np

from cryoscape.priors.samplers.annealers import as_dimod_sampler
from cryoscape.priors.samplers.exact import ExactSampler


class FakeDevice(dimod.Sampler):
    """Samples at a temperature that it keeps to itself, within limits, and tells its answers apart by energy.

    Parameters
    ----------
    beta : float
        Hidden inverse temperature.
    h, j : float
        Largest absolute field and coupling.
    reads : int
        Largest number of reads.
    """

    def __init__(self, beta, h=4.0, j=1.0, reads=10_000):
        self.beta = beta
        self.calls = []
        self._exact = as_dimod_sampler(ExactSampler())
        self._properties = {"h_range": [-h, h], "j_range": [-j, j], "num_reads_range": [1, reads]}

    @property
    def parameters(self):
        return {"num_reads": [], "auto_scale": [], "annealing_time": [], "beta": []}

    @property
    def properties(self):
        return self._properties

    def sample(self, bqm, *, num_reads=1, auto_scale=True, **kwargs):
        assert not auto_scale, "the device would rescale the problem"
        assert num_reads <= self._properties["num_reads_range"][1]
        for values, name in ((bqm.linear, "h_range"), (bqm.quadratic, "j_range")):
            low, high = self._properties[name]
            assert all(low <= value <= high for value in values.values()), name
        self.calls.append((num_reads, bqm, kwargs))
        answer = self._exact.sample(bqm, num_reads=num_reads, beta=self.beta, seed=len(self.calls))
        # Distinct states with counts, lowest energy first, variables in another order.
        answer = answer.aggregate()
        order = np.argsort(answer.record.energy)
        labels = list(answer.variables)[::-1]
        return dimod.SampleSet.from_samples(
            (answer.record.sample[order][:, ::-1], labels),
            dimod.SPIN,
            energy=answer.record.energy[order],
            num_occurrences=answer.record.num_occurrences[order],
            sort_labels=False,
        )


class FakeEmbedding(dimod.ComposedSampler):
    """Hands everything to the sampler inside."""

    def __init__(self, child):
        self._child = child

    @property
    def children(self):
        return [self._child]

    @property
    def parameters(self):
        return {**self._child.parameters, "chain_strength": []}

    @property
    def properties(self):
        return {"child_properties": self._child.properties}

    def sample(self, bqm, chain_strength=None, **kwargs):
        return self._child.sample(bqm, **kwargs)
