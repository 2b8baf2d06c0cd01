"""Random orientations of an arm, and populations along a path."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from cryoscape.errors import InputError
from cryoscape.progress import Silent
from cryoscape.simulate.atoms import write_atoms
from cryoscape.simulate.hinge import hinge_protein
from cryoscape.simulate.linker import _random_rotation
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.populations import path_populations
from cryoscape.simulate.scenarios import build_scenario


def build(models=(), seed=0, **options):
    return build_scenario("linker", list(models), SimulationOptions(**options), Silent(), seed)


@pytest.fixture(scope="module")
def linker():
    return build(states=60)


def arm_of(built):
    moved = np.abs(built.coords[1:] - built.coords[0]).max(axis=(0, 2)) > 1e-6
    return moved, moved[built.atoms.bead]


def test_the_body_stays_and_the_arm_is_rigid(linker):
    moved, _ = arm_of(linker)
    assert 0.3 < moved.mean() < 0.7
    rotations = linker.facts["arm_rotation"]
    arm = linker.coords[:, moved]
    vectors = arm - arm[:, :1]
    np.testing.assert_allclose(vectors, vectors[0] @ rotations.transpose(0, 2, 1), atol=1e-9)
    np.testing.assert_array_equal(rotations[0], np.eye(3))


def test_no_state_clashes_more_than_the_first(linker):
    _, arm = arm_of(linker)
    beads = linker.coords[:, linker.atoms.bead]
    close = [int((cdist(b[arm], b[~arm]) < 4).sum()) for b in beads]
    assert max(close) <= close[0]


def test_distance_and_dihedral_are_those_of_the_centroids(linker):
    _, arm = arm_of(linker)
    beads = linker.coords[:, linker.atoms.bead]
    body, tip = beads[0, ~arm].mean(0), beads[:, arm].mean(1)
    np.testing.assert_allclose(linker.cv, np.linalg.norm(tip - body, axis=1))
    # The pivot is the point that every rotation leaves in place.
    r = linker.facts["arm_rotation"][1:]
    lhs = (np.eye(3) - r).reshape(-1, 3)
    rhs = (tip[1:] - np.einsum("sij,j->si", r, tip[0])).ravel()
    pivot = np.linalg.lstsq(lhs, rhs, rcond=None)[0]
    axis = (pivot - body) / np.linalg.norm(pivot - body)
    levers = tip - pivot
    flat = levers - np.outer(levers @ axis, axis)
    sign = np.sign(np.cross(flat[0], flat) @ axis)
    cos = flat @ flat[0] / np.linalg.norm(flat, axis=1) / np.linalg.norm(flat[0])
    angle = np.rad2deg(np.arccos(np.clip(cos, -1, 1)))
    difference = (linker.facts["dihedral"] - sign * angle + 180) % 360 - 180
    assert np.abs(difference).max() < 1e-3
    assert np.ptp(linker.facts["dihedral"]) > 250


def test_the_seed_and_the_limit_decide(linker):
    np.testing.assert_array_equal(build(states=60).coords, linker.coords)
    assert not np.allclose(build(states=60, seed=1).coords, linker.coords)
    small = Rotation.from_matrix(build(states=10, angle=20.0).facts["arm_rotation"][1:]).magnitude()
    assert 5 < np.rad2deg(small).max() <= 20


def test_unrestricted_rotations_are_uniform():
    rng = np.random.default_rng(0)
    drawn = np.stack([_random_rotation(np.pi, rng) for _ in range(3000)])
    # Haar measure: matrix elements have mean 0 and variance 1/3, and the trace has variance 1.
    assert np.abs(drawn.mean(axis=0)).max() < 0.05
    np.testing.assert_allclose(drawn.var(axis=0), 1 / 3, atol=0.03)
    assert np.trace(drawn, axis1=1, axis2=2).var() == pytest.approx(1, abs=0.08)


def test_models_are_turned_too_and_impossible_arms_refused(tmp_path, monkeypatch):
    write_atoms(tmp_path / "m.cif", hinge_protein(50.0), "m")
    assert len(build([tmp_path / "m.cif"], states=5, moving="A:90-166").coords) == 5
    monkeypatch.setattr("cryoscape.simulate.linker.TRIES", 1)
    with pytest.raises(InputError, match="of 30 orientations of the arm are free of clashes"):
        build([tmp_path / "m.cif"], states=30, moving="A:40-60")
    with pytest.raises(InputError, match="turns one model"):
        build([tmp_path / "m.cif", tmp_path / "m.cif"])


def test_bimodal_populations():
    x = np.linspace(0, 1, 101)
    p = path_populations(x, "bimodal")
    assert p.sum() == pytest.approx(1)
    assert p[25] / p[75] == pytest.approx(7 / 3, rel=1e-4)
    # One standard deviation from the first peak the second is not felt yet.
    assert p[15] / p[25] == pytest.approx(np.exp(-0.5), rel=1e-4)
    assert p[x < 0.5].sum() == pytest.approx(0.7, abs=0.01)
    circle = path_populations(np.arange(100) / 100, "bimodal", circle=True)
    assert circle[5] / circle[45] == pytest.approx(1, rel=1e-2)
    assert circle[95] == pytest.approx(circle[55], rel=1e-2)
    np.testing.assert_allclose(path_populations(x, "equal"), 1 / 101)


@pytest.mark.parametrize("name", ["hinge", "linear1d", "circular1d"])
def test_paths_take_a_profile(name):
    built = build_scenario(name, [], SimulationOptions(profile="bimodal", states=20), Silent())
    assert built.population.max() > 4 * built.population.min()
    assert built.population.sum() == pytest.approx(1)
