from __future__ import annotations

import dataclasses

import gemmi
import numpy as np
import pytest
from biotite.structure.io import pdbx

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.ensemble import read_ensemble, write_ensemble
from tests.structures.builders import make_model, walk

SUFFIXES = ["e.cif", "e.bcif", "e.pdb", "e.cif.gz", "e.bcif.gz", "e.pdb.gz"]


@pytest.fixture
def model():
    kind = np.repeat([0, 1], [8, 4])
    made = make_model(
        walk(12), ["A"] * 5 + ["b"] * 3 + ["R"] * 4, [1, 2, 2, 9, 10, 1, 2, 3, -2, -1, 1, 2], kind=kind
    )
    code = made.insertion_code.astype("U1")
    code[2] = "A"
    atom = made.atom_name.astype("U3")
    atom[8] = "C1'"
    return dataclasses.replace(made, insertion_code=code, atom_name=atom)


@pytest.fixture
def coords(model):
    return model.coords + np.random.default_rng(0).normal(size=(3, 12, 3))


@pytest.mark.parametrize("name", SUFFIXES)
def test_round_trip_keeps_names_and_coordinates(tmp_path, model, coords, name):
    path = tmp_path / "new folder" / name
    write_ensemble(path, model, coords)
    np.testing.assert_allclose(read_ensemble(path), coords, atol=6e-4)
    back = AtomicModel.read(path)
    for field in ("chain_id", "residue_number", "insertion_code", "residue_name", "atom_name", "kind"):
        assert getattr(back, field).tolist() == getattr(model, field).tolist(), field
    assert back.left_out == {"models after the first": 2}
    assert [p.name for p in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["e.cif", "e.pdb"])
def test_other_readers_agree(tmp_path, model, coords, name):
    path = tmp_path / name
    b = np.linspace(1, 90, 36).reshape(3, 12)
    write_ensemble(path, model, coords, b_factors=b, titles=["first", "it's second", "third 'of' three"])
    structure = gemmi.read_structure(str(path))
    structure.setup_entities()
    assert len(structure) == 3
    for m, frame in enumerate(structure):
        atoms = [atom for chain in frame for residue in chain for atom in residue]
        np.testing.assert_allclose([a.pos.tolist() for a in atoms], coords[m], atol=6e-4)
        np.testing.assert_allclose([a.b_iso for a in atoms], b[m], atol=6e-3)
        assert [a.element.name for a in atoms] == ["C"] * 9 + ["P"] * 3
        assert [len(chain.get_polymer()) for chain in frame] == [5, 3, 4]


def test_binary_cif_is_read_by_biotite(tmp_path, model, coords):
    path = tmp_path / "e.bcif"
    write_ensemble(path, model, coords, b_factors=np.arange(12.0))
    stack = pdbx.get_structure(pdbx.BinaryCIFFile.read(path), extra_fields=["b_factor"])
    np.testing.assert_allclose(stack.coord, coords, atol=6e-4)
    assert stack.ins_code.tolist() == model.insertion_code.tolist()
    np.testing.assert_allclose(stack.b_factor, np.arange(12.0))


def test_titles_are_kept(tmp_path, model, coords):
    titles = ["5th percentile", "it's the mean", "95th"]
    write_ensemble(tmp_path / "e.cif", model, coords, titles=titles)
    block = gemmi.cif.read(str(tmp_path / "e.cif")).sole_block()
    assert [gemmi.cif.as_string(v) for v in block.find_values("_cryoscape_model.title")] == titles
    write_ensemble(tmp_path / "e.pdb", model, coords, titles=titles)
    assert "REMARK 999 MODEL    1 5th percentile" in (tmp_path / "e.pdb").read_text()


def test_one_structure_may_come_without_its_leading_axis(tmp_path, model):
    write_ensemble(tmp_path / "e.cif", model, model.coords)
    assert read_ensemble(tmp_path / "e.cif").shape == (1, 12, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chain_id": np.array(["AA"] * 12)}, "more than one letter"),
        ({"residue_number": np.arange(12) + 9995}, "four places"),
        ({"residue_name": np.array(["ABCDE"] * 12)}, "three letters"),
    ],
)
def test_pdb_is_refused_where_it_cannot_hold_the_model(tmp_path, model, change, message):
    with pytest.raises(InputError, match=message) as caught:
        write_ensemble(tmp_path / "e.pdb", dataclasses.replace(model, **change), model.coords)
    assert "cif" in caught.value.remedy
    assert not list(tmp_path.iterdir())


def test_pdb_is_refused_for_too_many_atoms(tmp_path):
    n = 100_000
    big = make_model(np.zeros((n, 3)), numbers=np.ones(n, dtype=int))
    with pytest.raises(InputError, match="99,999"):
        write_ensemble(tmp_path / "e.pdb", big, big.coords)


def test_faulty_calls(tmp_path, model, coords):
    with pytest.raises(InputError, match="not the name"):
        write_ensemble(tmp_path / "e.xyz", model, coords)
    with pytest.raises(ValueError, match="shape"):
        write_ensemble(tmp_path / "e.cif", model, coords[:, :4])
    with pytest.raises(ValueError, match="finite"):
        write_ensemble(tmp_path / "e.cif", model, coords * np.nan)
    with pytest.raises(ValueError, match="titles"):
        write_ensemble(tmp_path / "e.cif", model, coords, titles=["one"])
    with pytest.raises(ValueError, match="B-factors"):
        write_ensemble(tmp_path / "e.cif", model, coords, b_factors=np.zeros(5))
    assert not list(tmp_path.iterdir())


def test_models_of_different_molecules_are_refused(tmp_path, model, coords):
    path = tmp_path / "e.pdb"
    write_ensemble(path, model, coords)
    lines = path.read_text().splitlines()
    last_atom = max(i for i, line in enumerate(lines) if line.startswith("ATOM"))
    path.write_text("\n".join(lines[:last_atom] + lines[last_atom + 1 :]))
    with pytest.raises(InputError, match="model 3 does not hold the same residues"):
        read_ensemble(path)
