"""The back-projection of a working set, and whether other readings of the poses would do better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cryoscape.physics.backprojection import Accumulated, accumulate
from cryoscape.physics.resolution import soft_sphere, volume_shells
from cryoscape.physics.slices import crop_volume, invert_volume, transform_volume
from cryoscape.preflight.evidence import MapEvidence, weigh_map
from cryoscape.preflight.report import AS_READ, OTHER_SIGN, TOO_LARGE, TOO_SMALL, TRANSPOSED, reread
from cryoscape.preflight.working_set import WorkingSet

POSE_SAMPLE = 1000
"""Particles behind the comparison of pose readings."""

POSE_BOX = 64
"""Side of the working box in that comparison, at most."""


def two_halves(working: WorkingSet, seed: int) -> WorkingSet:
    """The working set, split at random where the table leaves one half with fewer than a fifth."""
    share = float((working.halves == 1).float().mean())
    if 0.2 <= share <= 0.8:
        return working
    order = np.random.default_rng(seed).permutation(len(working))
    return replace(working, halves=torch.from_numpy(order % 2 + 1))


def with_poses(working: WorkingSet, poses: str) -> WorkingSet:
    """The working set under another reading of its poses (see `report.reread`)."""
    rotations, shifts = reread(
        poses, working.rotations.numpy(), working.shifts.numpy(), working.image_pixel_size
    )
    return replace(
        working,
        rotations=torch.from_numpy(np.ascontiguousarray(rotations)),
        shifts=torch.from_numpy(np.ascontiguousarray(shifts)),
    )


def consensus(working: WorkingSet, limit: int | None = None) -> tuple[Accumulated, MapEvidence]:
    """Back-project and weigh.

    Parameters
    ----------
    working : WorkingSet
    limit : int, optional
        Only the first so many particles.

    Returns
    -------
    sums : Accumulated
    evidence : MapEvidence
    """
    sums = accumulate(working.batches(limit=limit), working.box, working.pixel_size, working.image_box)
    return sums, weigh_map(sums, working.noise_power, working.image_scale)


def best_poses(working: WorkingSet) -> str:
    """The reading of the poses under which the halves of the data predict each other best.

    No model is needed: the cross-validated signal energy (see `evidence.weigh_map`) of a right reading is far
    above that of a wrong one. Another reading must gain 3 %, and five standard deviations of the noise.

    Parameters
    ----------
    working : WorkingSet

    Returns
    -------
    str
        "as read" or a key of `report.POSE_REMEDIES`.
    """
    readings = [AS_READ, TRANSPOSED]
    if float(working.shifts.square().mean().sqrt()) > 0.25 * working.image_pixel_size:
        readings.append(OTHER_SIGN)
        if abs(working.image_pixel_size - 1) > 0.05:
            readings += [TOO_SMALL, TOO_LARGE]
    n = min(POSE_SAMPLE, len(working))
    working = working.cropped(POSE_BOX)
    found = {r: consensus(with_poses(working, r), n)[1] for r in readings}
    last = max(e.last_shell for e in found.values())
    nats = {r: n * float(e.signal_nats[1 : last + 1].sum()) for r, e in found.items()}
    cells = int((volume_shells(working.box) <= last).sum())
    best = max(nats, key=lambda r: nats[r])
    gain = nats[best] - nats[AS_READ]
    return best if gain > 0.03 * abs(nats[AS_READ]) and gain > 5 * cells**0.5 else AS_READ


def density_sign(evidence: MapEvidence, resolution: float) -> int:
    """Sign of the protein from the shape of the map: compact density on a flat background is skewed.

    Parameters
    ----------
    evidence : MapEvidence
    resolution : float
        Of the map, Angstrom; finer detail is left out.

    Returns
    -------
    int
        1, -1, or 0 where the map does not tell.
    """
    maps = evidence.volumes
    box = maps.both.shape[0]
    keep = 2 * max(4, min(box // 2, round(box * maps.voxel_size / max(resolution, 1e-6))))
    small = invert_volume(
        crop_volume(transform_volume(maps.both, maps.voxel_size), min(keep, box)),
        maps.voxel_size * box / min(keep, box),
    )
    size = small.shape[0]
    values = small[soft_sphere(size, 0.42 * size, 1e-3) > 0.5]
    centred = values - values.median()
    skewness = float(centred.pow(3).mean() / centred.square().mean().pow(1.5).clamp(min=1e-30))
    return 0 if abs(skewness) < 0.5 else int(np.sign(skewness))
