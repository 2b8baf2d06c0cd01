"""Ways to learn the tilt: what the data are compared with in a step. A new one derives from `NegativePhase`.

The gradient of the mean of -log p(u) in the parameters of f is

    E_model[df] - E_data[df]:

f is raised at the data and lowered at points of the model. The ways differ in where these points come from;
noise contrast needs none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from cryoscape.priors.base import FitSchedule, weighted_mean
from cryoscape.priors.energies.drawing import ShortRun, pool
from cryoscape.priors.energies.resampling import WeightedPoints
from cryoscape.priors.energies.tilt import TiltedLaw
from cryoscape.priors.langevin import metropolis_langevin, tuned

_MEMORY = 0.05
_FEWEST_ACCEPTED = 0.2
_PER_CHAIN = 20


class NegativePhase(nn.Module, ABC):
    """What a step of learning compares the data with.

    Attributes
    ----------
    estimates_likelihood_gradient : bool
        Whether the gradient of the loss is, but for the noise of its points, that of the mean of -log p.
    schedule : FitSchedule
        For fits to embeddings.
    """

    estimates_likelihood_gradient: ClassVar[bool] = False
    schedule: ClassVar[FitSchedule] = FitSchedule(steps=2000, batch=1024, lr=1e-3)

    def start(self, law: TiltedLaw, generator: torch.Generator | None = None) -> None:
        """Begin anew, after the base has been fitted and the tilt set to 0."""

    @abstractmethod
    def points(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Points to compare n points of data with, shape (m, d), without a graph."""

    def contrast(self, seen: Tensor, drawn: Tensor, weights: Tensor | None) -> Tensor:
        """Scalar to descend along, from f at the data (B,) and at the points (m,)."""
        return drawn.mean() - weighted_mean(seen, weights)

    def loss(
        self,
        law: TiltedLaw,
        u: Tensor,
        weights: Tensor | None,
        penalty: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """The contrast, and penalty times the mean of f^2 at the data and the points."""
        seen, drawn = law.tilt(u), law.tilt(self.points(law, len(u), generator))
        squares = weighted_mean(seen.square(), weights) + drawn.square().mean()
        return self.contrast(seen, drawn, weights) + 0.5 * penalty * squares

    def faults(self) -> tuple[str, ...]:
        """What is wrong with its chains, in words; empty where nothing is."""
        return ()


@final
class NoiseContrast(NegativePhase):
    """Logistic regression of the data against fresh points of the base (Gutmann and Hyvarinen 2012).

    The best f is log p_data / p_b, normalised by itself: log Z falls to 0. No chains and no step size; it
    needs a base that overlaps with the data.

    Parameters
    ----------
    fewest : int
        Points of the base in a step at least; as many as there are data where these are more.
    """

    def __init__(self, fewest: int = 512) -> None:
        super().__init__()
        self.fewest = fewest

    def points(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of the base."""
        return law.draw_base(max(self.fewest, n), generator)

    def contrast(self, seen: Tensor, drawn: Tensor, weights: Tensor | None) -> Tensor:
        """Logistic loss at even odds; means, so that the numbers of points do not matter."""
        return weighted_mean(softplus(-seen), weights) + softplus(drawn).mean()


@final
class ShortRunChains(NegativePhase):
    """Short chains from N(0, I), anew in every step (Pang et al. 2020).

    What is learned is that these chains end where the data are. The density that belongs to f may be another.

    Parameters
    ----------
    sampler : ShortRun
    chains : int
    """

    # Chains of large steps are stable only where f is smooth: a fast f is steep before it is right.
    schedule = FitSchedule(steps=2000, batch=1024, lr=1e-4)

    def __init__(self, sampler: ShortRun, chains: int = 128) -> None:
        super().__init__()
        self.sampler, self.chains = sampler, chains

    def points(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Ends of the chains."""
        return self.sampler.draw(law, self.chains, generator)


@final
class PersistentLangevin(NegativePhase):
    """Chains of MALA that are carried from step to step, of which a part is moved in every step.

    Chains are started, and now and then started again, from points of the base resampled by exp(f): so they
    are spread over states that no chain can cross between.

    Parameters
    ----------
    z_dim : int
        d.
    buffer : int
        Chains in all.
    moved : int
        Chains that are moved in a step.
    steps : int
        Of MALA, for each of them.
    refresh : float
        Share of the moved chains that is started again first.

    Attributes
    ----------
    chains : Tensor, shape (buffer, d)
    started : Tensor, shape (), bool
    step : Tensor, shape ()
        Standard deviation of the noise; it follows the acceptance.
    acceptance : Tensor, shape ()
        Share of the proposals that is accepted; running mean of about 20 steps.
    """

    estimates_likelihood_gradient = True
    chains: Tensor
    started: Tensor
    step: Tensor
    acceptance: Tensor

    def __init__(
        self, z_dim: int, *, buffer: int = 10_000, moved: int = 256, steps: int = 10, refresh: float = 0.05
    ) -> None:
        super().__init__()
        self.moved, self.steps, self.refresh = min(moved, buffer), steps, refresh
        self.register_buffer("chains", torch.zeros(buffer, z_dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("step", torch.tensor(0.3))
        self.register_buffer("acceptance", torch.tensor(0.57))

    @torch.no_grad()
    def start(self, law: TiltedLaw, generator: torch.Generator | None = None) -> None:
        """Set all chains to resampled points of the base."""
        self.chains.copy_(self._resampled(law, len(self.chains), generator))
        self.started.fill_(True)

    @staticmethod
    def _resampled(law: TiltedLaw, n: int, generator: torch.Generator | None) -> Tensor:
        return pool(law, _PER_CHAIN * n, generator).draw(n, generator)

    @torch.no_grad()
    def points(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Move some of the chains; where they are now."""
        if not bool(self.started):
            self.start(law, generator)
        rows = torch.randperm(len(self.chains), generator=generator)[: self.moved].to(self.chains.device)
        renewed = round(self.refresh * self.moved)
        u = self.chains[rows]
        if renewed:
            u[:renewed] = self._resampled(law, renewed, generator)
        run = metropolis_langevin(
            law.log_density, u, step=float(self.step), steps=self.steps, generator=generator
        )
        self.chains[rows] = run.points
        self.step.fill_(tuned(float(self.step), run.acceptance))
        self.acceptance.lerp_(torch.full_like(self.acceptance, run.acceptance), _MEMORY)
        return run.points

    def faults(self) -> tuple[str, ...]:
        """Chains that do not move."""
        accepted = float(self.acceptance)
        if accepted >= _FEWEST_ACCEPTED:
            return ()
        return (
            f"the chains of the prior hardly move: {100 * accepted:.2g} % of their steps are accepted, so "
            "that the prior learns from the wrong law; give a smaller learning rate, or learning = nce",
        )


@final
class LearnedSampler(NegativePhase):
    """A network g that makes points of the model from points of the base.

    It is moved along log Z >= E_g[log p_b + f] + H(g) in every step, with f held; f is moved with the points
    of g held (a variational bound whose entropy is exact, since g is a flow; Dutta et al. 2025). Where g lags
    behind f the bound is loose, and the two would run away from each other: so the points that f is compared
    with are those of g, resampled by p / g.

    Parameters
    ----------
    z_dim : int
        d.
    transforms : int
        Layers of splines from the base to g; at first they change nothing.
    hidden : tuple of int
        Widths of the network of each layer.
    bins : int
        Pieces of each spline.
    drawn : int
        Points of g in a step.
    """

    def __init__(
        self,
        z_dim: int,
        *,
        transforms: int = 2,
        hidden: tuple[int, ...] = (64, 64),
        bins: int = 8,
        drawn: int = 512,
    ) -> None:
        super().__init__()
        from cryoscape.priors.flow import SplineLayer

        order = torch.arange(z_dim)
        orders = [order if i % 2 == 0 else order.flip(0) for i in range(transforms)]
        self.layers = nn.ModuleList(SplineLayer(ranks, hidden, bins) for ranks in orders)
        self.drawn = drawn

    def push(self, base: Tensor) -> tuple[Tensor, Tensor]:
        """Points of the base (n, d) to points of g, and log of the Jacobian's determinant (n,)."""
        u, log_det = base, torch.zeros_like(base[:, 0])
        for layer in self.layers:
            u, part = layer(u)
            log_det = log_det + part
        return u, log_det

    def _pushed(self, law: TiltedLaw, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Points of g (n, d), and the log of p_b over the density of g there (n,)."""
        base = law.draw_base(self.drawn, generator)
        u, log_det = self.push(base)
        return u, law.base.energy(base) - law.base.energy(u) + log_det

    def bound(self, law: TiltedLaw, generator: torch.Generator | None = None) -> Tensor:
        """Lower bound of log Z, a scalar; its gradient reaches g alone."""
        u, log_ratio = self._pushed(law, generator)
        held = {name: p.detach() for name, p in law.tilt.named_parameters()}
        return (functional_call(law.tilt, held, (u,)) + log_ratio).mean()

    @torch.no_grad()
    def points(self, law: TiltedLaw, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of g, resampled."""
        u, log_ratio = self._pushed(law, generator)
        return WeightedPoints(u, (law.tilt(u) + log_ratio).double()).draw(len(u), generator)

    def loss(
        self,
        law: TiltedLaw,
        u: Tensor,
        weights: Tensor | None,
        penalty: float,
        generator: torch.Generator | None,
    ) -> Tensor:
        """The loss of f with g held, less the bound of g with f held."""
        return super().loss(law, u, weights, penalty, generator) - self.bound(law, generator)
