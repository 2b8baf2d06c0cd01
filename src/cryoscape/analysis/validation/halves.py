"""Two trainings on halves that share nothing, compared on particles that neither has seen (checks 1 and 7).

Test set T, halves A and B. For residue i, with a_p and b_p the displacements in particle p of T from the mean
over T, by the one and by the other training,

    C_i = sum_p a_p.b_p / sqrt(sum_p |a_p|^2 sum_p |b_p|^2),        R_i = 2 C_i / (1 + C_i),

R being the reliability of what all particles together would give (Spearman 1910, Brown 1910).

Both see the same image of T, with its noise. Agreement says that the motion is reproducible, not that it is
there: that is what the nulls are for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.populations.ensemble_weights import resampling_groups
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.retraining import Retraining
from cryoscape.analysis.validation.split import TEST, A, B, Split, find_split
from cryoscape.analysis.validation.two_states import (
    MainMotion,
    Population,
    decode_flat,
    least_motion,
    length_unit,
    some_rows,
)
from cryoscape.data.particles import Particles
from cryoscape.training.embed import embed
from cryoscape.training.run import Run

Array = NDArray[np.float64]

RELIABLE = 0.5
"""Reliability from which a motion counts as reproduced: half of the variance is common to both halves."""

_RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class HalfSets:
    """Two trainings on halves, and what both make of the test set.

    Attributes
    ----------
    split : Split
    run_a, run_b : Run
    test : Particles
    z_a, z_b : ndarray, shape (T, d)
        Posterior means of the test set.
    sd_a, sd_b : ndarray, shape (T, d)
        Their widths.
    """

    split: Split
    run_a: Run
    run_b: Run
    test: Particles
    z_a: NDArray[np.float32]
    z_b: NDArray[np.float32]
    sd_a: NDArray[np.float32]
    sd_b: NDArray[np.float32]

    def decoded(self) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Rows of the test set (m,), and what both decode for them, (m, P)."""
        rows = some_rows(self.run_a, len(self.test))
        return rows, decode_flat(self.run_a, self.z_a[rows]), decode_flat(self.run_b, self.z_b[rows])


def train_halves(retraining: Retraining) -> HalfSets:
    """Train on both halves from nothing, and embed the test set with both.

    Raises
    ------
    InputError
        If a half is too small, or shares a particle with the other or the test set.
    """
    particles = retraining.run.as_given
    split = find_split(retraining.folder, particles, retraining.seed)
    run_a = retraining.train("half_a", particles.select(split.rows(A)))
    run_b = retraining.train("half_b", particles.select(split.rows(B)))
    split.check(run_a, run_b)
    test = particles.select(split.rows(TEST))
    seen = [embed(run, test, progress=retraining.progress) for run in (run_a, run_b)]
    return HalfSets(split, run_a, run_b, test, seen[0].z, seen[1].z, seen[0].z_sd, seen[1].z_sd)


def reliability(correlation: Array | float) -> Array:
    """Of the mean of two measurements that correlate so (Spearman-Brown); 0 where they do not."""
    c = np.clip(np.asarray(correlation, dtype=np.float64), 0.0, 1.0)
    return 2 * c / (1 + c)


def correlation_of_displacements(a: NDArray, b: NDArray) -> Array:
    """Correlation of vectors (n, N, d) over the n particles, for each of N places, less their means.

    Returns
    -------
    ndarray, shape (N,)
        0 where one of them does not move.
    """
    cross, power_a, power_b = _moments(a, b)
    scale = np.sqrt(power_a.sum(0) * power_b.sum(0))
    return np.divide(cross.sum(0), scale, out=np.zeros_like(scale), where=scale > 0)


def _moments(a: NDArray, b: NDArray) -> tuple[Array, Array, Array]:
    """a.b, |a|^2 and |b|^2 of every particle and place, (n, N), with the means taken off."""
    x, y = _displacements(a), _displacements(b)
    return (x * y).sum(-1), np.square(x).sum(-1), np.square(y).sum(-1)


