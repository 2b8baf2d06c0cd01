"""The learned prior inside a training run: when it takes over, how it learns, what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.image_model import ImageModel
from cryoscape.models.posteriors import DiagonalGaussian, Posterior
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.boltzmann import BoltzmannPrior
from cryoscape.priors.config import BoltzmannConfig
from cryoscape.priors.fitting import finite_loss
from cryoscape.priors.machines.kinds import independent_bits
from cryoscape.priors.normal import NormalPrior
from cryoscape.priors.vamp import VampPrior
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training import checkpoint
from cryoscape.training.biophysical_start import switch_directions
from cryoscape.training.config import Config
from cryoscape.training.sampling import step_generator

SAMPLE = 20_000
"""Particles whose posteriors a prior starts from, at most."""


def takes_over(config: Config, total: int) -> int:
    """First step in which the learned prior is in force; 0 for one that learns nothing."""
    return round(config.prior.start * total) if config.prior.learned else 0


def prior_in_force(prior: LatentPrior, config: Config, step: int, total: int) -> LatentPrior:
    """The prior behind posteriors of a run that was stopped after `step` steps."""
    return prior if step > takes_over(config, total) or not config.prior.learned else _stand_in(prior)


def _stand_in(prior: LatentPrior) -> LatentPrior:
    """N(0, I), or fair coins."""
    plain = NormalPrior(prior.z_dim) if prior.support == "real" else independent_bits(prior.z_dim)
    return plain.to(prior.shift).requires_grad_(False)


class PopulationLearner:
    """N(0, I), or fair coins, at first; then a learned prior with an optimiser of its own.

    The image model sees the prior through the KL term alone; the prior sees the image model through samples
    of the posteriors, one step later. So neither can be moved by the other's learning rate.

    Parameters
    ----------
    prior : LatentPrior
    config : Config
    total : int
        Steps of the run.
    structure : AtomicModel, optional
        The reference, for a prior that starts from its modes or domains.
    """

    def __init__(
        self, prior: LatentPrior, config: Config, total: int, structure: AtomicModel | None = None
    ) -> None:
        self.prior, self.config, self.total, self._structure = prior, config, total, structure
        self.start = takes_over(config, total)
        self._before = _stand_in(prior)
        self._exemplars: Tensor | None = None
        self._said: set[str] = set()
        self.optimizer: torch.optim.Optimizer | None = None
        parameters = list(prior.parameters())
        if parameters and config.prior.learned:
            self.optimizer = torch.optim.Adam(parameters, lr=config.prior.lr)
        # The KL term differentiates with respect to z alone.
        prior.requires_grad_(False)

    def at(self, step: int) -> LatentPrior:
        """The prior in force in a step."""
        return self.prior if step >= self.start else self._before

    def due(self, step: int) -> bool:
        """Whether the learned prior takes over in this step."""
        return self.config.prior.learned and step == self.start

    def take_over(
        self, model: ImageModel, rows: Tensor, features: Callable[[Tensor], Tensor], beta: float
    ) -> None:
        """Start the learned prior from the posteriors as they are now.

        A family that can be deconvolved starts from what the images say, not from posteriors blurred by their
        noise: the bound would sharpen the blurred law as well, but in far more steps than a run has.

        Parameters
        ----------
        model : ImageModel
        rows : Tensor, int64
            Training particles.
        features : callable
            Rows -> encoder input.
        beta : float
            Weight of the KL term that the posteriors were trained with until now.
        """
        rows = rows[torch.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).long()]
        generator = step_generator(self.config.training.seed, -3)
        with torch.no_grad():
            posteriors = [model.posterior(features(part)).float() for part in rows.split(256)]
            if isinstance(self._before, NormalPrior):
                posteriors = [calibrated(q, beta) for q in posteriors]
            z = torch.cat([q.sample(1, generator)[0] for q in posteriors])
            mean, sd = torch.cat([q.mean for q in posteriors]), torch.cat([q.stddev for q in posteriors])
        if isinstance(self.prior, VampPrior):
            chosen = torch.randperm(len(rows), generator=generator)[: self.prior.exemplars]
            with torch.no_grad():
                q = model.posterior(features(rows[chosen]))
            assert isinstance(q, DiagonalGaussian)
            self.prior.choose(rows[chosen], q.mean, q.log_var)
            return
        if self.prior.support == "binary" or not self.prior.deconvolve(mean, sd):
            self.prior.warm_start(z, generator)
        settings = self.config.prior
        if isinstance(settings, BoltzmannConfig) and settings.origin != "embeddings":
            assert isinstance(self.prior, BoltzmannPrior)
            assert isinstance(model.decoder, StructureDecoder)
            assert self._structure is not None
            directions = switch_directions(settings.origin, model.decoder, self._structure, z, settings.spins)
            self.prior.start_from_directions(directions)

    def place_exemplars(self, step: int, model: ImageModel, features: Callable[[Tensor], Tensor]) -> None:
        """Let a mixture of posteriors follow the encoder: its exemplars are read anew in every step."""
        if not isinstance(self.prior, VampPrior) or step < self.start:
            return
        if self._exemplars is None:
            self._exemplars = features(self.prior.rows)
        q = model.posterior(self._exemplars).float()
        assert isinstance(q, DiagonalGaussian)
        self.prior.place(q.mean, q.log_var)

    def forget_features(self) -> None:
        """Encoder features were computed anew: those of the exemplars are stale."""
        self._exemplars = None

    def learn(self, step: int, z: Tensor) -> float | None:
        """One step of the prior's own optimiser.

        Parameters
        ----------
        step : int
        z : Tensor, shape (B, d)
            Samples of posteriors.

        Returns
        -------
        float or None
            The value of the prior's loss; None where there was nothing to learn.

        Raises
        ------
        InputError
            If the loss is not finite.
        """
        if self.optimizer is None or step < self.start:
            return None
        rate = self._rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.prior.requires_grad_(True)
        loss = finite_loss(self.prior, z, None, step_generator(self.config.training.seed, -4 - step))
        if loss is None:
            raise InputError(
                f"the {self.config.prior.kind} prior diverged: its energy in step {step + 1} is not finite",
                remedy=f"Give --prior.lr {self.config.prior.lr / 3:.1g}, or a later --prior.start.",
            )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.prior.parameters(), 10.0)
        self.optimizer.step()
        self.prior.requires_grad_(False)
        return float(loss.detach())

    def _rate(self, step: int) -> float:
        """Cosine from the full rate, when the prior takes over, to 0 at the end of the run."""
        part = (step - self.start) / max(1, self.total - self.start)
        return self.config.prior.lr * 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))

    def new_faults(self, step: int) -> tuple[str, ...]:
        """What is wrong with the prior in force and was not said before."""
        found = tuple(f for f in self.at(step).faults() if f not in self._said)
        self._said.update(found)
        return found

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """State for a checkpoint, by group."""
        groups = {"prior": self.prior.state_dict()}
        if self.optimizer is not None:
            groups["prior_optimizer"] = checkpoint.optimizer_tensors(self.optimizer)
        return groups

    def restore(self, groups: dict[str, dict[str, Tensor]], path: Any) -> None:
        """Put a state of `tensors` back."""
        checkpoint.load_module(self.prior, groups.get("prior", {}), path)
        if self.optimizer is not None:
            checkpoint.restore_optimizer(self.optimizer, groups.get("prior_optimizer", {}))
        self.forget_features()


def calibrated(q: Posterior, beta: float) -> DiagonalGaussian:
    """The posterior that the same image would have with a KL weight of 1, under N(0, I).

    With a weight beta the evidence of the image counts 1 / beta times: q has the precision 1 + L / beta and
    the natural mean L y / beta, where the image alone says N(y, 1 / L).
    """
    assert isinstance(q, DiagonalGaussian)
    inverse = torch.exp(-q.log_var)
    precision = 1 + beta * (inverse - 1).clamp_min(0.0)
    return DiagonalGaussian(beta * inverse * q.mean / precision, -precision.log())
