"""Halves of the particles and a test set that neither half contains, the same at every call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.populations.ensemble_weights import resampling_groups
from cryoscape.analysis.records import write_arrays
from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.training.run import Run

TEST, A, B = 0, 1, 2
"""Parts of a split."""

SHARE = 0.1
"""Of the particles in the test set."""

FILE = "split.npz"
_FEWEST = 20


@dataclass(frozen=True, eq=False)
class Split:
    """Which part every particle is in.

    Attributes
    ----------
    uid : ndarray, shape (N,), uint64
    part : ndarray, shape (N,), int8
        `TEST`, `A` or `B`.
    grouped : bool
        Whether whole micrographs are in the test set.
    """

    uid: NDArray[np.uint64]
    part: NDArray[np.int8]
    grouped: bool

    def rows(self, part: int) -> NDArray[np.int64]:
        """Positions of the particles of a part."""
        return np.flatnonzero(self.part == part)

    def check(self, run_a: Run, run_b: Run) -> None:
        """Refuse trainings that have seen a particle of another part, whatever they were told to train on.

        Raises
        ------
        InputError
            If a particle, by its identity, is in two of A, B and T.
        """
        seen_a, seen_b = run_a.particles.uid, run_b.particles.uid
        test = self.uid[self.part == TEST]
        for first, second in ((seen_a, seen_b), (seen_a, test), (seen_b, test)):
            shared = len(np.intersect1d(first, second))
            if shared:
                raise InputError(
                    f"{shared} particles are in two parts of the split that must share none",
                    file=run_a.path.parent / FILE,
                    remedy="Take out the rows that repeat an image, and delete the folder of the validation.",
                )


def make_split(particles: Particles, seed: int) -> Split:
    """Halves as the table or the micrographs have them, less a test set that is drawn from both.

    Parameters
    ----------
    particles : Particles
    seed : int
        Of the test set.

    Returns
    -------
    Split
        The test set is made of whole micrographs where there are enough, else of single images; rows that
        repeat an image stay together.

    Raises
    ------
    InputError
        If a half has too few particles to train on.
    """
    groups = resampling_groups(particles.micrograph)
    image = np.stack([particles.stack.file, particles.stack.index], axis=1)
    keys = image if groups is None else groups
    _, first, code = np.unique(keys, return_index=True, return_inverse=True, axis=0)
    code = code.ravel()
    half = particles.half if particles.half_source == "file" else particles.half[first][code]
    count = np.bincount(code)
    order = np.random.default_rng([seed, 31]).permutation(len(count))
    before = np.concatenate([[0], np.cumsum(count[order])[:-1]])
    test = np.zeros(len(count), dtype=bool)
    test[order[before < SHARE * len(code)]] = True
    part = np.where(test[code], TEST, half).astype(np.int8)
    sizes = [int((part == p).sum()) for p in (A, B, TEST)]
    if min(sizes) < _FEWEST:
        raise InputError(
            f"halves of {sizes[0]} and {sizes[1]} particles and a test set of {sizes[2]} are too small",
            file=particles.source.path,
            remedy=f"Use a table with {_FEWEST} particles or more in each.",
        )
    return Split(particles.uid, part, groups is not None)


def find_split(folder: Path, particles: Particles, seed: int) -> Split:
    """The split of these particles that is in a folder, or a new one, which is put there."""
    path = folder / FILE
    if path.is_file():
        with np.load(path, allow_pickle=False) as stored:
            same = int(stored["seed"]) == seed and np.array_equal(stored["uid"], particles.uid)
            if same:
                return Split(stored["uid"], stored["part"], bool(stored["grouped"]))
    split = make_split(particles, seed)
    write_arrays(
        path,
        {
            "uid": split.uid,
            "row": particles.row,
            "part": split.part,
            "grouped": np.array(split.grouped),
            "seed": np.array(seed),
        },
    )
    return split
