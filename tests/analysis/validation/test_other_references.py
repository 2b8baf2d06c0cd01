"""Structures to start from: chains stay whole, atoms come along, other files are matched or refused."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryoscape.analysis.validation.other_references import (
    TURN,
    conformer,
    matched_model,
    moving_domain,
    with_domain_turned,
    write_model,
)
from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.superposition import fit_rigid
from tests.structures.builders import make_model, walk


def all_atoms(n=40, chains="A", seed=3):
    """Residues of four heavy atoms about a walk; two chains side by side where asked for."""
    rng = np.random.default_rng(seed)
    each = n // len(chains)
    coords = np.concatenate([walk(each, seed) + np.array([40.0 * k, 0, 0]) for k in range(len(chains))]) + 70
    names = [c for c in chains for _ in range(each)]
    model = make_model(coords, names, np.tile(np.arange(1, each + 1), len(chains)))
    offset = rng.normal(0, 1.2, (n, 4, 3))
    offset[:, 1] = 0.0
    atoms = coords[:, None] + offset
    return AtomicModel(
        **{
            **{name: getattr(model, name) for name in _COLUMNS},
            "weights": np.full(n, 7 + 6 + 6 + 8, np.float32),
            "heavy_coords": atoms.reshape(-1, 3).astype(np.float32),
            "heavy_weights": np.tile([7, 6, 6, 8], n).astype(np.float32),
            "heavy_residue": np.repeat(np.arange(n), 4),
        }
    )


_COLUMNS = ["coords", "chain_id", "residue_number", "insertion_code", "residue_name", "kind", "atom_name"]


def bonds(model):
    same = model.chain_id[1:] == model.chain_id[:-1]
    return np.linalg.norm(np.diff(model.coords.astype(np.float64), axis=0), axis=1)[same]


@pytest.mark.parametrize(
    ("domain", "chains"),
    [((12, 24), "A"), ((0, 9), "A"), ((30, 39), "A"), ((20, 39), "AB"), ((20, 25), "AB")],
)
def test_a_turned_domain_leaves_the_chain_whole(domain, chains):
    model = all_atoms(chains=chains)
    turned = with_domain_turned(model, domain)
    first, last = domain
    inside = np.zeros(len(model), bool)
    inside[first : last + 1] = True
    np.testing.assert_allclose(bonds(turned), bonds(model), atol=1e-4)
    np.testing.assert_array_equal(turned.coords[~inside], model.coords[~inside])
    atoms = inside[model.heavy_residue]
    np.testing.assert_array_equal(turned.heavy_coords[~atoms], model.heavy_coords[~atoms])
    motion = fit_rigid(model.coords[inside], turned.coords[inside])
    assert np.degrees(Rotation.from_matrix(motion.rotation).magnitude()) == pytest.approx(TURN, abs=0.01)
    carried = model.heavy_coords[atoms] @ motion.rotation.T + motion.translation
    np.testing.assert_allclose(turned.heavy_coords[atoms], carried, atol=1e-3)


def test_the_domain_is_the_stretch_that_moves():
    model = all_atoms(60, chains="AB")
    displacement = np.zeros((60, 3))
    displacement[8:20, 0] = 2.0
    displacement[26:34, 1] = 3.0
    # Longer is the first, but it moves by less than half of the largest where that is doubled.
    assert moving_domain(model, displacement) == (8, 19)
    displacement[26:34, 1] = 5.0
    # Eight residues across the border of the chains are two stretches.
    assert moving_domain(model, displacement) == (26, 29)


def test_where_all_moves_alike_a_quarter_of_a_chain_is_the_domain():
    model = all_atoms(40)
    displacement = np.ones((40, 3))
    displacement[30:] *= 1.2
    first, last = moving_domain(model, displacement)
    assert (first, last) == (30, 39)
    first, last = moving_domain(model, np.zeros((40, 3)))
    assert last - first + 1 == 10


def test_atoms_turn_with_their_chain():
    model = all_atoms()
    turn = Rotation.from_euler("xyz", [30, 80, -50], degrees=True)
    moved = conformer(model, turn.apply(model.coords - 70) + 20)
    np.testing.assert_allclose(moved.heavy_coords, turn.apply(model.heavy_coords - 70) + 20, atol=1e-3)
    np.testing.assert_allclose(conformer(model, model.coords).heavy_coords, model.heavy_coords, atol=1e-4)


@pytest.mark.parametrize("chains", ["A", "AB"])
def test_a_written_model_is_read_back(chains, tmp_path):
    model = all_atoms(chains=chains)
    back = write_model(tmp_path / "start.cif", model, "start")
    assert back.path == tmp_path / "start.cif"
    for name in _COLUMNS[1:]:
        np.testing.assert_array_equal(getattr(back, name), getattr(model, name))
    np.testing.assert_allclose(back.coords, model.coords, atol=6e-4)
    np.testing.assert_allclose(back.heavy_coords, model.heavy_coords, atol=6e-4)
    np.testing.assert_array_equal(back.heavy_weights, model.heavy_weights)
    np.testing.assert_array_equal(back.heavy_residue, model.heavy_residue)


def test_a_model_of_beads_stays_one(tmp_path):
    model = make_model(walk(20))
    back = write_model(tmp_path / "start.cif", model, "start")
    assert len(back.heavy_coords) == 20
    np.testing.assert_allclose(back.coords, model.coords, atol=6e-4)


def other_file(path, model, rows):
    turn = Rotation.from_euler("xyz", [10, 200, 30], degrees=True)
    beads, atoms = (turn.apply(x).astype(np.float32) for x in (model.coords, model.heavy_coords))
    return write_model(path, replace(model, coords=beads, heavy_coords=atoms).subset(rows), "other").path


def test_an_independent_model_is_matched_by_chain_and_number(tmp_path):
    """The file has more residues, in another order of chains and another frame."""
    whole = all_atoms(40, chains="AB")
    model = whole.subset(np.r_[2:18, 20:38])
    path = other_file(tmp_path / "other.cif", whole, np.r_[20:40, 0:20])
    found = matched_model(model, path)
    np.testing.assert_array_equal(found.chain_id, model.chain_id)
    np.testing.assert_array_equal(found.residue_number, model.residue_number)
    np.testing.assert_allclose(found.coords, model.coords, atol=3e-3)
    np.testing.assert_allclose(found.heavy_coords, model.heavy_coords, atol=3e-3)


def test_a_model_of_other_residues_is_refused(tmp_path):
    model = all_atoms(40, chains="AB")
    path = other_file(tmp_path / "short.cif", model, np.r_[0:5, 8:40])
    with pytest.raises(InputError, match=r"3 of 40 residues .* first A:6 GLY") as found:
        matched_model(model, path)
    assert found.value.file == path
    names = model.residue_name.copy()
    names[:8] = "TRP"
    path = other_file(tmp_path / "other.cif", replace(model, residue_name=names), np.arange(40))
    with pytest.raises(InputError, match=r"8 of 40 residues are of another kind .* A:1 TRP for A:1 GLY"):
        matched_model(model, path)
