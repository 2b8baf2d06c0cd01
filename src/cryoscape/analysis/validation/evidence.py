"""Everything that likelihoods say of the claimed motions: on real images, on nulls, and on what is claimed.

Four kinds of images are compared with the objects, with and without each motion:

- the real ones;
- images of the best single object, many sets of them: the homogeneous null;
- noise of the estimated spectrum: the null without a molecule;
- images of the objects in the populations that the program claims: what the real ones should look like.

Where images may be in slightly wrong poses as well, the null is of the best single object in such poses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.populations.ensemble_weights import responsibilities
from cryoscape.analysis.validation.calibration import Products, projection_products
from cryoscape.analysis.validation.gains import (
    Explained,
    Mean,
    explain,
    fit_populations,
    log_evidence,
    mean_over_images,
)
from cryoscape.analysis.validation.motions import ClaimedMotion
from cryoscape.analysis.validation.pose_expansion import expand_poses, fit_pose_sd
from cryoscape.analysis.validation.simulated_images import ImageSource, SimulatedImages
from cryoscape.analysis.validation.subject import Subject
from cryoscape.models.decoders.base import Scene
from cryoscape.progress import ProgressReporter, reporter_or_silent

Array = NDArray[np.float64]

NULLS = 40
"""Sets of images of one object."""

POSED = 250
"""Images that poses are integrated over for."""

_RARE = 1e-3  # populations below which objects are left out where poses are integrated over
_MOST_POSES = 8
_WRONG = 3.0  # standard errors from which on poses are wrong
_MOST_UNDONE = 2.0


@dataclass(frozen=True, eq=False)
class MotionEvidence:
    """What the images say of one motion.

    Attributes
    ----------
    motion : ClaimedMotion
    real : Explained
        With the motion over without it, on real images.
    null : ndarray, shape (R,)
        The same mean gain on sets of images of one object.
    expected : Mean
        The same on images of what the program claims.
    beyond_poses : Mean
        On real images, where every image may also be in a slightly wrong pose, with the motion and without.
    null_beyond_poses : Mean
        The same on images of one object in slightly wrong poses.
    """

    motion: ClaimedMotion
    real: Explained
    null: Array
    expected: Mean
    beyond_poses: Mean
    null_beyond_poses: Mean

    @property
    def p_value(self) -> float:
        """Share of the nulls that gain as much, counting the images themselves."""
        return float((1 + (self.null >= self.real.gain.value).sum()) / (1 + len(self.null)))


@dataclass(frozen=True, eq=False)
class Evidence:
    """Tables of likelihoods and what follows from them.

    Attributes
    ----------
    table : ndarray, shape (m + n, K)
        Real images under the objects, those of the fit first.
    weight : ndarray, shape (K,)
        Populations that the real images give.
    null_weight : ndarray, shape (R, K)
        Populations that sets of images of one object give.
    best : int
        The best single object.
    heterogeneous : Mean
        Log evidence of all objects over the best single one, on images that judge.
    null_heterogeneous : ndarray, shape (R,)
        The same on images of one object.
    noise : Mean
        The same on images of noise.
    rigid : Mean
        Log evidence of the best single object in slightly wrong poses over the same in those given.
    rotation_sd, shift_sd : float
        Pose errors that the images ask for where all objects are there: degrees, A.
    motions : tuple of MotionEvidence
    null_images : SimulatedImages
        Of the best single object in slightly wrong poses.
    products : Products
        Of the projections of the objects, for the images of the table.
    """

    table: Array
    weight: Array
    null_weight: Array
    best: int
    heterogeneous: Mean
    null_heterogeneous: Array
    noise: Mean
    rigid: Mean
    rotation_sd: float
    shift_sd: float
    motions: tuple[MotionEvidence, ...]
    null_images: SimulatedImages
    products: Products

    @property
    def responsibilities(self) -> Array:
        """Probability of every object given each real image, shape (m + n, K)."""
        return responsibilities(self.table, self.weight)


def gather_evidence(
    subject: Subject,
    motions: list[ClaimedMotion],
    *,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Evidence:
    """Compare all images with all objects.

    Parameters
    ----------
    subject : Subject
    motions : list of ClaimedMotion
    seed : int
    progress : ProgressReporter, optional
    """
    report = reporter_or_silent(progress)
    # Real images, noise, products, poses of real, null and single; a table and four poses for each motion.
    with report.task("compare images with structures", 6 + 5 * len(motions), "tables") as task:
        return _Gathering(subject, motions, seed, task.advance).run()


class _Gathering:
    """One pass over all tables, which tells how far it is."""

    def __init__(
        self, subject: Subject, motions: list[ClaimedMotion], seed: int, advance: Callable[[], None]
    ) -> None:
        self.subject, self.motions, self.seed, self.advance = subject, motions, seed, advance
        self.fit = np.arange(len(subject.rows)) < len(subject.fit)
        self.judges = torch.from_numpy(subject.test[:POSED])
        self.micrograph = subject.particles.micrograph[subject.test]
        self.scenes = subject.scenes()
        self.without = [subject.scenes(*motion.without(subject)) for motion in motions]

    def run(self) -> Evidence:
        """Gather everything."""
        subject, fit, real = self.subject, self.fit, self.subject.images.batch
        table = self.table(self.scenes, real)
        weight = fit_populations(table[fit])
        best = int(table[fit].mean(axis=0).argmax())
        owns = [self.table(still, real) for still in self.without]
        rotation_sd, shift_sd, posed = self.posed(self.scenes, weight, real)
        single = self.posed([self.scenes[best]], np.ones(1), real)[2]
        none = torch.full((len(subject.images),), -1)
        images = (real, subject.likelihood)
        noise = self.table(self.scenes, SimulatedImages(*images, [], none, self.seed + 3))
        products = projection_products(
            subject.likelihood,
            [*self.scenes, *(scene for still in self.without for scene in still)],
            real,
            torch.from_numpy(subject.rows),
        )
        self.advance()
        null_gains, null_weight, null_heterogeneous = self.nulls(products, best)
        expected = self.expected(products)
        null = SimulatedImages(
            *images,
            [self.scenes[best]],
            none + 1,
            self.seed + 1,
            rotation_sd=rotation_sd,
            shift_sd=shift_sd,
        )
        again_rotation, again_shift, null_posed = self.posed(self.scenes, weight, null)
        rigid = self.mean(single - table[~fit][: len(single), best])
        given = log_evidence(table[~fit], weight)[: len(posed)]
        if self.mean(posed - given).sigmas > _WRONG:
            # To second order large errors look smaller than they are; by how much, the null itself shows.
            null = replace(
                null,
                rotation_sd=_undone(rotation_sd, again_rotation),
                shift_sd=_undone(shift_sd, again_shift),
            )
            null_posed = self.posed(self.scenes, weight, null)[2]
        found = []
        for k, motion in enumerate(self.motions):
            own, still = owns[k], self.without[k]
            found.append(
                MotionEvidence(
                    motion,
                    explain(table[fit], own[fit], table[~fit], own[~fit], self.micrograph, weight),
                    null_gains[:, k],
                    expected[k],
                    self.mean(posed - self.posed_without(still, own[fit], real)),
                    self.mean(null_posed - self.posed_without(still, own[fit], null)),
                )
            )
        return Evidence(
            table=table,
            weight=weight,
            null_weight=null_weight,
            best=best,
            heterogeneous=self.mean(_over_single(table, fit, weight)),
            null_heterogeneous=null_heterogeneous,
            noise=self.mean(_over_single(noise, fit, fit_populations(noise[fit]))),
            rigid=rigid,
            rotation_sd=rotation_sd,
            shift_sd=shift_sd,
            motions=tuple(found),
            null_images=null,
            products=products.of(len(self.scenes)),
        )

    def nulls(self, products: Products, best: int) -> tuple[Array, Array, Array]:
        """Gains of motions (R, M), populations (R, K), gains of all (R,) on sets of one object's images."""
        rng = np.random.default_rng(self.seed)
        everyone = np.full(len(self.fit), best)
        k, fit = len(self.scenes), self.fit
        gains, weights, over = [], [], []
        for _ in range(NULLS):
            drawn = products.draw(everyone, rng)
            full = drawn[:, :k]
            weight = fit_populations(full[fit])
            explained = [
                explain(full[fit], own[fit], full[~fit], own[~fit], self.micrograph, weight)
                for own in np.split(drawn[:, k:], len(self.motions), axis=1)
            ]
            gains.append([one.gain.value for one in explained])
            weights.append(weight)
            over.append(_over_single(full, fit, weight, or_noise=False).mean())
        return np.array(gains), np.array(weights), np.array(over)

    def expected(self, products: Products) -> list[Mean]:
        """Gain of each motion on images of what is claimed, with the populations that are claimed."""
        rng = np.random.default_rng(self.seed + 2)
        claimed, k = self.subject.claimed, len(self.scenes)
        drawn = products.draw(rng.choice(k, len(self.fit), p=claimed), rng)[~self.fit]
        full = log_evidence(drawn[:, :k], claimed)
        owns = np.split(drawn[:, k:], len(self.motions), axis=1)
        return [self.mean(full - log_evidence(own, claimed)) for own in owns]

    def table(self, scenes: list[Scene], source: ImageSource) -> Array:
        """Log likelihoods of all images."""
        found = self.subject.table(scenes, self.subject.rows, source)
        self.advance()
        return found

    def posed(self, scenes: list[Scene], weight: Array, source: ImageSource) -> tuple[float, float, Array]:
        """Pose errors (degrees, A) and log evidence of images that may be in slightly wrong poses."""
        held = np.argsort(-weight)[:_MOST_POSES]
        held = held[weight[held] > _RARE]
        share = weight[held] / weight[held].sum()
        expansion = expand_poses(self.subject.likelihood, [scenes[k] for k in held], source, self.judges)
        rotation_sd, shift_sd = fit_pose_sd(expansion, share)
        self.advance()
        return rotation_sd, shift_sd, log_evidence(expansion.evidence(rotation_sd, shift_sd), share)

    def posed_without(self, scenes: list[Scene], fit_table: Array, source: ImageSource) -> Array:
        """The better of all objects without a motion and the best one of them alone."""
        weight = fit_populations(fit_table)
        best = np.zeros(len(weight))
        best[fit_table.mean(axis=0).argmax()] = 1.0
        several = self.posed(scenes, weight, source)[2]
        one = self.posed(scenes, best, source)[2]
        return several if several.mean() >= one.mean() else one

    def mean(self, values: Array) -> Mean:
        """Over the images that judge, or the first of them."""
        return mean_over_images(values, self.micrograph[: len(values)])


def _undone(put_in: float, found: float) -> float:
    """The error that would be found as large as what was put in, where that was found as `found`."""
    return put_in * min(put_in / found, _MOST_UNDONE) if found > 0 else put_in


def _over_single(table: Array, fit: NDArray[np.bool_], weight: Array, *, or_noise: bool = True) -> Array:
    """Log evidence of all objects over the best single one, or over noise alone where that is better."""
    mean = table[fit].mean(axis=0)
    alone = table[~fit][:, mean.argmax()]
    # Tables that are known up to a constant an image say nothing of noise.
    return log_evidence(table[~fit], weight) - (0.0 if or_noise and mean.max() <= 0 else alone)
