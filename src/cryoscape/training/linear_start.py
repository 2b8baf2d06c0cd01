"""A linear start of the encoder: the directions in which features vary more than noise can make them vary.

An untrained decoder of maps has no motion to show, so at low signal its latents are worth nothing to it and
are given up before they mean anything. The features already know better: of each image's matched-filter
residual f we know what noise alone would give, because its spectrum and the transfer functions are known.
With C_f the covariance of f over the particles and C_n that of simulated noise under the same poses and
transfer functions, the generalised eigenvectors C_f v = lambda C_n v with lambda > 1 are the linear
combinations that hold signal, and lambda - 1 their signal-to-noise ratio.
"""

from __future__ import annotations

import warnings

import torch
from scipy.linalg import eigh
from torch import Tensor

from cryoscape.data.images import BandImages, ImageBatch
from cryoscape.models.encoders import Encoder
from cryoscape.models.image_model import ImageModel
from cryoscape.physics import fourier
from cryoscape.progress import ProgressReporter, reporter_or_silent
from cryoscape.training.features import FeatureTable
from cryoscape.training.sampling import step_generator

LIMIT = 20_000
"""Particles behind the covariances, at most."""

FAINT = 0.05
"""Signal-to-noise ratio given to directions that do not stand out."""


@torch.no_grad()
def start_linearly(
    model: ImageModel,
    features: FeatureTable,
    images: BandImages,
    rows: Tensor,
    seed: int,
    progress: ProgressReporter | None = None,
) -> Tensor:
    """Set the linear part of an encoder to the posterior of a linear-Gaussian model of its features.

    Along an eigenvector, in units of the noise, t = sqrt(l) z + n with z and n of variance 1 has the
    posterior mean sqrt(l) t / (1 + l) and variance 1 / (1 + l). For bits see `bits_from_scores`.

    Parameters
    ----------
    model : ImageModel
        Its encoder has a linear part and has been standardised.
    features : FeatureTable
    images : BandImages
    rows : Tensor, int64
        Training particles; up to 20,000 of them are used.
    seed : int
        Of the simulated noise.
    progress : ProgressReporter, optional

    Returns
    -------
    Tensor, shape (z_dim,)
        Signal-to-noise ratios l of the directions taken.
    """
    encoder = model.encoder
    assert isinstance(encoder, Encoder)
    assert encoder.linear is not None
    device = encoder.feature_mean.device
    rows = rows[torch.linspace(0, len(rows) - 1, min(LIMIT, len(rows))).long()]
    size = model.feature_map.size
    signal, noise = (torch.zeros(size, size, dtype=torch.float64) for _ in range(2))
    with reporter_or_silent(progress).task("linear start", len(rows), "images") as task:
        for number, part in enumerate(rows.split(256)):
            batch = images.batch(part).to(device)
            seen = encoder.standardised(features.rows(batch)).double().cpu()
            signal += seen.T @ seen
            empty = noise_batch(model, batch, step_generator(seed, -2 - number))
            # Only the mean of the features is shared; noise is to be centred on zero.
            blank = (model.features(empty) * encoder.feature_scale).double().cpu()
            noise += blank.T @ blank
            task.advance(len(part))
    noise /= len(rows)
    noise.diagonal().add_(1e-3 * noise.diagonal().mean())
    k = encoder.z_dim
    found, vectors = eigh((signal / len(rows)).numpy(), noise.numpy(), subset_by_index=[size - k, size - 1])
    ratio = spiked(torch.from_numpy(found).flip(0), size / len(rows))
    axes = torch.from_numpy(vectors.copy()).flip(1)
    encoder.linear.weight.zero_()
    encoder.linear.bias.zero_()
    if encoder.support == "binary":
        parts = (images.batch(part).to(device) for part in rows.split(256))
        scores = torch.cat(
            [encoder.standardised(features.rows(batch)).double().cpu() @ axes for batch in parts]
        )
        to_logits = bits_from_scores(scores, ratio, seed)
        encoder.linear.weight.copy_((axes @ to_logits.T).T)
        return ratio
    encoder.linear.weight[:k] = (axes * (ratio.sqrt() / (1 + ratio))).T.to(encoder.linear.weight)
    encoder.linear.bias[k:] = -(1 + ratio).log().to(encoder.linear.bias)
    return ratio


def bits_from_scores(scores: Tensor, ratio: Tensor, seed: int) -> Tensor:
    """Linear map from scores with unit noise to the log odds of bits, each its own source of the signal.

    The principal directions of several bits mix them; what tells bits apart is that they are independent, or
    nearly so, and far from normal: FastICA (Hyvarinen 1999) finds them, up to their order and sign. A source
    u = a (2 b - 1) + n of unit variance, with noise of variance v and a^2 = 1 - v, has log odds 2 a u / v.

    Parameters
    ----------
    scores : Tensor, shape (N, k)
        Along the generalised eigenvectors.
    ratio : Tensor, shape (k,)
        Their signal-to-noise ratios; those that do not stand out are left as they are.
    seed : int

    Returns
    -------
    Tensor, shape (k, k)
        Rows: bits; columns: scores.
    """
    from sklearn.decomposition import FastICA

    visible = ratio > FAINT
    m = int(visible.sum())
    out = torch.diag(2 * ratio.sqrt()).double()
    if m < 2:
        return out
    ica = FastICA(m, whiten="unit-variance", random_state=seed, max_iter=500, tol=1e-3)
    with warnings.catch_warnings():
        # A start that has not quite converged serves as well.
        warnings.simplefilter("ignore")
        ica.fit(scores[:, visible].numpy())
    unmixing = torch.from_numpy(ica.components_)
    noise = unmixing.square().sum(1).clamp(1e-3, 1 - FAINT)
    rows = (2 * (1 - noise).sqrt() / noise)[:, None] * unmixing
    out[:m] = 0.0
    out[:m, visible] = rows
    return out


def noise_batch(model: ImageModel, batch: ImageBatch, generator: torch.Generator) -> ImageBatch:
    """The batch with images of the anchor and noise of the likelihood's spectrum, nothing else."""
    frozen = model.feature_map.likelihood
    box = frozen.box
    white = torch.randn(len(batch.rows), box, box, generator=generator).to(batch.images.device)
    spread = frozen.noise[batch.group][:, frozen.shells].sqrt()
    anchor = model.decoder.scene(model.feature_map.anchor[None])
    projections = anchor.project(batch.rotations, box, frozen.pixel_size)
    images = frozen.transfer(batch.ctf, batch.group) * projections + fourier.forward(white) * spread
    return ImageBatch(batch.rows, images, batch.ctf, batch.rotations, batch.group)


def spiked(found: Tensor, aspect: float) -> Tensor:
    """Signal-to-noise ratios behind the largest eigenvalues of a sample covariance.

    With unit noise, features / samples = g and a spike l > sqrt(g), the eigenvalue is (1 + l)(1 + g / l)
    (Baik and Silverstein, J. Multivariate Anal. 97, 2006); eigenvalues inside the bulk tell nothing.
    """
    b = found - 1 - aspect
    inside = b.square() - 4 * aspect
    spike = 0.5 * (b + inside.clamp_min(0).sqrt())
    visible = (inside > 0) & (b > 0)
    return torch.where(visible, spike, torch.zeros_like(spike)).clamp_min(FAINT)
