"""The consensus map of the particles: what volume decoders start from, and how strong its signal is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cryoscape.data.images import BandImages
from cryoscape.data.mrc import write_map
from cryoscape.errors import InputError
from cryoscape.physics.backprojection import BackProjector, SliceBatch, Volumes, solve
from cryoscape.physics.resolution import fsc, radial_average, resolution_at, soft_sphere, volume_shells
from cryoscape.physics.slices import invert_volume, transform_volume
from cryoscape.progress import ProgressReporter, reporter_or_silent

LIMIT = 20_000
"""Particles behind the consensus, at most: it is a start, and learnt on with all of them."""


@dataclass(frozen=True)
class Consensus:
    """A filtered map with what the halves of the data say about it.

    Attributes
    ----------
    filtered : Tensor, shape (d, d, d)
        Wiener-filtered map, density per cubic Angstrom in the scale of the images.
    volumes : Volumes
        The half maps and their sum, unfiltered.
    half_fsc : Tensor, shape (d // 2 + 1,)
    amplitude : Tensor, shape (d // 2 + 1,)
        Root mean square of the signal's coefficients in each shell, unitary image units.
    resolution : float
        Where the half maps correlate to 0.143, Angstrom.
    """

    filtered: Tensor
    volumes: Volumes
    half_fsc: Tensor
    amplitude: Tensor
    resolution: float

    def write(self, folder: Path, origin: tuple[float, float, float]) -> None:
        """Write consensus.mrc and its halves."""
        voxel = self.volumes.voxel_size
        maps = {"consensus": self.filtered, "consensus_half1": self.volumes.half1}
        maps["consensus_half2"] = self.volumes.half2
        for name, volume in maps.items():
            write_map(folder / f"{name}.mrc", volume.cpu().numpy(), voxel, origin=origin)


def find_consensus(images: BandImages, rows: Tensor, progress: ProgressReporter | None = None) -> Consensus:
    """Back-project particles and filter the map by what its halves agree on.

    Parameters
    ----------
    images : BandImages
    rows : Tensor, int64
        Particles to use; at most 20,000 of them are.
    progress : ProgressReporter, optional

    Returns
    -------
    Consensus

    Raises
    ------
    InputError
        If the halves agree on nothing: poses or CTF are wrong, or there are too few particles.
    """
    particles = images.particles
    rows = rows[torch.linspace(0, len(rows) - 1, min(LIMIT, len(rows))).long()]
    halves = torch.from_numpy(np.asarray(particles.half, dtype=np.int64))
    if not 0.2 <= float((halves[rows] == 1).float().mean()) <= 0.8:
        halves = torch.arange(len(particles)) % 2 + 1
    projector = BackProjector(images.box, images.pixel_size, particles.box)
    with reporter_or_silent(progress).task("consensus map", len(rows), "images") as task:
        for part in rows.split(256):
            batch = images.batch(part)
            projector.insert(SliceBatch(batch.images, batch.ctf, batch.rotations, halves[part]))
            task.advance(len(part))
    volumes = solve(projector.finish())
    mask = soft_sphere(images.box, 0.4 * images.box, 0.1 * images.box)
    curve = fsc(volumes.half1, volumes.half2, mask)
    resolution = resolution_at(curve, 0.143, images.box, images.pixel_size)
    if not np.isfinite(resolution):
        raise InputError(
            "the two halves of the particles give maps that have nothing in common",
            file=particles.source.path,
            remedy="Check the poses with cryoscape check, or use more particles.",
        )
    transform = transform_volume(volumes.both * mask, images.pixel_size)
    weight = wiener_weight(curve)
    shells = radius_of(images.box)
    filtered = invert_volume(transform * weight[shells], images.pixel_size)
    power = radial_average(transform.abs().square()) * weight.square()
    scale = particles.box * particles.pixel_size**2
    amplitude = extended((power.sqrt() / scale).float(), weight)
    return Consensus(filtered.float(), volumes, curve, amplitude, resolution)


def wiener_weight(half_fsc: Tensor) -> Tensor:
    """Factor of each shell that makes a map from all data the least-squares estimate: 2 F / (1 + F).

    Shells beyond the first without agreement (F below 0) get nothing, so that chance agreement far out does
    not come back as ripples.
    """
    f = half_fsc.clamp(0.0, 1.0)
    f[0] = f[1]
    none = (half_fsc[1:] <= 0).nonzero()
    if len(none):
        f[int(none[0, 0]) + 1 :] = 0
    return (2 * f / (1 + f)).float()


def radius_of(box: int) -> Tensor:
    """Shell of every coefficient of a volume (box, box, box // 2 + 1), those in the corners in the last."""
    return volume_shells(box).clamp(max=box // 2)


def extended(amplitude: Tensor, weight: Tensor) -> Tensor:
    """Signal amplitude of every shell, carried on where the consensus has none.

    What differs between conformations is blurred in the consensus, so the end of its signal is not the end
    of theirs: beyond it the amplitude falls off as it does before (a straight line in its logarithm over the
    second half of the trusted shells, never rising).
    """
    trusted = (weight[1:] > 0.5).nonzero()
    last = int(trusted[-1, 0]) + 1 if len(trusted) else 1
    out = amplitude.clamp_min(1e-12).clone()
    out[0] = out[1]
    if last < len(out) - 1:
        first = max(1, last // 2)
        shells = torch.arange(first, last + 1, dtype=torch.float32)
        slope = 0.0
        if len(shells) > 1:
            x, y = shells - shells.mean(), out[first : last + 1].log()
            slope = min(0.0, float((x * (y - y.mean())).sum() / x.square().sum()))
        beyond = torch.arange(last + 1, len(out), dtype=torch.float32) - last
        out[last + 1 :] = out[last] * torch.exp(slope * beyond)
    return out
