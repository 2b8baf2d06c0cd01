"""Trainings below a run: settings, seeds, being found again, being resumed; and images that are simulated."""

import signal

import numpy as np
import pytest
import torch

from cryoscape.analysis.validation.retraining import Retraining
from cryoscape.analysis.validation.simulated_images import SimulatedImages
from cryoscape.analysis.validation.simulated_stack import simulated_particles
from cryoscape.data.images import BandImages
from cryoscape.training.interruption import Interrupted
from cryoscape.training.run import Run
from tests.analysis.validation.small_runs import STEPS, atoms_run, copied, forbid_training, maps_run
from tests.training.outcomes import assert_same, signal_at


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return atoms_run(tmp_path_factory.mktemp("atoms"))


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    return atoms_run(tmp_path_factory.mktemp("refined"), poses={"refine": True, "start": 0.0, "lr": 0.5})


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return maps_run(tmp_path_factory.mktemp("maps"))


def test_every_image_is_seen_as_often(run):
    retraining = Retraining(run)
    assert retraining.steps_for(len(run.particles)) == STEPS
    assert retraining.steps_for(len(run.particles) // 2) == STEPS // 2
    assert Retraining(run, steps=7).steps_for(3) == 7


def test_only_steps_seed_and_held_out_differ(run):
    config = Retraining(run).config_for("half_a", 80, held_out=0.1)
    old, new = run.config.model_dump(), config.model_dump()
    assert (new["training"].pop("steps"), old["training"].pop("steps")) == (STEPS // 2, STEPS)
    assert new["training"].pop("seed") != old["training"].pop("seed")
    assert (new["data"].pop("held_out"), old["data"].pop("held_out")) == (0.1, 0.05)
    assert old == new


def test_every_name_and_seed_has_a_seed_of_its_own(run):
    seeds = {Retraining(run, seed=s).seed_of(name) for s in (0, 1) for name in ("half_a", "half_b", "noise")}
    assert len(seeds) == 6
    assert Retraining(run).seed_of("noise") == Retraining(run).seed_of("noise")


def test_a_finished_training_is_found_again(run, tmp_path, monkeypatch):
    mine = copied(run, tmp_path / "run")
    particles = mine.as_given.select(np.arange(60))
    first = Retraining(mine, steps=5).train("half_a", particles)
    assert first.path == mine.path / "validation" / "half_a"
    assert first.geometry == mine.geometry
    assert (first.info["status"], first.info["total_steps"]) == ("trained", 5)
    np.testing.assert_array_equal(first.particles.uid, particles.uid)
    # A lost embedding is made again without training.
    z = first.embedding.z
    (first.path / "embedding.npz").unlink()
    forbid_training(monkeypatch)
    again = Retraining(Run.open(mine.path), steps=5).train("half_a", particles)
    np.testing.assert_array_equal(again.embedding.z, z)


@pytest.mark.parametrize("changed", ["seed", "steps", "particles", "recipe", "run"])
def test_another_training_is_not_taken_for_it(changed, run, tmp_path, monkeypatch):
    mine = copied(run, tmp_path / "run")
    particles = mine.as_given
    Retraining(mine, steps=2).train("half_a", particles.select(np.arange(60)), recipe={"x": 1})
    forbid_training(monkeypatch)
    if changed == "run":
        with open(mine.path / "checkpoints" / "last.safetensors", "ab") as handle:
            handle.write(b" ")
    retraining = Retraining(mine, 3 if changed == "steps" else 2, seed=int(changed == "seed"))
    rows = np.arange(61 if changed == "particles" else 60)
    with pytest.raises(AssertionError, match="trained again"):
        retraining.train("half_a", particles.select(rows), recipe={"x": 2 if changed == "recipe" else 1})


def test_an_interrupted_training_goes_on(run, tmp_path):
    whole, broken = copied(run, tmp_path / "whole"), copied(run, tmp_path / "broken")
    rows = np.arange(60)
    Retraining(whole, steps=8).train("half_a", whole.as_given.select(rows))
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, 4, signal.SIGTERM)
        with pytest.raises(Interrupted):
            Retraining(broken, steps=8).train("half_a", broken.as_given.select(rows))
    folder = broken.path / "validation" / "half_a"
    assert Run.open(folder).info["step"] == 5
    again = Retraining(broken, steps=8).train("half_a", broken.as_given.select(rows))
    assert again.info["status"] == "trained"
    assert_same(folder, whole.path / "validation" / "half_a")


@pytest.mark.parametrize("kind", ["run", "refined", "volumes"])
def test_training_reads_the_very_images_that_were_simulated(kind, request, tmp_path):
    mine = request.getfixturevalue(kind)
    decoder, n = mine.image_model.decoder, len(mine.particles)
    scene = decoder.scene(decoder.reference[None])
    images = SimulatedImages(
        mine.images().batch, mine.image_model.likelihood, [scene], torch.zeros(n).long(), 3
    )
    rows = torch.arange(0, n, 7)
    with simulated_particles(mine, images, tmp_path / "images") as particles:
        assert (tmp_path / "images" / "particles.star").is_file()
        np.testing.assert_array_equal(particles.uid, mine.particles.uid)
        np.testing.assert_array_equal(particles.half, mine.particles.half)
        np.testing.assert_allclose(particles.rotations, mine.as_given.rotations, atol=1e-6)
        moved = mine.as_given.shifts - mine.particles.shifts
        np.testing.assert_allclose(particles.shifts, moved, atol=1e-6)
        assert bool(moved.any()) == (kind == "refined")
        band = BandImages(particles, mine.geometry.cutoff)
        assert (band.box, band.n_groups) == (mine.geometry.box, mine.geometry.n_groups)
        assert band.pixel_size == pytest.approx(mine.geometry.pixel_size, rel=1e-6)
        read, made = band.batch(rows), images(rows)
    assert not (tmp_path / "images").exists()
    inside = mine.image_model.likelihood.weights > 0
    torch.testing.assert_close(read.ctf[:, inside], made.ctf[:, inside], atol=1e-4, rtol=1e-4)
    if kind == "refined":
        return
    factor = mine.geometry.box / mine.geometry.image_box
    scale = float(made.images.abs().mean())
    torch.testing.assert_close(
        read.images[:, inside], factor * made.images[:, inside], atol=1e-4 * scale, rtol=1e-4
    )


def test_maps_of_simulated_images_have_the_scale_of_the_run(volumes, tmp_path):
    """What the stack is multiplied by undoes what its smaller box does to densities."""
    mine = volumes
    factor = mine.geometry.box / mine.geometry.image_box
    side = mine.geometry.box * mine.geometry.pixel_size
    scale_of_stack = side**2 / mine.geometry.box
    assert scale_of_stack * factor == pytest.approx(mine.geometry.scale)


def test_the_stack_goes_when_training_fails(run, tmp_path):
    images = SimulatedImages(
        run.images().batch, run.image_model.likelihood, [], torch.full((len(run.particles),), -1), 3
    )
    with pytest.raises(RuntimeError), simulated_particles(run, images, tmp_path / "images"):
        raise RuntimeError
    assert not (tmp_path / "images").exists()
