"""Image likelihoods p(x | z): how a projection is compared with a particle image.

Both take band-limited Fourier coefficients in the layout of `cryoscape.physics.fourier`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from cryoscape.physics import fourier


class Likelihood(nn.Module, ABC):
    """Comparison of images with predicted projections.

    Parameters
    ----------
    box : int
        Side of the band-limited box.
    pixel_size : float
        Angstrom per pixel of that box.
    cutoff : float
        Resolution limit, Angstrom.
    n_groups : int
        Number of optics groups.

    Attributes
    ----------
    in_nats : bool
        Whether log p is one, in nats: differences of it are evidence only then.
    """

    in_nats = False
    weights: Tensor
    shells: Tensor
    gain: Tensor
    noise: Tensor
    n_shells: int

    def __init__(self, box: int, pixel_size: float, cutoff: float, n_groups: int = 1) -> None:
        super().__init__()
        self.box, self.pixel_size, self.cutoff, self.n_groups = box, pixel_size, cutoff, n_groups
        self.register_buffer("weights", fourier.band_weights(box, pixel_size, cutoff), persistent=False)
        shells = fourier.shell_index(box)
        self.n_shells = int(shells[self.weights > 0].max()) + 1
        self.register_buffer("shells", shells.clamp(max=self.n_shells - 1), persistent=False)
        self.register_buffer("gain", torch.ones(n_groups, self.n_shells))
        self.register_buffer("noise", torch.ones(n_groups, self.n_shells))

    @abstractmethod
    def log_prob(self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor) -> Tensor:
        """Nats gained over pure noise for every image, shape (B,).

        Parameters
        ----------
        images, projections : Tensor, shape (B, box, box // 2 + 1)
            Complex coefficients: measured, and predicted without CTF and gain.
        ctf : Tensor, shape (B, box, box // 2 + 1)
        group : Tensor, shape (B,), int64
            Optics group.
        """

    def transfer(self, ctf: Tensor, group: Tensor) -> Tensor:
        """CTF times radial gain, shape (B, box, box // 2 + 1): what multiplies a projection."""
        return ctf * self.gain[:, self.shells][group]

    def score_residual(self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor) -> Tensor:
        """Whitened, CTF-weighted residual w T (X - T Y) / s2, whose correlation with dY is d log p.

        The gradient of the gaussian likelihood in the projection, for either likelihood: it is what the
        `score` encoder features are made of. Shape (B, box, box // 2 + 1), complex.
        """
        t = self.transfer(ctf, group)
        return (images - t * projections) * (t * (self.weights / self.noise[:, self.shells])[group])

    def observe(
        self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor, coverage: float = 1.0
    ) -> None:
        """Update running estimates from a batch (no gradient). The default keeps none.

        `coverage` is the share of the coefficients, drawn at random, that the projections hold; the others
        are zero.
        """


class _GaussianGain(torch.autograd.Function):
    """sum over k of Re(L* Y) - Q |Y|^2 / 2 for every image, with the gradient L - Q Y made on the way."""

    @staticmethod
    def forward(ctx: Any, projections: Tensor, linear: Tensor, quadratic: Tensor) -> Tensor:
        gradient = torch.addcmul(linear, quadratic, projections, value=-1)
        ctx.save_for_backward(gradient)
        both = torch.view_as_real(linear + gradient)
        return 0.5 * (both * torch.view_as_real(projections)).sum((1, 2, 3))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad[:, None, None], None, None


class GaussianLikelihood(Likelihood):
    """Gaussian noise of radial spectrum s2(|k|), in nats.

    log p(x|z) = - sum_k w_k |X - g C Y|^2 / (2 s2) + const, with w_k = 2 for coefficients that stand for a
    conjugate pair. Returned relative to the pure-noise hypothesis Y = 0, so that a value of 5 says "5 nats
    more likely than an empty image". Gain g and noise s2 are radial least-squares estimates, per optics
    group, first against the reference and then running with the model (`observe`).

    Parameters
    ----------
    box, pixel_size, cutoff, n_groups
        As in `Likelihood`.
    memory : float
        Weight of the past in the running estimates, per batch.
    radial_gain : bool
        Fit the gain shell by shell. A decoder that learns a map has that freedom itself; then one factor a
        group is fitted, and their mean is 1.
    """

    in_nats = True
    sums: Tensor
    indicator: Tensor

    def __init__(
        self,
        box: int,
        pixel_size: float,
        cutoff: float,
        n_groups: int = 1,
        memory: float = 0.98,
        radial_gain: bool = True,
    ) -> None:
        super().__init__(box, pixel_size, cutoff, n_groups)
        self.memory, self.radial_gain = memory, radial_gain
        shell = torch.where(self.weights > 0, self.shells, self.n_shells)
        indicator = nn.functional.one_hot(shell.flatten(), self.n_shells + 1)[:, :-1]
        self.register_buffer("indicator", indicator * self.weights.flatten()[:, None], persistent=False)
        # Running sums: cross power, model power, image power, number of coefficients.
        self.register_buffer("sums", torch.zeros(4, n_groups, self.n_shells, dtype=torch.float64))

    def log_prob(self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor) -> Tensor:
        """Nats gained over pure noise: sum w (Re(X* T Y) - |T Y|^2 / 2) / s2, shape (B,)."""
        t = self.transfer(ctf, group)
        weighted = t * (self.weights / self.noise[:, self.shells])[group]
        return _GaussianGain.apply(projections, images * weighted, t * weighted)

    @torch.no_grad()
    def accumulate(self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor) -> Tensor:
        """Radial sums of one batch, shape (4, groups, shells), for `fit` and `observe`."""
        x, y = torch.view_as_real(images), torch.view_as_real(ctf * projections)
        values = torch.stack([(x * y).sum(-1), y.square().sum(-1), x.square().sum(-1)])
        # One product with the shells' indicator adds up all coefficients of all images.
        per_image = values.flatten(2) @ self.indicator
        out = per_image.new_zeros(4, self.n_groups, self.n_shells)
        out[:3].index_add_(1, group, per_image)
        out[3].index_add_(0, group, self.indicator.sum(0).expand(len(group), -1))
        return out.double()

    @torch.no_grad()
    def fit(self, sums: Tensor) -> None:
        """Set gain and noise from radial sums (4, groups, shells): least squares, shell by shell.

        The gain is smoothed over three shells with the weight of their evidence and held at or above zero:
        a negative correlation of a whole shell is noise, not physics.
        """
        cross, power, image, count = self._pool(sums)
        kernel = torch.tensor([[[0.5, 1.0, 0.5]]], dtype=cross.dtype, device=cross.device)
        if self.radial_gain:
            smooth = [nn.functional.conv1d(v[:, None], kernel, padding=1)[:, 0] for v in (cross, power)]
            gain = (smooth[0] / smooth[1].clamp_min(1e-30)).clamp_min(0.0)
        else:
            gain = self._group_factors(cross, power)
        residual = image - 2 * gain * cross + gain.square() * power
        noise = residual / count.clamp_min(1.0)
        # Shells without coefficients (k = 0) never enter the sum; any positive number serves.
        noise = torch.where(count > 0, noise, torch.ones_like(noise))
        self.gain.copy_(torch.where(count > 0, gain, torch.zeros_like(gain)).float())
        self.noise.copy_(noise.clamp_min(1e-12).float())
        self.sums.copy_(sums)

    def _group_factors(self, cross: Tensor, power: Tensor) -> Tensor:
        """One factor for each optics group, the mean of which (weighted by signal power) is 1."""
        total = power.sum(-1).clamp_min(1e-30)
        factor = (cross.sum(-1) / total).clamp_min(1e-3)
        mean = (factor * total).sum() / total.sum()
        return (factor / mean)[:, None].expand_as(power)

    def _pool(self, sums: Tensor) -> Tensor:
        """Give groups with few particles the average of all: fewer than 50 images say too little."""
        count = sums[3]
        images = count.sum(-1, keepdim=True) / self.weights.sum()
        pooled = sums.sum(1, keepdim=True).expand_as(sums)
        return torch.where(images[None] >= 50, sums, pooled)

    @torch.no_grad()
    def observe(
        self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor, coverage: float = 1.0
    ) -> None:
        """Move gain and noise towards the current model: running radial sums with memory."""
        batch = self.accumulate(images, projections, ctf, group)
        batch[:2] /= coverage
        self.fit(self.memory * self.sums + batch)


class MeanSquaredLikelihood(GaussianLikelihood):
    """The objective of cryoDRGN: the squared error, with images scaled to unit variance.

    - sum over k of w_k |X - C Y|^2 / v, with v the mean power of an image's coefficient, relative to Y = 0.
    cryoDRGN minimises 1 / M of it, the mean over M pixels, plus beta / M of the KL, so that its beta
    (1 / z_dim) is the KL weight here. It is twice the log-likelihood of white noise of variance v, which
    counts the signal as noise too. Zhong et al. 2021, and its code 4.3.0.
    """

    in_nats = False

    def log_prob(self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor) -> Tensor:
        """Squared error that the projection takes off an empty prediction's, in units of v, shape (B,)."""
        return 2 * super().log_prob(images, projections, ctf, group)

    @torch.no_grad()
    def fit(self, sums: Tensor) -> None:
        """Set the noise of all shells to the mean power v of the images; there is no gain."""
        self.gain.fill_(1.0)
        self.noise.fill_(float(sums[2].sum() / sums[3].sum().clamp_min(1.0)))
        self.sums.copy_(sums)

    @torch.no_grad()
    def observe(
        self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor, coverage: float = 1.0
    ) -> None:
        """Nothing moves: the power of the images was measured at the start."""


class CorrelationLikelihood(Likelihood):
    """The correlation objective of cryoSTAR and cryoSPHERE.

    n times the normalised correlation of image and CTF-corrupted projection, with n the number of real
    degrees of freedom of the band: the scale on which cryoSTAR's KL weight beta / (d n) becomes beta / d.
    It is not a log-likelihood (at SNR s one unit is worth about sqrt(s) nats), which is why presets that
    use it set their own KL weight. Li et al. 2024, equation 6.

    Parameters
    ----------
    box, pixel_size, cutoff, n_groups
        As in `Likelihood`.
    weight : float
        Factor of the whole.
    """

    def __init__(
        self, box: int, pixel_size: float, cutoff: float, n_groups: int = 1, weight: float = 1.0
    ) -> None:
        super().__init__(box, pixel_size, cutoff, n_groups)
        self.weight = weight

    def log_prob(self, images: Tensor, projections: Tensor, ctf: Tensor, group: Tensor) -> Tensor:
        """Degrees of freedom times correlation, shape (B,)."""
        w = self.weights[..., None]
        x = torch.view_as_real(images)
        y = torch.view_as_real(ctf * projections) * self.gain[group][:, self.shells][..., None]
        cross = (w * x * y).sum((1, 2, 3))
        norms = (w * x.square()).sum((1, 2, 3)) * (w * y.square()).sum((1, 2, 3))
        return self.weight * self.weights.sum() * cross / (norms + 1e-20).sqrt()
