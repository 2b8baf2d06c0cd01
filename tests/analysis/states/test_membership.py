import numpy as np
import pytest

from cryoscape.analysis.states.membership import find_states, membership_of_weights, read_weights
from cryoscape.errors import InputError
from tests.analysis.fakes import fake_run


@pytest.fixture
def run(tmp_path):
    """Three states of 60, 35 and 5 %, posteriors of a standard normal prior and an error of 0.3."""
    rng = np.random.default_rng(0)
    state = np.repeat([0, 1, 2], [360, 210, 30])
    y = np.array([-1.0, 1.0, 3.0])[state] + 0.3 * rng.standard_normal(600)
    z = np.stack([y / 1.09, 1e-3 * rng.standard_normal(600), np.zeros(600)], axis=1)
    run = fake_run(tmp_path / "run", z=z)
    run.embedding.z_sd[:] = 1.0
    run.embedding.z_sd[:, 0] = 0.3 / np.sqrt(1.09)
    run.state = state
    return run


def test_states_and_their_shares_come_out_in_order(run):
    found = find_states(run)
    assert found.names == ("state_1", "state_2", "state_3")
    np.testing.assert_allclose(found.share, [0.6, 0.35, 0.05], atol=0.015)
    assert np.mean(found.label == run.state) > 0.98
    np.testing.assert_array_equal(run.state[found.particle], [0, 1, 2])
    np.testing.assert_allclose(found.effective, [360, 210, 30], rtol=0.1)
    np.testing.assert_array_equal(found.representative, np.asarray(run.embedding.z, float)[found.particle])


def test_a_wide_posterior_is_shared_between_states(run):
    run.embedding.z[0, 0], run.embedding.z_sd[0, 0] = 0.0, 0.95
    weights = find_states(run, 3).weights[0]
    assert weights[0] < 0.9
    assert weights.sum() == pytest.approx(1.0, abs=2e-3)
    assert find_states(run, 3).weights[5, 0] > 0.99


@pytest.mark.parametrize("k", [0, 31, 7000])
def test_more_states_than_particles_allow(run, k):
    with pytest.raises(InputError, match="--states"):
        find_states(run, k)


def test_states_without_particles_are_refused(run):
    run.embedding.z[:] = 0.0
    with pytest.raises(InputError, match="fewer states"):
        find_states(run, 4)


def test_weights_of_a_file(run, tmp_path):
    weights = np.eye(3)[run.state][:, [2, 0]]
    np.save(tmp_path / "w.npy", weights)
    found = read_weights(tmp_path / "w.npy", run)
    np.testing.assert_array_equal(found.weights, weights)
    np.testing.assert_allclose(found.share, [0.05, 0.6])
    assert found.label[-1] == 0
    assert found.label[400] == -1


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (np.ones((599, 2)) / 2, "shape"),
        (np.ones(600), "not a table"),
        (np.full((600, 2), 0.7), "not probabilities"),
        (np.full((600, 2), np.nan), "not probabilities"),
        (np.eye(600, 2), "too few"),
        (np.full((600, 2), "a"), "not a table"),
    ],
)
def test_weights_that_are_none(run, tmp_path, weights, said):
    np.save(tmp_path / "w.npy", weights)
    with pytest.raises(InputError, match=said):
        read_weights(tmp_path / "w.npy", run)
    (tmp_path / "w.npy").write_text("nothing")
    with pytest.raises(InputError, match="cannot be read"):
        read_weights(tmp_path / "w.npy", run)


def test_memberships_of_another_source_can_be_given():
    """A prior's own states need no more than their weights and populations."""
    z = np.random.default_rng(3).standard_normal((100, 2))
    weights = np.stack([z[:, 0] > 0, z[:, 0] <= 0], axis=1) * 0.9
    found = membership_of_weights(weights, z, share=np.array([0.7, 0.3]), source="prior")
    np.testing.assert_allclose(found.share, [0.7, 0.3])
    np.testing.assert_allclose(found.centre[0], z[z[:, 0] > 0].mean(axis=0))
    assert (found.label == (z[:, 0] <= 0)).all()
