"""Rigid segments with soft borders along the sequence.

A chain is divided by a one-dimensional Gaussian mixture over the place of a residue in its chain, as in
cryoSPHERE (Ducrocq et al. 2025). Differences: a segment never reaches into another chain, and each
segment turns about its own centroid, all at once, where cryoSPHERE turns one segment after another
about the origin. Its way, a rotation also moves a segment by an amount that grows with its distance from
the origin, and the result depends on the order; here rotation and translation are independent.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel

TAU = 0.05


@dataclass(frozen=True, eq=False)
class Segments:
    """A division of the residues, and where they stand in their chains.

    Attributes
    ----------
    position : Tensor, shape (N,), float32
        Place of each residue in its chain, from 0.
    chain : Tensor, shape (N,), int64
        Number of its chain.
    segment_chain : Tensor, shape (K,), int64
        Number of the chain of each segment.
    means, stds : Tensor, shape (K,), float32
        Of the mixture's components, in residues.
    logits : Tensor, shape (K,), float32
        Logarithms of the proportions, up to a constant for each chain.
    """

    position: Tensor
    chain: Tensor
    segment_chain: Tensor
    means: Tensor
    stds: Tensor
    logits: Tensor

    def responsibilities(self, tau: float = TAU) -> Tensor:
        """(N, K), see the function of this name."""
        return responsibilities(**{f.name: getattr(self, f.name) for f in fields(self)}, tau=tau)


def initial_segments(model: AtomicModel, n_segments: int) -> Segments:
    """Segments of about equal length, shared out to the chains by their length.

    Parameters
    ----------
    model : AtomicModel
        The reference.
    n_segments : int
        Number of segments of all chains together; each chain has at least one.

    Returns
    -------
    Segments
        Means evenly spaced in each chain, standard deviations of one segment's length, equal proportions
        (cryoSPHERE's start).

    Raises
    ------
    InputError
        If there are fewer segments than chains or more than residues.
    """
    chain = model.chain_index
    length = np.bincount(chain)
    if not len(length) <= n_segments <= len(model):
        raise InputError(
            f"{n_segments} segments for {len(length)} chains with {len(model)} residues",
            remedy=f"Ask for {len(length)} to {len(model)} segments, at least one for each chain.",
        )
    share = _shares(length, n_segments)
    order = np.argsort(chain, kind="stable")
    position = np.empty(len(model))
    position[order] = np.concatenate([np.arange(n) for n in length])
    size = np.repeat(length / share, share)
    place = np.concatenate([np.arange(k) for k in share])
    return Segments(
        position=torch.as_tensor(position, dtype=torch.float32),
        chain=torch.as_tensor(chain),
        segment_chain=torch.as_tensor(np.repeat(np.arange(len(length)), share)),
        means=torch.as_tensor((place + 0.5) * size - 0.5, dtype=torch.float32),
        stds=torch.as_tensor(size, dtype=torch.float32),
        logits=torch.zeros(n_segments),
    )


def _shares(length: np.ndarray, n_segments: int) -> np.ndarray:
    """One segment a chain, then one at a time to the chain whose segments are longest."""
    share = np.ones(len(length), dtype=np.int64)
    for _ in range(n_segments - len(length)):
        share[np.argmax(length / share)] += 1
    return share


def responsibilities(
    position: Tensor,
    chain: Tensor,
    segment_chain: Tensor,
    means: Tensor,
    stds: Tensor,
    logits: Tensor,
    tau: float = TAU,
) -> Tensor:
    """Share of each segment in each residue.

    softmax over k of log[ pi_k N(position_n; mean_k, std_k) ] / tau, over the segments of the residue's
    own chain. Differentiable in means, stds and logits.

    Parameters
    ----------
    position, chain, segment_chain, means, stds, logits : Tensor
        As in `Segments`; stds positive.
    tau : float
        Softness of the borders; towards 0 each residue belongs to one segment.

    Returns
    -------
    Tensor, shape (N, K)
        Rows sum to 1.
    """
    log_density = logits - torch.log(stds) - 0.5 * ((position[:, None] - means) / stds) ** 2
    elsewhere = chain[:, None] != segment_chain
    return torch.softmax((log_density / tau).masked_fill(elsewhere, -torch.inf), dim=1)


def segment_centroids(coords: Tensor, shares: Tensor) -> Tensor:
    """Centroid of each segment, residues weighted by their share.

    Parameters
    ----------
    coords : Tensor, shape (N, 3)
        Angstrom.
    shares : Tensor, shape (N, K)
        From `responsibilities`.

    Returns
    -------
    Tensor, shape (K, 3)
        A segment that owns nothing has its centroid at the origin.
    """
    return (shares.T @ coords) / shares.sum(0).clamp(min=1e-6)[:, None]


def apply_rigid(
    coords: Tensor, shares: Tensor, centroids: Tensor, rotations: Tensor, translations: Tensor
) -> Tensor:
    """Move every segment as a rigid body about its own centroid.

    x_n -> sum_k share_nk [ R_k (x_n - c_k) + c_k + t_k ]

    Parameters
    ----------
    coords : Tensor, shape (N, 3)
        Angstrom.
    shares : Tensor, shape (N, K)
        From `responsibilities`.
    centroids : Tensor, shape (K, 3)
        From `segment_centroids`.
    rotations : Tensor, shape (B, K, 3, 3)
        Of each segment.
    translations : Tensor, shape (B, K, 3)
        Angstrom.

    Returns
    -------
    Tensor, shape (B, N, 3)
    """
    # Share the few affine maps out to the residues, rather than move each residue by each map.
    offset = centroids + translations - (rotations @ centroids[..., None])[..., 0]
    affine = torch.cat([rotations, offset[..., None]], dim=-1).flatten(2)
    blended = torch.matmul(shares, affine).unflatten(2, (3, 4))
    return (blended[..., :3] @ coords[..., None])[..., 0] + blended[..., 3]


def rotations_from_imaginary(imaginary: Tensor) -> Tensor:
    """Rotation matrices of the quaternions (1, b, c, d), brought to unit norm.

    Zero gives the identity, and every finite vector a rotation by less than 180 degrees, so a network's
    output needs no further care.

    Parameters
    ----------
    imaginary : Tensor, shape (..., 3)
        (b, c, d) = axis times the tangent of half the angle.

    Returns
    -------
    Tensor, shape (..., 3, 3)
    """
    b, c, d = imaginary.unbind(-1)
    norm = 1 + imaginary.square().sum(-1)
    rows = [
        1 + b * b - c * c - d * d,
        2 * (b * c - d),
        2 * (b * d + c),
        2 * (b * c + d),
        1 - b * b + c * c - d * d,
        2 * (c * d - b),
        2 * (b * d - c),
        2 * (c * d + b),
        1 - b * b - c * c + d * d,
    ]
    return (torch.stack(rows, dim=-1) / norm[..., None]).unflatten(-1, (3, 3))
