"""Gaussian-Bernoulli restricted Boltzmann machine over a continuous latent variable.

    E(z, h) = |(z - b) / sigma|^2 / 2 - c.h - (z / sigma^2).W h,      h in {0, 1}^m

Summed over h it is F(z) = |(z - b) / sigma|^2 / 2 - sum_j softplus(c_j + W_j.z / sigma^2), and seen the other
way round a mixture of 2^m Gaussians of the same widths, with means b + W h on a lattice and weights

    p(h) proportional to exp(c.h + b.S^-1 W h + |W h / sigma|^2 / 2),      S = diag(sigma^2).

The parameters are those of the centred machine, the mean m of the lattice and the fields f of units whose
neighbours are 1 half of the time, with b = m - sum_j W_j / 2 and c = f - W' S^-1 m: the same law, but the
widths can be learned without all of c having to follow.

It is here for comparison: with a free Gaussian for every configuration the same switches fit far better (see
`boltzmann`).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cryoscape.priors.base import FitSchedule, LatentPrior, LogPartition, PriorStates, weighted_mean
from cryoscape.priors.gaussians import draw_components
from cryoscape.priors.machines.negative_phase import PersistentChains
from cryoscape.priors.machines.sampling import draw_bits
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler
from cryoscape.priors.samplers.gibbs import BlockGibbs
from cryoscape.priors.samplers.partition import log_partition
from cryoscape.priors.switches.start import configurations, pairs

MOST_ENUMERATED = 16
"""Hidden units up to which log Z is a sum over all configurations."""

CHAINS = 512
FEW_UNITS = 10
"""Hidden units up to which every configuration is a state."""

_EXPLAINED = 0.5
_IDLE = 0.02


class GaussianRbmPrior(LatentPrior):
    """Gaussian units coupled to m hidden bits.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    hidden : int
        m. Up to 16 the density is exact. Beyond, the energy is F, log Z is estimated, and the negative phase
        has persistent chains of the hidden units alone: z is integrated out of them in closed form, so that
        they mix better than chains that alternate between z and h, or Langevin steps in z.
    floor : float
        Smallest standard deviation, in whitened units.
    sampler : IsingSampler, optional
        Moves the chains; five sweeps of block Gibbs by default.

    Attributes
    ----------
    centre : Parameter, shape (d,)
        Mean of all 2^m means.
    field : Parameter, shape (m,)
        What a unit gains by being 1, nats, where each of the others is 1 half of the time.
    weight : Parameter, shape (d, m)
        W.
    log_sd : Parameter, shape (d,)
        log(sigma - floor).
    """

    schedule = FitSchedule(steps=3000, batch=1024, lr=5e-3)
    bits: Tensor
    edges: Tensor

    def __init__(
        self, z_dim: int, hidden: int = 10, *, floor: float = 0.01, sampler: IsingSampler | None = None
    ) -> None:
        super().__init__(z_dim)
        self.floor = floor
        self.centre = nn.Parameter(torch.zeros(z_dim))
        self.field = nn.Parameter(torch.zeros(hidden))
        self.weight = nn.Parameter(0.01 * torch.randn(z_dim, hidden))
        self.log_sd = nn.Parameter(torch.full((z_dim,), math.log(1 - floor)))
        edges = torch.as_tensor(np.stack(pairs(hidden), 1))
        self.register_buffer("edges", edges, persistent=False)
        self.normalized = hidden <= MOST_ENUMERATED
        if self.normalized:
            bits = torch.as_tensor((1 + configurations(hidden)) / 2).float()
            self.register_buffer("bits", bits, persistent=False)
        else:
            self.chains = PersistentChains(CHAINS, hidden, sampler or BlockGibbs(5))

    @property
    def hidden(self) -> int:
        """Number m of hidden units."""
        return len(self.field)

    @property
    def sd(self) -> Tensor:
        """sigma, shape (d,)."""
        return self.floor + self.log_sd.exp()

    @property
    def lowest(self) -> Tensor:
        """Mean b where all hidden units are 0, shape (d,)."""
        return self.centre - 0.5 * self.weight.sum(1)

    # -- the density -----------------------------------------------------------------------------

    def free_energy(self, u: Tensor) -> Tensor:
        """F, shape (..., d) -> (...), nats."""
        square = ((u - self.lowest) / self.sd).square().sum(-1)
        return 0.5 * square - softplus(self._fields(u)).sum(-1)

    def _fields(self, u: Tensor) -> Tensor:
        """Fields c + W.z / sigma^2 on the hidden units, (..., d) -> (..., m)."""
        return self.field + ((u - self.centre) / self.sd.square()) @ self.weight

    def _log_weights(self, h: Tensor) -> Tensor:
        """Log weights of configurations of the hidden units, up to log Z of them, (..., m) -> (...)."""
        scaled = self.weight / self.sd[:, None]
        middle = 0.5 * scaled.sum(1)
        return h @ self.field + 0.5 * ((h @ scaled.T - middle).square().sum(-1) - middle.square().sum())

    def _log_volume(self) -> Tensor:
        """Log of the integral of a Gaussian of height 1 and the widths sigma."""
        return self.sd.log().sum() + 0.5 * self.z_dim * math.log(2 * math.pi)

    def unit_energy(self, u: Tensor) -> Tensor:
        """F(u), with log Z where that is a sum over all configurations; (..., d) -> (...), nats."""
        energy = self.free_energy(u)
        if not self.normalized:
            return energy
        return energy + self._log_volume() + torch.logsumexp(self._log_weights(self.bits), 0)

    def unit_log_partition(self) -> LogPartition:
        """Log Z of the energy: 0, or estimated where there are more than 16 hidden units."""
        if self.normalized:
            return LogPartition.exact()
        found = log_partition(self.problem())
        return LogPartition(found.value + float(self._log_volume()), found.std_err, found.ess, found.method)

    @torch.no_grad()
    def problem(self) -> IsingProblem:
        """The law of the hidden units as one of spins, log Z of the Gaussians left out."""
        scaled = self.weight / self.sd[:, None]
        gram = scaled.T @ scaled
        alone = self.field + 0.5 * (gram.diagonal() - gram.sum(1))
        return IsingProblem.of_bits(alone, self.edges, gram[self.edges[:, 0], self.edges[:, 1]])

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: hidden units, then z given them."""
        if self.normalized:
            weight = self._log_weights(self.bits).softmax(0)
            h = self.bits[draw_components(weight, n, generator).to(self.bits.device)]
        else:
            h = draw_bits(self.problem(), self.chains.spins, n, generator)
        noise = torch.randn(n, self.z_dim, generator=generator, dtype=self.shift.dtype).to(self.shift.device)
        return self.lowest + h @ self.weight.T + self.sd * noise

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Weighted mean of -log p(z); of more than 16 hidden units a surrogate with its gradient.

        In that, the log of the sum over the hidden units is replaced by the mean log weight of the chains,
        which are moved first.
        """
        if self.normalized:
            return super().loss(z, weights, generator)
        u = self.whitened(z.detach())
        given = torch.sigmoid(self._fields(u)).detach()
        model = self.chains.step(self.problem(), given, weights, generator)
        positive = weighted_mean(self.free_energy(u), weights)
        return positive + self._log_volume() + self._log_weights(model).mean()

    @torch.no_grad()
    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Start with hidden units along the longest axes of z, independent and as often 1 as 0.

        Half of the variance of every dimension is left to sigma, and the units take what they can of the rest
        of the covariance, in the metric of sigma. Where there are more units than axes, the others start with
        small random weights.
        """
        u = self.whitened(z).double()
        covariance = torch.cov(u.T).reshape(self.z_dim, self.z_dim)
        variance = covariance.diagonal()
        sd = ((1 - _EXPLAINED) * variance).clamp_min((2 * self.floor) ** 2).sqrt()
        rest = (covariance - torch.diag(sd.square())) / sd / sd[:, None]
        values, vectors = torch.linalg.eigh(rest)
        used = min(self.hidden, self.z_dim)
        weight = 0.01 * torch.randn(self.z_dim, self.hidden, generator=generator, dtype=torch.float64).to(u)
        axes = vectors.flip(1)[:, :used] * values.flip(0)[:used].clamp_min(0).sqrt()
        weight[:, :used] += 2 * sd[:, None] * axes
        self.weight.copy_(weight)
        self.log_sd.copy_((sd - self.floor).log())
        self.centre.copy_(u.mean(0))
        self.field.zero_()
        if not self.normalized:
            self.chains.start(torch.sigmoid(self._fields(u.to(self.centre))), generator)

    # -- what it says of itself ------------------------------------------------------------------

    @torch.no_grad()
    def states(self) -> PriorStates | None:
        """All configurations of up to ten hidden units, named by their signs; None where there are more."""
        if self.hidden > FEW_UNITS:
            return None
        sd = (self.scale * self.sd).double().cpu().numpy()
        mean = self.shift + self.scale * (self.lowest + self.bits @ self.weight.T)
        return PriorStates(
            self._log_weights(self.bits).softmax(0).double().cpu().numpy(),
            mean.double().cpu().numpy(),
            np.tile(np.diag(sd**2), (len(self.bits), 1, 1)),
            tuple("".join("+" if bit else "-" for bit in row) for row in self.bits.tolist()),
        )

    def responsibilities(self, z: Tensor) -> Tensor:
        """Probability of every configuration of the hidden units given z, shape (..., d) -> (..., 2^m).

        Raises
        ------
        NotImplementedError
            If there are more than ten hidden units.
        """
        if self.hidden > FEW_UNITS:
            return super().responsibilities(z)
        return (self._fields(self.whitened(z)) @ self.bits.T).softmax(-1)

    def faults(self) -> tuple[str, ...]:
        """What is not finite, hidden units that act on nothing, widths at the floor."""
        found = super().faults()
        if found:
            return found
        reach = (self.weight / self.sd[:, None]).norm(dim=0)
        idle = int((reach < _IDLE).sum())
        narrow = int((self.sd < 1.2 * self.floor).sum())
        if idle:
            found += (f"{idle} of the {self.hidden} hidden units act on nothing",)
        if narrow:
            found += (f"the width of {narrow} dimensions is at the floor",)
        return found
