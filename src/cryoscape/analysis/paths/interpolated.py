"""Paths between two latents: straight, or straight or round in the base of the prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.priors.transport import TransportPrior

PathKind = Literal["auto", "linear", "slerp", "flow"]

BETWEEN = 10
"""Intervals, for densities and lengths, between two points that are asked for."""

DecodeStructures = Callable[[NDArray[np.floating[Any]]], NDArray[np.float32]]


class _OwnBase(NormalPrior, TransportPrior):
    """N(0, I) as a bijection to N(0, I)."""

    def unit_encode(self, u: Tensor) -> Tensor:
        return u

    def unit_decode(self, base: Tensor) -> Tensor:
        return base


@dataclass(frozen=True, eq=False)
class LatentPath:
    """A path of n points, with its density and length.

    Attributes
    ----------
    kind : str
        "linear", "slerp" or "flow".
    z : Tensor, shape (n, d)
    log_prob : ndarray, shape (n,)
        log p(z), nats.
    lowest : float
        The lowest log p anywhere on the path, also between the points.
    lowest_at : float
        Where that is: 0 is the start, 1 the end.
    travelled : ndarray, shape (n,), or None
        Length of the path up to each point, A: root-mean-square displacements of the residues, added up;
        None where no structures are decoded.
    """

    kind: str
    z: Tensor
    log_prob: NDArray[np.float64]
    lowest: float
    lowest_at: float
    travelled: NDArray[np.float64] | None

    @property
    def barrier(self) -> tuple[float, float]:
        """How far log p falls below its values at the start and at the end, nats; 0 or more."""
        return float(self.log_prob[0]) - self.lowest, float(self.log_prob[-1]) - self.lowest


def latent_path(
    prior: LatentPrior,
    start: Tensor,
    end: Tensor,
    n: int,
    kind: PathKind = "auto",
    decode: DecodeStructures | None = None,
) -> LatentPath:
    """Go from one latent to another.

    Parameters
    ----------
    prior : LatentPrior
        On real latents.
    start, end : Tensor, shape (d,)
    n : int
        Points, the two ends among them; 2 or more.
    kind : {"auto", "linear", "slerp", "flow"}
        A straight line in z; a great circle or a straight line in the base of a prior that is a bijection to
        N(0, I) (for a diffusion prior this is interpolation along its probability flow). N(0, I) is its own
        base. "auto": slerp where there is a base, otherwise linear. In many dimensions a straight line in the
        base passes nearer to the origin than samples ever do.
    decode : callable, optional
        z (m, d) -> structures (m, N, 3), A, for the length.

    Returns
    -------
    LatentPath

    Raises
    ------
    InputError
        Latents are bits, the prior has no base, there are fewer than two points, or both ends are the same.
    """
    if n < 2:
        raise InputError(f"a path has its two ends, so {n} points are too few", remedy="Give -n 2 or more.")
    if prior.support == "binary":
        raise InputError(
            "the latents of this run are bits: there is nothing between two of them",
            remedy="Use a run with a prior on real latents.",
        )
    if torch.equal(start, end):
        raise InputError("both ends of the path are the same point", remedy="Name two different particles.")
    base = _OwnBase(prior.z_dim).to(prior.shift) if type(prior) is NormalPrior else prior
    if kind == "auto":
        kind = "slerp" if isinstance(base, TransportPrior) else "linear"
    many = BETWEEN * (n - 1) + 1
    with torch.no_grad():
        fine = _points(base, start, end, many, kind)
        # Through the base and back, ends come out rounded.
        fine[0], fine[-1] = start, end
        log_prob = prior.log_prob(fine).double().cpu().numpy()
    lowest = int(log_prob.argmin())
    travelled = None if decode is None else _travelled(fine, decode)[::BETWEEN]
    return LatentPath(
        kind,
        fine[::BETWEEN],
        log_prob[::BETWEEN],
        float(log_prob[lowest]),
        lowest / (many - 1),
        travelled,
    )


def _points(prior: LatentPrior, start: Tensor, end: Tensor, n: int, kind: str) -> Tensor:
    if kind == "linear":
        t = torch.linspace(0, 1, n, dtype=start.dtype, device=start.device)[:, None]
        return start + t * (end - start)
    if not isinstance(prior, TransportPrior):
        raise InputError(
            f"this prior has no base in which to go along `{kind}`",
            remedy="Use --kind linear, or a run with a flow or diffusion prior.",
        )
    return prior.interpolate(start, end, n, "slerp" if kind == "slerp" else "linear")


def _travelled(z: Tensor, decode: DecodeStructures, chunk: int = 64) -> NDArray[np.float64]:
    """Root-mean-square displacements of decoded structures, added up along z (m, d), shape (m,), A."""
    codes = z.cpu().numpy()
    out, before = np.zeros(len(codes)), decode(codes[:1])[0].astype(np.float64)
    for first in range(1, len(codes), chunk):
        coords = decode(codes[first : first + chunk]).astype(np.float64)
        steps = np.diff(np.concatenate([before[None], coords]), axis=0)
        out[first : first + len(coords)] = np.sqrt(np.square(steps).sum(-1).mean(-1))
        before = coords[-1]
    return out.cumsum()
