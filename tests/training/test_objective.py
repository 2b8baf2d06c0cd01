import math
from dataclasses import fields

import pytest
import torch

from cryoscape.data.images import BandImages
from cryoscape.models.posteriors import Bernoulli, DiagonalGaussian
from cryoscape.priors.machines.kinds import independent_bits
from cryoscape.priors.normal import NormalPrior
from cryoscape.training.assemble import Geometry, Start, build_model, degrees_of_freedom
from cryoscape.training.objective import Terms, evaluate_terms
from cryoscape.training.restraining import Restraints
from cryoscape.training.sampling import step_generator
from tests.training.builders import CUTOFF, KNOWN, settings


class Scene:
    """A model at its start, a batch and its features; the decoder moves residues by Angstroms."""

    def __init__(self, sample, **sections):
        torch.manual_seed(0)
        self.config = settings(**sections)
        self.images = BandImages(sample.particles, CUTOFF)
        geometry = Geometry(self.images.box, self.images.pixel_size, CUTOFF, 1, KNOWN.offset, self.images.box)
        self.model = build_model(self.config, Start(sample.model), geometry)
        with torch.no_grad():
            self.model.decoder.network[-1].weight.mul_(20.0)
        self.restraints = Restraints(
            sample.model, self.config.restraints, degrees_of_freedom(geometry), torch.device("cpu")
        )
        self.batch = self.images.batch(torch.arange(16))
        self.features = self.model.features(self.batch)
        self.model.encoder.standardise(self.features)

    def terms(self, beta=1.0, through=False, balance=0.0, restraints=True):
        return evaluate_terms(
            self.model,
            NormalPrior(2),
            self.restraints if restraints else None,
            self.batch,
            self.features,
            objective=self.config.objective,
            beta=beta,
            balance=balance,
            through_latent=through,
            n_particles=120,
            generator=step_generator(0, 0),
        ).terms

    def gradients(self, term, part):
        parameters = list(getattr(self.model, part).parameters())
        found = torch.autograd.grad(term, parameters, allow_unused=True, retain_graph=True)
        return [g for g in found if g is not None]


def size(gradients):
    return float(sum(g.abs().sum() for g in gradients)) if gradients else 0.0


def test_loss_and_elbo_are_sums_of_their_terms():
    terms = Terms(*(torch.tensor(float(2**i)) for i in range(len(fields(Terms)))))
    assert float(terms.elbo) == 1.0 - 2.0
    assert float(terms.loss) == -1.0 + 4.0 + 8.0 + 16.0 + 32.0 + 64.0
    assert terms.numbers()["loss"] == 123.0


def test_terms_are_those_of_their_parts(sample):
    scene = Scene(sample)
    terms = scene.terms(beta=0.25)
    q = scene.model.posterior(scene.features)
    z = q.rsample(1, step_generator(0, 0))[0]
    torch.testing.assert_close(terms.log_likelihood, scene.model.log_likelihood(z, scene.batch).mean())
    torch.testing.assert_close(terms.kl, NormalPrior(2).kl_divergence(q).mean())
    torch.testing.assert_close(terms.weighted_kl, 0.25 * terms.kl)
    shown = math.ceil(scene.config.restraints.fraction * 16)
    strain = scene.restraints.terms(scene.model.decoder.coordinates(z[:shown]).detach())
    assert float(strain.bond) > 0
    assert float(strain.network) > 0
    torch.testing.assert_close(terms.bond, strain.bond)
    torch.testing.assert_close(terms.network, strain.network)


def test_a_strained_conformation_is_not_called_rare(sample):
    """By default the restraints teach the decoder alone; with `through_latent` the encoder as well."""
    scene = Scene(sample)
    for through in (False, True):
        terms = scene.terms(through=through)
        strain = terms.bond + terms.network + terms.clash
        assert size(scene.gradients(strain, "decoder")) > 0
        assert (size(scene.gradients(strain, "encoder")) > 0) == through
        assert size(scene.gradients(terms.log_likelihood, "encoder")) > 0


def test_without_restraints_there_is_no_strain(sample):
    terms = Scene(sample).terms(restraints=False)
    assert float(terms.bond + terms.network + terms.clash) == 0.0


def test_free_bits_are_free_and_no_more(sample):
    """Dimensions below the allowance cost the allowance and have no gradient; those above count in full."""
    scene = Scene(sample, objective={"free_bits": 0.5})
    q = DiagonalGaussian(torch.tensor([[0.1, 3.0]]).expand(16, -1), torch.zeros(16, 2))
    mean = q.mean.clone().requires_grad_()
    scene.model.posterior = lambda features: DiagonalGaussian(mean, q.log_var)
    terms = scene.terms(beta=2.0)
    assert float(terms.weighted_kl) == pytest.approx(2.0 * (0.5 + 4.5))
    assert float(terms.kl) == pytest.approx(0.005 + 4.5)
    (grad,) = torch.autograd.grad(terms.weighted_kl, mean)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 2.0 * 3.0 / 16]]).expand(16, -1))


