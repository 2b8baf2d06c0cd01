"""Runs with a learned prior through the command line: train, sample, analyse, report, evaluate, decode."""

import json
import shutil

import gemmi
import numpy as np
import pytest
import torch

from cryoscape.analysis.evaluation.evaluation import read_evaluation
from cryoscape.analysis.populations.likelihood_table import candidate_codes, likelihood_table
from cryoscape.cli.main import main
from cryoscape.training.run import Run

KNOWN = ["--data.frame", "corner", "--data.invert", "false", "--data.cutoff", 10]
SMALL = ["--steps", 8, "--batch", 16, "--encoder.hidden", "[16]", "--decoder.hidden", "[16]", *KNOWN]


def call(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "states"
    size = ["--particles", 150, "--box", 32, "--pixel", 4, "--snr", 0.5]
    assert call("simulate", "states", "-o", folder, *size) == 0
    return folder


@pytest.fixture(scope="module")
def mixed(simulated, tmp_path_factory):
    run = tmp_path_factory.mktemp("mixed") / "run"
    inputs = [simulated / "particles.star", "--model", simulated / "reference.cif"]
    prior = ["--prior", "mixture", "--prior.components", 3]
    assert call("train", *inputs, "-o", run, "--z-dim", 3, *prior, *SMALL) == 0
    return run


@pytest.fixture(scope="module")
def composed(tmp_path_factory):
    """An assembly whose subunits come and go, and a machine whose bits are these subunits."""
    folder = tmp_path_factory.mktemp("composed")
    size = ["--particles", 120, "--box", 32, "--pixel", 6, "--snr", 0.5, "--fields", 0.2, -0.4, 0.1]
    assert call("simulate", "composition", "-o", folder / "data", *size) == 0
    run, data = folder / "run", folder / "data"
    inputs = [data / "particles.star", "--model", data / "reference.cif", "-o", run, "--z-dim", 3]
    tied = ["--decoder.occupancy", "tied", "--decoder.displace", "false"]
    known = ["--data.frame", "corner", "--data.invert", "false", "--data.cutoff", 13]
    small = ["--steps", 8, "--batch", 16, "--encoder.hidden", "[16]", *known]
    assert call("train", *inputs, "--prior", "bm", "--prior.sampler.sweeps", 2, *tied, *small) == 0
    return run


def test_samples_are_those_of_the_prior(mixed, tmp_path, capsys):
    out = tmp_path / "s.npz"
    assert call("sample", mixed, "-n", 200, "-o", out, "--seed", 3) == 0
    assert "200 structures" in capsys.readouterr().out
    with np.load(out) as found:
        assert found["coords"].shape[0] == found["z"].shape[0] == found["log_prior"].shape[0] == 200
        first = found["z"]
    run = Run.open(mixed)
    np.testing.assert_array_equal(first, run.sample(200, seed=3))
    assert call("sample", mixed, "-n", 4, "-o", tmp_path / "s.cif") == 0
    assert len(gemmi.read_structure(str(tmp_path / "s.cif"))) == 4


@pytest.mark.parametrize(
    ("words", "message"), [(["-n", 0], "0 samples"), (["-n", 2, "-o", "x.txt"], "unknown kind")]
)
def test_senseless_samples_are_refused(mixed, tmp_path, capsys, words, message):
    out = [] if "-o" in words else ["-o", tmp_path / "s.npz"]
    assert call("sample", mixed, *words, *out) == 2
    assert message in capsys.readouterr().err


def test_the_analysis_names_the_states_of_the_prior(mixed, capsys):
    assert call("analyze", mixed) == 0
    said = capsys.readouterr().out
    assert "state of the prior" in said
    found = json.loads((mixed / "analysis/analysis.json").read_text())["prior"]
    assert sum(state["population"] for state in found["states"]) == pytest.approx(1.0)
    assert sum(state["images"] for state in found["states"]) == pytest.approx(150, abs=0.5)
    assert {part for state in found["states"] for part in state["parts"]} == {
        f"component {k}" for k in (1, 2, 3)
    }
    models = gemmi.read_structure(str(mixed / "ensemble/states.cif"))
    assert len(models) == len(found["states"])


def test_the_report_shows_them(mixed):
    assert call("report", mixed) == 0
    page = (mixed / "report.html").read_text()
    assert "The learned population" in page
    assert "mixture prior" in page
    assert "samples of the prior" in page
    assert "straight in z" in page


def test_populations_are_compared_with_the_truth(mixed, simulated, tmp_path, capsys):
    target = tmp_path / "e.json"
    assert call("evaluate", mixed, "--truth", simulated / "truth.npz", "--json", target, "--images", 0) == 0
    said = capsys.readouterr().out
    assert "prior %" in said
    assert "total variation distance" in said
    found = json.loads(target.read_text())["populations"]
    assert sum(found["share"]) == pytest.approx(1.0)
    assert found["distance"] == pytest.approx(
        0.5 * np.abs(np.array(found["share"]) - [0.6, 0.3, 0.1]).sum(), abs=1e-9
    )


def test_states_come_from_the_prior(mixed, capsys):
    assert call("states", mixed) == 0
    record = json.loads((mixed / "states/states.json").read_text())
    assert record["membership"] in (
        "the mixture prior's own states",
        "deconvolved mixture of the latent codes",
    )


def test_absent_subunits_are_written_as_such(composed, tmp_path, capsys):
    assert call("decode", composed, "--particles", "all", "-o", tmp_path / "all.npz") == 0
    with np.load(tmp_path / "all.npz") as found:
        present, z, residues = found["occupancy"], found["z"], found["coords"].shape[1]
    assert present.shape == (120, residues)
    # The core is always there; the three subunits are there as their bits say.
    levels = np.unique(present[0].round(5))
    assert set(z[0].round(5)) <= set(levels)
    assert 1.0 in levels
    np.save(tmp_path / "z.npy", np.array([[1, 0, 1]], dtype=np.float32))
    assert call("decode", composed, "--z", tmp_path / "z.npy", "-o", tmp_path / "one.cif") == 0
    model = gemmi.read_structure(str(tmp_path / "one.cif"))[0]
    occupancy = {chain.name: {atom.occ for res in chain for atom in res} for chain in model}
    assert occupancy == {"A": {1.0}, "B": {1.0}, "C": {0.0}, "D": {1.0}}


def test_configurations_and_couplings_are_reported(composed, capsys):
    assert call("analyze", composed) == 0
    said = capsys.readouterr().out
    assert "couplings of the switches, kT" in said
    found = json.loads((composed / "analysis/analysis.json").read_text())["prior"]
    assert len(found["states"]) == 8
    assert np.array(found["couplings_kt"]).shape == (3, 3)
    assert (composed / "report.html").is_file()


def test_subunits_are_compared_with_the_truth(composed, tmp_path, capsys):
    data, target = composed.parent / "data", tmp_path / "e.json"
    assert call("evaluate", composed, "--truth", data / "truth.npz", "--json", target, "--images", 0) == 0
    said = capsys.readouterr().out
    assert "couplings of the subunits: correlation" in said
    found = read_evaluation(target).composition
    assert found.subunits == ("B", "C", "D")
    run, truth = Run.open(composed), np.load(data / "truth.npz")
    right = (run.embedding.z > 0.5) == truth["present"][truth["state"][run.embedding.row]]
    np.testing.assert_allclose(found.accuracy, right.mean(0))
    # The bits of the machine are the subunits, so its own couplings are those of its samples.
    np.testing.assert_allclose(found.couplings, run.prior.couplings_kt(), atol=0.2)


def test_junk_is_told_from_particles(mixed, simulated, tmp_path, capsys):
    with np.load(simulated / "truth.npz") as stored:
        content = {name: stored[name] for name in stored.files}
    content["junk"] = np.arange(150) % 5 == 0
    np.savez(tmp_path / "truth.npz", **content)
    shutil.copy(simulated / "reference.cif", tmp_path / "reference.cif")
    target = tmp_path / "e.json"
    assert call("evaluate", mixed, "--truth", tmp_path, "--json", target, "--images", 0) == 0
    assert "30 junk images beside 120 particles" in capsys.readouterr().out
    assert read_evaluation(target).junk.junk == 30


def test_a_table_of_likelihoods_covers_what_the_run_decodes(mixed):
    """No decoded structure is far from all candidates, and the table is the likelihood of the model."""
    run = Run.open(mixed)
    z = candidate_codes(run, 12)
    assert z.shape == (12, 3)
    chosen, drawn = run.decode(z), run.decode(run.sample(300, seed=5))
    rmsd = np.sqrt(np.square(drawn[:, None] - chosen[None]).sum(-1).mean(-1))
    between = np.sqrt(np.square(chosen[:, None] - chosen[None]).sum(-1).mean(-1))
    assert rmsd.min(1).mean() < 0.5 * between[~np.eye(12, dtype=bool)].mean()
    table = likelihood_table(run, z[:3])
    batch = run.images().batch(torch.arange(5))
    with torch.no_grad():
        want = run.image_model.log_likelihood(torch.from_numpy(z[1]).expand(5, -1), batch)
    np.testing.assert_allclose(table[:5, 1], want, rtol=1e-5, atol=1e-2)


def test_candidates_differ_in_what_is_present(composed):
    run = Run.open(composed)
    z = candidate_codes(run, 8)
    assert len(np.unique(z, axis=0)) == 8
    assert set(np.unique(z)) == {0.0, 1.0}


def test_the_report_follows_the_way_and_the_dynamics_in_the_base_of_a_prior(simulated, tmp_path):
    run = tmp_path / "run"
    inputs = [simulated / "particles.star", "--model", simulated / "reference.cif"]
    prior = ["--prior", "flow", "--prior.transforms", 1, "--prior.hidden", "[8]"]
    assert call("train", *inputs, "-o", run, "--z-dim", 2, *prior, *SMALL) == 0
    assert call("report", run) == 0
    page = (run / "report.html").read_text()
    assert "The learned population" in page
    assert "in the prior's space" in page or "in the prior\\u0027s space" in page
    assert "Langevin dynamics" in page
