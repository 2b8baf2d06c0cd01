"""States and populations of every scenario."""

from __future__ import annotations

import numpy as np
import pytest

from cryoscape.errors import InputError
from cryoscape.progress import Silent
from cryoscape.simulate.atoms import read_atoms, write_atoms
from cryoscape.simulate.domains import find_arm, thinnest_cut, turned, turning_axis
from cryoscape.simulate.hinge import DOMAIN_LENGTH, LINKER_LENGTH, hinge_protein
from cryoscape.simulate.imaging import exact_counts
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.populations import double_well_populations
from cryoscape.simulate.scenarios import build_scenario
from cryoscape.structures.composition import residue_electrons
from cryoscape.structures.ensemble import write_ensemble


def build(name, models=(), **options):
    return build_scenario(name, list(models), SimulationOptions(**options), Silent())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    for name, angle in (("closed", 0.0), ("open", 50.0)):
        write_atoms(path / f"{name}.cif", hinge_protein(angle), name)
    return path


@pytest.mark.parametrize(
    ("name", "states"),
    [("hinge", 50), ("linear1d", 50), ("circular1d", 100), ("double-well", 101), ("states", 3)],
)
def test_scenarios_without_models(name, states):
    built = build(name)
    assert built.coords.shape == (states, len(built.atoms), 3)
    assert built.population.shape == built.cv.shape == (states,)
    assert built.population.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(built.atoms.weights @ built.coords[0], 0, atol=1e-6)
    np.testing.assert_array_equal(built.atoms.coords, built.coords[0])


def test_double_well_is_boltzmann():
    x = np.linspace(0, 1, 101)
    p = double_well_populations(x, 4.0)
    assert -np.log(p[50] / p[20]) == pytest.approx(4.0)
    assert np.argmax(p[:50]) == 20
    assert np.argmax(p[51:]) + 51 == 80
    tilted = double_well_populations(x, 4.0, (0.8, 0.2))
    assert tilted[x > 0.5].sum() + 0.5 * tilted[50] == pytest.approx(0.2, abs=1e-9)
    # Tilting adds a straight line to the potential and nothing else.
    line = np.log(tilted / p)
    np.testing.assert_allclose(np.diff(line), np.diff(line)[0], atol=1e-9)


@pytest.mark.parametrize("n", [6000, 997, 3])
def test_counts_are_as_exact_as_whole_numbers_can_be(n):
    p = np.array([0.6, 0.35, 0.05])
    counts = exact_counts(p, n)
    assert counts.sum() == n
    assert np.abs(counts - p * n).max() < 1
    if n == 6000:
        assert counts.tolist() == [3600, 2100, 300]


def test_path_between_given_models(folder):
    built = build("adk", [folder / "closed.cif", folder / "open.cif"], states=3)
    truth = np.stack([hinge_protein(a).coords for a in (0.0, 25.0, 50.0)])
    truth -= built.atoms.weights @ truth[0] / built.atoms.weights.sum()
    np.testing.assert_allclose(built.coords[[0, 2]], truth[[0, 2]], atol=2e-3)
    rmsd = np.sqrt(((built.coords[1] - truth[1]) ** 2).sum(-1).mean())
    assert rmsd < 2.0
    assert built.cv.tolist() == [0, 0.5, 1]


