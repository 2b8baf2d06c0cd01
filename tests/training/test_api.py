"""The Python interface as documented: names at the top of the package, and what a run offers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.builders import KNOWN, settings


def test_the_short_way_from_files_to_an_ensemble(sample, tmp_path) -> None:
    from cryoscape import AtomicModel, Config, Particles, Run, train

    particles = Particles.read(sample.folder / "particles.star")
    model = AtomicModel.read(sample.model.path) if sample.model.path else sample.model
    assert isinstance(settings(), Config)
    run = train(particles, model, settings(), out=tmp_path / "RUN", interpretation=KNOWN)
    z = run.embedding.z
    assert z.shape == (len(particles), run.config.z_dim)
    assert run.decode(z[:3]).shape == (3, len(model), 3)
    samples = run.sample(10)
    assert samples.shape == (10, run.config.z_dim)
    assert np.isfinite(np.asarray(run.prior.log_prob(z))).all()
    np.testing.assert_array_equal(Run.open(tmp_path / "RUN").embedding.z, z)


def test_a_cryosparc_table_of_the_same_particles_trains_alike(sample, tmp_path) -> None:
    from cryoscape import Particles, train

    star = Particles.read(sample.folder / "particles.star")
    star.write(tmp_path / "particles.cs")
    runs = [
        train(particles, sample.model, settings(), tmp_path / name, interpretation=KNOWN)
        for name, particles in (("a", star), ("b", Particles.read(tmp_path / "particles.cs")))
    ]
    losses = [np.asarray(run.metrics["loss"], dtype=float) for run in runs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert np.isfinite(losses[0]).any()
    np.testing.assert_array_equal(runs[0].embedding.uid, runs[1].embedding.uid)


@pytest.mark.parametrize("rows", [range(80), range(100, 20, -1)])
def test_a_selection_of_the_table_is_found_again(sample, tmp_path, rows) -> None:
    from cryoscape import Run, train

    chosen = sample.particles.select(np.array(rows))
    run = train(chosen, sample.model, settings(), tmp_path / "RUN", interpretation=KNOWN)
    np.testing.assert_array_equal(run.embedding.uid, chosen.uid)
    np.testing.assert_array_equal(Run.open(tmp_path / "RUN").particles.row, list(rows))
