"""Fitting a prior to saved embeddings, after the fact.

`aggregate` makes p(z) the law of the embeddings, q(z) = mean over particles of q(z|x): the truth blurred by
the noise of the images and shrunk towards the prior of the training. `deconvolved` undoes both: with
calibrated posteriors made under a reference prior p0, it maximises the evidence of the images,

    sum_i log mean_k p(z_ik) / p0(z_ik),      z_ik ~ q(z|x_i),

the empirical-Bayes likelihood of the population (ensemble reweighting: Tang, Hanson, Cossio et al. 2022).
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.posterior_samples import PosteriorSamples
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.priors.base import LatentPrior

Objective = Literal["aggregate", "deconvolved"]

LOW_ESS = 0.05
"""Share of effective samples below which a reweighting is called unreliable."""

_WARM = 50_000
_CHECKS = 20
_FEWEST_WATCHED = 64
_FINAL = 3
"""Times as many points of a costly density as in a check are looked at in the end."""


@runtime_checkable
class BitSampler(Protocol):
    """A prior of bits that can be drawn from given what an image says of them."""

    def sample_given(self, log_odds: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Bits (B, d) from p(b) exp(log_odds.b), log_odds (B, d)."""
        ...


@runtime_checkable
class CostlyDensity(Protocol):
    """A prior whose density takes so long that it is looked at seldom, and no samples are reweighted by it.

    Attributes
    ----------
    fit_checks : int
        Times that a fit looks at the held-out density.
    fit_watched : int
        Points that it then looks at, at most, or the samples of 64 particles.
    """

    fit_checks: int
    fit_watched: int


