"""The law of relaxed bits under a Boltzmann machine, which importance-weighted bounds need.

With p(b) = exp(a.b + b.W b / 2 - log Z) and zeta drawn from r(zeta | b) bit by bit, the bits can be summed
out (Vahdat et al. 2018, DVAE#, arXiv 1805.07445):

    log p(zeta) = log Zhat(zeta) - log Z + sum_i log r(zeta_i | 0),
    Zhat(zeta) = sum_b exp(a.b + b.W b / 2 + b.c(zeta)),      c = log r(zeta | 1) - log r(zeta | 0).

Zhat is the partition function of a machine whose fields c hold nearly every bit, so the bound of a mean-field
distribution is tight. If zeta is instead drawn from N(b, (W + s I)^-1), the sum over b has a closed form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cryoscape.models.estimators import bit_patterns
from cryoscape.models.relaxations import Gaussian, Relaxation, Smoothing

SWEEPS = 5
"""Of the mean field, as in DVAE#."""

MARGIN = 5.0
"""By which the precision of the Gaussian relaxation exceeds the least that is possible."""

MOST_ENUMERATED = 12
"""Bits: 4096 patterns for every zeta."""


def relaxed_log_prior(
    zeta: Tensor,
    bias: Tensor,
    matrix: Tensor,
    log_z: Tensor | float,
    relaxation: Relaxation,
    method: Literal["mean-field", "enumeration"] = "mean-field",
    blocks: Sequence[Tensor] | None = None,
) -> Tensor:
    """Log density of relaxed bits under a Boltzmann machine of the bits.

    Parameters
    ----------
    zeta : Tensor, shape (..., n)
        Relaxed bits.
    bias : Tensor, shape (n,)
        a of the energy -a.b - b.W b / 2.
    matrix : Tensor, shape (n, n)
        W, symmetric with a diagonal of 0.
    log_z : Tensor or float
        log Z of the bits.
    relaxation : Relaxation
        That zeta was drawn with. For a Gaussian one the closed form is used, at a precision of
        `gaussian_precision`. One that is no smoothing has no density: -E(zeta) - log Z takes its place
        (Khoshaman and Amin 2018), and for bits that is their log probability.
    method : {"mean-field", "enumeration"}
        A lower bound of log p, or its exact value for up to 12 bits.
    blocks : sequence of Tensor, optional
        Sets of bits without couplings among them, which the mean field updates at once; found from the
        matrix by default.

    Returns
    -------
    Tensor, shape (...)
        Nats.
    """
    if isinstance(relaxation, Gaussian):
        return gaussian_log_prior(zeta, bias, matrix, log_z, gaussian_precision(matrix, relaxation.sharpness))
    if not isinstance(relaxation, Smoothing):
        return _negative_energy(zeta, bias, matrix) - log_z
    fields = bias + relaxation.log_odds(zeta)
    if method == "enumeration":
        partition = enumerated_log_partition(fields, matrix)
    else:
        partition = mean_field_log_partition(fields, matrix, blocks)
    return partition - log_z + relaxation.log_r0(zeta).sum(-1)


def enumerated_log_partition(fields: Tensor, matrix: Tensor) -> Tensor:
    """Log of the sum of exp(fields.b + b.W b / 2) over all bit patterns, (..., n) -> (...).

    Raises
    ------
    ValueError
        If there are more than 12 bits.
    """
    n = fields.shape[-1]
    if n > MOST_ENUMERATED:
        raise ValueError(f"{n} bits are too many to enumerate for every zeta")
    patterns = bit_patterns(n, matrix)
    return torch.logsumexp(fields @ patterns.T + 0.5 * (patterns @ matrix * patterns).sum(-1), -1)


def mean_field_log_partition(
    fields: Tensor, matrix: Tensor, blocks: Sequence[Tensor] | None = None, sweeps: int = SWEEPS
) -> Tensor:
    """Lower bound of `enumerated_log_partition`: the best of a factorised distribution, (..., n) -> (...).

    The bound is stationary in the mean field it is taken at, so no gradient is sent through the sweeps.

    Parameters
    ----------
    fields : Tensor, shape (..., n)
    matrix : Tensor, shape (n, n)
    blocks : sequence of Tensor, optional
        As in `relaxed_log_prior`.
    sweeps : int
        Updates of every bit.
    """
    with torch.no_grad():
        blocks = uncoupled_blocks(matrix) if blocks is None else blocks
        mean = torch.sigmoid(fields)
        for _ in range(sweeps):
            for block in blocks:
                mean[..., block] = torch.sigmoid(fields[..., block] + mean @ matrix[:, block])
        entropy = -(torch.xlogy(mean, mean) + torch.xlogy(1 - mean, 1 - mean)).sum(-1)
    return _negative_energy(mean, fields, matrix) + entropy


def gaussian_log_prior(
    zeta: Tensor, bias: Tensor, matrix: Tensor, log_z: Tensor | float, precision: float
) -> Tensor:
    """Log density of zeta ~ N(b, (W + s I)^-1), bits summed out exactly.

    -log Z + log det(M / 2 pi) / 2 - zeta.M zeta / 2 + sum softplus(a + M zeta - s / 2) with M = W + s I.

    Parameters
    ----------
    zeta : Tensor, shape (..., n)
    bias, matrix, log_z
        As in `relaxed_log_prior`.
    precision : float
        s, above minus the least eigenvalue of W.

    Returns
    -------
    Tensor, shape (...)

    Raises
    ------
    ValueError
        If M is not positive definite.
    """
    n = len(bias)
    m = matrix + precision * torch.eye(n, dtype=matrix.dtype, device=matrix.device)
    factor, failed = torch.linalg.cholesky_ex(m)
    if bool(failed):
        raise ValueError(f"a precision of {precision:.4g} does not exceed minus the least eigenvalue of W")
    log_det = 2 * factor.diagonal().log().sum() - n * math.log(2 * math.pi)
    turned = zeta @ m
    occupied = functional.softplus(bias + turned - 0.5 * precision).sum(-1)
    return 0.5 * (log_det - (zeta * turned).sum(-1)) + occupied - log_z


@torch.no_grad()
def gaussian_precision(matrix: Tensor, least: float) -> float:
    """Precision of the Gaussian relaxation: `least`, or 5 above minus the least eigenvalue of W if more."""
    return max(least, MARGIN - float(torch.linalg.eigvalsh(matrix)[0]))


@torch.no_grad()
def uncoupled_blocks(matrix: Tensor) -> list[Tensor]:
    """Sets of bits without couplings among them: the colours of a greedy colouring, breadth first.

    A bipartite machine has two, however its bits are numbered.

    Parameters
    ----------
    matrix : Tensor, shape (n, n)
        Symmetric.

    Returns
    -------
    list of Tensor, int64
    """
    n = len(matrix)
    neighbours = [row.nonzero()[:, 0].tolist() for row in (matrix != 0).cpu()]
    colour: dict[int, int] = {}
    for root in range(n):
        queue = [root]
        for bit in queue:
            if bit not in colour:
                taken = {colour.get(other) for other in neighbours[bit]}
                colour[bit] = next(c for c in range(n) if c not in taken)
                queue += [other for other in neighbours[bit] if other not in colour]
    colours = torch.tensor([colour[bit] for bit in range(n)], device=matrix.device)
    return [(colours == c).nonzero()[:, 0] for c in range(int(colours.max()) + 1)]


def _negative_energy(bits: Tensor, fields: Tensor, matrix: Tensor) -> Tensor:
    """fields.b + b.W b / 2, shape (..., n) -> (...)."""
    return (bits * (fields + 0.5 * (bits @ matrix))).sum(-1)
