"""Grids of rotations: HEALPix by its other formula, coverage, and cells that split exactly."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.physics.rotations import geodesic_angle, random_rotations
from cryoscape.poses.grid import HopfGrid, LocalGrid, hopf_rotation, pixel_direction, shift_grid


def ring_centres(side):
    """(z, phi) of all pixels by the ring formulas of Gorski et al. 2005, equations 2 to 9."""
    found = []
    for i in range(1, 4 * side):
        if i < side or i > 3 * side:
            ring = min(i, 4 * side - i)
            z = 1 - ring**2 / (3 * side**2)
            z = z if i < side else -z
            phi = [math.pi / (2 * ring) * (j - 0.5) for j in range(1, 4 * ring + 1)]
        else:
            z = 4 / 3 - 2 * i / (3 * side)
            s = (i - side + 1) % 2
            phi = [math.pi / (2 * side) * (j - s / 2) for j in range(1, 4 * side + 1)]
        found += [(z, math.cos(p), math.sin(p)) for p in phi]
    return sorted(tuple(round(v, 9) + 0.0 for v in row) for row in found)


@pytest.mark.parametrize("side", [1, 2, 4])
def test_directions_are_the_healpix_pixels(side):
    face, x, y = torch.cartesian_prod(*[torch.arange(n) for n in (12, side, side)]).unbind(-1)
    z, phi = pixel_direction(face, (x + 0.5) / side, (y + 0.5) / side)
    rows = torch.stack([z, phi.cos(), phi.sin()], dim=-1).tolist()
    ours = sorted(tuple(round(v, 9) + 0.0 for v in row) for row in rows)
    np.testing.assert_allclose(ours, ring_centres(side), atol=1e-8)


def test_hopf_coordinates_are_euler_angles():
    theta, phi, psi = 0.7, 1.2, 2.3
    ours = hopf_rotation(*(torch.tensor(v, dtype=torch.float64) for v in (theta, phi, psi)))
    truth = Rotation.from_euler("ZYZ", [phi, theta, psi]).as_matrix().T
    np.testing.assert_allclose(ours, truth, atol=1e-12)


def test_every_rotation_is_near_a_cell_and_no_cell_has_more_than_its_share():
    grid = HopfGrid(1)
    cells = grid.rotations(grid.start(), 0)
    assert len(cells) == 576
    drawn = random_rotations(4000, torch.Generator().manual_seed(0))
    trace = torch.einsum("aij,bij->ab", drawn, cells)
    nearest, which = trace.max(1)
    angle = torch.acos(((nearest - 1) / 2).clamp(-1, 1))
    assert float(angle.max()) < 0.9 * grid.step(0)
    # Equal volumes: seven drawn on average, and none far off a Poisson's tail.
    assert int(which.bincount(minlength=576).max()) < 22


@pytest.mark.parametrize("grid", [HopfGrid(0), HopfGrid(2), LocalGrid(0.2, 0.1)])
def test_children_tile_their_parent(grid):
    start = grid.start()
    children = grid.children(start)
    assert children.shape == (len(start), 8, start.shape[1])
    assert len(children.flatten(0, 1).unique(dim=0)) == 8 * len(start)
    parents = grid.rotations(start, 0)[:, None]
    below = grid.rotations(children, 1)
    # The middle of the children is the parent's, and they lie within its cell.
    middle = below.mean(1)
    u, _, v = torch.linalg.svd(middle)
    assert float(geodesic_angle(u @ v, parents[:, 0]).max()) < 0.35 * grid.step(0)
    assert float(geodesic_angle(below, parents.expand_as(below)).max()) < 0.9 * grid.step(0)


def test_finer_global_grid_is_all_children():
    coarse, fine = HopfGrid(1), HopfGrid(2)
    children = coarse.children(coarse.start()).flatten(0, 1)
    assert torch.equal(children.unique(dim=0), fine.start().unique(dim=0))
    a = coarse.rotations(children, 1)
    assert torch.equal(a, fine.rotations(children, 0))


def test_local_grid_holds_every_rotation_within_reach():
    grid = LocalGrid(math.radians(12), math.radians(5))
    assert grid.step(0) <= math.radians(5) + 1e-12
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(2000, 3, generator=g, dtype=torch.float64)
    vectors *= (math.radians(12) * torch.rand(2000, 1, generator=g)) / vectors.norm(dim=1, keepdim=True)
    centres = torch.from_numpy(Rotation.from_matrix(grid.rotations(grid.start(), 0).numpy()).as_rotvec())
    apart = (vectors[:, None] - centres).abs().amax(-1).amin(1)
    assert float(apart.max()) <= grid.step(0) / 2 + 1e-9


@pytest.mark.parametrize(("reach", "width"), [(0.0, 5.0), (3.0, 5.0), (15.0, 4.0), (15.0, 30.0)])
def test_shift_cells_cover_the_reach(reach, width):
    shifts, step = shift_grid(reach, width)
    assert step <= width
    assert float(shifts.norm(dim=1).min()) == 0.0
    angle = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)
    rim = reach * torch.stack([angle.cos(), angle.sin()], dim=-1)
    apart = (rim[:, None] - shifts).abs().amax(-1).amin(1)
    assert float(apart.max()) <= step / 2 + 1e-9