@dataclass(frozen=True)
class FitReport:
    """What a fit did.

    Attributes
    ----------
    objective : {"aggregate", "deconvolved"}
    particles, held_out : int
        Fitted to, and kept aside to judge it.
    steps : int
        Steps of Adam after the warm start; the best of them was kept.
    seconds : float
        In all.
    log_prob : float
        Mean over held-out particles, nats: of log p(z), or of log mean_k p(z_ik) / p0(z_ik) where
        deconvolved.
    log_prob_error : float
        Its standard error over the particles, with that of log Z.
    ess : float or None
        Mean effective share of the samples of a particle; None where nothing is reweighted.
    warnings : tuple of str
        What the reader should know.
    """

    objective: Objective
    particles: int
    held_out: int
    steps: int
    seconds: float
    log_prob: float
    log_prob_error: float
    ess: float | None = None
    warnings: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def fit_prior(
    prior: LatentPrior,
    z: Tensor | NDArray[np.floating[Any]] | PosteriorSamples,
    objective: Objective = "aggregate",
    *,
    steps: int | None = None,
    lr: float | None = None,
    validation: float = 0.1,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> FitReport:
    """Fit a prior to embeddings, in place.

    Whitening, the family's warm start, then Adam on its `loss` with the learning rate falling to 0. Of a
    normalised prior the state with the best held-out density is kept.

    Parameters
    ----------
    prior : LatentPrior
    z : array, shape (N, d), or PosteriorSamples
        Points, or posteriors with what they were made under.
    objective : {"aggregate", "deconvolved"}
    steps : int, optional
        Steps of Adam; by default those of the family.
    lr : float, optional
        Learning rate; by default that of the family.
    validation : float
        Share of the particles that is kept aside.
    seed : int
        Of the split, the batches and the starts.
    progress : ProgressReporter, optional

    Returns
    -------
    FitReport

    Raises
    ------
    InputError
        If there are too few particles, points are not finite or not of the prior's dimension, the prior
        cannot be deconvolved, or the loss stops being finite.
    """
    began = time.monotonic()
    data = z if isinstance(z, PosteriorSamples) else PosteriorSamples.of_points(z)
    _check(prior, data, objective)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data), generator=generator)
    kept_aside = min(max(1, round(validation * len(data))), len(data) // 2)
    held_out, train = data.rows(order[:kept_aside]), data.rows(order[kept_aside:])
    report = reporter_or_silent(progress)
    _whiten(prior, train)
    prior.train()
    solved = started = False
    if train.mean is not None and train.sd is not None:
        if objective == "deconvolved":
            solved = prior.deconvolve(train.mean, train.sd)
        else:
            started = prior.warm_start_posteriors(train.mean, train.sd, generator)
    if objective == "deconvolved" and not solved and isinstance(prior, CostlyDensity):
        raise InputError(
            "this prior cannot be deconvolved: the density behind the weights of samples takes too long",
            remedy="Use --objective aggregate. Over a mixture (base mixture) a diffusion prior can be "
            "deconvolved from Gaussian posteriors made under N(0, I).",
        )
    if not (solved or started):
        with report.task("warm start", 1) as task:
            prior.warm_start(train.points(_WARM, seed), generator)
            task.advance(1)
    wanted = prior.schedule.steps if steps is None else steps
    parameters = [p for p in prior.parameters() if p.requires_grad]
    if not parameters or solved:
        wanted = 0
    rate = prior.schedule.lr if lr is None else lr
    ess = _descend(prior, train, held_out, objective, wanted, rate, generator, report)
    prior.eval()
    value, error = held_out_density(prior, _watched(prior, held_out, _FINAL), objective)
    warnings = list(prior.faults())
    if ess is not None and ess < LOW_ESS:
        warnings.append(
            f"the weights of the deconvolution rest on {100 * ess:.1f} % of the samples: the fitted prior "
            "lies where the posteriors hardly reach"
        )
    return FitReport(
        objective,
        len(train),
        len(held_out),
        wanted,
        round(time.monotonic() - began, 2),
        value,
        error,
        ess,
        tuple(warnings),
    )


def _check(prior: LatentPrior, data: PosteriorSamples, objective: str) -> None:
    if data.z.shape[-1] != prior.z_dim:
        raise InputError(f"points of {data.z.shape[-1]} dimensions do not fit a prior of {prior.z_dim}")
    if len(data) < 10:
        raise InputError(
            f"a prior cannot be fitted to {len(data)} particles",
            remedy="Give at least ten, better thousands.",
        )
    finite = torch.isfinite(data.z).all(-1).all(0)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise InputError("the embedding is not finite", row=row + 1, remedy="Remove these rows.")
    if objective == "deconvolved" and data.z.shape[0] < 2:
        raise InputError(
            "points without errors cannot be deconvolved",
            remedy="Give an embedding with z_sd (one of our runs, or .npz), or use --objective aggregate.",
        )


def _whiten(prior: LatentPrior, data: PosteriorSamples) -> None:
    """Set shift and scale to mean and overall standard deviation of the points."""
    if not prior.whitens or prior.support == "binary":
        return
    points = data.points(_WARM).double()
    spread = float(points.var(0, correction=0).mean().sqrt())
    if spread < 1e-9:
        raise InputError(
            "all points of the embedding are the same", remedy="Train the run that it comes from for longer."
        )
    prior.shift.copy_(points.mean(0))
    prior.scale.fill_(spread)


def _descend(
    prior: LatentPrior,
    train: PosteriorSamples,
    held_out: PosteriorSamples,
    objective: Objective,
    steps: int,
    lr: float,
    generator: torch.Generator,
    report: ProgressReporter,
) -> float | None:
    """Run Adam; return the mean effective share of the samples over the last tenth of the steps."""
    if steps == 0:
        return None
    parameters = [p for p in prior.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=lr)
    reweighted = objective == "deconvolved"
    # A step of a reweighted fit sees about as many points, all the samples of fewer particles.
    particles = prior.schedule.batch if not reweighted else max(64, prior.schedule.batch // len(train.z))
    batch = min(particles, len(train))
    # The warm start counts as a candidate: a fit must not end below where it began.
    judged = prior.normalized
    checks = prior.fit_checks if isinstance(prior, CostlyDensity) else _CHECKS
    held_out = _watched(prior, held_out)
    best = held_out_density(prior, held_out, objective)[0] if judged else -math.inf
    state = copy.deepcopy(prior.state_dict()) if judged else None
    shares: list[float] = []
    with report.task("fit", steps, "steps") as task:
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            rows = torch.randint(len(train), (batch,), generator=generator)
            if reweighted and train.log_odds is not None and isinstance(prior, BitSampler):
                points, weights = prior.sample_given(train.log_odds[rows], generator), None
            elif reweighted:
                points, weights, share = reweight(prior, train.rows(rows))
                shares.append(share)
            else:
                which = torch.randint(len(train.z), (batch,), generator=generator)
                points, weights = train.z[which, rows], None
            loss = finite_loss(prior, points, weights, generator)
            if loss is None:
                raise InputError(
                    f"the fit diverged: the loss of step {step + 1} is not finite",
                    remedy=f"Give a smaller --lr than {lr:g}, or remove outliers from the embedding.",
                )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()
            task.advance(1)
            if judged and ((step + 1) % max(1, steps // checks) == 0 or step == steps - 1):
                value = held_out_density(prior, held_out, objective)[0]
                task.status(f"held out {value:.3f} nats")
                if value > best:
                    best, state = value, copy.deepcopy(prior.state_dict())
    if state is not None:
        prior.load_state_dict(state)
    return float(np.mean(shares[-max(1, len(shares) // 10) :])) if shares else None


def _watched(prior: LatentPrior, data: PosteriorSamples, times: int = 1) -> PosteriorSamples:
    """The particles that a look at the density takes: all, or the first of them where it is costly."""
    if not isinstance(prior, CostlyDensity):
        return data
    particles = times * max(_FEWEST_WATCHED, prior.fit_watched // len(data.z))
    return data.rows(torch.arange(min(len(data), particles)))


def finite_loss(
    prior: LatentPrior, z: Tensor, weights: Tensor | None, generator: torch.Generator
) -> Tensor | None:
    """The prior's loss of points (B, d), or None where it is not finite or has no factorisation."""
    try:
        loss = prior.loss(z.detach(), weights, generator)
    except torch.linalg.LinAlgError:
        return None
    return loss if bool(torch.isfinite(loss)) else None


@torch.no_grad()
def reweight(prior: LatentPrior, data: PosteriorSamples) -> tuple[Tensor, Tensor, float]:
    """Posterior samples with their weights under the prior being fitted (the E-step).

    Parameters
    ----------
    prior : LatentPrior
    data : PosteriorSamples
        Of B particles.

    Returns
    -------
    points : Tensor, shape (K * B, d)
    weights : Tensor, shape (K * B,)
        p(z_ik) / p0(z_ik), normalised to sum 1 over the samples of a particle.
    share : float
        Mean over the particles of the effective share of their samples, 1 / (K sum_k w^2).
    """
    k, b = data.log_reference.shape
    points = data.z.reshape(k * b, -1)
    log_weight = -prior.energy(points).view(k, b) - data.log_reference
    weights = torch.softmax(log_weight, dim=0)
    share = float((1.0 / weights.square().sum(0)).mean() / k)
    return points, weights.reshape(-1), share


@torch.no_grad()
def held_out_density(prior: LatentPrior, data: PosteriorSamples, objective: Objective) -> tuple[float, float]:
    """Mean log density of particles that were not fitted to, and its standard error, nats.

    Parameters
    ----------
    prior : LatentPrior
    data : PosteriorSamples
    objective : {"aggregate", "deconvolved"}
        Aggregate: mean of log p(z) over the samples. Deconvolved: mean of log mean_k p(z_ik) / p0(z_ik).

    Returns
    -------
    value, error : float
    """
    partition = prior.log_partition()
    k, b = data.log_reference.shape
    parts = data.z.reshape(k * b, -1).split(20_000)
    log_p = torch.cat([-prior.energy(part) for part in parts]).view(k, b) - partition.value
    if objective == "deconvolved":
        each = torch.logsumexp(log_p - data.log_reference, 0) - math.log(k)
    else:
        each = log_p.mean(0)
    error = math.hypot(float(each.double().std()) / math.sqrt(b), partition.std_err)
    return float(each.double().mean()), error
