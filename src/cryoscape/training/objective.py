"""The evidence bound and the structural restraints, as named terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cryoscape.data.images import ImageBatch
from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.estimators import importance_bound, with_score
from cryoscape.models.image_model import ImageModel
from cryoscape.models.posteriors import Bernoulli, DiagonalGaussian, Posterior
from cryoscape.models.relaxed_prior import relaxed_log_prior
from cryoscape.physics import fourier
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.machines.machine import BoltzmannMachine
from cryoscape.priors.normal import NormalPrior
from cryoscape.training.config import ObjectiveConfig
from cryoscape.training.pose_table import Correction
from cryoscape.training.restraining import Restraints, RestraintTerms


@dataclass
class Terms:
    """Means over a batch, in nats per image.

    Attributes
    ----------
    log_likelihood : Tensor
        Over pure noise.
    kl : Tensor
        KL(q(z|x) || p(z)), unweighted.
    weighted_kl : Tensor
        What enters the loss: weight and free bits applied, or the distance of log p(x|z) from the
        importance-weighted bound.
    bond, network, clash : Tensor
        Restraint energies.
    penalty : Tensor
        Of the decoder's own parameters, and of corrections of the poses, per image.
    """

    log_likelihood: Tensor
    kl: Tensor
    weighted_kl: Tensor
    bond: Tensor
    network: Tensor
    clash: Tensor
    penalty: Tensor

    @property
    def elbo(self) -> Tensor:
        """Log p(x|z) - KL."""
        return self.log_likelihood - self.kl

    @property
    def loss(self) -> Tensor:
        """What is minimised."""
        restraints = self.bond + self.network + self.clash
        return -self.log_likelihood + self.weighted_kl + restraints + self.penalty

    def numbers(self) -> dict[str, float]:
        """All terms, elbo and loss as plain numbers."""
        out = {f.name: float(getattr(self, f.name).detach()) for f in fields(self)}
        return {"loss": float(self.loss.detach()), "elbo": float(self.elbo.detach()), **out}


@dataclass
class Evaluated:
    """The objective of a batch, and what else a step needs of it.

    Attributes
    ----------
    terms : Terms
    projections : Tensor, shape (B, box, box // 2 + 1)
        Of the last posterior sample, detached: for the running noise estimate.
    z : Tensor, shape (K, B, d)
        What the prior learns from, detached: the posterior samples; of bits their probabilities (1, B, d).
    """

    terms: Terms
    projections: Tensor
    z: Tensor


def evaluate_terms(
    model: ImageModel,
    prior: LatentPrior,
    restraints: Restraints | None,
    batch: ImageBatch,
    features: Tensor,
    *,
    objective: ObjectiveConfig,
    beta: float,
    balance: float,
    through_latent: bool,
    n_particles: int,
    generator: torch.Generator,
    correction: Correction | None = None,
) -> Evaluated:
    """All terms of the objective for one batch.

    Parameters
    ----------
    model, prior, restraints
        The parts. Restraints only exist for decoders with atoms.
    batch : ImageBatch
    features : Tensor, shape (B, F)
        Encoder input.
    objective : ObjectiveConfig
    beta : float
        Weight of the KL in this step.
    balance : float
        If positive, restraints are scaled until their gradient in the coordinates is at most this many
        times the likelihood's (DynaMight's idea).
    through_latent : bool
        Whether restraint gradients reach the encoder. By default they stop at z: a strained conformation
        must not be called rare because it is strained.
    n_particles : int
        Over which penalties of the whole data set are shared.
    generator : torch.Generator
        For the posterior samples.
    correction : Correction, optional
        Of the poses of the batch.

    Returns
    -------
    Evaluated
    """
    q = model.posterior(features).float()
    scored = objective.gradient == "leave-one-out"
    samples = (q.sample if scored else q.rsample)(objective.samples, generator)
    box, pixel_size = model.likelihood.box, model.likelihood.pixel_size
    rotations, phase = batch.rotations, None
    if correction is not None:
        rotations = correction.rotate(rotations)
        phase = correction.phase(fourier.frequency_grid(box, pixel_size, device=rotations.device))
    log_likelihoods, projections = [], batch.images
    for z in samples:
        # Under mixed precision only the encoder and the products of the projection are rounded.
        with full_precision(z.device):
            scene = model.decoder(z)
        projections = scene.project(rotations, box, pixel_size)
        projections = projections if phase is None else projections * phase
        with full_precision(z.device):
            value = model.likelihood.log_prob(batch.images, projections, batch.ctf, batch.group)
        log_likelihoods.append(value / model.decoder.coverage)
    with full_precision(features.device):
        likelihoods = torch.stack(log_likelihoods)
        if scored:
            likelihoods = with_score(likelihoods, q.log_prob(samples))
        terms = _with_restraints(
            q,
            samples,
            likelihoods,
            model,
            prior,
            restraints,
            batch,
            objective=objective,
            beta=beta,
            balance=balance,
            through_latent=through_latent,
            n_particles=n_particles,
        )
    if correction is not None:
        terms = replace(terms, penalty=terms.penalty + correction.penalty().mean())
    # Of bits the mean says all that a machine learns from: the mean of a pairwise energy is that of the mean.
    seen = q.mean[None] if prior.support == "binary" else samples
    return Evaluated(terms, projections.detach(), seen.detach())


def full_precision(device: torch.device) -> torch.autocast:
    """Context without mixed precision: coordinates and likelihoods need all of float32."""
    return torch.autocast(device.type, enabled=False)


def _with_restraints(
    q: Posterior,
    samples: Tensor,
    log_likelihood: Tensor,
    model: ImageModel,
    prior: LatentPrior,
    restraints: Restraints | None,
    batch: ImageBatch,
    *,
    objective: ObjectiveConfig,
    beta: float,
    balance: float,
    through_latent: bool,
    n_particles: int,
) -> Terms:
    kl = prior.kl_divergence(q, samples)
    weighted = beta * kl
    if objective.bound == "importance":
        under_prior, under_q = sample_densities(prior, q, samples)
        bound = importance_bound(log_likelihood, beta * under_prior, beta * under_q)
        weighted = log_likelihood.mean(0) - bound
    if objective.free_bits > 0:
        weighted = beta * _at_least(kl, q, prior, objective.free_bits)
    zero = kl.new_zeros(())
    strain = RestraintTerms(zero, zero, zero)
    if restraints is not None:
        # The order of a batch is random, so its first part is a fair sample of it.
        z = samples[-1][: max(1, math.ceil(restraints.config.fraction * len(samples[-1])))]
        z = z if through_latent else z.detach()
        strain = restraints.terms(model.decoder.objects(z))
        if balance > 0:
            strain = strain.scaled(_balance_factor(model, samples[-1].detach(), batch, restraints, balance))
    return Terms(
        log_likelihood=log_likelihood.mean(),
        kl=kl.mean(),
        weighted_kl=weighted.mean(),
        bond=strain.bond,
        network=strain.network,
        clash=strain.clash,
        penalty=model.decoder.penalty().to(zero) / n_particles,
    )


def sample_densities(prior: LatentPrior, q: Posterior, z: Tensor) -> tuple[Tensor, Tensor]:
    """Log p(z) and log q(z|x) of posterior samples, each (K, B); log p lacks the log Z of a machine.

    Relaxed bits have densities of their own, under the machine and under the posterior.
    """
    if isinstance(q, Bernoulli):
        assert isinstance(prior, BoltzmannMachine)
        bias, matrix = prior.pairs.parts()
        return relaxed_log_prior(z, bias, matrix, 0.0, q.relaxation), q.relaxed_log_prob(z)
    constant = prior.log_partition().value if prior.normalized else 0.0
    return -prior.energy(z) - constant, q.log_prob(z)


def _at_least(kl: Tensor, q: Posterior, prior: LatentPrior, bits: float) -> Tensor:
    """KL with no gradient below `bits` nats a dimension, shape (B,).

    Only a KL that is a sum over dimensions can be held back in each of them; of others the total is.
    """
    if isinstance(prior, NormalPrior) and isinstance(q, DiagonalGaussian):
        per_dimension = 0.5 * (q.mean.square() + q.log_var.exp() - 1.0 - q.log_var)
        return per_dimension.clamp_min(bits).sum(-1)
    return kl.clamp_min(bits * prior.z_dim)


def _balance_factor(
    model: ImageModel, z: Tensor, batch: ImageBatch, restraints: Restraints, balance: float
) -> float:
    """Factor, at most 1, that holds the restraints' pull on the coordinates to `balance` of the data's."""
    coords = model.decoder.objects(z).detach().requires_grad_()
    decoder = model.decoder
    assert isinstance(decoder, StructureDecoder)
    present = decoder.occupancy(z)
    scene = decoder.scene(coords, None if present is None else present.detach())
    y = scene.project(batch.rotations, model.likelihood.box, model.likelihood.pixel_size)
    data = model.likelihood.log_prob(batch.images, y, batch.ctf, batch.group).mean()
    pull = torch.autograd.grad(data, coords)[0].mean(0).norm()
    strain = restraints.terms(coords).total
    if not strain.requires_grad:
        return 1.0
    resist = torch.autograd.grad(strain, coords)[0].mean(0).norm()
    return min(1.0, float(balance * pull / resist.clamp_min(1e-12)))
