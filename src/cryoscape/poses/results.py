"""What a pose search found: per particle, as files, and in a few lines."""

from __future__ import annotations

from dataclasses import dataclass, fields
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from cryoscape.data.particles import Particles
from cryoscape.files import atomic_path
from cryoscape.poses.locate import Located

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PoseTable:
    """Poses of N particles before and after.

    Attributes
    ----------
    uid : ndarray, shape (N,), uint64
        The particle.
    row : ndarray, shape (N,), int64
        Its row in the source table, from 0.
    rotations_given, rotations : ndarray, shape (N, 3, 3)
        From model to view, before and after.
    shifts_given, shifts : ndarray, shape (N, 2)
        Angstrom.
    gain : ndarray, shape (N,)
        Nats that the pose found is more likely than the one given.
    moved : ndarray, shape (N,), bool
        False where no pose was better than the one given, which then stays.
    angle : ndarray, shape (N,)
        Degrees between the two; 0 where not moved.
    distance : ndarray, shape (N,)
        Angstrom between the two shifts.
    rotation_sd : ndarray, shape (N,)
        Posterior standard deviation per axis at the pose found, degrees.
    shift_sd : ndarray, shape (N,)
        The same of the shift, Angstrom.
    ambiguity : ndarray, shape (N,)
        Probability of the other poses that were found, 0 to 1.
    """

    uid: NDArray[np.uint64]
    row: NDArray[np.int64]
    rotations_given: Floats
    rotations: Floats
    shifts_given: Floats
    shifts: Floats
    gain: Floats
    moved: NDArray[np.bool_]
    angle: Floats
    distance: Floats
    rotation_sd: Floats
    shift_sd: Floats
    ambiguity: Floats

    def __len__(self) -> int:
        return len(self.uid)

    @classmethod
    def compare(cls, particles: Particles, located: Located) -> PoseTable:
        """Keep what is better than the pose given.

        Parameters
        ----------
        particles : Particles
            N of them, with the poses given.
        located : Located
            Poses found; their shifts count from those given.
        """
        rotations_given, shifts_given = particles.rotations, particles.shifts
        assert rotations_given is not None
        gain = (located.log_prob - located.log_prob_given).double().numpy()
        moved = gain > 0
        rotations = np.where(moved[:, None, None], located.rotations.numpy(), rotations_given)
        shifts = np.where(moved[:, None], shifts_given + located.shifts.numpy(), shifts_given)
        variance = located.covariance.diagonal(dim1=1, dim2=2).numpy()
        return cls(
            uid=particles.uid,
            row=particles.row,
            rotations_given=rotations_given,
            rotations=rotations,
            shifts_given=shifts_given,
            shifts=shifts,
            gain=gain,
            moved=moved,
            angle=angle_between(rotations_given, rotations),
            distance=np.linalg.norm(shifts - shifts_given, axis=1),
            rotation_sd=np.rad2deg(np.sqrt(variance[:, :3].mean(1))),
            shift_sd=np.sqrt(variance[:, 3:].mean(1)),
            ambiguity=located.ambiguity.double().numpy(),
        )

    def write(self, path: str | PathLike[str]) -> None:
        """Save as .npz, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **{f.name: getattr(self, f.name) for f in fields(self)})

    def lines(self, pixel_size: float) -> list[str]:
        """Summary in physical units.

        Parameters
        ----------
        pixel_size : float
            Of the images, Angstrom.
        """
        n, moved = len(self), int(self.moved.sum())
        far = [int((self.angle > limit).sum()) for limit in (2, 5, 20)]
        doubtful = int((self.ambiguity > 0.5).sum())
        return [
            f"{n} particles: {moved} have a better pose, {n - moved} keep theirs",
            f"moved by more than 2, 5, 20 degrees: {far[0]}, {far[1]}, {far[2]}",
            f"median change {np.median(self.angle):.2f} degrees and {np.median(self.distance):.2f} A "
            f"({np.median(self.distance) / pixel_size:.2f} px)",
            f"gain {self.gain.clip(min=0).mean():.1f} nats a particle, median {np.median(self.gain):.1f}",
            f"posterior sd per axis: median {np.median(self.rotation_sd):.2f} degrees, "
            f"{np.median(self.shift_sd):.2f} A; {doubtful} particles are ambiguous",
        ]


def angle_between(a: Floats, b: Floats) -> Floats:
    """Angle between rotations (N, 3, 3), degrees, exact for small ones and 0 for equal ones."""
    relative = np.einsum("nji,njk->nik", a, b)
    sine = np.linalg.norm(
        [relative[:, i, j] - relative[:, j, i] for i, j in ((2, 1), (0, 2), (1, 0))], axis=0
    )
    return np.rad2deg(np.arctan2(sine, np.trace(relative, axis1=1, axis2=2) - 1))
