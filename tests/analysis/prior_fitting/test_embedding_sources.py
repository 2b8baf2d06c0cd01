import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryoscape.analysis.prior_fitting import embeddings
from cryoscape.analysis.prior_fitting.embedding_sources import read_embedding, read_points
from cryoscape.analysis.prior_fitting.embeddings import EmbeddingSource
from cryoscape.errors import InputError
from cryoscape.priors.config import MixtureConfig
from cryoscape.priors.normal import NormalPrior

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(60, 3)).astype(np.float32)
SD = RNG.uniform(0.1, 0.9, size=Z.shape).astype(np.float32)


def save(path, *values):
    """Write by the ending: an array, named arrays, or pickles one after the other."""
    if path.suffix == ".npy":
        np.save(path, values[0], allow_pickle=True)
    elif path.suffix == ".npz":
        np.savez(path, **values[0])
    else:
        with open(path, "wb") as stream:
            for value in values:
                pickle.dump(value, stream)
    return path


def precisions(n=60, d=3):
    root = RNG.normal(size=(n, d, d))
    return root @ root.transpose(0, 2, 1) + 0.5 * np.eye(d)


# -- what is read --------------------------------------------------------------------------------


def test_an_array_is_points(tmp_path):
    found = read_embedding(save(tmp_path / "z.npy", Z))
    np.testing.assert_array_equal(found.z, Z)
    assert (found.z_sd, found.reference, found.support, found.own_prior) == (None, None, "real", "")
    samples = found.posterior_samples()
    assert torch.equal(samples.z, torch.from_numpy(Z)[None])
    np.testing.assert_array_equal(read_points(tmp_path / "z.npy"), Z)


def test_named_arrays_are_posteriors_under_a_normal_prior(tmp_path):
    found = read_embedding(save(tmp_path / "z.npz", {"z": Z, "z_sd": SD, "more": np.ones(2)}))
    np.testing.assert_array_equal(found.z_sd, SD)
    assert isinstance(found.reference, NormalPrior)
    assert "N(0, I)" in found.cautions[0]
    assert read_embedding(save(tmp_path / "bare.npz", {"z": Z})).z_sd is None


def test_cryodrgn_writes_means_and_log_variances(tmp_path):
    found = read_embedding(save(tmp_path / "z.24.pkl", Z, np.log(SD**2)))
    np.testing.assert_array_equal(found.z, Z)
    np.testing.assert_allclose(found.z_sd, SD, rtol=1e-6)
    assert isinstance(found.reference, NormalPrior)
    assert "tempered" in found.cautions[0]


def test_cryodrgn_tables_have_no_errors(tmp_path):
    found = read_embedding(save(tmp_path / "z.pkl", Z))
    np.testing.assert_array_equal(found.z, Z)
    assert found.z_sd is None


def test_recovar_folder(tmp_path):
    p = precisions()
    for name, array in (("coords", Z), ("coords_noreg", 2 * Z), ("precision", 3 * p), ("precision_noreg", p)):
        save(tmp_path / f"latent_{name}.npy", array)
    found = read_embedding(tmp_path / "latent_coords_noreg.npy")
    np.testing.assert_array_equal(found.z, 2 * Z)
    np.testing.assert_allclose(found.covariance, np.linalg.inv(p), rtol=1e-9)
    assert found.reference is None
    # The precision of regularised points is not that of a posterior.
    regularised = read_embedding(tmp_path / "latent_coords.npy")
    np.testing.assert_array_equal(regularised.z, Z)
    assert (regularised.z_sd, regularised.covariance) == (None, None)
    with pytest.raises(InputError, match=r"latent_coords_noreg\.npy"):
        regularised.posterior_samples("deconvolved")


