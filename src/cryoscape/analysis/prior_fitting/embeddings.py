"""Embeddings as priors are fitted to them: points, what is known of their errors, where they come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError

if TYPE_CHECKING:
    import torch

    from cryoscape.priors.base import LatentPrior
    from cryoscape.priors.fitting import Objective
    from cryoscape.priors.posterior_samples import PosteriorSamples

Support = Literal["real", "binary"]

NO_ERRORS = "Give an embedding with z_sd (one of our runs, or .npz), or leave out --objective."
"""What to do where points without errors are to be deconvolved."""

_MOST_SAMPLES = 32
_MOST_NUMBERS = 100_000_000
_MOST_POINTS = 200_000
# A direction of which an image says nothing gets this many times the spread of the points.
_VAGUE = 3.0


@dataclass(frozen=True, eq=False)
class EmbeddingSource:
    """N points of d dimensions, and what they are.

    Attributes
    ----------
    path : Path
        Where they were read.
    z : ndarray, shape (N, d)
        Posterior means; of bits the probabilities of 1, or the bits.
    z_sd : ndarray, shape (N, d), or None
        Standard deviations of Gaussian posteriors with independent dimensions.
    covariance : ndarray, shape (N, d, d), or None
        Of likelihoods, which are posteriors under a flat prior.
    support : {"real", "binary"}
        Binary where all values are 0 or 1, or the run says so.
    reference : LatentPrior or None
        The prior that the posteriors were made under.
    own_prior : str
        The kind of `reference`, where it is a run's and of interest itself; else empty.
    description : str
        For people.
    cautions : tuple of str
        Why a deconvolution of these posteriors is not to be trusted.
    no_errors : str
        What to do where a deconvolution is asked for and there are no errors.
    """

    path: Path
    z: NDArray[np.float64]
    z_sd: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    support: Support = "real"
    reference: LatentPrior | None = None
    own_prior: str = ""
    description: str = "points"
    cautions: tuple[str, ...] = ()
    no_errors: str = NO_ERRORS

    def __len__(self) -> int:
        return len(self.z)

    @property
    def z_dim(self) -> int:
        """Dimension d."""
        return self.z.shape[1]

    @property
    def measures(self) -> bool:
        """Whether it is known what embedding a particle gets whose true place is given."""
        from cryoscape.priors.normal import NormalPrior

        if self.support == "binary":
            return False
        return self.covariance is not None or (
            self.z_sd is not None and isinstance(self.reference, NormalPrior)
        )

    def rows(self, index: NDArray[np.int64]) -> EmbeddingSource:
        """Some of the particles."""
        z_sd, covariance = (None if a is None else a[index] for a in (self.z_sd, self.covariance))
        return replace(self, z=self.z[index], z_sd=z_sd, covariance=covariance)

    def measured(self, points: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
        """The embeddings that the particles would get if these were their true places.

        An image says y = z + noise. Its likelihood has the covariance that is known, and y is the embedding;
        or its posterior under N(0, 1) has the variance s^2, so that the noise has s^2 / (1 - s^2) and the
        embedding is (1 - s^2) y.

        Parameters
        ----------
        points : ndarray, shape (N, d)
            One a particle.
        seed : int
            Of the noise.
        """
        noise = np.random.default_rng(seed).standard_normal(points.shape)
        if self.covariance is not None:
            return points + np.einsum("nij,nj->ni", np.linalg.cholesky(self.covariance), noise)
        assert self.z_sd is not None
        s = np.minimum(self.z_sd, 1.0)
        return (1 - s**2) * points + s * np.sqrt(1 - s**2) * noise

    def need_support(self, support: str, kind: str) -> None:
        """Refuse a kind of prior that does not live where the points do.

        Parameters
        ----------
        support : {"real", "binary"}
            Of the prior.
        kind : str
            Its name, for the message.

        Raises
        ------
        InputError
        """
        if support == "real" and self.support == "binary":
            raise InputError(
                f"these are bits, and {kind} is a law of real numbers",
                file=self.path,
                remedy="Use a prior of bits: bm, rbm, dbm or bernoulli.",
            )
        if support == "binary":
            outside = ((self.z < 0) | (self.z > 1)).any(axis=1)
            if outside.any():
                row = int(outside.argmax())
                worst = self.z[row][np.abs(self.z[row] - 0.5).argmax()]
                raise InputError(
                    f"{kind} is a law of bits and takes bits or probabilities; here is a {worst:.4g}",
                    file=self.path,
                    row=row + 1,
                    remedy="Give values from 0 to 1, or a kind for real numbers, for example mixture.",
                )

    def posterior_samples(
        self,
        objective: Objective = "aggregate",
        support: Support | None = None,
        seed: int = 0,
        count: int | None = None,
    ) -> PosteriorSamples:
        """Return what a prior is fitted to: samples of the posteriors, or the points where those are all.

        Probabilities of bits are sampled.

        Parameters
        ----------
        objective : {"aggregate", "deconvolved"}
        support : {"real", "binary"}, optional
            Of the prior; by default that of the points. Points from 0 to 1 can be taken as probabilities.
        seed : int
            Of the samples.
        count : int, optional
            Samples a particle. By default up to 32; fewer for a deconvolution where they would fill the
            memory, and otherwise where there are many particles.

        Raises
        ------
        InputError
            If a deconvolution is asked for and the errors are not known.
        """
        import torch

        from cryoscape.priors.posterior_samples import PosteriorSamples

        if objective == "deconvolved":
            self._need_errors()
        deconvolved = objective == "deconvolved"
        most = _MOST_NUMBERS // self.z.size if deconvolved else _MOST_POINTS // len(self)
        count = max(2, min(_MOST_SAMPLES, most)) if count is None else count
        # What the samples weigh under the prior that they were made with is of no interest otherwise.
        reference = self.reference if deconvolved else None
        z = torch.from_numpy(self.z).float()
        if (support or self.support) == "binary":
            if np.isin(self.z, (0.0, 1.0)).all():
                return PosteriorSamples.of_points(z)
            if reference is None:
                return _bits(z, count, seed)
            return PosteriorSamples.of_probabilities(z, reference, count, seed)
        if self.covariance is not None:
            noise = torch.randn(count, *z.shape, generator=torch.Generator().manual_seed(seed))
            root = torch.from_numpy(np.linalg.cholesky(self.covariance)).float()
            samples = z + torch.einsum("nij,knj->kni", root, noise)
            # The likelihood of an image is its posterior under a flat prior, whose log is 0.
            return PosteriorSamples(samples, torch.zeros(count, len(z)))
        if self.z_sd is None:
            return PosteriorSamples.of_points(z)
        sd = torch.from_numpy(self.z_sd).float()
        return PosteriorSamples.of_gaussians(z, sd, reference, count, seed)

    def _need_errors(self) -> None:
        if self.support == "binary":
            known = self.reference is not None and not np.isin(self.z, (0.0, 1.0)).all()
        else:
            known = self.z_sd is not None or self.covariance is not None
        if not known:
            raise InputError(
                "points without errors cannot be deconvolved", file=self.path, remedy=self.no_errors
            )


def _bits(probability: torch.Tensor, count: int, seed: int) -> PosteriorSamples:
    """Sample independent bits whose prior is not known."""
    import torch

    from cryoscape.priors.posterior_samples import PosteriorSamples

    generator = torch.Generator().manual_seed(seed)
    z = (torch.rand(count, *probability.shape, generator=generator) < probability).float()
    return PosteriorSamples(z, torch.zeros(count, len(probability)))


def covariance_of(precision: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert precisions that may be singular.

    Parameters
    ----------
    precision : ndarray, shape (N, d, d)
        Symmetric. Where an image says nothing, the standard deviation is limited to three times the largest
        spread of the points.
    points : ndarray, shape (N, d)

    Returns
    -------
    ndarray, shape (N, d, d)
    """
    values, vectors = np.linalg.eigh(0.5 * (precision + precision.transpose(0, 2, 1)))
    spread = np.sqrt(points.var(axis=0).max())
    values = np.maximum(values, 1.0 / max(_VAGUE * spread, 1e-150) ** 2)
    return (vectors / values[:, None, :]) @ vectors.transpose(0, 2, 1)
