"""``cryoscape demo``: which scenarios need files, and what is trained on each."""

from __future__ import annotations

import pytest

from cryoscape.cli import demo as command
from cryoscape.cli import train as training
from cryoscape.errors import InputError
from cryoscape.progress import Silent
from cryoscape.simulate.options import SCENARIOS, SimulationOptions
from cryoscape.simulate.scenarios import build_scenario


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenarios_called_offline_need_no_file(scenario):
    offline = True
    try:
        build_scenario(scenario, [], SimulationOptions(), Silent())
    except InputError:
        offline = False
    assert (scenario in command._OFFLINE) == offline


@pytest.mark.parametrize(("scenario", "decoder"), [("hinge", "atomic"), ("composition", "voxels")])
def test_what_is_trained(cli, tmp_path, monkeypatch, scenario, decoder):
    seen = []

    def stop(particles, model, config, out):
        seen.append((particles.is_file(), model, config.decoder.kind))
        raise InputError("far enough", remedy="Stop.")

    monkeypatch.setattr(training, "run_training", stop)
    monkeypatch.setattr(command, "_QUICK", command._Size(particles=4, box=32, pixel=4.0, steps=1))
    cli("demo", scenario, "--quick", "-o", str(tmp_path / "d"))
    [(table, model, kind)] = seen
    assert table
    assert kind == decoder
    assert (model is None) == (decoder == "voxels")


def test_a_demo_of_given_structures_asks_for_them(cli, tmp_path):
    code, _, err = cli("demo", "adk", "-o", str(tmp_path / "d"))
    assert code == 2
    assert "--models" in err


def test_a_molecule_that_is_too_large_is_helped_by_pixel(cli, tmp_path):
    code, _, err = cli("demo", "linker", "--pixel", "1.5", "--quick", "-o", str(tmp_path / "d"))
    assert code == 2
    assert "--pixel" in err
