"""Ways to read a model, and which of them the images bear out.

A model's file does not say where its origin is, nor whether the poses belong to the structure or to its
mirror image, nor does a stack say its sign. Each combination predicts a density; the right one correlates
with the back-projection far better than the same density turned at random, which is the null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.physics.gaussians import voxelise
from cryoscape.physics.rotations import random_rotations
from cryoscape.preflight.evidence import Density, DensityScore

HANDS: dict[str, tuple[float, float, float]] = {
    "as read": (1.0, 1.0, 1.0),
    "mirrored (inverted through the centre)": (-1.0, -1.0, -1.0),
    "mirrored in z": (1.0, 1.0, -1.0),
    "mirrored in x": (-1.0, 1.0, 1.0),
    "mirrored in y": (1.0, -1.0, 1.0),
}
"""What the structure behind the poses is, as axis factors on the model's world coordinates. Mirrors in
different planes differ by half turns: maps are flipped in any of them, and models fitted to what came out."""

FIT, DOUBT = 5.0, 4.0
"""Standard deviations above randomly turned models: from `FIT` on a model fits, below `DOUBT` it does not."""

FITTED = 8.0
"""The same for a model moved freely: the best of all translations is high by chance alone."""

NULLS = 24
MOST_BEADS = 4000


@dataclass(frozen=True)
class Candidate:
    """One way to read model and images.

    Attributes
    ----------
    frame : str
        Name of the frame of the model.
    hand : str
        A key of `HANDS`.
    sign : int
        By which the images must be multiplied for protein to be positive.
    offset : tuple of float
        world = file coordinates - offset, Angstrom.
    score : float
        Correlation with the map over the shells with signal, relative to a perfect model's; for this sign.
    z : float
        Standard deviations above randomly turned models, of Fisher's transform of the score.
    """

    frame: str
    hand: str
    sign: int
    offset: tuple[float, float, float]
    score: float
    z: float


class ModelReader:
    """Scores the ways to read one model against one back-projection.

    Parameters
    ----------
    score : DensityScore
        Of the back-projection, in a box small enough for many trials.
    coords : ndarray, shape (N, 3)
        File coordinates of the beads, Angstrom.
    weights : ndarray, shape (N,)
        Electrons.
    seed : int
        Of the random turns.
    """

    def __init__(
        self, score: DensityScore, coords: NDArray[np.floating], weights: NDArray[np.floating], seed: int = 0
    ) -> None:
        if len(coords) > MOST_BEADS:
            keep = np.sort(np.random.default_rng(seed).choice(len(coords), MOST_BEADS, replace=False))
            coords, weights = coords[keep], weights[keep]
        self.score = score
        self.weights = torch.from_numpy(np.asarray(weights, dtype=np.float32))
        self.centre = np.average(np.asarray(coords, dtype=np.float64), axis=0, weights=weights)
        self.centred = torch.from_numpy(np.asarray(coords - self.centre, dtype=np.float32))
        self.sigma = max(2.0, score.voxel_size)
        self._nulls: dict[tuple[int, ...], tuple[float, float]] = {}
        self.mirrors = {h: self._density(self.centred * torch.tensor(HANDS[h])) for h in HANDS}
        generator = torch.Generator().manual_seed(seed)
        turns = random_rotations(NULLS, generator).float()
        self.turned = [self._density(self.centred @ turn.T) for turn in turns]

    def _density(self, centred: Tensor) -> Density:
        s = self.score
        return s.density(voxelise(centred, self.weights, self.sigma, s.box, s.voxel_size))

    def position(self, hand: str, offset: tuple[float, float, float]) -> Tensor:
        """Where the centre of mass lies in the world, shape (3,), Angstrom."""
        return torch.from_numpy((self.centre - np.asarray(offset)) * np.asarray(HANDS[hand])).float()

    def null(self, position: Tensor) -> tuple[float, float]:
        """Mean and standard deviation of Fisher's z of the score of the model turned at random in a place."""
        key = tuple(torch.round(position / self.score.voxel_size).long().tolist())
        if key not in self._nulls:
            moved = (self.score.moved(t, position) for t in self.turned)
            self._nulls[key] = _moments([self.score.score(self.score.correlations(m)) for m in moved])
        return self._nulls[key]

    def named(self, frames: Mapping[str, tuple[float, float, float]]) -> list[Candidate]:
        """Every frame with every hand and the better sign.

        Parameters
        ----------
        frames : mapping of str to (3,)
            Offsets of the frames to try.

        Returns
        -------
        list of Candidate
            Frames in the order given, hands in the order of `HANDS`.
        """
        found = []
        for frame, offset in frames.items():
            for hand in HANDS:
                position = self.position(hand, offset)
                density = self.score.moved(self.mirrors[hand], position)
                value = self.score.score(self.score.correlations(density))
                found.append(_candidate(frame, hand, offset, value, *self.null(position)))
        return found

    def moved(self) -> Candidate:
        """The best translation of the model in any hand and sign, wherever its file puts it."""
        trials = []
        for hand, factors in HANDS.items():
            for sign in (1, -1):
                shift, value = self.score.best_shift(self.mirrors[hand], sign=sign)
                trials.append((value, sign, hand, self.centre - shift.numpy() * np.asarray(factors)))
        value, sign, hand, offset = max(trials, key=lambda t: t[0])
        # The null has the same freedom: each turned model is put where it correlates best.
        mean, sd = _moments([self.score.best_shift(t, sign=sign)[1] for t in self.turned])
        z = (_fisher(value) - mean) / sd
        place = (float(offset[0]), float(offset[1]), float(offset[2]))
        return Candidate("moved", hand, sign, place, value, z)