def test_more_samples_are_averaged(sample):
    one, many = Scene(sample), Scene(sample, objective={"samples": 40})
    q = many.model.posterior(many.features)
    z = q.rsample(40, step_generator(0, 0))
    want = torch.stack([many.model.log_likelihood(s, many.batch).mean() for s in z]).mean()
    torch.testing.assert_close(many.terms().log_likelihood, want)
    assert abs(float(one.terms().log_likelihood - want)) > 1e-4


@pytest.mark.parametrize("balance", [0.1, 1e9])
def test_balance_holds_the_pull_of_the_restraints_to_a_fraction_of_the_datas(sample, balance):
    scene = Scene(sample)
    plain, held = scene.terms(), scene.terms(balance=balance)
    factor = float(held.bond / plain.bond)
    coords = scene.model.decoder.coordinates(
        scene.model.posterior(scene.features).rsample(1, step_generator(0, 0))[0]
    )
    coords = coords.detach().requires_grad_()
    likelihood, batch = scene.model.likelihood, scene.batch
    y = scene.model.decoder.scene(coords).project(batch.rotations, likelihood.box, likelihood.pixel_size)
    data = likelihood.log_prob(batch.images, y, batch.ctf, batch.group).mean()
    strain = scene.restraints.terms(coords).total
    pulls = [torch.autograd.grad(t, coords, retain_graph=True)[0].mean(0).norm() for t in (data, strain)]
    assert factor == pytest.approx(min(1.0, balance * float(pulls[0] / pulls[1])), rel=1e-3)
    torch.testing.assert_close(held.network / plain.network, held.bond / plain.bond)
    assert (factor == pytest.approx(1.0)) == (balance > 1)


def test_the_importance_weighted_bound_takes_the_place_of_the_evidence_bound(sample):
    """log mean_k p(x|z_k) p(z_k) / q(z_k|x), by the formula, from the same samples; and it is the tighter."""
    scene = Scene(sample, objective={"samples": 8, "bound": "importance"})
    terms = scene.terms()
    q = scene.model.posterior(scene.features)
    z = q.rsample(8, step_generator(0, 0))
    likelihood = torch.stack([scene.model.log_likelihood(one, scene.batch) for one in z])
    normal = torch.distributions.Normal(0.0, 1.0)
    posterior = torch.distributions.Normal(q.mean, q.stddev)
    weight = likelihood + normal.log_prob(z).sum(-1) - posterior.log_prob(z).sum(-1)
    want = (torch.logsumexp(weight, 0) - math.log(8)).mean()
    torch.testing.assert_close(terms.log_likelihood - terms.weighted_kl, want, rtol=1e-5, atol=1e-4)
    assert float(want) > float(weight.mean())


def test_bits_may_have_the_unbiased_gradient(sample):
    """Mean over many draws of the leave-one-out gradient of the logits, against the sum over all bits."""
    scene = Scene(
        sample,
        prior={"kind": "bernoulli"},
        objective={"samples": 64, "gradient": "leave-one-out"},
        z_dim=2,
    )
    logits = torch.randn(16, 2, generator=torch.Generator().manual_seed(2)).requires_grad_()
    scene.model.posterior = lambda features: Bernoulli(logits)
    found = []
    for k in range(60):
        terms = evaluate_terms(
            scene.model,
            independent_bits(2),
            None,
            scene.batch,
            scene.features,
            objective=scene.config.objective,
            beta=0.0,
            balance=0.0,
            through_latent=False,
            n_particles=120,
            generator=step_generator(0, k),
        ).terms
        found.append(torch.autograd.grad(terms.log_likelihood, logits)[0])
    mean = torch.stack(found).mean(0)
    error = torch.stack(found).std(0) / math.sqrt(len(found))
    p, exact = torch.sigmoid(logits), 0.0
    for bits in torch.cartesian_prod(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])):
        chance = torch.where(bits > 0, p, 1 - p).prod(-1)
        likelihood = scene.model.log_likelihood(bits.expand(16, 2), scene.batch)
        exact = exact + (chance * likelihood.detach()).mean()
    (want,) = torch.autograd.grad(exact, logits)
    assert ((mean - want).abs() < 4.5 * error + 1e-7).all()
    assert float((want.abs() > 4.5 * error).double().mean()) > 0.3
