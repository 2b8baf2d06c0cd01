"""Is the encoder's posterior as wide as its errors are? Asked of images of which the truth is known.

Images are simulated of conformations drawn from the prior, in the poses of held-out particles, and encoded.
If posteriors are right, the truth is a draw like any other: its rank among draws is even (Talts et al. 2018,
simulation-based calibration). It is judged along motions of the decoded objects, in their units, because a
posterior over z may be wrong where nothing moves. What is tested is the encoder on the images that the model
itself makes: an encoder that never saw a region where the prior has mass fails there, and should.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.validation.nats import need_nats
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.simulated_images import SimulatedImages
from cryoscape.models.decoders.base import Decoder, Scene
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.progress import ProgressReporter, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.training.run import Run

Array = NDArray[np.float64]
Coordinates = Callable[[Tensor], Tensor]
"""Coordinates (n, m) along m motions of latents (n, d)."""

TOLERANCE = 0.2
"""By how much the variance of z-scores may differ from 1: standard deviations are then right to 10 %."""

LEVELS = (0.5, 0.9, 0.95)
IMAGES = 400
"""Their z-scores give a variance to 7 %, which is a third of the tolerance."""

DRAWS = 64
_BATCH = 64
_CHUNK = 512


class _DecodedScenes(Sequence[Scene]):
    """Scenes of latents (n, d), decoded when they are asked for: many maps do not fit in memory."""

    def __init__(self, decoder: Decoder, z: Tensor) -> None:
        self._decoder, self._z = decoder, z

    def __len__(self) -> int:
        return len(self._z)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        return self._decoder(self._z[index : index + 1])


def along(decoder: Decoder, axes: Array, chunk: int = _CHUNK) -> Coordinates:
    """Projection of decoded objects on axes.

    Parameters
    ----------
    decoder : Decoder
    axes : ndarray, shape (m, D)
        D numbers of an object of the decoder.
    chunk : int
        How many latents are decoded at a time.
    """
    basis = torch.as_tensor(np.asarray(axes), dtype=torch.float32).reshape(len(axes), -1)

    def project(z: Tensor) -> Tensor:
        return torch.cat([decoder.objects(part).flatten(1) @ basis.T for part in z.split(chunk)])

    return project


@dataclass(frozen=True, eq=False)
class PosteriorCalibration:
    """How the truth lies among posterior draws, along m motions.

    Attributes
    ----------
    mean, variance : ndarray, shape (m,)
        Of z-scores, (truth - posterior mean) / posterior sd. Bits: of errors over the root mean square sd.
    coverage : ndarray, shape (m, 3)
        Of central intervals of 50, 90 and 95 %.
    error : ndarray, shape (m,)
        Root mean square of truth less posterior mean, in the unit of the coordinate.
    images : int
    """

    mean: Array
    variance: Array
    coverage: Array
    error: Array
    images: int


def calibration_of_draws(
    truth: Array, draws: Array, *, pooled: bool = False, seed: int = 0
) -> PosteriorCalibration:
    """Compare truths with posterior draws.

    Parameters
    ----------
    truth : ndarray, shape (n, m)
    draws : ndarray, shape (D, n, m)
        At least 4 of each.
    pooled : bool
        Divide by the standard deviation of all posteriors together: those of single images may be zero, as
        where all bits are certain.
    seed : int
        Of the places of ties, which are drawn.

    Returns
    -------
    PosteriorCalibration
    """
    n_draws, n = draws.shape[:2]
    centre, spread2 = draws.mean(axis=0), draws.var(axis=0, ddof=1)
    if pooled:
        spread2 = np.broadcast_to(spread2.mean(axis=0), spread2.shape)
    score = (truth - centre) / np.sqrt(np.maximum(spread2, 1e-300))
    # Variance of such a score of normal draws: of the mean, and of the estimated standard deviation.
    expected = 1 + 1 / n_draws
    expected *= 1.0 if pooled else (n_draws - 1) / (n_draws - 3)
    # The truth's place among the draws, as a share: even if all are draws of one law.
    below, equal = (draws < truth).sum(axis=0), (draws == truth).sum(axis=0)
    jitter = np.random.default_rng(seed).random(truth.shape)
    place = (below + jitter * (equal + 1)) / (n_draws + 1)
    coverage = np.stack([(np.abs(place - 0.5) <= 0.5 * level).mean(axis=0) for level in LEVELS], axis=-1)
    return PosteriorCalibration(
        score.mean(axis=0),
        score.var(axis=0, ddof=1) / expected,
        coverage,
        np.sqrt(np.square(truth - centre).mean(axis=0)),
        n,
    )


@torch.no_grad()
def simulated_posteriors(
    run: Run,
    coordinates: Coordinates,
    rows: Tensor,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> tuple[Array, Array]:
    """Coordinates of conformations drawn from the prior, and of what the encoder makes of their images.

    Parameters
    ----------
    run : Run
        With an encoder and a gaussian likelihood.
    coordinates : callable
        Coordinates (n, m) of latents (n, d), for example `along`.
    rows : Tensor, shape (n,), int64
        Particles whose poses and transfer functions are used.
    draws : int
        D, posterior draws an image.
    seed : int
        Of everything that is drawn.
    progress : ProgressReporter, optional

    Returns
    -------
    truth : ndarray, shape (n, m)
    draws : ndarray, shape (D, n, m)
    """
    model = run.image_model
    assert isinstance(model.likelihood, GaussianLikelihood)
    z = torch.from_numpy(run.sample(len(rows), seed))
    particles = run.images()
    choice = torch.full((len(particles),), -1, dtype=torch.int64)
    choice[rows] = torch.arange(len(rows))
    scenes = _DecodedScenes(model.decoder, z)
    images = SimulatedImages(particles.batch, model.likelihood, scenes, choice, seed)
    generator = torch.Generator().manual_seed(seed)
    found = []
    with reporter_or_silent(progress).task("posteriors of simulated images", len(rows), "images") as task:
        for part in rows.split(_BATCH):
            posterior = model.posterior(model.features(images(part)))
            drawn = posterior.sample(draws, generator)
            found.append(coordinates(drawn.flatten(0, 1)).unflatten(0, (draws, len(part))))
            task.advance(len(part))
    return coordinates(z).double().numpy(), torch.cat(found, dim=1).double().numpy()


def posterior_check(
    run: Run,
    coordinates: Coordinates,
    rows: Tensor,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> Check:
    """Calibration of the encoder as a check.

    Parameters
    ----------
    run, coordinates, rows, draws, seed, progress
        As in `simulated_posteriors`.

    Returns
    -------
    Check
        Passed where the variance of z-scores is 1 +- 0.2 along every motion. Not run where the posteriors
        were given to the run, which then has no encoder.

    Raises
    ------
    InputError
        If the likelihood has no noise to simulate.
    """
    name = "posterior calibration"
    if run.info.get("latents_from"):
        return Check(7, name, Status.NOT_RUN, "The run was given its posteriors and has no encoder.")
    need_nats(run.image_model.likelihood)
    truth, drawn = simulated_posteriors(run, coordinates, rows, draws=draws, seed=seed, progress=progress)
    bits = run.prior.support == "binary"
    found = calibration_of_draws(truth, drawn, pooled=bits, seed=seed)
    worst = int(np.abs(found.variance - 1).argmax())
    variance = float(found.variance[worst])
    status = Status.PASSED if abs(variance - 1) <= TOLERANCE else Status.FAILED
    inside = ", ".join(f"{share:.0%} of {level:.0%}" for share, level in zip(found.coverage[worst], LEVELS))
    text = (
        f"On {found.images} simulated images errors of the posterior mean have {variance:.2f} times the "
        f"variance that posteriors claim (z-scores: mean {found.mean[worst]:+.2f}); intervals hold {inside}."
    )
    values = {
        "z_mean": found.mean,
        "z_variance": found.variance,
        "coverage": found.coverage,
        "levels": LEVELS,
        "error": found.error,
        "images": found.images,
        "pooled": bits,
    }
    return Check(7, name, status, text, values)
