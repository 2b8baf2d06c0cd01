"""A law in eight dimensions whose log density is known: a closed curve with states on it and one off it.

The curve is (cos t, sin t, cos 2t / 2, sin 2t / 2, cos 3t / 4, sin 3t / 4, 0, 0). Populations of 50, 30 and
20 % lie along it about t = 0, 2.2 and 4 with standard deviations of 0.25, 0.35 and 0.9 rad; together they are
97 %, and 3 % are at a place of their own. All is blurred by 0.06 in every direction, turned by a random
rotation, and brought to unit variance by one factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIMENSION = 8
POPULATIONS = ((0.5, 0.0, 0.25), (0.3, 2.2, 0.35), (0.2, 4.0, 0.9))
MINOR = 0.03
SIGMA = 0.06
# 28 blurs from the nearest point of the curve.
MINOR_CENTRE = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.2, 0.0)


def curve(t: NDArray) -> NDArray:
    """Points of the curve, (...) -> (..., 8)."""
    zero = np.zeros_like(t)
    parts = [np.cos(t), np.sin(t), np.cos(2 * t) / 2, np.sin(2 * t) / 2, np.cos(3 * t) / 4, np.sin(3 * t) / 4]
    return np.stack([*parts, zero, zero], axis=-1)


@dataclass(frozen=True)
class Ring:
    """The law, with its rotation and unit of length.

    Attributes
    ----------
    rotation : ndarray, shape (8, 8)
    centre : ndarray, shape (8,)
        Origin of the units of z, before the rotation.
    scale : float
        Their length.
    """

    rotation: NDArray
    centre: NDArray
    scale: float

    def draw(self, n: int, seed: int) -> tuple[NDArray, NDArray]:
        """Return n points (n, 8) and whether each is of the minor state (n,)."""
        rng = np.random.default_rng(seed)
        raw, minor = _raw(n, rng)
        return (raw - self.centre) / self.scale @ self.rotation.T, minor

    def log_prob(self, z: NDArray) -> NDArray:
        """Exact log density (n, 8) -> (n,): the integral over t by sums over 3,000 of its values."""
        x = z @ self.rotation * self.scale + self.centre
        t = np.linspace(-math.pi, math.pi, 3000, endpoint=False)
        weight = np.zeros_like(t)
        for share, middle, width in POPULATIONS:
            for turn in (-2, -1, 0, 1, 2):
                weight += share * np.exp(-0.5 * ((t - middle - 2 * math.pi * turn) / width) ** 2) / width
        log_weight = np.log((1 - MINOR) * weight / math.sqrt(2 * math.pi) * (t[1] - t[0]))
        out = np.empty(len(x))
        nodes = curve(t)
        for start in range(0, len(x), 500):
            part = x[start : start + 500]
            square = (part**2).sum(1)[:, None] - 2 * part @ nodes.T + (nodes**2).sum(1)
            on = np.logaddexp.reduce(log_weight - 0.5 * square / SIGMA**2, axis=1)
            off = math.log(MINOR) - 0.5 * ((part - MINOR_CENTRE) ** 2).sum(1) / SIGMA**2
            out[start : start + 500] = np.logaddexp(on, off)
        normal = DIMENSION * math.log(SIGMA * math.sqrt(2 * math.pi))
        return out - normal + DIMENSION * math.log(self.scale)

    def in_minor_state(self, z: NDArray) -> NDArray:
        """Whether points (n, 8) are within six blurs of the minor state, where 0.99998 of it are, (n,)."""
        x = z @ self.rotation * self.scale + self.centre
        return np.linalg.norm(x - np.asarray(MINOR_CENTRE), axis=1) < 6 * SIGMA


def _raw(n: int, rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    shares, middles, widths = (np.array(column) for column in zip(*POPULATIONS, strict=True))
    state = rng.choice(len(shares), n, p=shares)
    points = curve(middles[state] + widths[state] * rng.standard_normal(n))
    minor = rng.random(n) < MINOR
    points[minor] = MINOR_CENTRE
    return points + SIGMA * rng.standard_normal(points.shape), minor


def make_ring(seed: int = 0) -> Ring:
    """The law with the rotation of a seed; its units are found from a million points."""
    rng = np.random.default_rng(seed)
    q, r = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))
    raw, _ = _raw(1_000_000, np.random.default_rng(12345))
    return Ring(q * np.sign(np.diag(r)), raw.mean(0), float(np.sqrt(raw.var(0).mean())))