def _displacements(points: NDArray) -> Array:
    """Vectors (n, N, d) from their mean; zero at places where all they are is round-off."""
    mean = points.mean(axis=0, dtype=np.float64)
    away = points - mean
    still = np.abs(away).max(axis=(0, 2)) <= 1e-6 * np.abs(mean).max(axis=-1)
    away[:, still] = 0.0
    return away


def bootstrap_correlation(
    a: NDArray, b: NDArray, groups: NDArray | None, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Correlation over all particles and places, and its 95 % interval over particles drawn again.

    Parameters
    ----------
    a, b : ndarray, shape (n, N, d)
    groups : ndarray, shape (n,), optional
        Micrographs, drawn as wholes.
    seed : int
    """
    sums = np.stack([one.sum(axis=1) for one in _moments(a, b)], axis=1)
    member = np.arange(len(a)) if groups is None else np.unique(groups, return_inverse=True)[1]
    of_group = np.zeros((int(member.max()) + 1, 3))
    np.add.at(of_group, member, sums)
    rng = np.random.default_rng([seed, 37])
    counts = rng.multinomial(len(of_group), np.full(len(of_group), 1 / len(of_group)), size=_RESAMPLES)
    drawn = np.concatenate([of_group.sum(axis=0)[None], counts @ of_group])
    scale = np.sqrt(drawn[:, 1] * drawn[:, 2])
    value = np.divide(drawn[:, 0], scale, out=np.zeros_like(scale), where=scale > 0)
    low, high = np.quantile(value[1:], [0.025, 0.975])
    return float(value[0]), (float(low), float(high))


def split_check(half_sets: HalfSets) -> Check:
    """Check 1: halves and test set share no particle, by identity, after whatever resuming there was."""
    split = half_sets.split
    split.check(half_sets.run_a, half_sets.run_b)
    sizes = {name: len(split.rows(part)) for name, part in (("a", A), ("b", B), ("test", TEST))}
    kept = "whole micrographs" if split.grouped else "single images, for there are few micrographs"
    text = (
        f"Halves of {sizes['a']} and {sizes['b']} particles and a test set of {sizes['test']} "
        f"({kept}) share none; both trainings started anew, from seeds of their own."
    )
    steps = [int(run.info["total_steps"]) for run in (half_sets.run_a, half_sets.run_b)]
    seeds = [int(run.info["seed"]) for run in (half_sets.run_a, half_sets.run_b)]
    values = {**sizes, "steps": steps, "seeds": seeds, "micrographs_kept": split.grouped}
    return Check(1, "split", Status.PASSED, text, values)


def half_set_check(
    half_sets: HalfSets, motion: MainMotion, populations: tuple[Population, Population] | None, seed: int = 0
) -> Check:
    """Check 7: both halves see the same in the particles of the test set.

    Passed where the reliability over all places is `RELIABLE` or more and the correlation is above zero by
    its 95 % interval. Populations are of each half's own images, by its own structures; they and the
    z-scores are reported: trainings differ by more than the resampling of images shows, and two posteriors of
    one image share its noise.
    """
    run = half_sets.run_a
    rows, flat_a, flat_b = half_sets.decoded()
    size = 3 if run.has_structures else 1
    shape = (len(rows), -1, size) if run.has_structures else (len(rows), 1, flat_a.shape[1])
    a, b = flat_a.reshape(shape), flat_b.reshape(shape)
    # Rms over the numbers of an object, in A or in units of the mean map's.
    unit = length_unit(run, flat_a.mean(axis=0)) / np.sqrt(flat_a.shape[1])
    groups = resampling_groups(half_sets.test.micrograph[rows])
    whole, interval = bootstrap_correlation(a, b, groups, seed)
    reliable = float(reliability(whole))
    moves = [_spread(x) / unit for x in (flat_a, flat_b)]
    values: dict[str, Any] = {
        "correlation": whole,
        "correlation_interval": interval,
        "reliability": reliable,
        "rms_motion": moves,
        "rms_disagreement": _rms(flat_a - flat_b) / unit,
        "mean_objects_rmsd": _rms(flat_a.mean(0) - flat_b.mean(0)) / unit,
        **(_of_residues(a, b) if run.has_structures else _of_maps(a, b)),
        **_of_chains(half_sets, rows),
        **_z_scores(half_sets, motion, rows),
    }
    said = ""
    if populations is not None:
        change, low, high = populations[0].change_to(populations[1])
        values["populations"] = [one.to_dict() for one in populations]
        values["population_change"] = {"change": change, "interval": (low, high), "agree": low <= 0 <= high}
        shares = " and ".join(f"{100 * one.upper:.0f} %" for one in populations)
        said = f"; {shares} of their images lie on the far side of the main motion"
    what = "A" if run.has_structures else "of the map's rms"
    if max(moves) < least_motion(run):
        text = (
            f"Nothing moves in either half ({max(moves):.2g} {what} rms): there is nothing to agree on{said}."
        )
        return Check(7, "half sets", Status.REPORTED, text, values)
    status = Status.PASSED if reliable >= RELIABLE and interval[0] > 0 else Status.FAILED
    text = (
        f"Motions of the {len(rows)} test particles by the two halves correlate to {whole:.2f} "
        f"({interval[0]:.2f} to {interval[1]:.2f}), a reliability of {reliable:.2f}, where {RELIABLE} is "
        f"needed; they disagree by {values['rms_disagreement']:.2g} {what} rms{said}."
    )
    return Check(7, "half sets", status, text, values)


def _rms(x: NDArray) -> float:
    return float(np.sqrt(np.square(x, dtype=np.float64).mean()))


def _spread(flat: NDArray) -> float:
    return float(np.sqrt(flat.var(axis=0, dtype=np.float64).mean()))


def _of_residues(a: NDArray, b: NDArray) -> dict[str, Any]:
    correlation = correlation_of_displacements(a, b)
    apart = np.square(a - b, dtype=np.float64).sum(-1)
    of_particle = np.sqrt(apart.mean(axis=1))
    return {
        "residue_correlation": correlation,
        "residue_reliability": reliability(correlation),
        "residue_disagreement": np.sqrt(apart.mean(axis=0)),
        "particle_disagreement": np.quantile(of_particle, [0.05, 0.5, 0.95]),
        "mean_particle_rmsd": float(of_particle.mean()),
    }


def _of_maps(a: NDArray, b: NDArray) -> dict[str, Any]:
    cross, power_a, power_b = (one[:, 0] for one in _moments(a, b))
    scale = np.sqrt(power_a * power_b)
    each = np.divide(cross, scale, out=np.zeros_like(scale), where=scale > 0)
    return {"particle_correlation": np.quantile(each, [0.05, 0.5, 0.95])}


def _of_chains(half_sets: HalfSets, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Correlation of the presence of chains that may be absent."""
    run_a, run_b = half_sets.run_a, half_sets.run_b
    a, b = run_a.occupancy(half_sets.z_a[rows]), run_b.occupancy(half_sets.z_b[rows])
    if a is None or b is None:
        return {}
    one = np.unique(run_a.structure.chain_index, return_index=True)[1]
    return {"chain_correlation": correlation_of_displacements(a[:, one, None], b[:, one, None])}


def _z_scores(half_sets: HalfSets, motion: MainMotion, rows: NDArray[np.int64]) -> dict[str, float]:
    """Variance of the difference of both scores along the main motion, over that of the posteriors.

    That of a score comes from central differences over one standard deviation of each latent.
    """
    run = half_sets.run_a
    if not motion.moves or run.prior.support == "binary" or not run.has_structures:
        return {}
    both = (
        (half_sets.run_a, half_sets.z_a[rows], half_sets.sd_a[rows]),
        (half_sets.run_b, half_sets.z_b[rows], half_sets.sd_b[rows]),
    )
    difference, variance = np.zeros(len(rows)), np.zeros(len(rows))
    for sign, (run, z, sd) in zip((1.0, -1.0), both):
        difference += sign * motion.scores(run, z)
        for k in range(z.shape[1]):
            step = np.zeros_like(z)
            step[:, k] = sd[:, k]
            slope = 0.5 * (motion.scores(run, z + step) - motion.scores(run, z - step))
            variance += np.square(slope)
    return {"z_score_variance": float((np.square(difference) / np.maximum(variance, 1e-12)).mean())}
