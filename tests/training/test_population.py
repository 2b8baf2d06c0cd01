"""When the learned prior takes over, what it learns, and what it leaves alone."""

import math

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors.boltzmann import BoltzmannPrior
from cryoscape.priors.machines.machine import BoltzmannMachine
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.training.biophysical_start import switch_directions
from cryoscape.training.embed import embed
from cryoscape.training.linear_start import bits_from_scores
from cryoscape.training.population import PopulationLearner
from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings

TWO = {"prior": {"kind": "mixture", "components": 2, "lr": 0.02}}


def run(sample, config, out, **more):
    return train(sample.particles, sample.model, config, out, interpretation=KNOWN, **more)


def learner(steps=40, **sections):
    config = settings(**sections)
    torch.manual_seed(0)
    return PopulationLearner(config.prior.build(config.z_dim), config, steps)


def test_the_normal_prior_learns_nothing():
    quiet = learner()
    assert isinstance(quiet.at(0), NormalPrior)
    assert not quiet.due(0)
    assert quiet.learn(30, torch.randn(8, 2)) is None


def test_it_takes_over_at_its_time():
    late = learner(prior={"kind": "mixture", "components": 2, "start": 0.75})
    assert [isinstance(late.at(s), MixturePrior) for s in (0, 29, 30, 39)] == [False, False, True, True]
    assert [s for s in range(40) if late.due(s)] == [30]
    before = {k: v.clone() for k, v in late.prior.state_dict().items()}
    assert late.learn(29, torch.randn(64, 2)) is None
    assert all(torch.equal(v, before[k]) for k, v in late.prior.state_dict().items())
    assert late.learn(31, torch.randn(64, 2)) is not None
    assert any(not torch.equal(v, before[k]) for k, v in late.prior.state_dict().items())


def test_before_it_bits_are_fair_coins():
    bits = learner(prior={"kind": "rbm", "chains": 8}, z_dim=4)
    coins = bits.at(0)
    assert isinstance(coins, BoltzmannMachine)
    found = coins.log_prob(torch.tensor([[0.0, 1, 1, 0]]))
    torch.testing.assert_close(found, torch.tensor([-4 * math.log(2)]))


def test_its_parameters_get_no_gradient_from_the_bound():
    """The KL differentiates with respect to z alone; the prior learns by its own optimiser."""
    one = learner(**TWO)
    z = torch.randn(16, 2, requires_grad=True)
    one.at(39).energy(z).sum().backward()
    assert z.grad is not None
    assert all(p.grad is None for p in one.prior.parameters())


def test_it_climbs_the_likelihood_of_its_samples():
    mixture = learner(steps=400, prior={"kind": "mixture", "components": 2, "lr": 0.05, "start": 0.0})
    generator = torch.Generator().manual_seed(1)

    def draw(n):
        side = (torch.rand(n, 1, generator=generator) < 0.8).float()
        return torch.randn(n, 2, generator=generator) * 0.3 + torch.cat([4 * side - 2, 0 * side], 1)

    mixture.prior.warm_start(draw(500), generator)
    with torch.no_grad():
        for p in mixture.prior.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    first = float(mixture.prior.log_prob(draw(4000)).mean())
    for step in range(400):
        mixture.learn(step, draw(128))
    assert float(mixture.prior.log_prob(draw(4000)).mean()) > first + 0.1
    states = mixture.prior.states()
    assert np.sort(states.weight)[-1] == pytest.approx(0.8, abs=0.04)


def test_a_prior_whose_energy_is_not_finite_is_named():
    bad = learner(prior={"kind": "mixture", "components": 2, "start": 0.0})
    with torch.no_grad():
        for p in bad.prior.parameters():
            p.fill_(float("nan"))
    with pytest.raises(InputError, match=r"mixture prior diverged.*step 1 ") as caught:
        bad.learn(0, torch.randn(8, 2))
    assert "--prior.lr" in caught.value.remedy
    assert any("not finite" in fault for fault in bad.new_faults(39))
    assert bad.new_faults(39) == ()


@pytest.fixture(scope="module")
def two_states(tmp_path_factory):
    folder = tmp_path_factory.mktemp("population")
    sample = make_sample(folder / "data", n=800, snr=1.0, share=0.75)
    config = settings(
        training={"steps": 400, "batch": 64, "lr": 3e-3},
        encoder={"kind": "score", "hidden": (64, 32)},
        decoder={"kind": "atomic", "hidden": (64, 128), "activation": "silu"},
        **TWO,
    )
    found = run(sample, config, folder / "run")
    return sample, found, embed(found)


def test_its_states_are_those_of_the_molecule(two_states):
    """Samples of the prior decode to both true states, in their shares."""
    sample, found, _ = two_states
    decoded = found.decode(found.sample(4000))
    rmsd = np.stack([np.sqrt(((decoded - state) ** 2).sum(-1).mean(-1)) for state in sample.states])
    share = (rmsd.argmin(0) == 0).mean()
    assert abs(share - (sample.state == 0).mean()) < 0.05
    assert (rmsd.min(0) < 0.7).mean() > 0.9


def test_the_embedding_says_how_likely_each_place_is(two_states):
    _, found, embedding = two_states
    mean = torch.from_numpy(embedding.z)
    with torch.no_grad():
        at_the_mean = found.prior.log_prob(mean).numpy()
    # E_q log p differs from log p at the mean by half the trace of the curvature: small where q is narrow.
    assert np.corrcoef(embedding.log_prior, at_the_mean)[0, 1] > 0.7
    assert np.isfinite(embedding.log_prior).all()


