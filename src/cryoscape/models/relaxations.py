"""How a random bit becomes a number with a gradient.

A bit b that is 1 with probability q is replaced by zeta. *Smoothings* draw zeta from r(zeta | b), so its
density is (1 - q) r(zeta | 0) + q r(zeta | 1); all of them here are symmetric, r(zeta | 1) = r(1 - zeta | 0).
Their gradient is implicit: zeta at a fixed value of the distribution function R = (1 - q) R0 + q R1 moves by

    d zeta / d q = (R0 - R1) / ((1 - q) r0 + q r1),

whichever way zeta was drawn. Sources: Vahdat et al. 2018 (DVAE++, arXiv 1802.04920) for the exponential and
the logistic, Vahdat et al. 2018 (DVAE#, arXiv 1805.07445) for power functions and the Gaussian, Khoshaman and
Amin 2018 for `gumbolt`, Bengio et al. 2013 for `straight-through`, Liu et al. 2023 (arXiv 2304.08612) for
`reinmax`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from cryoscape.errors import InputError

RelaxationName = Literal[
    "exponential", "logistic", "power", "gaussian", "gumbolt", "straight-through", "reinmax"
]


class _Implicit(torch.autograd.Function):
    """A value that was drawn somehow, with its derivative in the probability given."""

    @staticmethod
    def forward(ctx: Any, probability: Tensor, value: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.shape = probability.shape
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (grad * slope).sum_to_size(ctx.shape), None, None


class Relaxation(ABC):
    """One way to relax a bit.

    Attributes
    ----------
    smooths : bool
        Whether zeta has a density r(zeta | b) given the bit.
    bounded : bool
        Whether zeta stays within [0, 1].
    """

    smooths: ClassVar[bool] = False
    bounded: ClassVar[bool] = True

    @abstractmethod
    def sample(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Relaxed bits with a gradient in their probability.

        Parameters
        ----------
        probability : Tensor, shape (..., n)
            Of 1; 0 and 1 are allowed, and give r(zeta | b) of a known bit.
        uniform : Tensor, shape (K, ..., n)
            Random numbers in (0, 1). Those of at least 1 - probability are ones.

        Returns
        -------
        Tensor, shape of `uniform`
        """

    @abstractmethod
    def log_density(self, zeta: Tensor, probability: Tensor) -> Tensor:
        """Log density of zeta, element by element, nats.

        Raises
        ------
        NotImplementedError
            If zeta is discrete.
        """


