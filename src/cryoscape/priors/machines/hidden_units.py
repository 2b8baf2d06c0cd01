"""Hidden units of a Boltzmann machine, which are summed over: F(v) = -log sum_h exp(-E(v, h)).

Where no two hidden units are coupled the sum is exact. Otherwise it is replaced by the mean-field bound

    F(v) <= min over m of E(v, m) - H(m),      H the entropy of independent bits with means m,

so that the probability it gives is too low, never too high.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

SWEEPS = 20
"""Damped mean-field sweeps."""

DAMPING = 0.5


def hidden_free_energy(field: Tensor, coupling: Tensor, colours: tuple[Tensor, ...]) -> Tensor:
    """Free energy of hidden units in the fields of the others.

    Parameters
    ----------
    field : Tensor, shape (..., m)
        b + W^T v.
    coupling : Tensor, shape (m, m)
        Among the hidden units, symmetric, diagonal 0.
    colours : tuple of Tensor
        Sets of hidden units without couplings among them; one where there are none at all.

    Returns
    -------
    Tensor, shape (...)
        Nats. At a fixed point of the mean field the means have no gradient (envelope theorem), so that they
        count as constants.
    """
    if len(colours) == 1:
        return -softplus(field).sum(-1)
    mean = hidden_means(field, coupling, colours)
    pairs = 0.5 * ((mean @ coupling) * mean).sum(-1)
    return -(mean * field).sum(-1) - pairs - binary_entropy(mean).sum(-1)


@torch.no_grad()
def hidden_means(field: Tensor, coupling: Tensor, colours: tuple[Tensor, ...]) -> Tensor:
    """Means of the hidden units, shape (..., m): exact without couplings among them, else mean field."""
    mean = torch.sigmoid(field)
    if len(colours) == 1:
        return mean
    for _ in range(SWEEPS):
        for members in colours:
            wanted = torch.sigmoid(field[..., members] + mean @ coupling[:, members])
            mean[..., members] += (1 - DAMPING) * (wanted - mean[..., members])
    return mean


def binary_entropy(probability: Tensor) -> Tensor:
    """Entropy of bits with a probability of 1, nats; same shape."""
    return torch.special.entr(probability) + torch.special.entr(1 - probability)
