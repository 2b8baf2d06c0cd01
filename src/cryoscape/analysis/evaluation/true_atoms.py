"""The atoms behind the images of a simulation, and the exact maps that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TrueAtoms:
    """The Gaussians that a simulation projected.

    Parameters
    ----------
    coords : ndarray, shape (S, M, 3), float32
        Angstrom, in the frame of `reference.cif`.
    weights : ndarray, shape (M,) or (S, M)
        Electrons; 0 where an atom is absent from a state.
    sigma : ndarray, shape () or (M,)
        Standard deviations, Angstrom.
    origin : float
        Where the world's origin lies on every axis of that frame, Angstrom.
    box : int
        Of the particle images.
    pixel_size : float
        Angstrom.
    gain : float
        A noise-free image is this, times the particle's scale, times the CTF on the projected density.
    """

    coords: NDArray[np.float32]
    weights: NDArray[np.float32]
    sigma: NDArray[np.float64]
    origin: float
    box: int
    pixel_size: float
    gain: float

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> TrueAtoms | None:
        """The atoms in the arrays of a `truth.npz`, or None where they are not there."""
        if "atom_coords" not in arrays:
            return None
        return cls(
            coords=arrays["atom_coords"],
            weights=arrays["atom_weights"],
            sigma=np.asarray(arrays["atom_sigma"], dtype=np.float64),
            origin=float(arrays["origin"]),
            box=int(arrays["box"]),
            pixel_size=float(arrays["pixel_size"]),
            gain=float(arrays["gain"]),
        )

    def density(self, state: int, box: int, pixel_size: float) -> NDArray[np.float32]:
        """Band-limited map (box, box, box) of one state in the world frame, electrons per cubic Angstrom."""
        import torch

        from cryoscape.physics.slices import invert_volume
        from cryoscape.physics.structure_factors import structure_factors

        weights = self.weights if self.weights.ndim == 1 else self.weights[state]
        there = np.flatnonzero(weights)
        sigma = self.sigma if self.sigma.ndim == 0 else self.sigma[there]
        transform = structure_factors(
            torch.from_numpy(self.coords[state, there].astype(np.float64) - self.origin),
            torch.from_numpy(weights[there]),
            torch.as_tensor(sigma),
            box,
            pixel_size,
        )
        return invert_volume(transform, pixel_size).numpy()
