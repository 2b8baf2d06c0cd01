"""From states to images: what is drawn for every particle, the clean image, the noise.

Every quantity has a random stream of its own, derived from the seed and its name, and the noise has
one a particle. So two sets of the same seed that differ in the signal-to-noise ratio, in the shifts or
in the number of images in memory share poses, defoci and noise.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.conventions import rotation_from_relion
from cryoscape.physics.ctf import ctf
from cryoscape.physics.fourier import forward, frequency_grid, hermitian_weights, inverse, shift_phase
from cryoscape.physics.gaussians import project_fourier
from cryoscape.physics.rotations import random_rotations, small_rotation
from cryoscape.simulate.options import JUNK_KINDS, SimulationOptions

Array = NDArray[np.float64]

COLOURED_EXCESS = 4.0
"""Extra power of coloured noise at frequency 0, in units of that at high frequency."""

COLOURED_CORNER = 30.0
"""Resolution in Angstrom at which the extra power has fallen to half."""

MICROGRAPH_SIZE = 100
"""Particles a micrograph."""


def stream(seed: int, name: str, index: int = 0) -> np.random.Generator:
    """The random stream of one quantity.

    Parameters
    ----------
    seed : int
        Seed of the simulation.
    name : str
        The quantity.
    index : int
        The particle, where each has a stream of its own.

    Returns
    -------
    numpy.random.Generator
    """
    key = (zlib.crc32(name.encode()), index)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


@dataclass(frozen=True)
class Views:
    """What is true of every particle, N of them.

    Attributes
    ----------
    state : ndarray of int, shape (N,)
        For junk, the state whose atoms were scattered.
    junk : ndarray of bool, shape (N,)
    junk_kind : ndarray of str, shape (N,)
        One of `cryoscape.simulate.options.JUNK_KINDS`; empty for the molecule.
    rotations : ndarray, shape (N, 3, 3)
        From model to view.
    shifts : ndarray, shape (N, 2)
        By which the image is moved, Angstrom.
    given_rotations, given_shifts : ndarray
        The same with the errors that the particle file has.
    defocus_u, defocus_v, defocus_angle : ndarray, shape (N,)
        Angstrom, Angstrom, degrees.
    scale : ndarray, shape (N,)
        Strength of the signal.
    half : ndarray of int, shape (N,)
        1 or 2.
    """

    state: NDArray[np.int64]
    junk: NDArray[np.bool_]
    junk_kind: NDArray[np.str_]
    rotations: Array
    shifts: Array
    given_rotations: Array
    given_shifts: Array
    defocus_u: Array
    defocus_v: Array
    defocus_angle: Array
    scale: Array
    half: NDArray[np.int64]


def exact_counts(population: Array, n: int) -> NDArray[np.int64]:
    """Share n particles among states as exactly as whole numbers can (largest remainders).

    Parameters
    ----------
    population : ndarray, shape (S,)
        Sums to 1.
    n : int
        Particles.

    Returns
    -------
    ndarray of int, shape (S,)
        Sums to n; each within 1 of `population * n`.
    """
    quota = np.asarray(population, dtype=np.float64) * n
    # Rounding first, so that 0.35 * 6000 = 2099.9999999999995 is 2100.
    counts = np.floor(np.round(quota, 6)).astype(np.int64)
    order = np.argsort(-(quota - counts), kind="stable")
    counts[order[: n - counts.sum()]] += 1
    return counts


def draw_rotations(n: int, strength: float, seed: int) -> Array:
    """Orientations, uniform or with viewing directions around the model's z axis.

    The cosine w of the angle between viewing direction and z has the von Mises-Fisher density
    exp(kappa w), drawn by inverting its distribution function (Ulrich, Appl. Stat. 33, 158, 1984;
    closed form in three dimensions).

    Parameters
    ----------
    n : int
        How many.
    strength : float
        kappa; 0 is uniform on SO(3).
    seed : int
        Of the simulation.

    Returns
    -------
    ndarray, shape (n, 3, 3)
    """
    generator = torch.Generator().manual_seed(int(stream(seed, "rotation").integers(2**62)))
    uniform = random_rotations(n, generator).numpy()
    if strength == 0:
        return uniform
    rng = stream(seed, "preferred orientation")
    u, azimuth, in_plane = rng.random(n), 2 * np.pi * rng.random(n), 2 * np.pi * rng.random(n)
    cos = 1 + np.log(u + (1 - u) * np.exp(-2 * strength)) / strength
    tilt = np.arccos(np.clip(cos, -1, 1))
    return rotation_from_relion(*(np.rad2deg(x) for x in (azimuth, tilt, in_plane)))


def draw_views(population: Array, n: int, options: SimulationOptions, seed: int) -> Views:
    """Draw everything about n particles but their noise.

    Parameters
    ----------
    population : ndarray, shape (S,)
        Of the states, sums to 1; met exactly (up to whole numbers) among the good particles.
    n : int
        Particles.
    options : SimulationOptions
    seed : int

    Returns
    -------
    Views
    """
    junk = np.zeros(n, dtype=bool)
    junk[stream(seed, "junk").permutation(n)[: round(options.junk * n)]] = True
    state = np.empty(n, dtype=np.int64)
    for kind, name in ((False, "state"), (True, "junk state")):
        rows = np.flatnonzero(junk == kind)
        labels = np.repeat(np.arange(len(population)), exact_counts(population, len(rows)))
        state[rows] = labels[stream(seed, name).permutation(len(rows))]
    junk_kind = _draw_kinds(junk, options, seed)
    rotations = draw_rotations(n, options.orientation_strength, seed)
    shifts = options.shift * stream(seed, "shift").uniform(-1, 1, (n, 2))
    tilt = np.deg2rad(options.pose_error) * stream(seed, "pose error").standard_normal((n, 3))
    given = small_rotation(torch.from_numpy(tilt)).numpy() @ rotations
    given_shifts = shifts + options.shift_error * stream(seed, "shift error").standard_normal((n, 2))
    rng = stream(seed, "defocus")
    if options.defocus == "lognormal":
        defocus = options.defocus_median * np.exp(options.defocus_spread * rng.standard_normal(n))
    else:
        defocus = rng.uniform(*options.defocus_range, n)
    rng = stream(seed, "astigmatism")
    half_difference = 0.5 * options.astigmatism * rng.random(n)
    angle = 180 * rng.random(n) if options.astigmatism else np.zeros(n)
    half = np.tile([1, 2], n // 2 + 1)[stream(seed, "half").permutation(n)]
    return Views(
        state=state,
        junk=junk,
        junk_kind=junk_kind,
        rotations=rotations,
        # Displaced in the image, and not in the table.
        shifts=shifts + _displacements(junk_kind, options, seed),
        given_rotations=given if options.pose_error else rotations,
        given_shifts=given_shifts,
        defocus_u=defocus + half_difference,
        defocus_v=defocus - half_difference,
        defocus_angle=angle,
        scale=np.exp(options.scale_spread * stream(seed, "scale").standard_normal(n)),
        half=half,
    )


def _draw_kinds(junk: NDArray[np.bool_], options: SimulationOptions, seed: int) -> NDArray[np.str_]:
    """Kind of every particle, "" where it is the molecule; kinds in equal parts."""
    out = np.full(len(junk), "", dtype=f"<U{max(map(len, JUNK_KINDS))}")
    kinds = options.junk_kinds
    rows = np.flatnonzero(junk)
    labels = np.repeat(kinds, exact_counts(np.full(len(kinds), 1 / len(kinds)), len(rows)))
    out[rows] = labels[stream(seed, "junk kind").permutation(len(rows))]
    return out


def _displacements(kind: NDArray[np.str_], options: SimulationOptions, seed: int) -> Array:
    """By how much each image lies off what the table says, (N, 2), Angstrom."""
    rng, rows = stream(seed, "displacement"), np.flatnonzero(kind == "shifted")
    length = rng.uniform(*options.junk_shift, len(rows))
    angle = rng.uniform(0, 2 * np.pi, len(rows))
    out = np.zeros((len(kind), 2))
    out[rows] = length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return out


def project(
    coords: Tensor, weights: Tensor, sigma: float, rotations: Tensor, shifts: Tensor, box: int, pixel: float
) -> Tensor:
    """Images of Gaussians, in Fourier space: band-limited by the pixel, so that coarse pixels do not alias.

    Parameters
    ----------
    coords : Tensor, shape (B, n, 3)
        World frame, Angstrom.
    weights : Tensor, shape (n,) or (B, n)
        Integral of each Gaussian.
    sigma : float
        Angstrom.
    rotations : Tensor, shape (B, 3, 3)
        From model to view.
    shifts : Tensor, shape (B, 2)
        (x, y) by which the image is moved, Angstrom.
    box : int
    pixel : float
        Angstrom.

    Returns
    -------
    Tensor, shape (B, box, box // 2 + 1)
        Coefficients, as `fourier.forward` gives them, of the projected density per square Angstrom.
    """
    frequencies = frequency_grid(box, pixel)
    envelope = torch.exp(-2 * (math.pi * sigma) ** 2 * frequencies.square().sum(-1)) / (box * pixel**2)
    return (
        project_fourier(coords, weights, rotations, box, pixel) * envelope * shift_phase(shifts, frequencies)
    )


def clean_images(
    coords: Tensor,
    weights: Tensor,
    sigma: float,
    views: Views,
    rows: NDArray[np.int64],
    options: SimulationOptions,
    box: int,
    pixel: float,
    seed: int,
    wrong: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Noise-free images of some particles: Gaussians projected, moved, times the CTF.

    Parameters
    ----------
    coords : Tensor, shape (S, n, 3)
        Atoms of every state in the world frame (origin at the box centre), Angstrom.
    weights : Tensor, shape (S, n)
        Electrons.
    sigma : float
        Of the Gaussians, Angstrom.
    views : Views
    rows : ndarray of int, shape (B,)
        Which particles.
    options : SimulationOptions
        For the microscope.
    box : int
    pixel : float
        Angstrom.
    seed : int
    wrong : tuple of Tensor, optional
        Atoms (m, 3) and electrons (m,) of another molecule, for the particles that show it.

    Returns
    -------
    Tensor, shape (B, box, box), float32
    """
    states = torch.from_numpy(views.state[rows])
    placed = coords[states]
    kind = views.junk_kind[rows]
    for b in np.flatnonzero(kind == "scattered"):
        # The same atoms with x, y and z shuffled apart: mass and extent of the molecule, no structure.
        rng = stream(seed, "scatter", int(rows[b]))
        for axis in range(3):
            placed[b, :, axis] = placed[b, torch.from_numpy(rng.permutation(placed.shape[1])), axis]
    rotations, shifts = (torch.from_numpy(x[rows]).float() for x in (views.rotations, views.shifts))
    projections = project(placed, weights[states], sigma, rotations, shifts, box, pixel)
    projections[torch.from_numpy(kind == "noise")] = 0.0
    other = torch.from_numpy(np.flatnonzero(kind == "wrong"))
    if len(other):
        assert wrong is not None
        places = wrong[0].expand(len(other), -1, 3)
        projections[other] = project(places, wrong[1], sigma, rotations[other], shifts[other], box, pixel)
    transfer = ctf(
        frequency_grid(box, pixel),
        torch.from_numpy(views.defocus_u[rows]),
        torch.from_numpy(views.defocus_v[rows]),
        torch.from_numpy(views.defocus_angle[rows]),
        options.voltage,
        options.cs,
        options.amplitude_contrast,
        scale=torch.from_numpy(views.scale[rows]).float(),
    )
    return inverse(projections * transfer, box)


def noise_spectrum(kind: str, box: int, pixel: float) -> Tensor:
    """Variance of the noise in every Fourier coefficient, averaging 1 over the pixels.

    Coloured: proportional to 1 + 4 / (1 + (30 A k)^2).

    Parameters
    ----------
    kind : "white" or "coloured"
    box : int
    pixel : float
        Angstrom.

    Returns
    -------
    Tensor, shape (box, box // 2 + 1), float32
    """
    k2 = frequency_grid(box, pixel, dtype=torch.float64).square().sum(-1)
    spectrum = torch.ones_like(k2)
    if kind == "coloured":
        spectrum = 1 + COLOURED_EXCESS / (1 + COLOURED_CORNER**2 * k2)
    weights = hermitian_weights(box).double()
    return (spectrum / ((weights * spectrum).sum() / box**2)).float()


def unit_noise(rows: NDArray[np.int64], spectrum: Tensor | None, box: int, seed: int) -> Tensor:
    """Noise of variance 1 for some particles.

    Parameters
    ----------
    rows : ndarray of int, shape (B,)
        Which particles; each has its own stream.
    spectrum : Tensor, shape (box, box // 2 + 1), or None
        Variance of every coefficient; None is white.
    box : int
    seed : int

    Returns
    -------
    Tensor, shape (B, box, box), float32
    """
    noise = np.empty((len(rows), box, box), dtype=np.float32)
    for image, row in zip(noise, rows):
        stream(seed, "noise", int(row)).standard_normal(dtype=np.float32, out=image)
    white = torch.from_numpy(noise)
    return white if spectrum is None else inverse(forward(white) * spectrum.sqrt(), box)


def signal_power(images: Tensor, spectrum: Tensor | None) -> tuple[Tensor, Tensor]:
    """Variance over the pixels, and sum |signal|^2 / s2 for a noise of mean variance 1.

    The mean of an image is left out of both: it is no measurement.

    Parameters
    ----------
    images : Tensor, shape (B, box, box)
        Clean images.
    spectrum : Tensor, shape (box, box // 2 + 1), or None
        Relative variance of the noise per coefficient; None is white.

    Returns
    -------
    variance, whitened : Tensor, shape (B,), float64
        Twice the nats of an image are `whitened` divided by the variance of the noise.
    """
    double = images.double()
    variance = double.var(dim=(1, 2), correction=0)
    box = images.shape[-1]
    if spectrum is None:
        return variance, variance * box**2
    weights = hermitian_weights(box).double() / spectrum
    weights[0, 0] = 0.0
    return variance, (forward(double).abs().square() * weights).sum(dim=(1, 2))
