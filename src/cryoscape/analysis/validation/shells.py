"""Held-out nats by resolution shell, also in shells that training never saw.

What a model learnt from coarse shells it may predict in fine ones, or not: a structure that is right goes on
to be right, a blur that was bent to fit noise does not. Errors of the poses are the same in all shells, so a
motion that imitates them gains in unseen shells too: `rigid_body` tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.validation.nats import need_nats
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.simulated_images import ImageSource
from cryoscape.data.images import BandImages
from cryoscape.models.decoders.base import AtomicScene, Scene
from cryoscape.models.likelihoods import GaussianLikelihood, Likelihood
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles

Array = NDArray[np.float64]

NEEDED_ERRORS = 2.0
"""Standard errors from zero at which a gain, or a loss, in unseen shells is one."""

FINER = 1.5
"""How much finer than the training the unseen shells go, where the pixels allow: beyond that single particles
hold next to nothing, and every empty shell adds noise to the sum."""

_BATCH = 64


@torch.no_grad()
def shell_table(
    likelihood: GaussianLikelihood,
    scenes: Sequence[Scene],
    images: ImageSource,
    rows: Tensor,
    *,
    progress: ProgressReporter | None = None,
) -> Array:
    """Log likelihood of images under K scenes of one object each, shell by shell.

    Parameters
    ----------
    likelihood : GaussianLikelihood
    scenes : sequence of Scene
    images : callable
        Batches of rows (B,).
    rows : Tensor, shape (n,), int64
    progress : ProgressReporter, optional

    Returns
    -------
    ndarray, shape (n, K, S)
        Nats over pure noise in the shells 0 .. S - 1, near s / (box * pixel size); their sum is
        `image_table`.

    Raises
    ------
    InputError
        If the likelihood is not in nats.
    """
    need_nats(likelihood)
    table = np.empty((len(rows), len(scenes), likelihood.n_shells))
    indicator = likelihood.indicator.double()
    with reporter_or_silent(progress).task("likelihoods by shell", len(rows), "images") as task:
        for start in range(0, len(rows), _BATCH):
            batch = images(rows[start : start + _BATCH])
            scale = likelihood.noise[:, likelihood.shells].rsqrt()[batch.group]
            x = torch.view_as_real(batch.images * scale)
            transfer = likelihood.transfer(batch.ctf, batch.group) * scale
            for k, scene in enumerate(scenes):
                y = scene.project(batch.rotations, likelihood.box, likelihood.pixel_size) * transfer
                y = torch.view_as_real(y)
                nats = (y * (x - 0.5 * y)).sum(-1)
                table[start : start + len(batch.rows), k] = (nats.flatten(1).double() @ indicator).numpy()
            task.advance(len(batch.rows))
    return table


@dataclass(frozen=True, eq=False)
class ShellGain:
    """Nats an image by which many structures explain shells better than the best single one does.

    Attributes
    ----------
    shell : ndarray, shape (S,), int64
    frequency : ndarray, shape (S,)
        1/A.
    gain, error : ndarray, shape (S,)
        Mean over images and its standard error, nats.
    total, total_error : float
        Of all shells together; with the spread of their sum.
    images : int
    """

    shell: NDArray[np.int64]
    frequency: Array
    gain: Array
    error: Array
    total: float
    total_error: float
    images: int

    def as_values(self) -> dict[str, object]:
        """Everything by name, for a record."""
        return {
            "shell": self.shell,
            "frequency": self.frequency,
            "gain": self.gain,
            "error": self.error,
            "total": self.total,
            "total_error": self.total_error,
            "images": self.images,
        }


def shell_gain(
    table: Array,
    responsibilities: Array,
    single: int,
    side: float,
    *,
    first: int = 0,
    running: bool = False,
) -> ShellGain:
    """Gain of a mixture over one of its structures, shell by shell.

    The mixture's nats in a shell are ln sum_k r_k exp(l_k), the log of what it predicts there. With
    responsibilities from other shells that is a prediction. With `running` they are those that the shells
    before leave of what is given (populations, say), and the gains add up to the gain in log evidence,
    because p(x_1, x_2, ...) = p(x_1) p(x_2 | x_1) ...

    Parameters
    ----------
    table : ndarray, shape (n, K, S)
        From `shell_table`.
    responsibilities : ndarray, shape (n, K) or (K,)
        Of the structures in each image, before the first shell.
    single : int
        The structure compared with.
    side : float
        Field of view, box times pixel size, A.
    first : int
        First shell of the table that counts.
    running : bool
        Whether each shell changes the responsibilities for the next.

    Returns
    -------
    ShellGain
    """
    table = np.asarray(table, dtype=np.float64)[:, :, first:]
    n, _, s = table.shape
    with np.errstate(divide="ignore"):
        prior = np.broadcast_to(np.log(responsibilities), table.shape[:2])
    gains = np.empty((n, s))
    for shell in range(s):
        joint = prior + table[:, :, shell]
        predicted = np.logaddexp.reduce(joint, axis=1)
        gains[:, shell] = predicted - table[:, single, shell]
        if running:
            prior = joint - predicted[:, None]
    index = np.arange(first, first + s)
    total, root = gains.sum(axis=1), np.sqrt(n)
    return ShellGain(
        index,
        index / side,
        gains.mean(axis=0),
        gains.std(axis=0, ddof=1) / root,
        float(total.mean()),
        float(total.std(ddof=1) / root),
        n,
    )


def unseen_cutoff(likelihood: Likelihood, particles: Particles) -> float | None:
    """Resolution limit, A, of a band that goes beyond that of the training; None where the pixels allow none.

    Parameters
    ----------
    likelihood : Likelihood
        Of the training.
    particles : Particles
    """
    finest = max(2 * particles.pixel_size, likelihood.cutoff / FINER)
    side = particles.box * particles.pixel_size
    # One shell that is whole has to fit in between, below the Nyquist row.
    return finest if int(side / finest + 1e-6) > likelihood.n_shells else None


@torch.no_grad()
def finer_likelihood(images: BandImages, single: Scene, rows: Tensor) -> GaussianLikelihood:
    """Likelihood of a wider band, with gain and noise fitted to one structure.

    What differs between structures cannot leak into the fit: it knows only one of them.

    Parameters
    ----------
    images : BandImages
        In the wider band.
    single : Scene
        The best single structure.
    rows : Tensor, shape (n,), int64
        Training particles.

    Returns
    -------
    GaussianLikelihood
    """
    likelihood = GaussianLikelihood(images.box, images.pixel_size, images.cutoff, images.n_groups)
    sums = torch.zeros_like(likelihood.sums)
    for part in rows.split(_BATCH):
        batch = images.batch(part)
        y = single.project(batch.rotations, images.box, images.pixel_size)
        sums += likelihood.accumulate(batch.images, y, batch.ctf, batch.group)
    likelihood.fit(sums)
    return likelihood


def unseen_gain(
    likelihood: GaussianLikelihood,
    particles: Particles,
    scenes: Sequence[Scene],
    single: int,
    responsibilities: Array,
    *,
    training_rows: Tensor,
    rows: Tensor,
    progress: ProgressReporter | None = None,
) -> ShellGain | str:
    """Gain in the shells beyond those of the training.

    Parameters
    ----------
    likelihood : GaussianLikelihood
        Of the training.
    particles : Particles
    scenes : sequence of Scene, length K
    single : int
        The best single structure.
    responsibilities : ndarray, shape (n, K)
        Of the structures in each of the judged images, from the band of the training alone.
    training_rows : Tensor
        Particles that gain and noise are fitted to.
    rows : Tensor, shape (n,), int64
        Particles that are judged.
    progress : ProgressReporter, optional

    Returns
    -------
    ShellGain or str
        Why there is none: maps have nothing beyond their band, and there may be no finer shell.
    """
    if not all(isinstance(scene, AtomicScene) for scene in scenes):
        return "maps hold nothing beyond the band they were trained in"
    cutoff = unseen_cutoff(likelihood, particles)
    if cutoff is None:
        return f"the training already reaches {likelihood.cutoff:.2f} A, at the limit of the pixels"
    images = BandImages(particles, cutoff, cache_memory=0.0)
    finer = finer_likelihood(images, scenes[single], training_rows)
    table = shell_table(finer, scenes, images.batch, rows, progress=progress)
    side = finer.box * finer.pixel_size
    return shell_gain(table, responsibilities, single, side, first=likelihood.n_shells)


def shells_check(seen: ShellGain, unseen: ShellGain | str) -> Check:
    """Held-out nats by shell as a check.

    Parameters
    ----------
    seen : ShellGain
        In the band of the training, held-out images.
    unseen : ShellGain or str
        Beyond it, or why not.

    Returns
    -------
    Check
        Passed where unseen shells gain more than two standard errors, failed where they lose as much.
        In between nothing is said: there may be no signal to predict. Not run where there are none.
    """
    text = (
        f"In the shells of the training the motion explains {seen.total:+.3f} +- {seen.total_error:.3f} nats"
    )
    values: dict[str, object] = {"seen": seen.as_values()}
    if isinstance(unseen, str):
        values["unseen"] = None
        return Check(8, "unseen shells", Status.NOT_RUN, f"{text} a held-out image; {unseen}.", values)
    low, high = (1 / f for f in unseen.frequency[[0, -1]])
    text += (
        f" a held-out image; in shells that it never saw ({low:.1f} to {high:.1f} A), {unseen.total:+.4f} +- "
        f"{unseen.total_error:.4f}."
    )
    away = unseen.total / max(unseen.total_error, 1e-300)
    status = Status.REPORTED
    if abs(away) > NEEDED_ERRORS:
        status = Status.PASSED if away > 0 else Status.FAILED
    return Check(8, "unseen shells", status, text, {**values, "unseen": unseen.as_values()})