def test_held_out_bounds_of_an_unnormalised_prior_have_log_z(sample, tmp_path):
    """With exact log Z of a small machine: the bound written is that of the embedding's particles."""
    config = settings(
        z_dim=4,
        prior={"kind": "bm", "chains": 16},
        data={"held_out": 0.3},
        encoder={"relaxation": "straight-through"},
    )
    found = run(sample, config, tmp_path)
    metrics = found.metrics
    train_rows = metrics["split"] == "train"
    late = train_rows & (metrics["step"] > 12)
    assert np.isnan(metrics["kl"][late]).all()
    assert np.isfinite(metrics["kl"][~train_rows]).all()
    embedding = found.embedding
    machine = found.prior
    p = torch.from_numpy(embedding.z).double()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum(1)
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    with torch.no_grad():
        log_z = torch.logsumexp(-machine.energy(bits).double(), 0)
        want = machine.energy(p.float()).double() + log_z - entropy
    np.testing.assert_allclose(embedding.kl, want, atol=2e-4)
    assert embedding.kl.min() > -1e-4


def test_directions_of_switches_follow_modes_and_domains(sample):
    """A decoder that is linear in z, with known displacements: the regression gives them back."""
    model, n, d = sample.model, len(sample.model), 3
    rng = torch.Generator().manual_seed(0)
    from cryoscape.structures.normal_modes import anisotropic_network_modes

    modes = torch.as_tensor(anisotropic_network_modes(model.coords, 2, 12.0)[1]).float()
    # z_0 moves along the first mode, z_1 along the second, z_2 nothing.
    sizes = (30.0, 10.0)

    class Linear:
        @staticmethod
        def coordinates(z):
            moved = sum(s * z[:, k, None, None] * modes[k] for k, s in enumerate(sizes))
            return torch.as_tensor(model.coords).float() + moved

    z = torch.randn(6000, d, generator=rng) * torch.tensor([1.0, 0.5, 2.0])
    found = switch_directions("modes", Linear(), model, z, 2)
    want = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
    # Four standard errors of the widest, empty direction.
    torch.testing.assert_close(found, want, atol=0.13, rtol=0.0)
    domains = switch_directions("domains", Linear(), model, z, 3)
    assert domains.shape == (3, d)
    assert float(domains[:, 2].abs().max()) < 0.15
    assert n == 30


def test_a_boltzmann_prior_starts_from_the_modes_of_the_model(sample, tmp_path):
    config = settings(prior={"kind": "boltzmann", "spins": 2, "origin": "modes"})
    found = run(sample, config, tmp_path)
    assert isinstance(found.prior, BoltzmannPrior)
    assert found.prior.couplings_kt().shape == (2, 2)
    with pytest.raises(InputError, match="decoder makes maps"):
        run(
            sample,
            settings(decoder={"kind": "voxels"}, prior={"kind": "boltzmann", "origin": "modes"}),
            tmp_path / "b",
        )


def test_bits_are_unmixed_from_their_principal_directions():
    """Three independent bits, mixed by a rotation and with noise: each comes back as one log odds."""
    rng = torch.Generator().manual_seed(0)
    bits = (torch.rand(20_000, 3, generator=rng) < torch.tensor([0.5, 0.3, 0.6])).double()
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=rng, dtype=torch.float64))[0]
    spread = bits.var(0, correction=0).sqrt()
    clean = (bits - bits.mean(0)) / spread * torch.tensor([4.0, 3.5, 3.0]) @ rotation
    axes = torch.linalg.eigh(clean.T @ clean / len(clean))
    ratio, vectors = axes.eigenvalues.flip(0), axes.eigenvectors.flip(1)
    scores = (clean + torch.randn(clean.shape, generator=rng, dtype=torch.float64)) @ vectors
    logits = scores @ bits_from_scores(scores, ratio, 0).T
    match = np.abs(np.corrcoef(logits.T, bits.T)[:3, 3:])
    assert sorted(match.argmax(1)) == [0, 1, 2]
    assert (match.max(1) > 0.9).all()
    for row, column in enumerate(match.argmax(1)):
        sign = np.sign(np.corrcoef(logits[:, row], bits[:, column])[0, 1])
        right = ((sign * logits[:, row] > 0) == (bits[:, column] > 0.5)).double().mean()
        assert right > 0.85


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"prior": {"kind": "rbm"}, "objective": {"free_bits": 1.0}}, "free bits"),
        ({"objective": {"bound": "importance"}}, "one sample"),
        ({"objective": {"bound": "importance", "samples": 3, "free_bits": 1.0}}, "free bits"),
        (
            {"prior": {"kind": "rbm", "hidden": 3}, "objective": {"bound": "importance", "samples": 3}},
            "hidden units",
        ),
        ({"objective": {"gradient": "leave-one-out", "samples": 2}}, "one of bits"),
        ({"prior": {"kind": "rbm"}, "objective": {"gradient": "leave-one-out"}}, "two samples"),
        ({"decoder": {"kind": "atomic", "occupancy": "tied"}}, "tied to bits"),
    ],
)
def test_what_does_not_go_together_is_refused(sample, tmp_path, sections, words):
    with pytest.raises(InputError, match=words) as caught:
        run(sample, settings(**sections), tmp_path / "run")
    assert caught.value.remedy
    assert not (tmp_path / "run").exists()
