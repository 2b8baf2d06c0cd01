"""`cryoscape validate` on short runs and on files of other programs."""

import json
import shutil

import numpy as np
import pytest

from cryoscape.analysis.validation.results import ReportCard
from cryoscape.data.mrc import write_map
from cryoscape.structures.ensemble import write_ensemble
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.cli.test_landscape import SHORT, last_layer, louder
from tests.training.builders import CORNER, KNOWN, PIXEL, make_sample, settings, states

VERDICTS = {"supported", "prior-limited", "pose-entangled", "not distinguishable from null"}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("validate") / "data", n=240)


@pytest.fixture(scope="module")
def trained(sample):
    config = settings(training=SHORT, data={"held_out": 0.2})
    run = train(sample.particles, sample.model, config, sample.folder.parent / "run", interpretation=KNOWN)
    return louder(run, last_layer, 100)


def test_a_run_gets_twelve_checks_and_a_verdict(trained, cli):
    code, out, err = cli("validate", trained)
    assert code == 0, err
    assert "compare images with structures" in err
    card = ReportCard.read(trained / "analysis")
    assert [check.number for check in card.checks] == list(range(1, 13))
    assert {str(motion.verdict) for motion in card.motions} <= VERDICTS
    assert card.facts["images_judging"] == int(Run.open(trained).embedding.held_out.sum())
    for motion in card.motions:
        assert str(motion.verdict).upper() in out
    with np.load(trained / "analysis" / "validation.npz") as arrays:
        assert arrays["rmsf"].shape == arrays["rmsf_floor"].shape == (30,)
        assert arrays["weight"].sum() == pytest.approx(1)
    assert (trained / "analysis" / "validation.png").read_bytes().startswith(b"\x89PNG")
    assert "Report card" in (trained / "report.html").read_text()


def test_the_same_again_and_strict(trained, cli, tmp_path):
    code, _, err = cli("validate", trained, "-o", tmp_path / "again", "--strict")
    card = ReportCard.read(trained / "analysis")
    assert code == (0 if card.sound else 3), err
    first, second = (
        json.loads((folder / "validation.json").read_text())
        for folder in (trained / "analysis", tmp_path / "again")
    )
    assert first == second


def test_a_run_that_makes_one_structure_only_claims_nothing(trained, cli, tmp_path):
    shutil.copytree(trained, tmp_path / "still")
    louder(Run.open(tmp_path / "still"), last_layer, 0)
    code, _, err = cli("validate", tmp_path / "still", "-o", tmp_path / "card", "--strict")
    assert code == 3, err
    card = ReportCard.read(tmp_path / "card")
    assert [str(motion.verdict) for motion in card.motions] == ["not distinguishable from null"]
    assert [check.number for check in card.checks] == list(range(1, 13))


def test_structures_of_another_program(sample, cli, tmp_path):
    """The true structures as a series of two files, with latents that know the state."""
    both = states() + np.array(CORNER)
    middle = both.mean(axis=0)
    write_ensemble(tmp_path / "a.cif", sample.model, np.stack([both[0], middle]))
    write_ensemble(tmp_path / "b.pdb", sample.model, both[1:])
    np.save(tmp_path / "z.npy", sample.state[:, None] + 0.01 * np.arange(240)[:, None])
    words = ["--particles", sample.folder / "particles.star", "--latents", tmp_path / "z.npy"]
    code, _, err = cli("validate", tmp_path / "a.cif", tmp_path / "b.pdb", *words, "-o", tmp_path / "card")
    assert code == 0, err
    card = ReportCard.read(tmp_path / "card")
    assert card.source == "structures of another program"
    # The hinge of 25 degrees is real, and images of SNR 0.5 show it.
    assert str(card.motions[0].verdict) == "supported"
    assert any("held out" in text for text in card.warnings)
    assert {c.number for c in card.checks if c.status == "not run"} >= {4, 6, 7}


def test_maps_of_another_program(sample, trained, cli, tmp_path):
    run = Run.open(trained)
    for k, volume in enumerate(run.decode_maps(run.embedding.z[:3])):
        write_map(tmp_path / f"vol_{k}.mrc", volume, PIXEL * 24 / volume.shape[0])
    files = sorted(tmp_path.glob("vol_*.mrc"))
    code, _, err = cli(
        "validate", *files, "--particles", sample.folder / "particles.star", "-o", tmp_path / "card"
    )
    assert code == 0, err
    card = ReportCard.read(tmp_path / "card")
    assert card.source == "maps of another program"
    assert {c.number for c in card.checks if c.status == "not run"} >= {4, 5, 6, 7, 12}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{run}", "--particles", "{star}"], "Leave out --particles"),
        (["{data}"], "this is not a run folder"),
        (["{model}"], "--particles"),
        (["{model}", "--particles", "{star}"], "-o"),
        (["{model}", "--particles", "{star}", "-o", "{out}"], "claims no motion"),
        (["{run}", "--reference", "{model}"], "--level full"),
        (["{star}", "--particles", "{star}", "-o", "{out}"], "neither a structure nor a map"),
        (["{model}", "{model}", "--particles", "{star}", "--latents", "{z}", "-o", "{out}"], "latents, but"),
    ],
)
def test_bad_input(words, said, trained, sample, cli, tmp_path):
    np.save(tmp_path / "z.npy", np.zeros((3, 2)))
    names = {
        "run": trained,
        "data": sample.folder,
        "model": sample.folder / "model.pdb",
        "star": sample.folder / "particles.star",
        "out": tmp_path / "card",
        "z": tmp_path / "z.npy",
    }
    code, _, err = cli("validate", *(word.format(**names) for word in words))
    assert code == 2
    assert said in err
    assert not (tmp_path / "card").exists()
