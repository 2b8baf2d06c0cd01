"""Subunits found against subunits known."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from cryoscape.analysis.evaluation.composition import (
    CompositionEvaluation,
    evaluate_composition,
    pairwise_model,
)
from cryoscape.simulate.composition import IsingModel

SIZES = (7, 3, 4, 2)  # the core, then three subunits
SUBUNIT = np.repeat([-1, 0, 1, 2], SIZES)
# The model lists the chains in another order than the truth.
ORDER = np.concatenate([np.flatnonzero(s == SUBUNIT) for s in (2, -1, 0, 1)])


@pytest.fixture
def ising():
    rng = np.random.default_rng(3)
    couplings = np.triu(rng.normal(size=(3, 3)), 1)
    return IsingModel(rng.normal(size=3) * 0.5, couplings + couplings.T)


@dataclass
class OfBits:
    """A run whose z are the subunits themselves, and whose prior is a given table."""

    probabilities: np.ndarray
    sets: np.ndarray
    structure: object = field(
        default_factory=lambda: SimpleNamespace(chain_id=np.array(list("ABCD"))[SUBUNIT[ORDER] + 1])
    )

    def sample(self, n, seed=0):
        rng = np.random.default_rng(seed)
        return self.sets[rng.choice(len(self.sets), n, p=self.probabilities)].astype(np.float32)

    def occupancy(self, z):
        chains = np.concatenate([np.ones((len(z), 1)), z], axis=1)
        return chains[:, SUBUNIT[ORDER] + 1]


def truth_of(model):
    place = np.argsort(ORDER)
    return SimpleNamespace(
        present=model.configurations,
        population=model.probabilities,
        subunit=SUBUNIT,
        match=lambda structure: (place, np.arange(len(SUBUNIT))),
    )


def test_the_closest_pairwise_model_of_a_pairwise_model_is_itself(ising):
    fields, couplings = pairwise_model(ising.configurations, ising.probabilities)
    np.testing.assert_allclose(fields, ising.fields, atol=1e-8)
    np.testing.assert_allclose(couplings, ising.couplings, atol=1e-8)


def test_it_has_the_moments_of_any_law(ising):
    sets = ising.configurations
    p = np.random.default_rng(0).dirichlet(np.ones(len(sets)))
    q = IsingModel(*pairwise_model(sets, p)).probabilities
    np.testing.assert_allclose(q @ sets, p @ sets, atol=1e-8)
    np.testing.assert_allclose((sets.T * q) @ sets, (sets.T * p) @ sets, atol=1e-8)


def test_a_run_that_knows_the_law_is_right(ising):
    sets, p = ising.configurations, ising.probabilities
    state = np.random.default_rng(1).choice(len(sets), 500, p=p)
    z = sets[state].astype(float)
    z[:50, 1] = 1 - z[:50, 1]
    found = evaluate_composition(OfBits(p, sets), truth_of(ising), z, state)
    assert found.subunits == ("B", "C", "D")
    assert found.accuracy == (1.0, 0.9, 1.0)
    assert found.distance < 3 * found.floor
    assert found.correlation > 0.99
    assert found.entropy == pytest.approx(-(p * np.log(p)).sum())
    assert -found.entropy - 2e-3 < found.log_probability <= -found.entropy
    np.testing.assert_allclose(found.true_couplings, ising.couplings, atol=1e-8)
    np.testing.assert_allclose(found.true_present, p @ sets)
    assert CompositionEvaluation.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_independent_subunits_have_no_couplings_and_cost_what_they_ignore(ising):
    sets, p = ising.configurations, ising.probabilities
    alone = np.where(sets, p @ sets, 1 - p @ sets).prod(1)
    found = evaluate_composition(OfBits(alone, sets), truth_of(ising), sets, np.arange(len(sets)))
    assert np.abs(found.couplings).max() < 0.15
    np.testing.assert_allclose(found.log_probability, p @ np.log(alone), atol=5e-3)
    assert found.distance == pytest.approx(0.5 * np.abs(alone - p).sum(), abs=0.02)


def test_runs_and_truths_without_subunits_are_left_alone(ising):
    sets, p = ising.configurations, ising.probabilities
    whole = OfBits(p, sets)
    whole.occupancy = lambda z: None
    assert evaluate_composition(whole, truth_of(ising), sets, np.arange(8)) is None
    nothing = SimpleNamespace(present=None, subunit=None)
    assert evaluate_composition(OfBits(p, sets), nothing, sets, np.arange(8)) is None