def test_recovar_table_of_older_versions(tmp_path):
    p = precisions(d=2)
    zs = {1: Z[:, :1], 2: Z[:, :2], "2_noreg": Z[:, 1:]}
    path = save(tmp_path / "embeddings.pkl", {"zs": zs, "cov_zs": {"2_noreg": p}, "contrasts": {1: Z[:, 0]}})
    np.testing.assert_array_equal(read_embedding(path, "1").z, Z[:, :1])
    found = read_embedding(path, "2_noreg")
    np.testing.assert_array_equal(found.z, Z[:, 1:])
    np.testing.assert_allclose(found.covariance, np.linalg.inv(p), rtol=1e-9)
    for wrong in (None, "3"):
        with pytest.raises(InputError, match="1, 2, 2_noreg"):
            read_embedding(path, wrong)
    only = save(
        tmp_path / "one.pkl", {"latent_coords_noreg": {2: Z[:, 1:]}, "latent_precision_noreg": {2: p}}
    )
    np.testing.assert_allclose(read_embedding(only).covariance, np.linalg.inv(p), rtol=1e-9)


def test_bits_are_known_by_their_values(tmp_path):
    assert read_embedding(save(tmp_path / "b.npy", Z > 0)).support == "binary"
    assert read_embedding(save(tmp_path / "p.npy", 0.5 * (Z > 0))).support == "real"


def fake_run(prior, **settings):
    objective = {"beta": 1.0, "free_bits": 0.0} | settings
    likelihood = SimpleNamespace(kind=objective.pop("likelihood", "gaussian"))
    config = SimpleNamespace(
        objective=SimpleNamespace(**objective), likelihood=likelihood, prior=SimpleNamespace(kind="mixture")
    )
    z = Z if prior.support == "real" else 1 / (1 + np.exp(-Z))
    return SimpleNamespace(embedding=SimpleNamespace(z=z, z_sd=SD), prior=prior, config=config)


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    from cryoscape.training.run import Run

    def make(prior, **settings):
        monkeypatch.setattr(Run, "open", lambda _path: fake_run(prior, **settings))
        (tmp_path / "run.json").write_text("{}")
        (tmp_path / "embedding.npz").write_bytes(b"")
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("prior", "kind"),
    [(MixtureConfig().build(3), "mixture"), (NormalPrior(3), "normal")],
    ids=["learned", "not yet"],
)
def test_a_run_brings_its_prior(run_folder, prior, kind):
    folder = run_folder(prior)
    for path in (folder, folder / "embedding.npz"):
        found = read_embedding(path)
        assert found.path == folder
        np.testing.assert_array_equal(found.z_sd, SD)
        assert found.reference is prior
        assert (found.own_prior, found.support, found.cautions) == (kind, "real", ())


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"beta": 0.5}, "0.5"), ({"free_bits": 3.0}, "free"), ({"likelihood": "correlation"}, "correlation")],
)
def test_a_run_that_was_not_calibrated_says_so(run_folder, settings, word):
    (caution,) = read_embedding(run_folder(NormalPrior(3), **settings)).cautions
    assert word in caution


def test_a_run_of_bits_has_probabilities(run_folder):
    prior = NormalPrior(3)
    prior.support = "binary"
    found = read_embedding(run_folder(prior))
    assert (found.support, found.z_sd) == ("binary", None)


# -- what priors are fitted to -------------------------------------------------------------------


def test_samples_of_posteriors(tmp_path):
    found = EmbeddingSource(tmp_path, Z.astype(float), SD.astype(float), reference=NormalPrior(3))
    samples = found.posterior_samples("deconvolved")
    assert samples.z.shape == (32, 60, 3)
    error = (samples.z.numpy() - Z) / SD
    assert abs(error.mean()) < 4 / np.sqrt(error.size)
    assert abs(error.std() - 1) < 4 / np.sqrt(2 * error.size)
    want = -0.5 * (samples.z.numpy() ** 2).sum(-1) - 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(samples.log_reference, want, rtol=1e-5)
    assert samples.mean is not None


def test_samples_of_likelihoods_are_correlated_and_have_a_flat_reference(tmp_path):
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    n = 4000
    found = EmbeddingSource(tmp_path, np.zeros((n, 2)), covariance=np.tile(covariance, (n, 1, 1)))
    samples = found.posterior_samples("deconvolved")
    np.testing.assert_allclose(np.cov(samples.z.flatten(0, 1).T), covariance, atol=0.02)
    assert not samples.log_reference.any()
    assert samples.mean is None  # not made under N(0, I)


