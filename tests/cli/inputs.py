"""Tiny inputs, written without the package: a bent chain, its images under RELION's formulas, tables."""

from dataclasses import dataclass, field
from pathlib import Path

import mrcfile
import numpy as np
from scipy.spatial.transform import Rotation

BOX, PIXEL, N = 32, 4.0, 120
VOLTAGE, CS, AMPLITUDE = 300.0, 2.7, 0.1
COLUMNS = (
    "rlnImageName",
    "rlnAngleRot",
    "rlnAngleTilt",
    "rlnAnglePsi",
    "rlnOriginXAngst",
    "rlnOriginYAngst",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnOpticsGroup",
)


@dataclass
class Inputs:
    """A folder with particles.star, particles.mrcs and model.pdb, to be spoilt by the tests."""

    folder: Path
    images: np.ndarray
    optics: list[dict] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)

    @property
    def star(self):
        return self.folder / "particles.star"

    @property
    def stack(self):
        return self.folder / "particles.mrcs"

    @property
    def model(self):
        return self.folder / "model.pdb"

    def write_star(self, columns=COLUMNS):
        text = ["# version 50001", "", block("optics", self.optics, list(self.optics[0]))]
        text += ["# version 50001", "", block("particles", self.rows, list(columns))]
        self.star.write_text("\n".join(text))

    def write_stack(self, images=None, path=None):
        write_stack(path or self.stack, self.images if images is None else images)

    def write_model(self, coords=None, lines=None):
        coords = chain() + BOX // 2 * PIXEL if coords is None else coords
        self.model.write_text("\n".join([*(lines or pdb_lines(coords)), "END", ""]))


def block(name, rows, columns):
    lines = [f"data_{name}", "", "loop_"]
    lines += [f"_{column} #{i + 1}" for i, column in enumerate(columns)]
    lines += [" ".join(str(row[column]) for column in columns) for row in rows]
    return "\n".join([*lines, "", ""])


def write_stack(path, images):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(np.ascontiguousarray(images, dtype=np.float32))
        mrc.set_image_stack()
        mrc.voxel_size = PIXEL


def chain(n=48):
    """CA positions (n, 3) in A about their centroid: an uneven coil, so that no two views are alike."""
    s = np.arange(n)
    angle = 0.55 * s + 0.004 * s**2
    points = np.stack([(8 + 0.25 * s) * np.cos(angle), (8 + 0.1 * s) * np.sin(angle), 1.4 * s], axis=1)
    return points - points.mean(axis=0)


def pdb_lines(coords, name="ALA", atom="CA", record="ATOM"):
    return [
        f"{record:<6}{i + 1:5d}  {atom:<3} {name:>3} A{i + 1:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00"
        "           C"
        for i, (x, y, z) in enumerate(coords)
    ]


def project(coords, euler):
    """Images (n, D, D) of unit Gaussians of 4 A, protein positive; view = A x with A of RELION's angles."""
    matrices = Rotation.from_euler("ZYZ", euler, degrees=True).as_matrix().transpose(0, 2, 1)
    grid = (np.arange(BOX) - BOX // 2) * PIXEL
    seen = np.einsum("nij,aj->nai", matrices, coords)
    along_x = np.exp(-((grid[None, None] - seen[..., 0, None]) ** 2) / 32)
    along_y = np.exp(-((grid[None, None] - seen[..., 1, None]) ** 2) / 32)
    return np.einsum("nay,nax->nyx", along_y, along_x)


def apply_ctf(images, defocus):
    """Multiply by RELION's CTF without astigmatism: sin(pi l dz k^2 - pi/2 Cs l^3 k^4 + asin Q)."""
    volts = VOLTAGE * 1e3
    wavelength = 12.2643247 / np.sqrt(volts * (1 + volts * 0.978466e-6))
    k = np.fft.fftfreq(BOX, PIXEL)
    k2 = k[:, None] ** 2 + k[None] ** 2
    gamma = np.pi * wavelength * defocus[:, None, None] * k2 - np.pi / 2 * CS * 1e7 * wavelength**3 * k2**2
    ctf = np.sin(gamma + np.arcsin(AMPLITUDE))
    return np.fft.ifft2(np.fft.fft2(images) * ctf).real


def make_inputs(folder):
    """Write good inputs: `check` finds nothing wrong with them."""
    rng = np.random.default_rng(1)
    tilt = np.degrees(np.arccos(rng.uniform(-1, 1, N)))
    euler = np.stack([rng.uniform(-180, 180, N), tilt, rng.uniform(-180, 180, N)], axis=1)
    defocus = rng.uniform(8000, 16000, N)
    images = apply_ctf(project(chain(), euler), defocus)
    images = images / images.std() + rng.normal(size=images.shape)
    optics = {
        "rlnOpticsGroup": 1,
        "rlnOpticsGroupName": "one",
        "rlnImagePixelSize": PIXEL,
        "rlnImageSize": BOX,
        "rlnImageDimensionality": 2,
        "rlnVoltage": VOLTAGE,
        "rlnSphericalAberration": CS,
        "rlnAmplitudeContrast": AMPLITUDE,
    }
    values = [
        (f"{i + 1:06d}@particles.mrcs", *euler[i].round(4), 0.0, 0.0, *defocus[[i, i]].round(1), 0.0, 1)
        for i in range(N)
    ]
    made = Inputs(folder, images.astype(np.float32), [optics], [dict(zip(COLUMNS, row)) for row in values])
    made.write_star()
    made.write_stack()
    made.write_model()
    return made
