"""A tiny particle set of two states of a bent chain, with its truth, and settings to train on it quickly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch

from cryoscape.conventions import rotation_to_relion
from cryoscape.data.particles import Particles
from cryoscape.data.star import write_particles_star
from cryoscape.physics import fourier, gaussians
from cryoscape.physics.ctf import ctf
from cryoscape.physics.rotations import random_rotations
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training.config import Config
from cryoscape.training.presets import merged
from cryoscape.training.train import Interpretation
from tests.structures.builders import walk

BOX, PIXEL, CUTOFF, SIGMA = 24, 3.0, 8.0, 2.5
CORNER = (BOX // 2 * PIXEL,) * 3
KNOWN = Interpretation(CORNER, 1, CUTOFF)


@dataclass
class Sample:
    """A folder with images and model, and what is true of them."""

    folder: Path
    states: np.ndarray
    state: np.ndarray

    @property
    def particles(self) -> Particles:
        return Particles.read(self.folder / "particles.star")

    @property
    def model(self) -> AtomicModel:
        return AtomicModel.read(self.folder / "model.pdb")


def states(n: int = 30, angle: float = 25.0) -> np.ndarray:
    """Two conformations (2, n, 3) about the origin, Angstrom: the last two fifths turn about a hinge."""
    first = walk(n)
    hinge = 3 * n // 5
    second = first.copy()
    second[hinge:] = _turned(first[hinge:], first[hinge], np.radians(angle))
    return np.stack([first, second]) - first.mean(axis=0)


def _turned(points: np.ndarray, about: np.ndarray, angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return (points - about) @ np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]) + about


def make_sample(folder: Path, *, n: int = 120, snr: float = 0.5, share: float = 0.5, seed: int = 0) -> Sample:
    """Write particles.star, particles.mrcs and model.pdb (the first state, in the corner frame).

    Images of `snr` 0 are pure noise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    both = states()
    g = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    state = (rng.random(n) >= share).astype(int)
    rotations = random_rotations(n, g).float()
    shifts = torch.from_numpy(rng.uniform(-4, 4, (n, 2))).float()
    defocus = torch.from_numpy(rng.uniform(8000, 20000, n))
    coords = torch.from_numpy(both[state]).float()
    clean = gaussians.project_real(coords, torch.ones(coords.shape[1]), SIGMA, rotations, BOX, PIXEL, shifts)
    transfer = ctf(fourier.frequency_grid(BOX, PIXEL), defocus, defocus, torch.zeros(n), 300.0, 2.7, 0.1)
    clean = fourier.inverse(fourier.forward(clean) * transfer, BOX).numpy()
    images = clean * np.sqrt(snr / clean.var()) + rng.normal(size=clean.shape)
    with mrcfile.new(folder / "particles.mrcs", overwrite=True) as mrc:
        mrc.set_data(images.astype(np.float32))
        mrc.set_image_stack()
    rot, tilt, psi = rotation_to_relion(rotations.double().numpy())
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
            "rlnOriginXAngst": -shifts[:, 0].numpy(),
            "rlnOriginYAngst": -shifts[:, 1].numpy(),
            "rlnDefocusU": defocus.numpy(),
            "rlnDefocusV": defocus.numpy(),
            "rlnDefocusAngle": np.zeros(n),
            "rlnRandomSubset": np.arange(n) % 2 + 1,
        },
    )
    write_pdb(folder / "model.pdb", both[0] + np.array(CORNER))
    return Sample(folder, both + np.array(CORNER), state)


def write_pdb(path: Path, coords: np.ndarray) -> None:
    lines = [
        f"ATOM  {i + 1:5d}  CA  ALA A{i + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for i, (x, y, z) in enumerate(coords)
    ]
    path.write_text("\n".join([*lines, "END", ""]))


QUICK: dict[str, Any] = {
    "z_dim": 2,
    "encoder": {"kind": "score", "hidden": (32, 16)},
    "decoder": {"kind": "atomic", "hidden": (16, 32)},
    "likelihood": {"kind": "gaussian", "calibration": 100},
    "training": {"steps": 24, "batch": 16, "log_every": 5, "device": "cpu", "lr": 2e-3, "precision": "32"},
}


def settings(**sections: Any) -> Config:
    """Quick settings with some of their sections changed."""
    return Config.model_validate(merged(QUICK, sections))