def test_an_image_that_says_nothing_of_a_direction_is_wide_there(tmp_path):
    p = np.tile(np.diag([4.0, 0.0]), (len(Z), 1, 1))
    save(tmp_path / "latent_precision_noreg.npy", p)
    found = read_embedding(save(tmp_path / "latent_coords_noreg.npy", Z[:, :2]))
    widest = 3 * Z[:, :2].std(axis=0).max()
    np.testing.assert_allclose(found.covariance[5], np.diag([0.25, widest**2]), rtol=1e-5, atol=1e-9)


def test_probabilities_are_sampled(tmp_path):
    probability = np.tile([0.1, 0.9, 0.5], (2000, 1))
    found = EmbeddingSource(tmp_path, probability)
    samples = found.posterior_samples(support="binary").z
    assert set(np.unique(samples)) == {0.0, 1.0}
    np.testing.assert_allclose(samples.mean((0, 1)), [0.1, 0.9, 0.5], atol=0.01)
    assert found.posterior_samples().z.shape[0] == 1  # as real numbers they are points


def test_many_particles_get_fewer_samples(tmp_path, monkeypatch):
    found = EmbeddingSource(tmp_path, Z, SD, reference=NormalPrior(3))
    for most, count in ((10 * Z.size + 1, 10), (1, 2), (10**9, 32)):
        monkeypatch.setattr(embeddings, "_MOST_NUMBERS", most)
        assert found.posterior_samples("deconvolved").z.shape[0] == count
    for most, count in ((10 * len(Z) + 1, 10), (1, 2), (10**9, 32)):
        monkeypatch.setattr(embeddings, "_MOST_POINTS", most)
        assert found.posterior_samples().z.shape[0] == count


def test_points_are_measured_as_the_particles_were(tmp_path):
    """Measured once under N(0, 1): shrunk and noisy, so that the posterior of a fair prior is its own."""
    n, s = 20_000, np.array([0.3, 0.9])
    found = EmbeddingSource(tmp_path, np.zeros((n, 2)), np.tile(s, (n, 1)), reference=NormalPrior(2))
    assert found.measures
    truth = np.random.default_rng(3).normal(size=(n, 2))
    mean = found.measured(truth)
    # Means of posteriors of variance s^2 have the rest of the prior's variance, and the truth is about them.
    np.testing.assert_allclose(mean.var(axis=0), 1 - s**2, rtol=0.03)
    np.testing.assert_allclose((truth - mean).std(axis=0), s, rtol=0.03)
    np.testing.assert_allclose(((truth - mean) * mean).mean(axis=0), 0, atol=0.02)


def test_likelihoods_are_measured_with_their_covariance(tmp_path):
    covariance = np.array([[1.0, -0.5], [-0.5, 2.0]])
    found = EmbeddingSource(tmp_path, np.zeros((20_000, 2)), covariance=np.tile(covariance, (20_000, 1, 1)))
    assert found.measures
    np.testing.assert_allclose(np.cov(found.measured(np.full((20_000, 2), 3.0)).T), covariance, atol=0.06)


def test_what_was_made_under_a_learned_prior_cannot_be_measured_again(tmp_path):
    learned = EmbeddingSource(tmp_path, Z, SD, reference=MixtureConfig().build(3))
    assert not learned.measures
    assert not EmbeddingSource(tmp_path, Z).measures
    assert len(learned.rows(np.arange(7))) == 7
    np.testing.assert_array_equal(learned.rows(np.array([5, 2])).z_sd, SD[[5, 2]])