def _fisher(score: float) -> float:
    """Fisher's transform of a correlation: at low resolution random turns score 0.5 easily, never 0.98."""
    return float(np.arctanh(np.clip(score, -0.995, 0.995)))


def _moments(scores: list[float]) -> tuple[float, float]:
    values = [_fisher(s) for s in scores]
    return float(np.mean(values)), max(float(np.std(values, ddof=1)), 1e-9)


def _candidate(
    frame: str, hand: str, offset: tuple[float, float, float], value: float, mean: float, sd: float
) -> Candidate:
    z = (_fisher(value) - mean) / sd
    sign = 1 if z >= 0 else -1
    return Candidate(frame, hand, sign, offset, sign * value, abs(z))


def choose(candidates: list[Candidate], moved: Candidate) -> tuple[Candidate, tuple[str, ...]]:
    """The reading to go on with.

    The convention of files wins over a slightly better correlation: a frame earlier in the list is kept if
    it reaches three quarters of the best score, and the hand as read if it is within two standard deviations,
    since a model of another conformation may correlate best a little beside its true place.

    Parameters
    ----------
    candidates : list of Candidate
        From `ModelReader.named`.
    moved : Candidate
        From `ModelReader.moved`.

    Returns
    -------
    winner : Candidate
    notes : tuple of str
        What the user should know about the choice.
    """
    notes = []
    best = max(candidates, key=lambda c: c.z)
    if best.z < FIT and moved.z >= FITTED:
        notes.append("the model fits after a move that no usual frame explains: check how it was docked")
        return moved, tuple(notes)
    if best.z < DOUBT:
        # Nothing to go by: everything stays as it was read, and the figures tell of the best trial.
        return replace(candidates[0], sign=1, score=best.score, z=best.z), ()
    same = [c for c in candidates if c.hand == best.hand and c.sign == best.sign]
    best = next((c for c in same if c.score >= 0.75 * best.score), best)
    as_read = next(c for c in candidates if c.frame == best.frame and c.hand == "as read")
    if best.hand != "as read" and as_read.sign == best.sign and as_read.z >= best.z - 2.0:
        best = as_read
        notes.append("the hand cannot be told at this resolution; the poses' own is kept")
    if moved.hand == best.hand and moved.sign == best.sign and moved.score > 1.4 * best.score:
        move = np.asarray(best.offset) - np.asarray(moved.offset)
        text = ", ".join(f"{v:.1f}" for v in move)
        notes.append(f"the model would fit better if it were moved by ({text}) A: check how it was docked")
    return best, tuple(notes)