def test_thinnest_cut_finds_the_domains(folder):
    atoms = read_atoms(folder / "open.cif")[0]
    arm = thinnest_cut(atoms.bead_coords)
    assert abs(int(arm.sum()) - len(arm) // 2) <= LINKER_LENGTH
    assert arm[:DOMAIN_LENGTH].mean() in (0.0, 1.0)
    assert arm[-DOMAIN_LENGTH:].mean() == 1 - arm[:DOMAIN_LENGTH].mean()


def test_turned_domain_is_rigid_and_the_rest_stays(folder):
    atoms = read_atoms(folder / "open.cif")[0]
    arm = find_arm(atoms, None)
    coords = turned(atoms, arm, turning_axis(atoms, arm), 1.0)
    moves = arm.residues[atoms.residue]
    np.testing.assert_array_equal(coords[~moves], atoms.coords[~moves])
    before, after = atoms.coords[moves], coords[moves]
    np.testing.assert_allclose(
        np.linalg.norm(after - after[0], axis=1), np.linalg.norm(before - before[0], axis=1), atol=1e-9
    )
    assert np.abs(after - before).max() > 5


def test_one_given_model_bends_and_turns(folder):
    bent = build("linear1d", [folder / "closed.cif"], states=4, moving="A:87-166")
    still = bent.atoms.residue < 86
    np.testing.assert_allclose(bent.coords[:, still], np.tile(bent.coords[0, still], (4, 1, 1)), atol=1e-9)
    round_trip = build("circular1d", [folder / "open.cif"], states=6)
    steps = np.linalg.norm(np.roll(round_trip.coords, -1, 0) - round_trip.coords, axis=-1).mean(1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_trajectories_of_beads(tmp_path):
    rng = np.random.default_rng(0)
    first = np.cumsum(rng.normal(size=(12, 3)), axis=0)
    frames = first + 0.1 * rng.normal(size=(5, 12, 3))
    np.savez(tmp_path / "t.npz", ca=frames, sequence="MRIILLGAPGAG")
    built = build("states", [tmp_path / "t.npz"], frames=(0, 3), populations=(0.9, 0.1))
    # Heavy atoms of MET, GLY and TRP-free sequence: 5 C, 1 N, 1 O, 1 S = 61 electrons.
    assert built.atoms.weights[0] == 61
    assert built.atoms.sigma == 2.0
    np.testing.assert_allclose(np.diff(built.coords, axis=0)[0], frames[3] - frames[0], atol=1e-9)
    assert len(build("models", [tmp_path / "t.npz"]).coords) == 5


def test_files_of_several_models(folder, tmp_path):
    states = np.stack([hinge_protein(a).bead_coords for a in (0.0, 20.0, 50.0)])
    model = read_atoms(folder / "closed.cif")[0].model()
    write_ensemble(tmp_path / "three.cif", model, states.astype(np.float32))
    built = build("models", [tmp_path / "three.cif"], populations=(0.2, 0.3, 0.5))
    np.testing.assert_allclose(built.coords - built.coords[0, 0], states - states[0, 0], atol=2e-3)
    assert built.atoms.weights[0] == residue_electrons("SER") == 6 * 3 + 7 + 2 * 8


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("wobble", {}, "no scenario"),
        ("adk", {}, "needs two models"),
        ("models", {}, "needs models"),
        ("hinge", {"populations": (0.5, 0.5)}, "follow from the scenario"),
        ("double-well", {"populations": (0.2, 0.3, 0.5)}, "two populations"),
        ("states", {"states": 9}, "2 to 6"),
    ],
)
def test_scenarios_refuse_what_makes_no_sense(name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, **options)


def test_models_refuse_what_makes_no_sense(folder):
    both = [folder / "closed.cif", folder / "open.cif"]
    with pytest.raises(InputError, match="3 populations for 2 states"):
        build("states", both, populations=(0.2, 0.3, 0.5))
    with pytest.raises(InputError, match="no frame 5"):
        build("models", both, frames=(0, 5))
    with pytest.raises(InputError, match="turns one model"):
        build("circular1d", both)
    with pytest.raises(InputError, match="no such model file"):
        build("models", [folder / "nothing.pdb"])
    with pytest.raises(InputError):
        build("linear1d", both[:1], moving="B")


def test_models_with_different_atoms_keep_what_they_share(folder, tmp_path):
    atoms = hinge_protein(50)
    write_atoms(tmp_path / "short.cif", atoms.take(np.arange(5, len(atoms))), "short")
    built = build("models", [folder / "closed.cif", tmp_path / "short.cif"])
    assert len(built.atoms) == len(atoms) - 5
    assert "5 atoms" in built.notes[0]
