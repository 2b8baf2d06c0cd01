"""What is judged: structures or maps that a program made of particles, and how images are compared with them.

All that most checks need is a set of objects (structures or maps) that cover what the program claims, the
populations it claims for them, and a likelihood of images under each. Whoever can give these can be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.populations.likelihood_table import candidate_codes, image_table
from cryoscape.analysis.validation.nats import need_nats
from cryoscape.analysis.validation.simulated_images import ImageSource
from cryoscape.data.images import BandImages
from cryoscape.data.particles import Particles
from cryoscape.models.decoders.base import Decoder, Scene, StructureDecoder
from cryoscape.models.density import coordinate_maps
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.physics.fourier_voxels import from_rows
from cryoscape.physics.slices import interpolation_envelope, invert_volume
from cryoscape.progress import ProgressReporter
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training.assemble import Geometry

if TYPE_CHECKING:
    from cryoscape.training.run import Run

_POOL = 256


@dataclass(frozen=True, eq=False)
class Subject:
    """Objects that a program claims, with the images that should support them.

    Attributes
    ----------
    source : str
        Name of the program.
    path : Path
        The run, or the file of the objects.
    particles : Particles
    images : BandImages
    likelihood : GaussianLikelihood
    decoder : Decoder
        Makes scenes of objects.
    geometry : Geometry
    objects : Tensor, shape (K, ...)
        Structures (N, 3) in the world frame, A, or Fourier voxels of maps.
    present : Tensor, shape (K, chains), or None
        Share of every chain that is there; None where all always are.
    claimed : ndarray, shape (K,)
        Populations that the program claims for the objects.
    test, fit : ndarray of int64
        Rows of particles that were never trained on, and of others.
    held_out : bool
        Whether that is true of `test`; of other programs nobody knows.
    structure : AtomicModel or None
        The reference, where objects are structures.
    run : Run or None
        Where it is one of ours: it can embed and decode.
    """

    source: str
    path: Path
    particles: Particles
    images: BandImages
    likelihood: GaussianLikelihood
    decoder: Decoder
    geometry: Geometry
    objects: Tensor
    present: Tensor | None
    claimed: NDArray[np.float64]
    test: NDArray[np.int64]
    fit: NDArray[np.int64]
    held_out: bool
    structure: AtomicModel | None
    run: Run | None

    @property
    def has_structures(self) -> bool:
        """Whether objects are structures, and not maps."""
        return isinstance(self.decoder, StructureDecoder)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Rows of all particles that are looked at, those to fit first."""
        return np.concatenate([self.fit, self.test])

    def scenes(self, objects: Tensor | None = None, present: Tensor | None = None) -> list[Scene]:
        """Scenes of one object each; of the subject's own by default."""
        if objects is None:
            objects, present = self.objects, self.present
        if isinstance(self.decoder, StructureDecoder) and present is not None:
            return [self.decoder.scene(one[None], part[None]) for one, part in zip(objects, present)]
        return [self.decoder.scene(one[None]) for one in objects]

    def table(
        self,
        scenes: Sequence[Scene],
        rows: NDArray[np.int64],
        source: ImageSource | None = None,
        progress: ProgressReporter | None = None,
    ) -> NDArray[np.float64]:
        """Log likelihood (n, K) of real images of some rows, or of others in their poses, nats."""
        return image_table(
            self.likelihood, scenes, source or self.images.batch, torch.from_numpy(rows), progress=progress
        )

    @torch.no_grad()
    def maps(self, objects: Tensor) -> NDArray[np.float32]:
        """Density (k, box, box, box) of objects (k, ...), in the scale and the band of the images."""
        if isinstance(self.decoder, StructureDecoder):
            return coordinate_maps(self.decoder, self.likelihood, objects, self.geometry.scale).numpy()
        box, pixel = self.likelihood.box, self.likelihood.pixel_size
        envelope = interpolation_envelope(box)
        volumes = [
            invert_volume(from_rows(rows, box) * self.geometry.scale, pixel) * envelope for rows in objects
        ]
        return torch.stack(volumes).numpy()


def subject_of_run(run: Run, *, candidates: int, most: int, seed: int = 0) -> Subject:
    """One of our runs.

    Parameters
    ----------
    run : Run
        With an embedding, and its images at hand.
    candidates : int
        How many objects.
    most : int
        Particles to look at, of those that were held out and again of the others.
    seed : int

    Returns
    -------
    Subject

    Raises
    ------
    InputError
        If the likelihood is not in nats, so that nothing can be judged.
    """
    model = run.image_model
    need_nats(model.likelihood, run.path)
    assert isinstance(model.likelihood, GaussianLikelihood)
    embedding = run.embedding
    rng = np.random.default_rng(seed)
    held_out = bool(embedding.held_out.sum() >= 20)
    hidden = np.flatnonzero(embedding.held_out) if held_out else np.arange(len(embedding))[1::2]
    others = np.setdiff1d(np.arange(len(embedding)), hidden)
    z = torch.from_numpy(candidate_codes(run, candidates, seed))
    with torch.no_grad():
        objects = torch.cat([model.decoder.objects(one[None]) for one in z])
        present = model.decoder.occupancy(z) if isinstance(model.decoder, StructureDecoder) else None
    return Subject(
        source="cryoscape",
        path=Path(run.path),
        particles=run.particles,
        images=run.images(),
        likelihood=model.likelihood,
        decoder=model.decoder,
        geometry=run.geometry,
        objects=objects,
        present=present,
        claimed=_claimed(run, z, objects, seed),
        test=np.sort(rng.permutation(hidden)[:most]),
        fit=np.sort(rng.permutation(others)[:most]),
        held_out=held_out,
        structure=run.model if run.has_structures else None,
        run=run,
    )


def _claimed(run: Run, z: Tensor, objects: Tensor, seed: int) -> NDArray[np.float64]:
    """Share of what a run shows its user, drawn half from posteriors and half from the prior, by object."""
    rng = np.random.default_rng(seed + 1)
    embedding = run.embedding
    rows = rng.permutation(len(embedding))[:_POOL]
    noise = rng.standard_normal((len(rows), z.shape[1])).astype(np.float32)
    draws = embedding.z[rows] + embedding.z_sd[rows] * noise
    if run.prior.support == "binary":
        draws = (rng.random(noise.shape) < embedding.z[rows]).astype(np.float32)
    pool = torch.from_numpy(np.concatenate([draws, run.sample(_POOL, seed + 1)]))
    places, targets = pool, z
    if run.has_structures:
        with torch.no_grad():
            places = run.image_model.decoder.objects(pool).flatten(1)
        targets = objects.flatten(1)
    nearest = torch.cdist(places.double(), targets.double()).argmin(1)
    return np.bincount(nearest.numpy(), minlength=len(z)) / len(pool)
