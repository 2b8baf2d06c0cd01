"""The evidence bound and the structural restraints, as named terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from cryoscape.data.images import ImageBatch
from cryoscape.models.image_model import ImageModel
from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.physics import fourier
from cryoscape.priors.base import LatentPrior
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
        What enters the loss: weight and free bits applied.
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
) -> tuple[Terms, Tensor]:
    """All terms of the objective for one batch, and the projections for the running noise estimate.

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
    terms : Terms
    projections : Tensor, shape (B, box, box // 2 + 1)
        Of the last posterior sample, detached.
    """
    q = model.posterior(features)
    q = DiagonalGaussian(q.mean.float(), q.log_var.float())
    samples = q.rsample(objective.samples, generator)
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
        terms = _with_restraints(
            q,
            samples,
            torch.stack(log_likelihoods).mean(),
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
    return terms, projections.detach()


def full_precision(device: torch.device) -> torch.autocast:
    """Context without mixed precision: coordinates and likelihoods need all of float32."""
    return torch.autocast(device.type, enabled=False)


def _with_restraints(
    q: DiagonalGaussian,
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
    if objective.free_bits > 0:
        per_dimension = 0.5 * (q.mean.square() + q.log_var.exp() - 1.0 - q.log_var)
        weighted = beta * per_dimension.clamp_min(objective.free_bits).sum(-1)
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
        log_likelihood=log_likelihood,
        kl=kl.mean(),
        weighted_kl=weighted.mean(),
        bond=strain.bond,
        network=strain.network,
        clash=strain.clash,
        penalty=model.decoder.penalty().to(zero) / n_particles,
    )


def _balance_factor(
    model: ImageModel, z: Tensor, batch: ImageBatch, restraints: Restraints, balance: float
) -> float:
    """Factor, at most 1, that holds the restraints' pull on the coordinates to `balance` of the data's."""
    coords = model.decoder.objects(z).detach().requires_grad_()
    y = model.decoder.scene(coords).project(
        batch.rotations, model.likelihood.box, model.likelihood.pixel_size
    )
    data = model.likelihood.log_prob(batch.images, y, batch.ctf, batch.group).mean()
    pull = torch.autograd.grad(data, coords)[0].mean(0).norm()
    strain = restraints.terms(coords).total
    if not strain.requires_grad:
        return 1.0
    resist = torch.autograd.grad(strain, coords)[0].mean(0).norm()
    return min(1.0, float(balance * pull / resist.clamp_min(1e-12)))
