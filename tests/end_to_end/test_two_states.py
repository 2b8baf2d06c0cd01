"""From images of two known states to structures, by the road a user takes; and what noise alone gives."""

import numpy as np
import pytest

from cryoscape.analysis.collapse import detect_collapse
from cryoscape.training.embed import embed
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings

STEPS = {"steps": 300, "batch": 64, "lr": 3e-3}


def rmsd(a, b):
    """Root mean square distance over residues, without superposition."""
    return np.sqrt(((a - b) ** 2).sum(-1).mean(-1))


def learn(folder, **more):
    sample = make_sample(folder / "data", **more)
    config = settings(
        z_dim=4,
        training=STEPS,
        encoder={"kind": "score+field", "hidden": (128, 64)},
        decoder={"kind": "atomic", "hidden": (64, 128, 256), "activation": "silu"},
    )
    run = train(sample.particles, sample.model, config, folder / "run", interpretation=KNOWN)
    return sample, run, embed(run)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("states"), n=800, snr=2.0, share=0.6)


def test_structures_are_much_nearer_to_the_truth_than_the_best_single_one(learnt):
    sample, run, found = learnt
    truth = sample.states[sample.state]
    decoded = run.decode(found.z)
    trivial = min(rmsd(s, truth).mean() for s in (*sample.states, truth.mean(0)))
    assert trivial > 1.3
    assert rmsd(decoded, truth).mean() < 0.35 * trivial


def test_states_are_told_apart(learnt):
    sample, run, found = learnt
    decoded = run.decode(found.z)
    nearest = np.argmin([rmsd(decoded, state) for state in sample.states], axis=0)
    assert (nearest == sample.state).mean() > 0.9
    held_out = found.held_out
    assert (nearest == sample.state)[held_out].mean() > 0.9
    assert abs((nearest == 0).mean() - (sample.state == 0).mean()) < 0.05


def test_the_code_is_worth_its_nats(learnt):
    _, _, found = learnt
    verdict = detect_collapse(
        found.z, found.z_sd, kl=float(found.kl.mean()), gain=found.gain, held_out=found.held_out
    )
    assert verdict.verdict == "informative"
    held_out = found.gain[found.held_out]
    assert held_out.mean() > 4 * held_out.std() / np.sqrt(len(held_out))


def test_the_bound_rises_on_particles_never_trained_on(learnt):
    _, run, _ = learnt
    metrics = run.metrics
    elbo = metrics["elbo"][metrics["split"] == "held_out"]
    assert elbo[-1] > elbo[0] + 1.0


def test_bonds_stay_bonds(learnt):
    _, run, found = learnt
    bonds = np.linalg.norm(np.diff(run.decode(found.z), axis=1), axis=-1)
    assert np.abs(bonds - 3.8).mean() < 0.3


def test_collapse_on_pure_noise_is_found_and_named(tmp_path):
    """Nothing to learn: the code must not pretend, and the verdict must say so."""
    _, run, found = learn(tmp_path, n=400, snr=0.0)
    spread = float(rmsd(run.decode(found.z), run.decode(found.z).mean(0)).mean())
    verdict = detect_collapse(
        found.z,
        found.z_sd,
        kl=float(found.kl.mean()),
        gain=found.gain,
        held_out=found.held_out,
        spread=spread,
    )
    assert verdict.verdict == "collapsed"
    assert any("nats about its code" in reason or "no dimension" in reason for reason in verdict.reasons)
