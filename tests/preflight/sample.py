"""A small particle set of an asymmetric chain, with everything about it known."""

from __future__ import annotations

from types import SimpleNamespace

import mrcfile
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from cryoscape.data.particles import Particles
from cryoscape.data.star import write_particles_star
from cryoscape.physics import fourier
from cryoscape.physics.ctf import ctf

BOX, PIXEL, SIGMA = 32, 3.0, 2.5
CORNER = BOX // 2 * PIXEL


def chain(seed=3, n=40, spread=12.0):
    """A random walk kept in a lopsided blob about the origin, (n, 3)."""
    rng = np.random.default_rng(seed)
    points = [np.zeros(3)]
    while len(points) < n:
        step = rng.normal(size=3)
        new = points[-1] + 5.0 * step / np.linalg.norm(step)
        if np.linalg.norm(new / [2.0, 1.2, 0.9]) < spread:
            points.append(new)
    points = np.array(points)
    return points - points.mean(axis=0)


def as_model(coords):
    """What the check needs of a model: coordinates in the file's frame and weights."""
    coords = np.asarray(coords, dtype=np.float32)
    return SimpleNamespace(coords=coords, weights=np.full(len(coords), 50.0, np.float32), path=None)


def clean_images(coords, rotations, shifts, pixel=PIXEL):
    """Projected Gaussians drawn in real space with numpy, (n, BOX, BOX)."""
    axis = (np.arange(BOX) - BOX // 2) * pixel
    images = np.empty((len(rotations), BOX, BOX), np.float32)
    for i, (a, t) in enumerate(zip(rotations, shifts, strict=True)):
        x, y = (coords @ a.T)[:, :2].T + t[:, None]
        ex = np.exp(-((axis - x[:, None]) ** 2) / (2 * SIGMA**2))
        ey = np.exp(-((axis - y[:, None]) ** 2) / (2 * SIGMA**2))
        images[i] = ey.T @ ex
    return images


def write_set(folder, coords, *, n=300, snr=0.1, shift=4.0, seed=0, signal=1.0, views=None):
    """Simulate, write stack and table, and read them back as `Particles`."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(n, random_state=seed) if views is None else views
    shifts = rng.uniform(-shift, shift, (n, 2))
    # RELION's matrix is the transpose of the intrinsic ZYZ rotation.
    clean = clean_images(coords, turns.as_matrix().transpose(0, 2, 1), shifts)
    defocus = rng.uniform(8000, 20000, n)
    transfer = ctf(
        fourier.frequency_grid(BOX, PIXEL),
        torch.from_numpy(defocus),
        torch.from_numpy(defocus),
        torch.zeros(n),
        300.0,
        2.7,
        0.1,
    )
    images = fourier.inverse(fourier.forward(torch.from_numpy(clean)) * transfer, BOX).numpy()
    images = signal * images * np.sqrt(snr / images.var()) + rng.normal(size=images.shape)
    with mrcfile.new(folder / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(images.astype(np.float32))
        mrc.set_image_stack()
    rot, tilt, psi = turns.as_euler("ZYZ", degrees=True).T
    write_particles_star(
        folder / "particles.star",
        image_names=[f"{i + 1:06d}@particles.mrcs" for i in range(n)],
        optics=[
            {
                "rlnVoltage": 300.0,
                "rlnSphericalAberration": 2.7,
                "rlnAmplitudeContrast": 0.1,
                "rlnImagePixelSize": PIXEL,
                "rlnImageSize": BOX,
                "rlnImageDimensionality": 2,
            }
        ],
        columns={
            "rlnAngleRot": rot,
            "rlnAngleTilt": tilt,
            "rlnAnglePsi": psi,
            "rlnOriginXAngst": -shifts[:, 0],
            "rlnOriginYAngst": -shifts[:, 1],
            "rlnDefocusU": defocus,
            "rlnDefocusV": defocus,
            "rlnDefocusAngle": np.zeros(n),
            "rlnRandomSubset": np.arange(n) % 2 + 1,
        },
    )
    return Particles.read(folder / "particles.star")
