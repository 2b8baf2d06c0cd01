from dataclasses import replace

import numpy as np
import pytest
import torch

from cryoscape.data.images import BandImages
from cryoscape.errors import InputError
from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.training.embed import embed, refine
from cryoscape.training.embedding import Embedding
from cryoscape.training.run import Run
from cryoscape.training.sampling import held_out_mask, step_generator
from tests.training.builders import make_sample


@pytest.fixture(scope="module")
def own(trained):
    return embed(trained)


def test_one_row_a_particle_in_the_order_of_the_file(trained, own, sample):
    assert len(own) == 120
    assert own.z.shape == own.z_sd.shape == (120, 2)
    np.testing.assert_array_equal(own.uid, sample.particles.uid)
    np.testing.assert_array_equal(own.row, np.arange(120))
    np.testing.assert_array_equal(own.half, np.arange(120) % 2 + 1)
    assert (own.z_sd > 0).all()
    for name in ("z", "z_sd", "log_likelihood", "kl", "elbo", "gain"):
        assert getattr(own, name).dtype == np.float32, name
        assert np.isfinite(getattr(own, name)).all(), name


def test_it_is_saved_in_the_run_folder(trained, own):
    stored = Run.open(trained.path).embedding
    for name in Embedding.__dataclass_fields__:
        assert np.array_equal(getattr(stored, name), getattr(own, name)), name
        assert getattr(stored, name).dtype == getattr(own, name).dtype, name


def test_held_out_particles_are_marked(trained, own):
    assert own.held_out.sum() == 6
    np.testing.assert_array_equal(own.held_out, held_out_mask(120, 0.05, 0))


def test_numbers_are_those_of_the_model(trained, own):
    """KL by hand; the gain is the bound less the likelihood of one structure."""
    kl = 0.5 * (own.z**2 + own.z_sd**2 - 1 - 2 * np.log(own.z_sd)).sum(1)
    np.testing.assert_allclose(own.kl, kl, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(own.elbo, own.log_likelihood - own.kl, rtol=1e-5, atol=1e-4)
    assert (own.kl >= -1e-5).all()


def test_foreign_particles(trained, own, tmp_path):
    """Others than those of the training: not saved, all of them held out, signs as in the training."""
    before = (trained.path / "embedding.npz").read_bytes()
    other = make_sample(tmp_path, n=30, seed=5)
    found = embed(trained, other.particles)
    assert len(found) == 30
    assert found.held_out.all()
    assert np.array_equal(found.z, embed(trained, other.particles.with_sign(-1)).z)
    assert (trained.path / "embedding.npz").read_bytes() == before


def test_the_same_particles_as_foreigners_get_the_same_posterior(trained, own, sample):
    found = embed(trained, sample.particles)
    assert np.array_equal(found.z, own.z)
    some = embed(trained, sample.particles.select([7, 3, 50]))
    np.testing.assert_allclose(some.z, own.z[[7, 3, 50]], atol=1e-4)
    np.testing.assert_array_equal(some.row, [7, 3, 50])


def test_another_field_of_view_is_refused(trained, sample):
    wide = tuple(replace(g, pixel_size=3.3) for g in sample.particles.optics)
    with pytest.raises(InputError, match="the run's 72.0 A".replace(".", r"\.")):
        embed(trained, replace(sample.particles, optics=wide))


def test_optics_groups_that_the_run_never_saw_are_refused(trained, sample):
    p = sample.particles
    two = replace(p, optics=p.optics * 2, group=np.arange(120) % 2)
    with pytest.raises(InputError, match="2 optics groups"):
        embed(trained, two)


def test_embedding_leaves_the_run_as_it_was(trained):
    run = Run.open(trained.path)
    before = {k: v.clone() for k, v in run.image_model.state_dict().items()}
    embed(run, refine_steps=2)
    after = run.image_model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    embed(run)


class Workshop:
    """The trained model with a batch, and the exact bound by many samples."""

    def __init__(self, run):
        self.model, self.prior = run.image_model, run.prior
        g = run.geometry
        self.batch = BandImages(run.particles, g.cutoff).batch(torch.arange(40))

    @torch.no_grad()
    def bound(self, q, n=200):
        z = q.rsample(n, step_generator(77, 7))
        likelihood = torch.stack([self.model.log_likelihood(s, self.batch) for s in z]).mean(0)
        return likelihood - self.prior.kl_divergence(q, z)


def test_refinement_never_lowers_the_bound(trained):
    shop = Workshop(trained)
    q = shop.model.posterior(shop.model.features(shop.batch))
    with torch.no_grad():
        # Encoders' answers spoilt, so that there is something to win.
        q = DiagonalGaussian(q.mean + 1.5, q.log_var)
    better = refine(shop.model, shop.prior, shop.batch, q, 30, seed=0)
    before, after = shop.bound(q), shop.bound(better)
    assert float((after - before).min()) > -0.05
    assert float((after - before).mean()) > 0.5
    assert not better.mean.requires_grad


@pytest.mark.parametrize("rate", [50.0, 1e30])
def test_refinement_that_goes_astray_is_not_kept(trained, rate):
    """Steps far too large, or lost altogether: the encoder's own answer stays."""
    shop = Workshop(trained)
    with torch.no_grad():
        q = shop.model.posterior(shop.model.features(shop.batch))
    found = refine(shop.model, shop.prior, shop.batch, q, 3, seed=0, rate=rate)
    assert torch.isfinite(found.mean).all()
    assert float((shop.bound(found) - shop.bound(q)).min()) > -0.05


def test_refined_embeddings_are_at_least_as_good(trained, own):
    refined = embed(trained, trained.particles, refine_steps=10)
    assert refined.elbo.mean() >= own.elbo.mean() - 1e-3
    assert not np.array_equal(refined.z, own.z)
