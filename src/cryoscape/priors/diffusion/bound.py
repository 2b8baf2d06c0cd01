"""An upper bound of -log p(u) that needs no differential equation (Song et al. 2021; Vahdat et al. 2021).

With likelihood weighting, the denoising error bounds the cross entropy of points with the prior:

    -log p(u) <= integral over ln sigma of E |D(u + sigma e) - u|^2 / sigma^2 + constants,

with equality where the denoiser is that of one law at all noise levels. The constants, and most of the noise
of the integral, go away against a base whose density and denoiser are both known:

    bound(u) = -log p_b(u) + integral of E [|D - u|^2 - |D_b - u|^2] / sigma^2 over ln sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cryoscape.priors.diffusion.noise import Prediction, bounding_levels, noisy, scales
from cryoscape.priors.gaussians import normal_noise


def excess_over_base(
    predict: Prediction, base: Prediction, u: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Unbiased estimate of the bound less -log p_b(u), of one noise level a point.

    Parameters
    ----------
    predict, base : Prediction
        Of the prior and of its base.
    u : Tensor, shape (n, d)
        Whitened points; gradients reach them.
    generator : torch.Generator, optional
        Of noise levels and noise, drawn on the CPU.

    Returns
    -------
    Tensor, shape (n,)
        Nats.
    """
    sigma, weight = (t.to(u) for t in bounding_levels(len(u), generator))
    noise = normal_noise(u, generator)
    scaled, target = noisy(u, sigma, noise)
    ours, theirs = predict(scaled, sigma), base(scaled, sigma)
    # |D - u|^2 / sigma^2 = c_in^2 |F - target|^2; the difference of squares without cancellation.
    gap = ((ours - theirs) * (ours + theirs - 2 * target)).sum(-1)
    return weight * scales(sigma)[0].square() * gap
