"""Boltzmann mixture: coupled switches behind a continuous latent variable.

    p(z) = sum_s p(s) N(z; mu(s), S(s)),    p(s) proportional to exp(sum_i b_i s_i + sum_(i<j) J_ij s_i s_j)

with m spins s = +-1. It is a Gaussian mixture whose 2^m log weights are made of fields and couplings in
pairs: what it adds to a mixture is not density but meaning, switches that may each be on or off, and how
strongly they act together.

Signs: energies are in kT. J_ij > 0 makes equal signs of i and j likelier than opposite ones by exp(2 J_ij),
and b_i > 0 makes + likelier than - by exp(2 b_i), all else equal. Which side of a switch is called + is a
convention: turning it over changes the sign of its field and of all its couplings, and nothing else.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.base import FitSchedule, LatentPrior, LogPartition, PriorStates, weighted_mean
from cryoscape.priors.deconvolution import deconvolved_estimate
from cryoscape.priors.expectation_maximisation import MixtureEstimate, improve, start_mixture
from cryoscape.priors.gaussians import in_parts
from cryoscape.priors.samplers.base import IsingSampler
from cryoscape.priors.switches.codes import order_by_bisection
from cryoscape.priors.switches.emission import AdditiveEmission, TableEmission
from cryoscape.priors.switches.faults import boltzmann_faults
from cryoscape.priors.switches.marginal import Annealing, annealed_energy, switch_posterior
from cryoscape.priors.switches.spins import PairwiseSpins
from cryoscape.priors.switches.start import (
    additive_score,
    along_directions,
    configurations,
    match_moments,
    pairwise_features,
    principal_switches,
    table_score,
    tie_additive,
    tie_weights,
    unexplained,
)

MOST_TABLED = 10
"""Spins up to which a configuration may have a Gaussian of its own, and is a state."""

_ROUNDS = 40
_START_PAIRS = 25_000_000
"""Points times configurations of the rounds of expectation-maximisation at most; beyond, fewer points."""
_CHAIN_STARTS = 2048
_DECONVOLUTION_STARTS = 10_000


class BoltzmannPrior(LatentPrior):
    """Gaussian mixture whose components are the configurations of m coupled switches.

    Parameters
    ----------
    z_dim : int
        Dimension d of z.
    spins : int
        m. Up to fourteen everything is exact. Beyond, the sum over the switches given z is annealed (see
        `switches.marginal`), the energy is without log Z of the switches, and chains follow their law.
    emission : {"auto", "table", "additive"}
        Table: a mean and a covariance for every configuration. Additive: mu(s) = origin + sum_j s_j w_j and
        one covariance. Auto: a table up to ten spins.
    floor : float
        Smallest standard deviation of a component in any direction, in whitened units.
    sampler : IsingSampler, optional
        Of the switches where there are more than fourteen.
    annealing : Annealing
        Effort of the sums where there are more than fourteen.

    Attributes
    ----------
    switches : PairwiseSpins
    emission : TableEmission or AdditiveEmission
        In whitened units.
    anchor : Tensor, shape (m, d)
        Directions that the switches were tied to, in units of z; 0 where they were not.

    Raises
    ------
    InputError
        If a table is asked for with more than ten spins.
    """

    schedule = FitSchedule(steps=1200, batch=1024, lr=1e-3)
    anchor: Tensor

    def __init__(
        self,
        z_dim: int,
        spins: int = 6,
        *,
        emission: Literal["auto", "table", "additive"] = "auto",
        floor: float = 0.01,
        sampler: IsingSampler | None = None,
        annealing: Annealing = Annealing(),  # noqa: B008 (frozen)
    ) -> None:
        super().__init__(z_dim)
        if emission == "table" and spins > MOST_TABLED:
            raise InputError(
                f"a Gaussian for each of the 2^{spins} configurations is too much",
                remedy=f'Use emission = "additive", or at most {MOST_TABLED} spins.',
            )
        self.switches = PairwiseSpins(spins, sampler)
        self.normalized = self.switches.enumerated
        self.floor, self.annealing = floor, annealing
        table = emission != "additive" and spins <= MOST_TABLED
        codes = self.switches.codes if self.normalized else None
        self.emission: TableEmission | AdditiveEmission = (
            TableEmission(2**spins, z_dim, floor) if table else AdditiveEmission(spins, z_dim, floor, codes)
        )
        self.register_buffer("anchor", torch.zeros(spins, z_dim))

    @property
    def spins(self) -> int:
        """Number m of switches."""
        return len(self.switches)

    # -- the density -----------------------------------------------------------------------------

    def _log_joint(self, u: Tensor) -> Tensor:
        """Log of p(s) N(u; mu(s), S(s)), (..., d) -> (..., 2^m)."""
        return self.emission.log_prob(u) + self.switches.log_weights()

    def unit_energy(self, u: Tensor) -> Tensor:
        """Return -log p, shape (..., d) -> (...), nats; beyond fourteen spins less log Z of their law."""
        if self.normalized:
            return in_parts(self._energy_column, u, 2**self.spins)[..., 0]
        points = u.reshape(-1, self.z_dim)
        posterior = switch_posterior(points, self.switches, self._additive, self.annealing)
        return annealed_energy(points, self.switches, self._additive, posterior).view(u.shape[:-1])

    def _energy_column(self, u: Tensor) -> Tensor:
        """Return -log p as a column, (n, d) -> (n, 1)."""
        return -torch.logsumexp(self._log_joint(u), -1, keepdim=True)

    @property
    def _additive(self) -> AdditiveEmission:
        assert isinstance(self.emission, AdditiveEmission)
        return self.emission

    def unit_log_partition(self) -> LogPartition:
        """Return 0, or log Z of the switches where there are more than fourteen."""
        return LogPartition.exact() if self.normalized else self.switches.log_partition()

    @torch.no_grad()
    def unit_sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n points: a configuration, then a point of its Gaussian."""
        return self.emission.draw(self.switches.draw(n, generator), generator)

    # -- learning --------------------------------------------------------------------------------

    def loss(
        self, z: Tensor, weights: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Weighted mean of -log p(z); beyond fourteen spins a surrogate with (nearly) its gradient.

        Then log Z of the switches is replaced by the mean of their log weights over persistent chains, which
        are moved first.
        """
        if self.normalized:
            return super().loss(z, weights, generator)
        u = self.whitened(z.detach())
        posterior = switch_posterior(u, self.switches, self._additive, self.annealing)
        energy = annealed_energy(u, self.switches, self._additive, posterior)
        bits = (1 + posterior.draw(generator)) / 2
        model = self.switches.chains.step(self.switches.problem(), bits, weights, generator)
        return weighted_mean(energy, weights) + self.switches.log_unnormalised(2 * model - 1).mean()

    def warm_start(self, z: Tensor, generator: torch.Generator | None = None) -> None:
        """Start from a mixture of 2^m components by expectation-maximisation.

        Its components become configurations by bisection (`spin_codes.order_by_bisection`), and the
        rounds go on with pairwise weights, and additive means where the emission is additive. Switches that
        were tied to directions start from these in place of a mixture. More than ten start without rounds:
        along their directions, or along the principal axes.
        """
        u = self.whitened(z)
        if self._tabled:
            everything = np.ones(self.z_dim, dtype=bool)
            begin = self._begin(z, everything, generator).whitened(self.shift, self.scale)
            most = max(5000, _START_PAIRS // len(begin.weight))
            rows = torch.randperm(len(u), generator=generator)[:most].to(u.device)
            self._take(self._improved(u[rows], begin, self.floor))
            return
        covariance = torch.cov(z.double().T).reshape(self.z_dim, -1)
        directions = self.anchor.double()
        if not self.anchored:
            directions = torch.as_tensor(principal_switches(covariance.cpu().numpy(), self.spins))
        self._along(directions, z.mean(0), covariance)
        if not self.normalized:
            start = switch_posterior(u[:_CHAIN_STARTS], self.switches, self._additive, self.annealing)
            self.switches.chains.start((1 + start.draw(generator)) / 2, generator)

    def deconvolve(self, mean: Tensor, sd: Tensor) -> bool:
        """Fit by extreme deconvolution, with pairwise weights kept in every round; False beyond ten spins."""
        if not self._tabled:
            return False
        generator = torch.Generator().manual_seed(0)

        def begin(z: Tensor, active: NDArray[np.bool_]) -> MixtureEstimate:
            rows = torch.randperm(len(z), generator=generator)[:_DECONVOLUTION_STARTS]
            points = z[rows][:, torch.as_tensor(active)]
            return self._improved(points, self._begin(z, active, generator), self.floor * float(self.scale))

        self._take(deconvolved_estimate(mean, sd, begin, tie=self._tie).whitened(self.shift, self.scale))
        return True

    def start_from_directions(
        self, directions: Tensor, scale: float = 1.0, centre: Tensor | None = None
    ) -> None:
        """Tie every switch to a direction: means at centre +- scale * direction, couplings and fields 0.

        What the switches leave of a unit covariance is that of the components. A warm start later on begins
        with these directions instead of looking for some.

        Parameters
        ----------
        directions : Tensor, shape (m, d)
            Displacements in units of z, for example of normal modes or domains.
        scale : float
            Their factor.
        centre : Tensor, shape (d,), optional
            The origin by default.

        Raises
        ------
        InputError
            If there are more or fewer directions than switches.
        """
        if directions.shape != self.anchor.shape:
            raise InputError(
                f"{len(directions)} directions of {directions.shape[-1]} dimensions do not fit {self.spins} "
                f"switches in {self.z_dim} dimensions"
            )
        self.anchor.copy_(scale * directions)
        middle = torch.zeros(self.z_dim) if centre is None else centre
        self._along(self.anchor, middle, torch.eye(self.z_dim))

    @property
    def anchored(self) -> bool:
        """Whether the switches were tied to directions."""
        return bool(self.anchor.any())

    def _along(self, directions: Tensor, mean: Tensor, covariance: Tensor) -> None:
        """Uncoupled switches along directions (m, d), of points with this mean (d,) and covariance (d, d)."""
        self.switches.set(torch.zeros(self.spins * (self.spins + 1) // 2))
        steps, origin, total = (t.double().cpu().numpy() for t in (directions, mean, covariance))
        shared = unexplained(steps, total)
        if isinstance(self.emission, AdditiveEmission):
            shift, scale = self.shift.double().cpu().numpy(), float(self.scale)
            self.emission.set((origin - shift) / scale, steps / scale, shared / scale**2)
        else:
            tied = along_directions(steps, self._codes, origin, shared)
            self.emission.take(tied.whitened(self.shift, self.scale), self._codes)

    @property
    def _codes(self) -> NDArray[np.float64]:
        """All configurations of the switches, +-1."""
        return configurations(self.spins)

    @property
    def _tabled(self) -> bool:
        """Whether the switches are few enough for all configurations to be states."""
        return self.spins <= MOST_TABLED

    def _begin(
        self, z: Tensor, active: NDArray[np.bool_], generator: torch.Generator | None
    ) -> MixtureEstimate:
        """A mixture of some directions of points (N, d), in their units and the order of the codes."""
        points = z.detach().cpu()[:, torch.as_tensor(active)]
        if not self.anchored:
            found = start_mixture(points, len(self._codes), self.floor * float(self.scale), generator)
            score = additive_score if isinstance(self.emission, AdditiveEmission) else table_score
            return found.ordered(order_by_bisection(found, score))
        directions = self.anchor.double().cpu().numpy()[:, active]
        covariance = torch.cov(points.double().T).reshape(len(points.T), -1).numpy()
        middle = points.double().mean(0).numpy()
        return along_directions(directions, self._codes, middle, unexplained(directions, covariance))

    def _tie(self, mixture: MixtureEstimate) -> MixtureEstimate:
        """The most likely mixture that this prior can be."""
        kept = tie_additive(mixture, self._codes) if isinstance(self.emission, AdditiveEmission) else mixture
        return tie_weights(kept, pairwise_features(self._codes))

    def _improved(self, points: Tensor, begin: MixtureEstimate, floor: float) -> MixtureEstimate:
        """Rounds of expectation-maximisation within what this prior can be."""
        start = self._tie(begin)
        return improve(points, start, floor, tie=self._tie, iterations=_ROUNDS, tolerance=1e-5)

    @torch.no_grad()
    def _take(self, estimate: MixtureEstimate) -> None:
        """Set the parameters from a tied mixture in whitened units."""
        theta = match_moments(estimate.weight, pairwise_features(self._codes))
        self.switches.set(torch.as_tensor(theta))
        self.emission.take(estimate, self._codes)

    # -- what it says of itself ------------------------------------------------------------------

    def fields_kt(self) -> Tensor:
        """B of every switch, shape (m,), kT: positive where + is favoured while all couplings cancel."""
        return self.switches.fields.detach()

    def couplings_kt(self) -> Tensor:
        """J between the switches, symmetric (m, m), kT: positive where two favour equal signs."""
        return self.switches.coupling_matrix().detach()

    def switch_means(self) -> Tensor:
        """Mean sign of every switch in the population, shape (m,)."""
        return self.switches.mean()

    def switch_probabilities(self, z: Tensor) -> Tensor:
        """Probability of + of every switch given z, shape (..., d) -> (..., m)."""
        if self.normalized:
            return in_parts(self._up, self.whitened(z), 2**self.spins)
        points = self.whitened(z).reshape(-1, self.z_dim)
        posterior = switch_posterior(points, self.switches, self._additive, self.annealing)
        return ((1 + posterior.mean) / 2).view(*z.shape[:-1], self.spins)

    def _up(self, u: Tensor) -> Tensor:
        """Probability of + of every switch, (n, d) -> (n, m)."""
        return self._log_joint(u).softmax(-1) @ ((1 + self.switches.codes) / 2)

    @torch.no_grad()
    def states(self) -> PriorStates | None:
        """The configurations, named by the signs of their switches; None where there are more than ten."""
        if not self._tabled:
            return None
        return PriorStates(
            self.switches.log_weights().exp().double().cpu().numpy(),
            (self.shift + self.scale * self.emission.means()).double().cpu().numpy(),
            (self.scale**2 * self.emission.covariances()).double().cpu().numpy(),
            tuple("".join("+" if s > 0 else "-" for s in code) for code in self._codes),
        )

    def responsibilities(self, z: Tensor) -> Tensor:
        """Probability of every configuration given z, shape (..., d) -> (..., 2^m).

        Raises
        ------
        NotImplementedError
            If there are more than ten switches; `switch_probabilities` has those of each.
        """
        if not self._tabled:
            return super().responsibilities(z)
        return self._log_joint(self.whitened(z)).softmax(-1)

    def faults(self) -> tuple[str, ...]:
        """Parameters that are not finite, idle or frozen switches, unreliable sums, too narrow Gaussians."""
        return super().faults() or boltzmann_faults(self)

    @torch.no_grad()
    def annealing_error(self, points: int = 64) -> float:
        """Error of the energy of samples, nats, root mean square, as annealing tells it; 0 where exact."""
        if self.normalized:
            return 0.0
        u = self.unit_sample(points, torch.Generator().manual_seed(0))
        error = switch_posterior(u, self.switches, self._additive, self.annealing).error
        return float(error.square().mean().sqrt())
