"""Samplers whose temperature is not known, such as a quantum annealer.

Such a device draws from about exp(-b E') of the problem E' that it is handed, at a b of its own and within
limited ranges of fields and couplings. The problem is therefore multiplied with a prefactor 1 / b, clipped to
the ranges, and b is measured on every answer by maximum pseudo-likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from cryoscape.priors.samplers.base import IsingProblem
from cryoscape.priors.samplers.effective_temperature import EffectiveBeta, effective_beta
from cryoscape.priors.samplers.schedules import innermost

if TYPE_CHECKING:
    import dimod

_LARGEST_STEP = 4.0


@dataclass(frozen=True)
class DeviceRanges:
    """Values that a device can be programmed with.

    Attributes
    ----------
    fields, couplings : tuple of float
        Smallest and largest.
    reads : int
        Largest number of reads in one submission.
    """

    fields: tuple[float, float] = (-math.inf, math.inf)
    couplings: tuple[float, float] = (-math.inf, math.inf)
    reads: int = 2**31 - 1

    @classmethod
    def of(cls, sampler: dimod.Sampler) -> DeviceRanges:
        """What a sampler, or the one inside its composites, says of itself (the names are those of D-Wave).

        The plain `j_range` is taken where there is an `extended_j_range` as well: in the extended one the
        couplings of a chain that represents a spin compete with those of the problem.
        """
        properties = innermost(sampler).properties or {}
        return cls(
            fields=tuple(properties.get("h_range", cls.fields)),
            couplings=tuple(properties.get("j_range", cls.couplings)),
            reads=int(properties.get("num_reads_range", (1, cls.reads))[1]),
        )

    def clip(self, problem: IsingProblem) -> tuple[IsingProblem, float]:
        """The nearest problem within the ranges, and the share of its values that were changed."""
        fields = problem.fields.clamp(*self.fields)
        couplings = problem.couplings.clamp(*self.couplings)
        changed = int((fields != problem.fields).sum()) + int((couplings != problem.couplings).sum())
        share = changed / max(1, len(fields) + len(couplings))
        return problem.with_parameters(fields, couplings, problem.offset), share


@dataclass(frozen=True)
class DeviceAnswer:
    """Samples of a device, and what they were drawn from.

    Attributes
    ----------
    spins : Tensor, shape (R, n), int8
    handed : IsingProblem
        The problem that was submitted.
    beta : EffectiveBeta
        Inverse temperature b of the samples in that problem.
    clipped : float
        Share of the fields and couplings that were out of range.
    prefactor : float
        What the problem was multiplied with.
    """

    spins: Tensor
    handed: IsingProblem
    beta: EffectiveBeta
    clipped: float
    prefactor: float

    @classmethod
    def of(cls, spins: Tensor, handed: IsingProblem, clipped: float, prefactor: float) -> DeviceAnswer:
        """With b from the samples."""
        return cls(spins, handed, effective_beta(handed, spins), clipped, prefactor)

    @property
    def ratio(self) -> float:
        """Inverse temperature of the samples over the one that was asked for."""
        return self.beta.value * self.prefactor

    @property
    def next_prefactor(self) -> float:
        """1 / b, at most a factor of four away from the one that was used.

        The less so the larger the error of b: fields and couplings near 0 say nothing of the temperature.
        """
        if not math.isfinite(self.beta.value):
            return self.prefactor / _LARGEST_STEP if self.beta.value == math.inf else self.prefactor
        trust = 1 / (1 + (self.beta.std_err * self.prefactor) ** 2)
        ratio = 1 + trust * (self.ratio - 1)
        return self.prefactor / min(max(ratio, 1 / _LARGEST_STEP), _LARGEST_STEP)

    def log_weight(self, wanted: IsingProblem) -> Tensor:
        """Log weights (R,) that turn the samples into those of exp(-E) of a problem.

        -E(s) + b E'(s): they mend the temperature, and what was clipped.
        """
        beta = self.beta.value if math.isfinite(self.beta.value) else 0.0
        return beta * self.handed.double().energy(self.spins) - wanted.double().energy(self.spins)

    def faults(self) -> tuple[str, ...]:
        """What is wrong with the samples, in words."""
        out = []
        if self.clipped > 0:
            out.append(
                f"{self.clipped:.0%} of the fields and couplings are out of the range of the device "
                "and were clipped"
            )
        if self.beta.value == math.inf:
            out.append("the samples of the device are all in minima of the energy: it has no temperature")
        elif abs(self.ratio - 1) > 0.1 + 3 * self.beta.std_err * self.prefactor:
            out.append(
                f"the device sampled at {self.ratio:.2f} times the inverse temperature that was asked for"
            )
        return tuple(out)