def test_kinds_that_do_not_suit_are_refused(tmp_path):
    real = EmbeddingSource(tmp_path / "z.npy", np.array([[0.1, 0.2], [0.5, 1.0], [0.3, -0.2]]))
    with pytest.raises(InputError, match=r"rbm.*-0\.2") as found:
        real.need_support("binary", "rbm")
    assert found.value.row == 3
    real.need_support("real", "flow")
    bits = EmbeddingSource(tmp_path / "z.npy", np.eye(3), support="binary")
    with pytest.raises(InputError, match="flow"):
        bits.need_support("real", "flow")
    bits.need_support("binary", "rbm")


# -- what is not ---------------------------------------------------------------------------------


def spoilt(row, value):
    z = Z.copy()
    z[row - 1, 1] = value
    return z


BAD = {
    "one dimension.npy": (Z[:, 0], None, r"\(60,\)"),
    "three dimensions.npy": (Z[None], None, r"\(1, 60, 3\)"),
    "no rows.npy": (Z[:0], None, r"\(0, 3\)"),
    "text.npy": (np.array([["a", "b"]]), None, "real numbers"),
    "complex.npy": (Z * 1j, None, "complex64"),
    "objects.npy": (np.array([[{}], [1]], dtype=object), None, "numbers"),
    "nan.npy": (spoilt(7, np.nan), 7, "finite"),
    "infinite.npy": (spoilt(9, -np.inf), 9, "finite"),
    "nan.npz": ({"z": spoilt(7, np.nan)}, 7, "finite"),
    "nan errors.npz": ({"z": Z, "z_sd": spoilt(3, np.nan)}, 3, "z_sd"),
    "negative errors.npz": ({"z": Z, "z_sd": spoilt(3, 0) - 5 * np.eye(60, 3)}, 1, "negative"),
    "wrong errors.npz": ({"z": Z, "z_sd": SD[:, :2]}, None, r"\(60, 2\)"),
    "no z.npz": ({"latents": Z}, None, "latents"),
    "objects.npz": ({"z": np.array([{}, 1], dtype=object)}, None, "numbers"),
    "nan.pkl": (spoilt(7, np.nan), 7, "finite"),
    "text.pkl": ("hello", None, "str"),
    "other table.pkl": ({"poses": Z}, None, "poses"),
    "table.csv": (Z, None, "no known kind"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(tmp_path, name):
    value, row, words = BAD[name]
    path = save(tmp_path / name, value)
    with pytest.raises(InputError, match=words) as found:
        read_embedding(path)
    assert (found.value.file, found.value.row) == (path, row)
    assert found.value.remedy


def test_several_rows_are_counted(tmp_path):
    z = spoilt(7, np.nan)
    z[20:23] = np.inf
    with pytest.raises(InputError, match=r"row 7: .* and in 3 more"):
        read_embedding(save(tmp_path / "z.npy", z))


@pytest.mark.parametrize("name", ["missing.npy", "missing.pkl", "folder", "text.npy", "text.npz", "cut.npz"])
def test_what_is_no_embedding_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "cut.npz").write_bytes(save(tmp_path / "z.npz", {"z": Z}).read_bytes()[:300])
    with pytest.raises(InputError) as found:
        read_embedding(tmp_path / name)
    assert found.value.file == tmp_path / name
    assert found.value.remedy


def test_log_variances_of_other_particles_are_refused(tmp_path):
    with pytest.raises(InputError, match="belong together"):
        read_embedding(save(tmp_path / "z.pkl", Z, SD[:50]))
    with pytest.raises(InputError, match="ndarray, ndarray, ndarray"):
        read_embedding(save(tmp_path / "three.pkl", Z, SD, SD))
    save(tmp_path / "latent_precision_noreg.npy", precisions(50))
    points = save(tmp_path / "latent_coords_noreg.npy", Z)
    with pytest.raises(InputError, match="precisions of shape"):
        read_embedding(points)


@pytest.mark.parametrize("bits", [False, True])
def test_points_without_errors_cannot_be_deconvolved(tmp_path, bits):
    path = save(tmp_path / "z.npy", Z > 0 if bits else Z)
    with pytest.raises(InputError, match="cannot be deconvolved") as found:
        read_embedding(path).posterior_samples("deconvolved")
    assert found.value.file == path
