import importlib

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.calibration import reference_problem
from cryoscape.priors.samplers.exact import exact_moments
from cryoscape.priors.samplers.partition import log_partition
from cryoscape.priors.samplers.tree import TreeSampler, tree_moments, tree_width
from tests.priors.samplers.problems import LOG_Z, complete, grid


def test_what_to_install_is_said(monkeypatch):
    def missing(name, *_):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"pip install 'cryoscape\[annealing\]'"):
        TreeSampler().sample_ising(reference_problem(), num_reads=1)


class TestWithTheExtra:
    @pytest.fixture(autouse=True)
    def _extra(self):
        pytest.importorskip("dwave.samplers")

    def test_the_known_machine(self):
        found = tree_moments(reference_problem())
        assert abs(found.log_z - LOG_Z) < 1e-9
        assert abs(found.energy + 5.858834) < 1e-6

    @pytest.mark.parametrize(
        "problem",
        [
            complete(7, offset=-0.7),
            grid(4),
            IsingProblem(torch.tensor([0.3, -1.0]), torch.zeros(0, 2).long(), torch.zeros(0)),
        ],
        ids=["complete", "grid", "no couplings"],
    )
    def test_moments_of_enumeration(self, problem):
        tree, exact = tree_moments(problem, 0.8), exact_moments(problem, 0.8)
        assert abs(tree.log_z - exact.log_z) < 1e-9
        np.testing.assert_allclose(tree.mean, exact.mean, atol=1e-9)
        np.testing.assert_allclose(tree.pairs, exact.pairs, atol=1e-9)
        assert abs(tree.energy - exact.energy) < 1e-9

    def test_samples_have_the_exact_means(self):
        problem = grid(5)
        samples = TreeSampler().sample_ising(problem, num_reads=20_000, beta=1.2, seed=3)
        exact = exact_moments(problem, 1.2)
        mean = samples.spins.double().mean(0)
        error = torch.sqrt((1 - exact.mean.square()) / 20_000)
        assert float(((mean - exact.mean) / error).abs().max()) < 4
        assert abs(samples.info["log_z"] - exact.log_z) < 1e-9
        again = TreeSampler().sample_ising(problem, num_reads=20_000, beta=1.2, seed=3)
        assert torch.equal(samples.spins, again.spins)

    def test_widths(self):
        assert tree_width(reference_problem()) == 6
        assert tree_width(complete(9)) == 8
        chain = torch.stack([torch.arange(29), torch.arange(1, 30)], 1)
        assert tree_width(IsingProblem(torch.zeros(30), chain, torch.ones(29))) == 1

    def test_too_wide_is_refused_at_once(self):
        with pytest.raises(InputError, match="tree width of 59"):
            TreeSampler().sample_ising(complete(60), num_reads=1)
        with pytest.raises(InputError, match="4 is the limit"):
            TreeSampler(max_width=4).sample_ising(reference_problem(), num_reads=1)


class TestLogPartition:
    def test_small_machines_are_enumerated(self):
        found = log_partition(reference_problem())
        assert found.method == "enumeration"
        assert (found.std_err, found.ess) == (0.0, float("inf"))
        assert abs(found.value - LOG_Z) < 1e-9

    def test_a_narrow_graph_goes_through_the_tree(self):
        """A 7 x 7 grid: 24 spins would have to be enumerated, and the width is 7."""
        pytest.importorskip("dwave.samplers")
        found = log_partition(grid(7), beta=0.9)
        assert (found.method, found.std_err) == ("tree", 0.0)
        ais = log_partition(grid(7), beta=0.9, method="ais", chains=200, temperatures=200)
        assert ais.method == "ais"
        assert abs(ais.value - found.value) < 4 * ais.std_err + 1e-3
        assert ais.std_err < 0.03

    def test_without_the_extra_it_is_annealed(self, monkeypatch):
        monkeypatch.setattr("cryoscape.priors.samplers.partition.has_extra", lambda: False)
        assert log_partition(grid(7), chains=10, temperatures=10).method == "ais"

    def test_the_default_is_within_a_twentieth(self):
        found = log_partition(reference_problem(), method="ais")
        assert abs(found.value - LOG_Z) < 0.05
        assert abs(found.value - LOG_Z) < 4 * found.std_err
        assert found.ess > 450

    def test_what_is_too_large_for_a_method_is_refused(self):
        with pytest.raises(InputError, match="24 of 49"):
            log_partition(grid(7), method="enumeration")
