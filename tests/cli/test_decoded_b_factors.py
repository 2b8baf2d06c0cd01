"""The B-factor column of decoded and sampled structures."""

import gemmi
import numpy as np
import pytest

from cryoscape.analysis.coordinate_uncertainty import b_factors, posterior_displacement, widths_of_codes
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("b")
    sample = make_sample(folder / "data", n=60)
    few = {"steps": 20, "batch": 16, "device": "cpu", "precision": "32"}
    return train(
        sample.particles, sample.model, settings(training=few), folder / "run", interpretation=KNOWN
    ).path


def column(path):
    """B-factors of all models, shape (m, N)."""
    return np.array([[cra.atom.b_iso for cra in model.all()] for model in gemmi.read_structure(str(path))])


def test_particles_have_the_width_of_their_posterior(trained, cli, tmp_path):
    np.save(tmp_path / "rows.npy", [7, 3])
    code, _, err = cli("decode", trained, "--particles", tmp_path / "rows.npy", "-o", tmp_path / "d.cif")
    assert code == 0, err
    run = Run.open(trained)
    place = [run.embedding.row.tolist().index(row) for row in (7, 3)]
    z, sd = run.embedding.z[place], run.embedding.z_sd[place]
    want = b_factors(posterior_displacement(run, z, sd))
    assert want.max() > 0
    np.testing.assert_allclose(column(tmp_path / "d.cif"), want, atol=0.006)


def test_samples_have_the_width_of_the_nearest_particle(trained, cli, tmp_path):
    code, _, err = cli("sample", trained, "-n", 3, "-o", tmp_path / "s.cif", "--seed", 5)
    assert code == 0, err
    run = Run.open(trained)
    z = run.sample(3, 5)
    want = b_factors(posterior_displacement(run, z, widths_of_codes(run, z)))
    np.testing.assert_allclose(column(tmp_path / "s.cif"), want, atol=0.006)


def test_a_run_without_embedding_still_decodes(trained, cli, tmp_path):
    (trained / "embedding.npz").rename(tmp_path / "embedding.npz")
    try:
        code, _, err = cli("sample", trained, "-n", 2, "-o", tmp_path / "s.cif")
        assert code == 0, err
        np.testing.assert_array_equal(column(tmp_path / "s.cif"), 0)
    finally:
        (tmp_path / "embedding.npz").rename(trained / "embedding.npz")
