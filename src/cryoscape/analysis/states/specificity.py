"""Every state's map against every state's model.

All states share most of their density, so that plain correlations are all high and little apart. What tells
states apart is in the difference from their mean. Both scores are given:

- plain: mean shell correlation inside the shared mask, each shell with the weight of its coefficients times
  the map's expected correlation with the truth, so that amplitudes (scale, B-factor) do not enter;
- difference: correlation of map minus mean map with model minus mean model, each coefficient divided by the
  variance of the noise that the half maps show.

A row is one map, and its models are compared, because noise in a map lowers its whole row alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.states.state_maps import StateMap
from cryoscape.physics.half_maps import trusted_correlation
from cryoscape.physics.map_filters import coarsen
from cryoscape.physics.resolution import (
    radial_average,
    reference_correlation,
    shell_correlation,
    shell_sum,
    volume_shells,
)


@dataclass(frozen=True, eq=False)
class Specificity:
    """Scores of K maps (rows) against K models (columns).

    Attributes
    ----------
    plain : ndarray, shape (K, K)
        Weighted mean shell correlation.
    difference : ndarray, shape (K, K)
        Noise-weighted correlation of the differences from the mean; NaN for a single state.
    halves : ndarray, shape (2, K, K)
        `difference` with the half maps of either half alone.
    margin : ndarray, shape (K,)
        By how many standard deviations of the noise each map's own model fits its difference better than the
        next best; negative where it is not the best, NaN for a single state.
    """

    plain: NDArray[np.float64]
    difference: NDArray[np.float64]
    halves: NDArray[np.float64]
    margin: NDArray[np.float64]

    @property
    def won(self) -> NDArray[np.bool_]:
        """Whether each map's difference fits its own model best, shape (K,)."""
        return _diagonal_wins(self.difference)

    @property
    def won_in_both_halves(self) -> NDArray[np.bool_]:
        """Whether it does so in either half of the images alone, shape (K,)."""
        return _diagonal_wins(self.halves[0]) & _diagonal_wins(self.halves[1])

    @property
    def won_plain(self) -> NDArray[np.bool_]:
        """Whether each map correlates best with its own model, shape (K,)."""
        return _diagonal_wins(self.plain)

    @property
    def models_won(self) -> NDArray[np.bool_]:
        """Whether each model's difference is found best in its own map, shape (K,)."""
        return _diagonal_wins(self.difference.T)


def _diagonal_wins(matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether the diagonal is the strict maximum of its row; False where the row is not finite."""
    others = np.where(np.eye(len(matrix), dtype=bool), -np.inf, matrix)
    return np.isfinite(matrix).all(axis=1) & (np.diag(matrix) > others.max(axis=1))


def compare(maps: Sequence[StateMap], models: NDArray[np.floating]) -> Specificity:
    """Score every map against every model.

    Parameters
    ----------
    maps : sequence of StateMap, length K
        Of one box and voxel size.
    models : ndarray, shape (K, d, d, d)
        Densities of the states' models in the same frame and field of view; d at most the box of the maps.
        Their scale and radial fall-off do not matter.

    Returns
    -------
    Specificity
    """
    box = models.shape[-1]
    mask = _coarse(torch.stack([m.mask for m in maps]).amax(0), box).clamp(0.0, 1.0)
    signal = [_masked(_coarse(m.combined, box), mask) for m in maps]
    model = [_masked(torch.from_numpy(np.asarray(v, dtype=np.float32)), mask) for v in models]
    half = [[_masked(_coarse(v, box), mask) for v in (m.half1, m.half2)] for m in maps]
    trusted = torch.stack([trusted_correlation(m.correlation.corrected)[: box // 2 + 1] for m in maps])
    count = shell_sum(torch.ones(box, box, box // 2 + 1))
    weight = count * reference_correlation(trusted)
    weight[:, 0] = 0.0
    plain = [
        [float((w * shell_correlation(v, m)).sum() / w.sum().clamp(min=1e-30)) for m in model]
        for v, w in zip(signal, weight)
    ]
    k = len(maps)
    none = np.full((k, k), np.nan)
    if k == 1:
        return Specificity(np.array(plain), none, np.stack([none, none]), none[0])
    noise = _less_mean([0.5 * (a - b) for a, b in half])
    gain = _gain(sum(signal), sum(model))  # type: ignore[arg-type]
    shells = volume_shells(box).clamp(max=box // 2)
    moved = [gain[shells] * m for m in _less_mean(model)]
    # Shells in which a map shows nothing say nothing of its difference either.
    weights = [
        ((t > 0) / radial_average(n.abs().square()).clamp(min=1e-30))[shells] * (shells > 0)
        for t, n in zip(trusted, noise)
    ]
    sets = [signal, [h[0] for h in half], [h[1] for h in half]]
    scores = [
        np.array([[_correlation(v, m, w) for m in moved] for v, w in zip(_less_mean(s), weights)])
        for s in sets
    ]
    share = float(mask.square().mean())
    margin = [_margin(i, v, moved, w, share) for i, (v, w) in enumerate(zip(_less_mean(signal), weights))]
    return Specificity(np.array(plain), scores[0], np.stack(scores[1:]), np.array(margin))


def _coarse(volume: Tensor, box: int) -> Tensor:
    # The voxel size only sets the scale of the transform and back, which cancels.
    return volume if volume.shape[-1] == box else coarsen(volume, 1.0, box)


def _masked(volume: Tensor, mask: Tensor) -> Tensor:
    """Transform of a map inside the mask, less its mean there: images do not measure the mean density."""
    level = (volume * mask).sum() / mask.sum()
    return torch.fft.rfftn((volume - level) * mask)


def _less_mean(values: Sequence[Tensor]) -> list[Tensor]:
    mean = torch.stack(list(values)).mean(0)
    return [v - mean for v in values]


def _gain(signal: Tensor, model: Tensor) -> Tensor:
    """What multiplies the models in each shell to fit the maps best on average; smooth, not below 0."""
    cross, power = shell_sum((signal * model.conj()).real), shell_sum(model.abs().square())
    kernel = torch.tensor([[[0.5, 1.0, 0.5]]], dtype=cross.dtype)
    cross, power = (
        torch.nn.functional.conv1d(v[None, None], kernel, padding=1)[0, 0] for v in (cross, power)
    )
    return (cross / power.clamp(min=1e-30)).clamp(min=0.0)


def _margin(own: int, signal: Tensor, models: Sequence[Tensor], weight: Tensor, share: float) -> float:
    """How far the map's own model is ahead of the next best, in standard deviations of the noise.

    The weighted product of masked noise with a template e has the variance sum w |e|^2 / share: a mask makes
    neighbouring coefficients alike, and `share`, its mean square, is the part of them that is independent.
    """
    unit = [m / _dot(m, m, weight).clamp(min=1e-300).sqrt() for m in models]
    ahead = []
    for other in (i for i in range(len(models)) if i != own):
        template = unit[own] - unit[other]
        spread = (_dot(template, template, weight) / share).clamp(min=1e-300).sqrt()
        ahead.append(float(_dot(signal, template, weight) / spread))
    return min(ahead)


def _dot(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    return shell_sum(weight * (a * b.conj()).real).sum()


def _correlation(a: Tensor, b: Tensor, weight: Tensor) -> float:
    norm = _dot(a, a, weight) * _dot(b, b, weight)
    return float(_dot(a, b, weight) / norm.clamp(min=1e-300).sqrt())
