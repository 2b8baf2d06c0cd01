import numpy as np
import pytest

from cryoscape.analysis import map_variation
from cryoscape.analysis.map_variation import decode_maps_in_chunks, decoded_variation
from tests.analysis.fakes import FakeGeometry, fake_map_run


def correlation(a, b):
    return abs(np.corrcoef(a, b)[0, 1])


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    run = fake_map_run(tmp_path_factory.mktemp("run"))
    return run, *decoded_variation(run, run.embedding.z)


def test_the_first_component_is_the_largest_change_of_density_not_of_the_code(varied):
    """z2 has five times the spread of z0 and changes nothing."""
    run, variation, _ = varied
    scores = variation.components.scores
    assert correlation(scores[:, 0], run.embedding.z[:, 0]) > 0.9
    assert correlation(scores[:, 0], run.embedding.z[:, 2]) < 0.2
    assert variation.components.explained[0] > 0.5


def test_scores_are_differences_relative_to_the_density(varied):
    run, variation, moments = varied
    maps = run.decode_maps(run.embedding.z)
    inside = maps[:, variation.mask].astype(float)
    away = inside - inside.mean(axis=0)
    density = np.sqrt(np.mean(inside.mean(axis=0) ** 2))
    assert variation.spread == pytest.approx(np.sqrt(np.mean(away**2)) / density, rel=1e-4)
    singular = np.linalg.svd(away, compute_uv=False)
    expected = singular**2 / len(maps) / variation.mask.sum() / density**2
    np.testing.assert_allclose(variation.components.variance, expected[:5], rtol=1e-3)
    np.testing.assert_allclose(
        variation.components.scores.var(axis=0), variation.components.variance, rtol=1e-2
    )
    np.testing.assert_allclose(moments.mean, maps.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(moments.deviation, maps.std(axis=0), atol=1e-4)


def test_solvent_is_masked_out(varied):
    run, variation, _ = varied
    assert 0.02 < variation.mask.mean() < 0.3
    highest = run.decode_maps(run.embedding.z).max(axis=0)
    assert variation.mask[highest > 2 * variation.level].mean() > 0.95
    assert not variation.mask[0].any()


def test_other_particles_are_predicted_from_their_codes(tmp_path, monkeypatch):
    run = fake_map_run(tmp_path, n=500)
    full, _ = decoded_variation(run, run.embedding.z)
    assert (full.decoded, full.predicted) == (500, 1.0)
    monkeypatch.setattr(map_variation, "_SAMPLES", (128,))
    run.decoded = 0
    part, _ = decoded_variation(run, run.embedding.z)
    assert part.decoded == 128
    assert run.decoded <= 128 + 33
    assert part.predicted > 0.8
    assert len(part.components.scores) == 500
    assert correlation(full.components.scores[:, 0], part.components.scores[:, 0]) > 0.98


def test_a_slow_decoder_gets_a_smaller_sample():
    sizes = [map_variation._affordable(seconds) for seconds in (0.001, 0.04, 0.1, 5.0)]
    assert sizes == [1024, 1024, 512, 128]


def test_large_maps_are_compared_on_coarse_voxels(tmp_path, monkeypatch):
    run = fake_map_run(tmp_path, n=40)
    monkeypatch.setattr(map_variation, "COARSE", 16)
    variation, moments = decoded_variation(run, run.embedding.z)
    assert variation.mask.shape == (16, 16, 16)
    assert variation.voxel_size == 6.0
    assert moments.mean.shape == (24, 24, 24)
    assert correlation(variation.components.scores[:, 0], run.embedding.z[:, 0]) > 0.9


def test_decoding_is_chunked_and_filtered(tmp_path, monkeypatch):
    run = fake_map_run(tmp_path, n=20)
    run.geometry = FakeGeometry(box=16)
    monkeypatch.setattr(map_variation, "_CHUNK_BYTES", 4 * 16**3 * 3)
    plain = np.concatenate([maps for _, maps in decode_maps_in_chunks(run, run.embedding.z)])
    assert run.largest_chunk == 3
    smooth = np.concatenate([maps for _, maps in decode_maps_in_chunks(run, run.embedding.z, 24.0)])
    assert smooth.std() < 0.9 * plain.std()
    np.testing.assert_allclose(smooth.mean(axis=(1, 2, 3)), plain.mean(axis=(1, 2, 3)), rtol=1e-4)


def test_identical_maps_have_no_components(tmp_path):
    run = fake_map_run(tmp_path, z=np.zeros((30, 3)))
    variation, _ = decoded_variation(run, run.embedding.z)
    assert variation.spread < 1e-4
    np.testing.assert_array_equal(variation.components.explained, 0)
