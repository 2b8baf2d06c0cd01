"""A population in two levels: which cluster, and where in it, by a latent diffusion of its own.

    p(z) = sum_c pi_c p_c(z)

The clusters are those of a Gaussian mixture that is fitted first; it only says which points each diffusion
learns from, r_c(z). Every p_c then learns the law of its points, whatever its shape, and the pi_c how many
there are (after section 4 of Kreis et al. 2022). States that are far apart need not be joined by one flow, so
nothing is drawn on the way between them.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from cryoscape.priors.base import FitSchedule, LatentPrior, LogPartition, PosteriorLike, weighted_mean
from cryoscape.priors.diffusion.prior import DiffusionPrior
from cryoscape.priors.gaussians import draw_components
from cryoscape.priors.mixture import MixturePrior

_FEW = 50
"""Points below which a cluster cannot be learned from."""


class HierarchyPrior(LatentPrior):
    """Clusters, and a diffusion within each.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    clusters : int
        C.
    components : int
        Of the mixture that the network of each cluster corrects.
    layers, width : int
        Of each network.

    Attributes
    ----------
    logits : Parameter, shape (C,)
        pi is their softmax.
    clusters : MixturePrior
        Says which points belong to which cluster; in whitened units.
    parts : ModuleList of DiffusionPrior
        p_c, in whitened units.
    """

    schedule = FitSchedule(steps=1500, batch=1024, lr=2e-3)
    estimates_likelihood_gradient = False
    fit_checks: ClassVar[int] = 3
    fit_watched: ClassVar[int] = 256

    def __init__(
        self, z_dim: int, clusters: int = 4, *, components: int = 4, layers: int = 3, width: int = 128
    ) -> None:
        super().__init__(z_dim)
        self.logits = nn.Parameter(torch.zeros(clusters))
        self.clusters = MixturePrior(z_dim, clusters).requires_grad_(False)
        self.parts = nn.ModuleList(
            DiffusionPrior(z_dim, base="mixture", components=components, layers=layers, width=width)
            for _ in range(clusters)
        )

    def requires_grad_(self, requires_grad: bool = True) -> HierarchyPrior:
        """Let parameters be learned, or not; the clusters never are."""
        super().requires_grad_(requires_grad)
        self.clusters.requires_grad_(False)
        return self

    def membership(self, z: Tensor) -> Tensor:
        """Share r_c of every cluster in a point, shape (..., d) -> (..., C)."""
        return self.clusters.responsibilities(self.whitened(z))

    def populations(self) -> Tensor:
        """pi, shape (C,)."""
        return self.logits.softmax(0)

    # -- the density -----------------------------------------------------------------------------

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return -log of the sum over the clusters, shape (..., d) -> (...), nats."""
        log_p = torch.stack([part.log_prob(u) for part in self._parts()], -1)
        return -torch.logsumexp(log_p + self.logits.log_softmax(0), -1)

    def unit_log_partition(self) -> LogPartition:
        """Return 0: every part is normalised."""
        return LogPartition.exact()

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: a cluster, then a point of its diffusion."""
        which = draw_components(self.populations(), n, generator).to(self.shift.device)
        u = self.shift.new_empty(n, self.z_dim)
        for c, part in enumerate(self._parts()):
            here = which == c
            if bool(here.any()):
                u[here] = part.sample(int(here.sum()), generator)
        return u

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Error of denoising of every part over its points, and the cross entropy of pi."""
        u = self.whitened(z.detach())
        with torch.no_grad():
            share = self.clusters.responsibilities(u)
        total = weighted_mean(-(share * self.logits.log_softmax(0)).sum(-1), weights)
        for c, part in enumerate(self._parts()):
            mine = share[:, c] if weights is None else share[:, c] * weights
            near = mine > 1e-3 * mine.max().clamp_min(1e-12)
            error = part.loss(u[near], mine[near], generator)
            total = total + error * mine.sum() / (len(u) if weights is None else weights.sum())
        return total

    def kl_divergence(self, q: PosteriorLike, z: Tensor | None = None) -> Tensor:
        """KL(q(z|x) || p) of every particle, shape (B,), nats.

        In evaluation by the exact density. In training by a bound: -log p(z) is at most the mean over the
        clusters, with shares r_c(z), of -log pi_c + log r_c + the bound of each diffusion.
        """
        if not self.training:
            return super().kl_divergence(q, z)
        if z is None:
            z = q.rsample(1)
        u = self.whitened(z)
        with torch.no_grad():
            share = self.clusters.responsibilities(u)
        entropy = torch.stack([part.cross_entropy(u) for part in self._parts()], -1)
        each = entropy - self.logits.log_softmax(0) + share.clamp_min(1e-12).log()
        cross_entropy = (share * each).sum(-1) + self.z_dim * self.scale.log()
        return (q.log_prob(z) + cross_entropy).mean(0)

    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Find the clusters, and start every part from its points."""
        u = self.whitened(z)
        self.clusters.warm_start(u, generator)
        with torch.no_grad():
            share = self.clusters.responsibilities(u)
            self.logits.copy_(share.mean(0).clamp_min(1e-6).log())
        for c, part in enumerate(self._parts()):
            uniform = torch.rand(len(u), generator=generator).to(u)
            mine = u[uniform < share[:, c]]
            if len(mine) < _FEW:
                closest = share[:, c].topk(min(_FEW, len(u))).indices
                mine = u[closest]
            part.warm_start(mine, generator)

    def faults(self) -> tuple[str, ...]:
        """What is not finite, and clusters without points."""
        found = super().faults()
        if found:
            return found
        empty = int((self.populations() * len(self.logits) < math.exp(-6)).sum())
        return (f"{empty} of the {len(self.logits)} clusters have hardly any points",) if empty else ()

    def _parts(self) -> list[DiffusionPrior]:
        return [part for part in self.parts if isinstance(part, DiffusionPrior)]
