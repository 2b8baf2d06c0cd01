import numpy as np
import pytest

from cryoscape.analysis import components
from cryoscape.analysis.components import (
    decode_in_chunks,
    decoded_motion,
    latent_components,
)
from tests.analysis.fakes import chain_model, fake_run


def test_latent_components_agree_with_the_singular_value_decomposition():
    z = np.random.default_rng(0).standard_normal((300, 4)) @ np.diag([3, 2, 1, 0.5]) + 7
    found = latent_components(z)
    _, singular, axes = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(found.variance, singular**2 / 300, rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(found.axes * axes, axis=1)), 1, rtol=1e-10)
    np.testing.assert_allclose(found.scores.var(axis=0), found.variance, rtol=1e-4)
    assert found.explained.sum() == pytest.approx(1)


@pytest.mark.parametrize("n", [40, 400])
def test_motion_of_a_linear_decoder(tmp_path, n):
    """Both sides of the Gram matrix: fewer and more particles than coordinates."""
    run = fake_run(tmp_path, n=n)
    z = run.embedding.z
    motion = decoded_motion(run, z)
    structures = run.decode(z).astype(np.float64)
    away = structures - structures.mean(axis=0)
    np.testing.assert_allclose(motion.rmsf, np.sqrt((away**2).sum(-1).mean(0)), atol=1e-5)
    np.testing.assert_allclose(motion.mean_structure, structures.mean(axis=0), atol=1e-5)
    singular = np.linalg.svd(away.reshape(n, -1), compute_uv=False)
    np.testing.assert_allclose(
        motion.components.variance[:2], singular[:2] ** 2 / n / len(run.model), rtol=1e-4
    )
    assert motion.spread == pytest.approx(np.sqrt((away**2).sum(-1).mean()), rel=1e-5)
    # Two directions move; the others hold no variance and no axis.
    np.testing.assert_array_equal(motion.components.variance[2:], 0)


def test_scores_are_rms_displacements(tmp_path):
    """One mode of known length: the score of a particle is its rmsd from the mean structure."""
    z = np.zeros((50, 3))
    z[:, 0] = np.linspace(-1, 1, 50)
    run = fake_run(tmp_path, z=z)
    motion = decoded_motion(run, run.embedding.z)
    rmsd = np.sqrt(((run.decode(z) - motion.mean_structure) ** 2).sum(-1).mean(-1))
    np.testing.assert_allclose(np.abs(motion.components.scores[:, 0]), rmsd, atol=1e-5)


def test_components_of_a_sample_match_those_of_all_particles(tmp_path, monkeypatch):
    run = fake_run(tmp_path, n=2000)
    full = decoded_motion(run, run.embedding.z)
    monkeypatch.setattr(components, "_FIT_PARTICLES", 300)
    part = decoded_motion(run, run.embedding.z)
    assert abs(full.components.axes[0] @ part.components.axes[0]) > 0.999
    np.testing.assert_allclose(part.rmsf, full.rmsf, atol=1e-4)


def test_decoding_is_chunked(tmp_path, monkeypatch):
    run = fake_run(tmp_path, n=100)
    monkeypatch.setattr(components, "_CHUNK_BYTES", 12 * len(run.model) * 7)
    pieces = list(decode_in_chunks(run, run.embedding.z))
    assert run.largest_chunk == 7
    np.testing.assert_array_equal(
        np.concatenate([coords for _, coords in pieces]), run.decode(run.embedding.z)
    )


def test_identical_structures_far_from_the_origin_show_no_motion(tmp_path):
    run = fake_run(tmp_path, z=np.zeros((60, 3)), model=chain_model(shift=(900.0, 900.0, 900.0)))
    motion = decoded_motion(run, run.embedding.z)
    assert motion.spread < 1e-3
    np.testing.assert_array_equal(motion.components.scores, 0)
    np.testing.assert_array_equal(motion.components.explained, 0)
