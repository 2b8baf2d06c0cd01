"""Posteriors of particles under a trained model."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.images import BandImages, ImageBatch
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.models.decoders.base import Scene, StructureDecoder
from cryoscape.models.image_model import ImageModel
from cryoscape.models.posteriors import Posterior
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.fitting import CostlyDensity
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.training.embedding import Embedding, posterior_table
from cryoscape.training.hardware import set_threads
from cryoscape.training.run import Run
from cryoscape.training.sampling import held_out_mask, step_generator

_SAMPLES = 4


def embed(
    run: Run,
    particles: Particles | None = None,
    *,
    refine_steps: int = 0,
    device: str = "cpu",
    progress: ProgressReporter | None = None,
) -> Embedding:
    """Compute q(z|x) and the evidence of every particle.

    Parameters
    ----------
    run : Run
    particles : Particles, optional
        Other particles of the same box; by default those of the training, whose embedding is saved as
        embedding.npz in the run folder.
    refine_steps : int
        Gradient steps on each particle's own evidence bound, starting from the encoder's answer.
    device : str
        Where to compute.
    progress : ProgressReporter, optional

    Returns
    -------
    Embedding

    Raises
    ------
    InputError
        If the particles have another field of view than those of the training, or more optics groups.
    """
    own = particles is None
    set_threads(run.config.training.threads)
    if particles is None:
        particles = run.particles
    else:
        particles = particles.with_sign(run.info["particles"]["data_sign"])
    g = run.geometry
    images = BandImages(particles, g.cutoff, cache_memory=0.0)
    if images.box != g.box or abs(images.pixel_size - g.pixel_size) > 1e-3 * g.pixel_size:
        raise InputError(
            f"these images cover {particles.box * particles.pixel_size:.1f} A, the run's "
            f"{g.box * g.pixel_size:.1f} A",
            file=particles.source.path,
            remedy="Extract the particles with the box and pixel size of the training.",
        )
    if images.n_groups > g.n_groups:
        raise InputError(
            f"these particles have {images.n_groups} optics groups, the run learnt the noise of {g.n_groups}",
            file=particles.source.path,
            remedy="Train on them as well, or give them the optics groups of the training.",
        )
    target = torch.device(device)
    # Copies, so that the run itself stays on the CPU.
    model, prior = copy.deepcopy(run.image_model).to(target), copy.deepcopy(run.prior).to(target)
    # Where log Z is estimated, once for all particles.
    log_z = 0.0 if prior.normalized else prior.log_partition().value
    baseline = _best_single_scene(model, prior, images, target)
    held_out = np.ones(len(particles), dtype=bool)
    if own:
        held_out = held_out_mask(len(particles), run.config.data.held_out, run.config.training.seed)
    given = run.latents if own else None
    if given is None and run.info.get("latents_from"):
        raise InputError(
            "a density stage has no encoder of its own",
            file=run.path,
            remedy=f"Embed the particles with {run.info['latents_from']}.",
        )
    table = None if given is None else posterior_table(given, run.config.prior.support)
    parts: list[tuple[Tensor, ...]] = []
    with reporter_or_silent(progress).task("embedding", len(particles), "images") as task:
        for rows in torch.arange(len(particles)).split(256):
            batch = images.batch(rows).to(target)
            features = model.features(batch) if table is None else table[rows].to(target)
            parts.append(
                _posterior(model, prior, log_z, batch, features, baseline, refine_steps, int(rows[0]))
            )
            task.advance(len(rows))
    mean, sd, log_likelihood, kl, log_prior, gain = (
        torch.cat(column).cpu().numpy() for column in zip(*parts)
    )
    embedding = Embedding(
        uid=particles.uid,
        row=particles.row,
        half=particles.half,
        held_out=held_out,
        z=mean,
        z_sd=sd,
        log_likelihood=log_likelihood,
        kl=kl,
        elbo=log_likelihood - kl,
        log_prior=log_prior,
        gain=gain,
    )
    if own:
        embedding.write(run.path / "embedding.npz")
    return embedding


@torch.no_grad()
def _best_single_scene(
    model: ImageModel, prior: LatentPrior, images: BandImages, device: torch.device
) -> Scene:
    """Structure or map that explains all images best as the only one: what a homogeneous model would find.

    The best, on up to 512 particles, of the reference, the mean of the prior's objects, and a few of
    those themselves: where parts turn far, a mean of coordinates is no structure and explains nothing. (A
    mean of maps is a map, and the reference of a decoder of maps is the consensus of the images.)
    """
    z = prior.sample(256, torch.Generator().manual_seed(0)).to(device)
    decoder = model.decoder
    some = 16 if isinstance(decoder, StructureDecoder) else 2
    candidates = [
        decoder.scene(decoder.reference[None]),
        decoder.mean_scene(z),
        *(decoder(one[None]) for one in z[:some]),
    ]
    rows = torch.linspace(0, len(images) - 1, min(512, len(images))).long()
    totals = torch.zeros(len(candidates))
    for part in rows.split(256):
        batch = images.batch(part).to(device)
        totals += torch.stack([model.scene_log_likelihood(one, batch).sum().cpu() for one in candidates])
    return candidates[int(totals.argmax())]


def _posterior(
    model: ImageModel,
    prior: LatentPrior,
    log_z: float,
    batch: ImageBatch,
    features: Tensor,
    baseline: Scene,
    refine_steps: int,
    seed: int,
) -> tuple[Tensor, ...]:
    with torch.no_grad():
        q = model.posterior(features)
    if refine_steps > 0:
        q = refine(model, prior, batch, q, refine_steps, seed)
    with torch.no_grad():
        z = q.sample(_SAMPLES, step_generator(seed, 0))
        log_likelihood = torch.stack([model.log_likelihood(sample, batch) for sample in z]).mean(0)
        kl = prior.kl_divergence(q, z) + log_z
        # The KL of a costly density is made of the same log probabilities.
        costly = isinstance(prior, CostlyDensity)
        log_prior = q.log_prob(z).mean(0) - kl if costly else prior.log_prob(z).mean(0)
        gain = log_likelihood - kl - model.scene_log_likelihood(baseline, batch)
    return q.mean, q.stddev, log_likelihood, kl, log_prior, gain


def refine(
    model: ImageModel,
    prior: LatentPrior,
    batch: ImageBatch,
    q: Posterior,
    steps: int,
    seed: int,
    rate: float = 0.05,
) -> Posterior:
    """Improve the posterior of each particle on its own evidence bound (semi-amortised inference).

    Kim et al. 2018. Adam on the parameters of each particle's posterior; the answer with the higher bound,
    refined or not, is kept for each particle.

    Parameters
    ----------
    model, prior, batch
        The model and B particles.
    q : Posterior
        Where to start.
    steps : int
    seed : int
        Of the samples that estimate the gradient.
    rate : float
        Step in units of z.

    Returns
    -------
    Posterior
    """
    leaves = [leaf.detach().clone().requires_grad_() for leaf in q.leaves()]
    optimizer = torch.optim.Adam(leaves, lr=rate)
    for step in range(steps):
        now = q.with_leaves(*leaves)
        z = now.rsample(1, step_generator(seed, step))
        bound = model.log_likelihood(z[0], batch) - prior.kl_divergence(now, z)
        optimizer.zero_grad()
        (-bound.sum()).backward()
        optimizer.step()
    refined = q.with_leaves(*(leaf.detach() for leaf in leaves))
    with torch.no_grad():
        better = _bound(model, prior, batch, refined, seed) > _bound(model, prior, batch, q, seed)
        pairs = zip(refined.leaves(), q.leaves())
        return q.with_leaves(*(torch.where(better[:, None], new, old) for new, old in pairs))


def _bound(model: ImageModel, prior: LatentPrior, batch: ImageBatch, q: Posterior, seed: int) -> Tensor:
    z = q.sample(_SAMPLES, step_generator(seed, 1_000))
    log_likelihood = torch.stack([model.log_likelihood(sample, batch) for sample in z]).mean(0)
    return log_likelihood - prior.kl_divergence(q, z)
