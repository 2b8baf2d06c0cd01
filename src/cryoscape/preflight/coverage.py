"""What a particle table says about itself: views, halves, repeated images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles


def sphere_points(n: int) -> NDArray[np.float64]:
    """Nearly uniform directions on the sphere (Fibonacci spiral), shape (n, 3)."""
    i = np.arange(n) + 0.5
    polar, azimuth = np.arccos(1 - 2 * i / n), np.pi * (1 + 5**0.5) * i
    return np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)


def orientation_efficiency(
    rotations: NDArray[np.floating], *, width: float = 0.1, limit: int = 10_000
) -> float:
    """How evenly the views measure Fourier space: 1 for uniform views, towards 0 for a single one.

    A view along d measures the directions q at right angles to it. With s(q) the share of views that measure
    q, relative to uniform views, the noise of a map is proportional to the mean of 1 / s; the efficiency is
    the inverse of that mean (directions without any view count as a twentieth).

    Parameters
    ----------
    rotations : ndarray, shape (N, 3, 3)
        From model to view.
    width : float
        Half thickness of a slice as the sine of an angle.
    limit : int
        Views looked at, evenly from the table.

    Returns
    -------
    float
        0 to 1.
    """
    views = np.asarray(rotations)[:: max(1, len(rotations) // limit), 2]
    measured = np.abs(sphere_points(500) @ views.T) < width
    share = np.maximum(measured.mean(axis=1) / width, 0.05)
    return min(1.0, float(1 / np.mean(1 / share)))


def repeated_images(particles: Particles) -> int:
    """Rows that show an image which an earlier row has shown."""
    places = np.stack([particles.stack.file, particles.stack.index], axis=1)
    return len(places) - len(np.unique(places, axis=0))
