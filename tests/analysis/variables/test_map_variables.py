"""Shares inside masks and fits to maps, against sums over voxels."""

import numpy as np
import pytest
import torch

from cryoscape.analysis.variables.decoded_latents import MapDensity, StructureDensity
from cryoscape.analysis.variables.map_variables import (
    MapFit,
    MapOccupancy,
    fit_target,
    mask_on_grid,
    read_mask,
    values_at,
)
from cryoscape.analysis.variables.variable_syntax import parse_cv
from cryoscape.data.mrc import Map, write_map
from cryoscape.errors import InputError
from cryoscape.models.scattering import BeadScatterers
from tests.analysis.fakes import chain_model

BOX, PIXEL = 32, 3.0
OFFSET = (80.0, 79.0, 82.0)
ORIGIN = tuple(value - BOX // 2 * PIXEL for value in OFFSET)


@pytest.fixture(scope="module")
def model():
    return chain_model(20, "AB")


def blobs(points, sigma=6.0, voxel=PIXEL, box=BOX, origin=ORIGIN):
    """Sum of Gaussians at points (n, 3), by plain sums over the voxels."""
    axes = [np.arange(box) * voxel + start for start in origin]
    out = np.zeros((box, box, box))
    for x, y, z in points:
        parts = [np.exp(-0.5 * ((axis - c) / sigma) ** 2) for axis, c in zip(axes, (x, y, z))]
        out += parts[2][:, None, None] * parts[1][:, None] * parts[0]
    return out.astype(np.float32)


def test_values_between_voxels_are_linear():
    z, y, x = np.meshgrid(*(np.arange(k) for k in (5, 6, 7)), indexing="ij")
    plane = (0.5 * x - 0.25 * y + 2 * z + 1).astype(np.float32)
    volume = Map(plane, 2.0, np.array([10.0, -4.0, 100.0]), True)
    rng = np.random.default_rng(0)
    inside = rng.uniform([0, 0, 0], [6, 5, 4], (50, 3))
    points = torch.as_tensor(inside * 2.0 + volume.origin)
    expected = inside @ [0.5, -0.25, 2] + 1
    np.testing.assert_allclose(values_at(volume, points), expected, rtol=1e-4)
    assert float(values_at(volume, torch.tensor([30.0, 0.0, 102.0]))) == 0


def test_share_of_a_structure_inside_a_mask(model, tmp_path):
    mask = np.zeros((BOX,) * 3, np.float32)
    mask[:, :, : BOX // 2] = 1
    write_map(tmp_path / "mask.mrc", mask, PIXEL, origin=ORIGIN)
    cv = parse_cv(f"occupancy {tmp_path}/mask.mrc", model)
    # Chain A inside, chain B far out: half of the electrons; with half of B there, two thirds.
    coords = torch.as_tensor(model.coords).double()[None].clone()
    coords[0, :10, 0], coords[0, 10:, 0] = OFFSET[0] - 20.0, OFFSET[0] + 20.0
    assert float(cv(coords)) == pytest.approx(0.5)
    present = torch.cat([torch.ones(1, 10), 0.5 * torch.ones(1, 10)], 1).double()
    assert float(cv(coords, present)) == pytest.approx(2 / 3)
    # On the slope of the mask's edge it has a gradient: 1 / (n pixel) for each residue.
    coords[0, 0, 0] = ORIGIN[0] + (BOX // 2 - 0.5) * PIXEL
    coords.requires_grad_()
    (gradient,) = torch.autograd.grad(cv(coords).sum(), coords)
    assert float(gradient[0, 0, 0]) == pytest.approx(-1 / (20 * PIXEL), rel=1e-4)


def test_share_of_a_map_inside_a_mask(tmp_path):
    rng = np.random.default_rng(1)
    mask = (rng.random((24,) * 3) > 0.5).astype(np.float32)
    write_map(tmp_path / "mask.mrc", mask, PIXEL, origin=(3.0, 6.0, -9.0))
    on_grid = mask_on_grid(read_mask(tmp_path / "mask.mrc"), 24, PIXEL, (3.0, 6.0, -9.0))
    np.testing.assert_allclose(on_grid, mask, atol=1e-5)
    shifted = mask_on_grid(read_mask(tmp_path / "mask.mrc"), 24, PIXEL, (6.0, 6.0, -9.0))
    np.testing.assert_allclose(shifted[:, :, :-1], mask[:, :, 1:], atol=1e-5)
    maps = rng.normal(0.3, 1, (3, 24, 24, 24))
    positive = np.maximum(maps, 0)
    expected = (positive * mask).sum((1, 2, 3)) / positive.sum((1, 2, 3))
    np.testing.assert_allclose(MapOccupancy("occupancy", on_grid)(torch.as_tensor(maps)), expected, rtol=1e-5)


def structure_density(model, last=9):
    scatterers = BeadScatterers(torch.as_tensor(model.weights))
    gain = torch.exp(-0.02 * torch.arange(last + 1.0) ** 2)
    box = 2 * (last + 1)
    return StructureDensity(box, BOX * PIXEL / box, last, OFFSET, scatterers, gain)


def test_fit_is_the_correlation_of_filtered_maps(model, tmp_path):
    rng = np.random.default_rng(2)
    target = blobs(model.coords + rng.normal(0, 3, model.coords.shape))
    write_map(tmp_path / "map.mrc", target, PIXEL, origin=ORIGIN)
    density = MapDensity(20, BOX * PIXEL / 20, 9, OFFSET, PIXEL)
    cv = MapFit("fit", fit_target(tmp_path / "map.mrc", density), density)
    maps = np.stack([blobs(model.coords), blobs(model.coords[:10]), target])
    found = cv(torch.as_tensor(maps)).numpy()
    k = np.fft.fftfreq(BOX, 1 / BOX)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    band = (shell > 0) & (shell <= 9)

    def filtered(volume):
        return np.fft.ifftn(np.fft.fftn(volume) * band).real.ravel()

    expected = [np.corrcoef(filtered(one), filtered(target))[0, 1] for one in maps]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert expected[2] == pytest.approx(1)


def test_structures_fit_their_own_map_wherever_it_lies(model, tmp_path):
    # Gaussians of 6 A and a gain that is theirs: the map of the beads is what the density says it is.
    density = structure_density(model)
    shells = torch.arange(10.0) / (BOX * PIXEL)
    matched = StructureDensity(
        density.box,
        density.voxel_size,
        9,
        OFFSET,
        density.scatterers,
        torch.exp(-2 * (np.pi * 6.0 * shells) ** 2),
    )
    coords = torch.as_tensor(model.coords)[None]
    # A map on another grid: other voxels, another corner, another box.
    origin = tuple(value - 16 * 2.0 - 1.3 for value in OFFSET)
    write_map(
        tmp_path / "map.mrc",
        blobs(model.coords, 6.0, 2.0, 64, [o - 32 for o in origin]),
        2.0,
        origin=tuple(o - 32 for o in origin),
    )
    cv = MapFit("fit", fit_target(tmp_path / "map.mrc", matched), matched)
    assert float(cv(coords)) > 0.995
    assert float(cv(coords + torch.tensor([6.0, 0, 0]))) < 0.9


def test_fit_has_the_gradient_of_finite_differences(model, tmp_path):
    write_map(tmp_path / "map.mrc", blobs(model.coords), PIXEL, origin=ORIGIN)
    density = structure_density(model)
    cv = MapFit("fit", fit_target(tmp_path / "map.mrc", density), density)
    rng = np.random.default_rng(3)
    x = torch.as_tensor(model.coords + rng.normal(0, 3, model.coords.shape))[None].requires_grad_()
    present = torch.as_tensor(rng.uniform(0.5, 1, (1, 20))).float().requires_grad_()
    along, more = torch.autograd.grad(cv(x, present).sum(), (x, present))
    way, change = torch.as_tensor(rng.normal(size=x.shape)), torch.as_tensor(rng.normal(size=(1, 20)))
    h = 2e-2
    ahead, back = (float(cv(x + s * h * way, present + s * h * 0.1 * change).detach()) for s in (1, -1))
    expected = (ahead - back) / (2 * h)
    assert float((along * way).sum() + 0.1 * (more * change).sum()) == pytest.approx(expected, rel=5e-3)


def test_maps_that_are_none_are_refused(model, tmp_path):
    density = structure_density(model)
    write_map(tmp_path / "away.mrc", blobs(model.coords), PIXEL, origin=(500.0, 0.0, 0.0))
    with pytest.raises(InputError, match="from the middle of the run's box"):
        fit_target(tmp_path / "away.mrc", density)
    write_map(tmp_path / "coarse.mrc", blobs(model.coords)[::4, ::4, ::4], 4 * PIXEL, origin=ORIGIN)
    with pytest.raises(InputError, match="too coarse"):
        fit_target(tmp_path / "coarse.mrc", density)
    write_map(tmp_path / "density.mrc", 5 * blobs(model.coords), PIXEL, origin=ORIGIN)
    with pytest.raises(InputError, match="not a mask: its values run from"):
        read_mask(tmp_path / "density.mrc")
    write_map(tmp_path / "empty.mrc", 0 * blobs(model.coords), PIXEL, origin=ORIGIN)
    with pytest.raises(InputError, match="the mask is empty"):
        read_mask(tmp_path / "empty.mrc")
    write_map(tmp_path / "far.mrc", np.ones((8, 8, 8), np.float32), PIXEL, origin=(900.0, 0.0, 0.0))
    with pytest.raises(InputError, match="nothing of the molecule lies in this mask"):
        parse_cv(f"occupancy {tmp_path}/far.mrc", model)
    write_map(tmp_path / "unknown.mrc", np.ones((8, 8, 8), np.float32), 1.0)
    with pytest.raises(InputError, match="does not tell the size of its voxels"):
        read_mask(tmp_path / "unknown.mrc")
