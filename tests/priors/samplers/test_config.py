import subprocess
import sys

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from cryoscape.priors.samplers.base import IsingSampler
from cryoscape.priors.samplers.config import SamplerConfig
from tests.priors.samplers.problems import complete

PLAIN = ["gibbs", "tempering", "population", "exact"]
EXTRA = ["tree", "simulated-annealing", "path-integral"]
SETTINGS = TypeAdapter(SamplerConfig)


@pytest.mark.parametrize("kind", PLAIN + EXTRA)
def test_every_kind_builds_a_sampler_that_draws_spins(kind):
    if kind in EXTRA:
        pytest.importorskip("dwave.samplers")
    config = SETTINGS.validate_python({"kind": kind})
    sampler = config.build()
    assert isinstance(sampler, IsingSampler)
    problem = complete(5)
    states = torch.ones(7, 5, dtype=torch.int8) if sampler.supports_initial_states else None
    spins = sampler.sample_ising(problem, num_reads=7, initial_states=states, seed=1).spins
    assert spins.shape == (7, 5)
    assert spins.dtype == torch.int8
    assert set(spins.unique().tolist()) <= {-1, 1}
    assert SETTINGS.validate_python(config.model_dump()) == config


def test_numbers_reach_the_samplers():
    assert SETTINGS.validate_python({"kind": "gibbs", "sweeps": 7}).build().sweeps == 7
    tempering = SETTINGS.validate_python({"kind": "tempering", "sweeps": 3, "replicas": 10}).build()
    assert (tempering.sweeps, len(tempering.ladder)) == (3, 10)
    population = SETTINGS.validate_python({"kind": "population", "temperatures": 9, "sweeps": 2}).build()
    assert (population.temperatures, population.sweeps) == (9, 2)


def test_annealers_end_at_the_temperature_of_the_machine():
    pytest.importorskip("dwave.samplers")
    classical = SETTINGS.validate_python({"kind": "simulated-annealing", "sweeps": 40}).build()
    assert classical.options == {"beta_range": (0.1, 1.0), "beta_schedule_type": "linear", "num_sweeps": 40}
    quantum = SETTINGS.validate_python({"kind": "path-integral", "sweeps": 30}).build().options
    assert (quantum["Hp_field"][0], quantum["Hp_field"][-1], len(quantum["Hp_field"])) == (0, 1, 30)
    assert (quantum["Hd_field"][0], quantum["Hd_field"][-1]) == (1, 0)


@pytest.mark.parametrize(
    "wrong", [{"kind": "metropolis"}, {"kind": "gibbs", "sweeps": 0}, {"kind": "exact", "sweeps": 3}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        SETTINGS.validate_python(wrong)


def test_settings_load_nothing_heavy():
    code = (
        "import cryoscape.priors.samplers.config, sys;"
        "print(*{'torch', 'numpy', 'scipy', 'dimod', 'dwave'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
