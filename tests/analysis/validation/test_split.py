"""Halves and the test set: complete, disjoint, the same at every call and after an interruption."""

import signal
from dataclasses import replace

import numpy as np
import pytest

from cryoscape.analysis.validation.halves import train_halves
from cryoscape.analysis.validation.retraining import Retraining
from cryoscape.analysis.validation.split import SHARE, TEST, A, B, find_split, make_split
from cryoscape.data.stack import ImageStack
from cryoscape.errors import InputError
from cryoscape.training.interruption import Interrupted
from cryoscape.training.run import Run
from tests.analysis.validation.small_runs import atoms_run
from tests.training.builders import make_sample
from tests.training.outcomes import signal_at


@pytest.fixture(scope="module")
def particles(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("sample"), n=400).particles


def test_parts_hold_every_particle_once(particles):
    split = make_split(particles, 0)
    rows = np.concatenate([split.rows(part) for part in (TEST, A, B)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(400))
    assert len(split.rows(TEST)) == SHARE * 400
    for part in (A, B):
        np.testing.assert_array_equal(particles.half[split.rows(part)], part)


def test_micrographs_are_kept_whole(particles):
    micrograph = np.arange(400) // 10
    split = make_split(replace(particles, micrograph=micrograph), 0)
    assert split.grouped
    test = np.bincount(micrograph, split.part == TEST)
    assert set(test) == {0.0, 10.0}
    assert not make_split(replace(particles, micrograph=np.arange(400) // 100), 0).grouped


def test_rows_that_repeat_an_image_stay_together(particles):
    index = np.arange(400) // 4
    repeated = replace(
        particles,
        stack=ImageStack(particles.stack.paths, np.zeros(400), index),
        half=np.random.default_rng(0).integers(1, 3, 400).astype(np.int8),
        half_source="seeded",
    )
    part = make_split(repeated, 0).part.reshape(-1, 4)
    assert (part == part[:, :1]).all()


def test_it_is_the_same_again_and_another_for_another_seed(particles, tmp_path):
    first = find_split(tmp_path, particles, 0)
    stamp = (tmp_path / "split.npz").stat().st_mtime_ns
    np.testing.assert_array_equal(find_split(tmp_path, particles, 0).part, first.part)
    assert (tmp_path / "split.npz").stat().st_mtime_ns == stamp
    other = find_split(tmp_path, particles, 1)
    assert (other.part != first.part).any()
    fewer = find_split(tmp_path, particles.select(np.arange(300)), 1)
    assert len(fewer.part) == 300


def test_too_few_particles_are_refused(particles):
    with pytest.raises(InputError, match="too small"):
        make_split(particles.select(np.arange(40)), 0)


def test_nothing_is_shared_after_an_interruption(tmp_path):
    """The split comes back by identity, whatever was trained before the signal."""
    run = atoms_run(tmp_path, n=240)
    with pytest.MonkeyPatch.context() as patch:
        signal_at(patch, 3, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train_halves(Retraining(run, steps=6))
    assert Run.open(run.path / "validation" / "half_a").info["status"] == "interrupted"
    found = train_halves(Retraining(Run.open(run.path), steps=6))
    parts = [found.run_a.particles.uid, found.run_b.particles.uid, found.test.uid]
    assert sum(len(part) for part in parts) == len(set(np.concatenate(parts))) == 240
    assert found.run_a.info["seed"] != found.run_b.info["seed"]
    assert found.z_a.shape == (24, run.config.z_dim)
    # A training on particles that are not its part is refused, by identity.
    wrong = Retraining(run, steps=1).train("half_b", run.as_given.select(found.split.rows(TEST)))
    with pytest.raises(InputError, match="24 particles are in two parts"):
        found.split.check(found.run_a, wrong)