@dataclass(frozen=True)
class Smoothing(Relaxation):
    """Mixture of r(zeta | 0) and its mirror image r(zeta | 1).

    Parameters
    ----------
    sharpness : float
        How narrow they are.
    """

    smooths: ClassVar[bool] = True
    sharpness: float

    @abstractmethod
    def log_r0(self, zeta: Tensor) -> Tensor:
        """Log r(zeta | 0)."""

    @abstractmethod
    def cdf0(self, zeta: Tensor) -> Tensor:
        """Distribution function R0 of r(zeta | 0)."""

    @abstractmethod
    def quantile0(self, share: Tensor) -> Tensor:
        """Inverse of `cdf0`."""

    def log_r1(self, zeta: Tensor) -> Tensor:
        """Log r(zeta | 1)."""
        return self.log_r0(1 - zeta)

    def cdf1(self, zeta: Tensor) -> Tensor:
        """Distribution function R1 of r(zeta | 1)."""
        return 1 - self.cdf0(1 - zeta)

    def log_odds(self, zeta: Tensor) -> Tensor:
        """Log r(zeta | 1) - log r(zeta | 0): what zeta says about its bit."""
        return self.log_r1(zeta) - self.log_r0(zeta)

    def log_density(self, zeta: Tensor, probability: Tensor) -> Tensor:
        """Log of (1 - q) r(zeta | 0) + q r(zeta | 1)."""
        odds = self.log_odds(zeta)
        return self.log_r0(zeta) + torch.logaddexp(torch.log1p(-probability), torch.log(probability) + odds)

    def draw(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Zeta of every random number, without gradient: first the bit, then zeta by the quantile of its law.

        What of the random number the choice of the bit leaves open is uniform again.
        """
        zero = 1 - probability
        # The branch that is not taken may divide by zero.
        low = self.quantile0(_inside(uniform / zero))
        high = 1 - self.quantile0(_inside((1 - uniform) / probability))
        return torch.where(uniform < zero, low, high)

    def slope(self, zeta: Tensor, probability: Tensor) -> Tensor:
        """Derivative of zeta in the probability at a fixed value of the distribution function."""
        gap = self.cdf0(zeta) - self.cdf1(zeta)
        return gap * torch.exp(-self.log_density(zeta, probability))

    def sample(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Draw zeta; its gradient is the implicit one."""
        with torch.no_grad():
            zeta = self.draw(probability, uniform)
            slope = self.slope(zeta, probability)
        return _Implicit.apply(probability, zeta, slope)


@dataclass(frozen=True)
class Exponential(Smoothing):
    """Overlapping exponentials, r(zeta | 0) proportional to exp(-sharpness zeta) on [0, 1] (DVAE++).

    Parameters
    ----------
    sharpness : float
        Decay; DVAE++ uses 8 to 14.
    """

    sharpness: float = 10.0

    def log_r0(self, zeta: Tensor) -> Tensor:
        """Log r(zeta | 0)."""
        return math.log(self.sharpness / -math.expm1(-self.sharpness)) - self.sharpness * zeta

    def cdf0(self, zeta: Tensor) -> Tensor:
        """Distribution function R0 of r(zeta | 0)."""
        return torch.expm1(-self.sharpness * zeta) / math.expm1(-self.sharpness)

    def quantile0(self, share: Tensor) -> Tensor:
        """Inverse of `cdf0`."""
        return -torch.log1p(share * math.expm1(-self.sharpness)) / self.sharpness

    def draw(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Inverse of the mixture's distribution function: with m = exp(-sharpness zeta), a quadratic in m."""
        end = math.exp(-self.sharpness)
        zero = 1 - probability
        middle = probability * end + uniform * (1 - end) - zero
        m = _positive_root(zero, middle, -probability * end)
        return -torch.log(m.clamp(end, 1.0)) / self.sharpness


@dataclass(frozen=True)
class Logistic(Smoothing):
    """Overlapping logistics, r(zeta | 0) a logistic density about 0, cut to [0, 1] (after DVAE++).

    Parameters
    ----------
    sharpness : float
        Inverse of its scale.
    """

    sharpness: float = 14.0

    def log_r0(self, zeta: Tensor) -> Tensor:
        """Log r(zeta | 0)."""
        x = self.sharpness * zeta
        return math.log(self.sharpness / self._share) + functional.logsigmoid(x) + functional.logsigmoid(-x)

    def cdf0(self, zeta: Tensor) -> Tensor:
        """Distribution function R0 of r(zeta | 0)."""
        return torch.tanh(self.sharpness / 2 * zeta) / math.tanh(self.sharpness / 2)

    def quantile0(self, share: Tensor) -> Tensor:
        """Inverse of `cdf0`."""
        return 2 / self.sharpness * torch.atanh(share * math.tanh(self.sharpness / 2))

    def draw(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Inverse of the mixture's distribution function: with m = exp(-sharpness zeta), a quadratic in m."""
        end, share = math.exp(-self.sharpness), self._share
        zero, tail = 1 - probability, 0.5 - share
        # Sums of positive terms: the differences they stand for would cancel.
        first = uniform * share + zero / 2 + probability * tail
        last = (1 - uniform) * share + probability / 2 + zero * tail
        middle = (first - probability) * (1 + end) - (zero - probability)
        m = _positive_root(first, middle, -end * last)
        return -torch.log(m.clamp(end, 1.0)) / self.sharpness

    @property
    def _share(self) -> float:
        """Mass of the uncut logistic between 0 and 1."""
        return 0.5 * math.tanh(self.sharpness / 2)


@dataclass(frozen=True)
class Power(Smoothing):
    """Power functions, R0 = zeta^(1 / sharpness) on [0, 1] (DVAE#).

    Most of the mass lies closer to 0 and 1 than a number can; it is put at the last one that can be told
    from them, which changes no expectation by more than the precision of that number.

    Parameters
    ----------
    sharpness : float
        DVAE# uses 20 to 40.
    """

    sharpness: float = 30.0

    def log_r0(self, zeta: Tensor) -> Tensor:
        """Log r(zeta | 0)."""
        return (1 / self.sharpness - 1) * torch.log(zeta) - math.log(self.sharpness)

    def cdf0(self, zeta: Tensor) -> Tensor:
        """Distribution function R0 of r(zeta | 0)."""
        return zeta ** (1 / self.sharpness)

    def quantile0(self, share: Tensor) -> Tensor:
        """Inverse of `cdf0`."""
        return _inside(share**self.sharpness)


@dataclass(frozen=True)
class Gaussian(Smoothing):
    """Normal densities about 0 and 1 with variance 1 / sharpness, on the whole line (DVAE#).

    Parameters
    ----------
    sharpness : float
        Inverse variance; DVAE# uses 25 to 40.
    """

    bounded: ClassVar[bool] = False
    sharpness: float = 30.0

    def log_r0(self, zeta: Tensor) -> Tensor:
        """Log r(zeta | 0)."""
        return 0.5 * (math.log(self.sharpness / (2 * math.pi)) - self.sharpness * zeta.square())

    def cdf0(self, zeta: Tensor) -> Tensor:
        """Distribution function R0 of r(zeta | 0)."""
        return torch.special.ndtr(math.sqrt(self.sharpness) * zeta)

    def quantile0(self, share: Tensor) -> Tensor:
        """Inverse of `cdf0`."""
        return torch.special.ndtri(share) / math.sqrt(self.sharpness)


@dataclass(frozen=True)
class GumBolt(Relaxation):
    """zeta = sigmoid(sharpness (logit q + logit of the random number)), put into energies as a bit is.

    Parameters
    ----------
    sharpness : float
        Inverse temperature; 7 in the literature.
    """

    sharpness: float = 7.0

    def sample(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Draw zeta; its gradient is that of the formula."""
        return torch.sigmoid(self.sharpness * (torch.logit(_inside(probability)) + torch.logit(uniform)))

    def log_density(self, zeta: Tensor, probability: Tensor) -> Tensor:
        """Log density of the binary concrete distribution (Maddison et al. 2017)."""
        kind = torch.finfo(zeta.dtype)
        # Much of the mass lies closer to 0 than 1 - zeta can tell.
        zeta = zeta.clamp(kind.tiny, 1 - kind.eps)
        x = (torch.log(zeta) - torch.log1p(-zeta)) / self.sharpness - torch.logit(_inside(probability))
        log_logistic = functional.logsigmoid(x) + functional.logsigmoid(-x)
        return log_logistic - math.log(self.sharpness) - torch.log(zeta) - torch.log1p(-zeta)


class _Bits(Relaxation):
    """The bit itself, with some gradient in its probability."""

    def sample(self, probability: Tensor, uniform: Tensor) -> Tensor:
        """Bits, with the gradient of `slope`."""
        with torch.no_grad():
            bits = (uniform >= 1 - probability).to(probability.dtype)
            slope = self.slope(bits, probability)
        return _Implicit.apply(probability, bits, slope)

    @abstractmethod
    def slope(self, bits: Tensor, probability: Tensor) -> Tensor:
        """What stands for the derivative of the bits in their probability."""

    def log_density(self, zeta: Tensor, probability: Tensor) -> Tensor:
        """There is none."""
        raise NotImplementedError("bits have probabilities, not a density")


@dataclass(frozen=True)
class StraightThrough(_Bits):
    """The bit itself, with the gradient of its probability: biased, and the cheapest.

    The derivative of a function is taken at the bit that was drawn, on average q f'(1) + (1 - q) f'(0). Of a
    quadratic log-likelihood that is its derivative at the mean of the bit: what the bit's own variance costs
    is not seen, and posteriors are less sure than the images allow.
    """

    def slope(self, bits: Tensor, probability: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(bits)


@dataclass(frozen=True)
class ReinMax(_Bits):
    """The bit itself, with a gradient that is unbiased for functions quadratic in every bit.

    f(1) - f(0), the derivative of the mean in q, by the trapezoid rule: (f'(0) + f'(1)) / 2, either end
    weighted by the inverse of the probability that it is drawn with.
    """

    def slope(self, bits: Tensor, probability: Tensor) -> Tensor:
        """1 / 2 over the probability of the bit drawn."""
        drawn = torch.where(bits > 0.5, probability, 1 - probability)
        return 0.5 / drawn.clamp_min(torch.finfo(drawn.dtype).eps)


RELAXATIONS: dict[str, Callable[..., Relaxation]] = {
    "exponential": Exponential,
    "logistic": Logistic,
    "power": Power,
    "gaussian": Gaussian,
    "gumbolt": GumBolt,
    "straight-through": StraightThrough,
    "reinmax": ReinMax,
}


def build_relaxation(name: RelaxationName, sharpness: float | None = None) -> Relaxation:
    """Return a relaxation by its name, as sharp as usual or as given.

    Raises
    ------
    InputError
        If the sharpness is not positive, or given to bits that are not smoothed.
    """
    if sharpness is None:
        return RELAXATIONS[name]()
    if name in ("straight-through", "reinmax"):
        raise InputError(f"{name} bits have no sharpness", remedy="Leave it out.")
    if not sharpness > 0:
        raise InputError(f"a sharpness of {sharpness}", remedy="Give a positive number.")
    return RELAXATIONS[name](sharpness)


def _positive_root(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The positive root of a x^2 + b x + c for a >= 0 >= c, without cancellation."""
    half = 0.5 * (b.abs() + torch.sqrt(b.square() - 4 * a * c))
    return torch.where(b > 0, -c / half, half / a)


def _inside(x: Tensor) -> Tensor:
    """Numbers of [0, 1] that can be told from both ends."""
    eps = torch.finfo(x.dtype).eps
    return x.clamp(eps, 1 - eps)
