"""Conditions on conformations: a log weight that can guide a sampler, and a test that is passed or not.

A *wall* (`distance A:55 A:169 < 20`) is passed or not, and conformations that pass are as probable as they
were; its log weight, a half-harmonic outside, only shows the way. Everything else *weighs*: a measurement
with an error, a fit, a label, a function of the user. There exp(log weight) multiplies the prior.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cryoscape.analysis.variables.collective_variables import CollectiveVariable
from cryoscape.analysis.variables.decoded_latents import Decoded, DecodeLatents
from cryoscape.errors import InputError

WITHIN = 2.0
"""Standard deviations within which a measurement is said to be met."""


class Condition(ABC):
    """Something that conformations should fulfil.

    Parameters
    ----------
    text : str
        As the user wrote it.

    Attributes
    ----------
    wall : bool
        Whether it is passed or not, and weighs nothing else.
    decodes : bool
        Whether it looks at what latents decode to.
    unit : str
        Of `value`.
    """

    wall: ClassVar[bool] = False
    decodes: ClassVar[bool] = True
    unit: str = ""

    def __init__(self, text: str) -> None:
        self.text = text

    @abstractmethod
    def value(self, z: Tensor, decoded: Decoded) -> Tensor:
        """What is looked at, shape (B,), in `unit`."""

    @abstractmethod
    def log_weight(self, value: Tensor) -> Tensor:
        """Log weight of values (B,), nats; differentiable."""

    def holds(self, value: Tensor) -> Tensor:
        """Whether values (B,) pass; true of everything that only weighs and has no limit."""
        return torch.ones_like(value, dtype=torch.bool)


class IntervalCondition(Condition):
    """A wall on either or one side: low <= value <= high.

    Parameters
    ----------
    text : str
    variable : CollectiveVariable
    low, high : float
        In its unit, or infinite. On a circle the interval goes up from low to high, across the seam where
        low > high.
    """

    wall = True

    def __init__(self, text: str, variable: CollectiveVariable, low: float, high: float) -> None:
        super().__init__(text)
        self.variable, self.low, self.high = variable, low, high
        self.unit = variable.unit
        if variable.period is not None:
            # A side that is open ends at the seam of the circle.
            self.low = -0.5 * variable.period if math.isinf(low) else low
            self.high = 0.5 * variable.period if math.isinf(high) else high

    def value(self, z: Tensor, decoded: Decoded) -> Tensor:
        """Collective variable, shape (B,)."""
        return self.variable(decoded.objects, decoded.present)

    def excess(self, value: Tensor) -> Tensor:
        """By how much values (B,) miss the interval, not negative."""
        period = self.variable.period
        if period is None:
            return (self.low - value).clamp_min(0.0) + (value - self.high).clamp_min(0.0)
        length = (self.high - self.low) % period if self.high - self.low < period else period
        beyond = torch.remainder(value - self.low, period) - length
        # Past the upper end; from halfway to the lower end on, that is nearer.
        return torch.minimum(beyond, period - length - beyond).clamp_min(0.0)

    def log_weight(self, value: Tensor) -> Tensor:
        """Half-harmonic outside: -(excess / scale)^2 / 2."""
        return -0.5 * (self.excess(value) / self.variable.scale).square()

    def holds(self, value: Tensor) -> Tensor:
        """Whether values (B,) lie in the interval."""
        return self.excess(value) == 0


class MeasurementCondition(Condition):
    """A value with an error: the weight is a Gaussian, 1 at its top.

    Parameters
    ----------
    text : str
    variable : CollectiveVariable
    target, sd : float
        In its unit.
    """

    def __init__(self, text: str, variable: CollectiveVariable, target: float, sd: float) -> None:
        super().__init__(text)
        self.variable, self.target, self.sd = variable, target, sd
        self.unit = variable.unit

    def value(self, z: Tensor, decoded: Decoded) -> Tensor:
        """Collective variable, shape (B,)."""
        return self.variable(decoded.objects, decoded.present)

    def log_weight(self, value: Tensor) -> Tensor:
        """-((value - target) / sd)^2 / 2."""
        return -0.5 * (self.variable.difference(value, self.target) / self.sd).square()

    def holds(self, value: Tensor) -> Tensor:
        """Whether values (B,) are within two standard deviations."""
        return self.variable.difference(value, self.target).abs() <= WITHIN * self.sd


class FitCondition(Condition):
    """A fit to a map that weighs exp((correlation - 1) / temperature).

    Parameters
    ----------
    text : str
    variable : CollectiveVariable
        The correlation.
    temperature : float
        Correlation that is worth one nat.
    """

    def __init__(self, text: str, variable: CollectiveVariable, temperature: float) -> None:
        super().__init__(text)
        self.variable, self.temperature = variable, temperature

    def value(self, z: Tensor, decoded: Decoded) -> Tensor:
        """Correlation, shape (B,)."""
        return self.variable(decoded.objects, decoded.present)

    def log_weight(self, value: Tensor) -> Tensor:
        """(correlation - 1) / temperature."""
        return (value - 1) / self.temperature


class FunctionCondition(Condition):
    """A function of the user: objects (B, N, 3) or (B, D, D, D) -> log weights (B,).

    Parameters
    ----------
    text : str
    function : callable
        Differentiable with torch, or not; without gradient, samplers find their way by trial.
    """

    unit = "nats"

    def __init__(self, text: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__(text)
        self.function = function

    def value(self, z: Tensor, decoded: Decoded) -> Tensor:
        """Log weights, shape (B,).

        Raises
        ------
        InputError
            The function fails, or does not return numbers below infinity of shape (B,).
        """
        try:
            found = self.function(decoded.objects)
        except Exception as error:
            raise InputError(
                f"the function fails: {type(error).__name__}: {error}",
                file=self.text,
                remedy="It takes a tensor "
                f"{tuple(decoded.objects.shape)} and returns {len(decoded.objects)} log weights.",
            ) from error
        if not isinstance(found, Tensor) or found.shape != (len(decoded.objects),):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"the function returns {shape}, not a tensor of shape ({len(decoded.objects)},)",
                file=self.text,
                remedy="Return one log weight for every structure of the batch.",
            )
        if bool((found.isnan() | (found == torch.inf)).any()):
            raise InputError(
                "the function returns log weights that are not numbers",
                file=self.text,
                remedy="Return finite log weights, or -inf for what cannot be.",
            )
        return found

    def log_weight(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value


class LabelCondition(Condition):
    """Membership in a group or state, by its log probability given z.

    Parameters
    ----------
    text : str
    log_probability : callable
        z (B, d) -> (B,), nats.
    """

    decodes = False
    unit = "nats"

    def __init__(self, text: str, log_probability: Callable[[Tensor], Tensor]) -> None:
        super().__init__(text)
        self.log_probability = log_probability

    def value(self, z: Tensor, decoded: Decoded) -> Tensor:
        """Log probability of the label, shape (B,)."""
        return self.log_probability(z)

    def log_weight(self, value: Tensor) -> Tensor:
        """The value itself."""
        return value

    def holds(self, value: Tensor) -> Tensor:
        """Whether the label is likelier than all others together."""
        return value > math.log(0.5)


@dataclass(frozen=True)
class Evaluation:
    """How B conformations do under several conditions.

    Attributes
    ----------
    weight : Tensor, shape (B,)
        Sum of the log weights of all that weighs, nats.
    wall : Tensor, shape (B,)
        Sum of the log weights of all walls; 0 inside.
    inside : Tensor, shape (B,), bool
        Whether all walls are passed.
    """

    weight: Tensor
    wall: Tensor
    inside: Tensor

    def take(self, index: Tensor) -> Evaluation:
        """The conformations of an index."""
        return Evaluation(self.weight[index], self.wall[index], self.inside[index])

    def where(self, chosen: Tensor, other: Evaluation) -> Evaluation:
        """Those of `other` where chosen (B,), these elsewhere."""
        return Evaluation(
            torch.where(chosen, other.weight, self.weight),
            torch.where(chosen, other.wall, self.wall),
            torch.where(chosen, other.inside, self.inside),
        )


class Conditions:
    """Several conditions together, as functions of z.

    Parameters
    ----------
    conditions : sequence of Condition
    decode : callable
        z (B, d) -> Decoded.
    chunk : int
        How many are decoded at a time.
    """

    def __init__(self, conditions: Sequence[Condition], decode: DecodeLatents, chunk: int = 512) -> None:
        self.conditions = tuple(conditions)
        self.chunk = chunk
        self._decode = decode
        self._decodes = any(condition.decodes for condition in conditions)

    @property
    def walls(self) -> bool:
        """Whether there is a wall among them."""
        return any(condition.wall for condition in self.conditions)

    @property
    def weighs(self) -> bool:
        """Whether one of them weighs."""
        return any(not condition.wall for condition in self.conditions)

    def need_gradient(self, z: Tensor) -> None:
        """Raise `InputError` where a condition cannot be differentiated at points (B, d)."""
        with torch.enable_grad():
            values = self._values(z.detach().requires_grad_())
        for condition, value in zip(self.conditions, values):
            if not value.requires_grad:
                raise InputError(
                    f"`{condition.text}` has no gradient in the decoded coordinates",
                    remedy="Compute it with torch throughout, or sample without --optimise.",
                )

    @torch.no_grad()
    def values(self, z: Tensor) -> Tensor:
        """Value of every condition, (B, d) -> (B, conditions)."""
        return torch.cat([torch.stack(self._values(part), 1) for part in z.split(self.chunk)])

    @torch.no_grad()
    def __call__(self, z: Tensor) -> Evaluation:
        """Evaluate points (B, d)."""
        parts = [self._evaluate(part) for part in z.split(self.chunk)]
        return Evaluation(
            torch.cat([part.weight for part in parts]),
            torch.cat([part.wall for part in parts]),
            torch.cat([part.inside for part in parts]),
        )

    def with_gradient(self, z: Tensor, weight: float, wall: float) -> tuple[Evaluation, Tensor]:
        """Evaluate points (B, d), with the gradient of `weight` x weights + `wall` x walls in z, (B, d)."""
        found, gradients = [], []
        for part in z.split(self.chunk):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                one = self._evaluate(leaf)
                total = weight * one.weight.clamp_min(-1e30).sum() + wall * one.wall.sum()
                differentiable = total.requires_grad
                gradient = torch.autograd.grad(total, leaf, allow_unused=True)[0] if differentiable else None
            # A weight of 0 has no slope: the sampler then goes by the prior alone.
            gradients.append(torch.zeros_like(part) if gradient is None else gradient.nan_to_num())
            found.append(Evaluation(one.weight.detach(), one.wall.detach(), one.inside))
        return (
            Evaluation(
                torch.cat([one.weight for one in found]),
                torch.cat([one.wall for one in found]),
                torch.cat([one.inside for one in found]),
            ),
            torch.cat(gradients),
        )

    def _values(self, z: Tensor) -> list[Tensor]:
        decoded = self._decode(z) if self._decodes else Decoded(z)
        return [condition.value(z, decoded) for condition in self.conditions]

    def _evaluate(self, z: Tensor) -> Evaluation:
        weight, wall = z.new_zeros(len(z)), z.new_zeros(len(z))
        inside = torch.ones(len(z), dtype=torch.bool, device=z.device)
        for condition, value in zip(self.conditions, self._values(z)):
            if condition.wall:
                wall = wall + condition.log_weight(value)
                inside = inside & condition.holds(value)
            else:
                weight = weight + condition.log_weight(value)
        return Evaluation(weight, wall, inside)
