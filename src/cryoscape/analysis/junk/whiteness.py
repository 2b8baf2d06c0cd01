"""Is what a structure leaves of an image white noise? A test of every image.

The residual in units of the noise, r = (X - a T Y) / sqrt(s2), has independent coefficients of mean power 1
where the image holds the structure and noise, and nothing else. Tested are

- its power in bands of resolution: n real degrees of freedom give a chi-square of n, turned into a standard
  normal number by its cube root (Wilson and Hilferty 1931);
- the products r(k) r(k + d)* of neighbours, summed over the band: their real and imaginary parts are normal
  with variance n / 2. In the image they say that the residual is stronger in one place than in another.

The squares of all these numbers add up to a chi-square again, and its cube root to one z-score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.junk.calibration import best_projections
from cryoscape.physics.fourier import hermitian_weights

if TYPE_CHECKING:
    from cryoscape.data.images import BandImages
    from cryoscape.models.decoders.base import Scene
    from cryoscape.models.likelihoods import GaussianLikelihood

Array = NDArray[np.float64]

NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (-1, 1))
"""Steps (ky, kx) between coefficients that are compared."""

_BANDS = 12
_FEWEST = 30.0  # degrees of freedom of a band


def standard_normal(chi_square: Tensor, freedom: Tensor) -> Tensor:
    """A chi-square of so many degrees of freedom as a standard normal number (Wilson and Hilferty 1931)."""
    share = 2 / (9 * freedom)
    return ((chi_square / freedom) ** (1 / 3) - (1 - share)) / share.sqrt()


def whiteness(residual: Tensor, weights: Tensor, shells: Tensor) -> Tensor:
    """z-scores of residuals: standard normal where they are white, large where they are not.

    Parameters
    ----------
    residual : Tensor, shape (B, box, box // 2 + 1), complex
        In units of the noise.
    weights : Tensor, shape (box, box // 2 + 1)
        Of the likelihood's sum; 0 outside the band.
    shells : Tensor, shape (box, box // 2 + 1), int64
        Resolution shell of every coefficient.

    Returns
    -------
    Tensor, shape (B,), float64
    """
    numbers = torch.cat([_power_scores(residual, weights, shells), _neighbour_scores(residual, weights)], 1)
    return standard_normal(numbers.square().sum(1), torch.tensor(float(numbers.shape[1])))


def _power_scores(residual: Tensor, weights: Tensor, shells: Tensor) -> Tensor:
    """Standard normal numbers (B, bands) for the power in bands of as many coefficients each."""
    inside = weights > 0
    per_shell = torch.zeros(int(shells.max()) + 1).index_add_(0, shells[inside], weights[inside])
    share = per_shell.cumsum(0) / per_shell.sum()
    count = max(1, min(_BANDS, int(per_shell.sum() / _FEWEST)))
    band = (share * count * (1 - 1e-6)).long()[shells[inside]]
    power = residual.abs().square()[:, inside] * weights[inside]
    sums = torch.zeros(len(residual), count, dtype=torch.float64).index_add_(1, band, power.double())
    freedom = torch.zeros(count, dtype=torch.float64).index_add_(0, band, weights[inside].double())
    filled = freedom > 0
    return standard_normal(sums[:, filled], freedom[filled])


def _neighbour_scores(residual: Tensor, weights: Tensor) -> Tensor:
    """Standard normal numbers (B, 2 per step) for the correlation of neighbours."""
    # Conjugate pairs stand in the columns of weight 1 twice; those are left out.
    inside = (weights > 0) & (weights == hermitian_weights(weights.shape[0]).max())
    held = torch.where(inside, residual, 0.0).to(torch.complex128)
    columns = []
    for down, right in NEIGHBOURS:
        # Rows wrap round through the Nyquist row and columns do not wrap: both ends lie outside the band.
        other = held.roll((-down, -right), (1, 2))
        pairs = (inside & inside.roll((-down, -right), (0, 1))).sum()
        product = (held * other.conj()).sum((1, 2)) / (0.5 * pairs.clamp_min(1)).sqrt()
        columns += [product.real, product.imag]
    return torch.stack(columns, 1)


@torch.no_grad()
def residual_scores(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: BandImages,
    best: NDArray[np.int64],
    amplitude: Array,
) -> Array:
    """Whiteness of all images after a structure of known strength is taken from each.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene
    images : BandImages
        N images.
    best : ndarray, shape (N,)
        Which of the scenes.
    amplitude : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N,)
        z-scores.
    """
    out = np.empty(len(images))
    for batch, y in best_projections(likelihood, scenes, images, best):
        at = batch.rows.numpy()
        scale = torch.from_numpy(amplitude[at]).float()[:, None, None]
        left = batch.images - scale * likelihood.transfer(batch.ctf, batch.group) * y
        left = left / likelihood.noise[:, likelihood.shells][batch.group].sqrt()
        out[at] = whiteness(left, likelihood.weights, likelihood.shells).numpy()
    return out
