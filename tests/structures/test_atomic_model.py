from __future__ import annotations

import gzip

import numpy as np
import pytest

from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel, fits_in_box
from tests.structures.builders import make_model, pdb_line, write_pdb


def glycine(number, x, chain="A", **kwargs):
    """N, CA, C, O of one residue along x."""
    atoms = (("N", "N", -1.2), ("CA", "C", 0.0), ("C", "C", 1.5), ("O", "O", 1.9))
    name = kwargs.pop("residue", "GLY")
    return [
        pdb_line(1, atom, name, chain, number, (x + dx, 0.5 * number, 0.1), element=e, **kwargs)
        for atom, e, dx in atoms
    ]


def test_beads_weights_and_heavy_atoms(tmp_path):
    lines = glycine(1, 0.0) + glycine(2, 3.8) + ["TER"] + glycine(1, 80.0, chain="B")[:3]
    lines.append(pdb_line(9, "CA", "GLY", "B", 2, (84, 0, 0)))
    lines.append(pdb_line(10, "HA2", "GLY", "B", 2, (85, 0, 0), element="H"))
    model = AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))
    assert model.chains == ("A", "B")
    assert model.residue_number.tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(model.coords[:2], [[0, 0.5, 0.1], [3.8, 1.0, 0.1]], atol=1e-6)
    # N 7, C 6, C 6, O 8; the third residue has no O; the fourth, known by its CA alone, weighs as a glycine.
    assert model.weights.tolist() == [27, 27, 19, 27]
    assert model.heavy_residue.tolist() == [0] * 4 + [1] * 4 + [2] * 3 + [3]
    assert model.heavy_weights.sum() == model.weights.sum()
    assert model.left_out == {"hydrogen atoms": 1}
    assert model.coords.dtype == model.weights.dtype == model.heavy_coords.dtype == np.float32


def test_waters_ligands_and_residues_without_bead_are_counted(tmp_path):
    lines = glycine(1, 0.0) + glycine(2, 3.8) + glycine(3, 7.6)[:1] + glycine(4, 11.4) + ["TER"]
    lines += [
        pdb_line(20, "O", "HOH", "A", 101, (9, 9, 9), element="O", hetero=True),
        pdb_line(21, "O", "HOH", "A", 102, (9, 8, 9), element="O", hetero=True),
        pdb_line(22, "CA", "CA", "A", 201, (1, 9, 9), element="CA", hetero=True),
        pdb_line(23, "C1", "NAG", "A", 202, (2, 9, 9), hetero=True),
    ]
    lines += glycine(301, 30.0, residue="GLU", hetero=True)
    model = AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))
    assert model.residue_number.tolist() == [1, 2, 4]
    assert model.left_out == {"waters": 2, "ligands": 3, "residues without CA, P or C1'": 1}
    assert any("2 waters" in note for note in model.notes)


def test_highest_occupancy_wins_and_ties_go_to_the_first(tmp_path):
    def site(number, low, high):
        return [
            pdb_line(1, "N", "SER", "A", number, (number * 3.8 - 1, 0, 0), element="N"),
            pdb_line(2, "CA", "SER", "A", number, (number * 3.8, 0, 0), altloc="A", occupancy=low),
            pdb_line(3, "CA", "SER", "A", number, (number * 3.8, 1, 0), altloc="B", occupancy=high),
            pdb_line(4, "CB", "SER", "A", number, (number * 3.8, 0, 2), altloc="A", occupancy=low),
            pdb_line(5, "CB", "SER", "A", number, (number * 3.8, 1, 2), altloc="B", occupancy=high),
        ]

    path = write_pdb(tmp_path / "m.pdb", site(1, 0.4, 0.6) + site(2, 0.5, 0.5) + site(3, 0.7, 0.3))
    model = AtomicModel.read(path)
    np.testing.assert_allclose(model.coords[:, 1], [1, 0, 0])
    assert model.weights.tolist() == [19, 19, 19]
    # The whole residue follows one label: no atom of B beside atoms of A.
    assert [model.heavy_coords[model.heavy_residue == i, 1].max() for i in range(3)] == [1, 0, 0]
    assert model.left_out == {"atoms of other conformations": 6}


def test_microheterogeneity_keeps_the_commoner_residue(tmp_path):
    lines = glycine(1, 0.0)
    lines += glycine(2, 3.8, residue="SER", altloc="A", occupancy=0.3)
    lines += glycine(2, 3.9, residue="THR", altloc="B", occupancy=0.7)
    lines += glycine(3, 7.6)
    model = AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))
    assert model.residue_name.tolist() == ["GLY", "THR", "GLY"]
    np.testing.assert_allclose(model.coords[1, 0], 3.9, atol=1e-5)


def test_insertion_codes_and_gaps_keep_their_order(tmp_path):
    lines = glycine(52, 0.0) + glycine(52, 3.8, insertion="A") + glycine(52, 7.6, insertion="B")
    lines += glycine(60, 11.4)
    model = AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))
    assert model.residue_number.tolist() == [52, 52, 52, 60]
    assert model.insertion_code.tolist() == ["", "A", "B", ""]
    assert model.label(1) == "A:52A GLY"


def test_modified_and_unknown_residues_stay_in_the_chain(tmp_path):
    lines = glycine(1, 0.0) + glycine(2, 3.8, residue="MSE", hetero=True)
    lines += glycine(3, 7.6, residue="SEP", hetero=True) + glycine(4, 11.4, residue="HSD") + glycine(5, 15.2)
    model = AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))
    assert model.residue_name.tolist() == ["GLY", "MSE", "SEP", "HSD", "GLY"]
    assert model.left_out == {}


def test_nucleotides_use_p_and_the_sugar_where_p_is_missing(tmp_path):
    lines = [
        pdb_line(1, "C1'", "DA", "N", 1, (0, 0, 0)),
        pdb_line(2, "P", "DG", "N", 2, (6, 0, 0), element="P"),
        pdb_line(3, "C1'", "DG", "N", 2, (6, 5, 0)),
        pdb_line(4, "P", "U", "N", 3, (12, 0, 0), element="P"),
        pdb_line(5, "C1*", "RG5", "N", 4, (18, 0, 0)),
    ]
    model = AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))
    assert model.atom_name.tolist() == ["C1'", "P", "P", "C1'"]
    assert model.kind.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(model.coords[:, 0], [0, 6, 12, 18])


def test_first_model_of_an_nmr_file(tmp_path):
    lines = ["MODEL        1", *glycine(1, 0.0), *glycine(2, 3.8), "ENDMDL"]
    lines += ["MODEL        2", *glycine(1, 5.0), *glycine(2, 8.8), "ENDMDL"]
    model = AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))
    np.testing.assert_allclose(model.coords[:, 0], [0, 3.8], atol=1e-6)
    assert model.left_out == {"models after the first": 1}


CIF = """data_test
loop_
_atom_site.group_PDB
_atom_site.id
_atom_site.type_symbol
_atom_site.label_atom_id
_atom_site.label_alt_id
_atom_site.label_comp_id
_atom_site.label_asym_id
_atom_site.label_entity_id
_atom_site.label_seq_id
_atom_site.pdbx_PDB_ins_code
_atom_site.Cartn_x
_atom_site.Cartn_y
_atom_site.Cartn_z
_atom_site.occupancy
_atom_site.B_iso_or_equiv
_atom_site.auth_seq_id
_atom_site.auth_asym_id
_atom_site.pdbx_PDB_model_num
"""


def cif_rows(chain, n, y=0.0):
    return "".join(
        f"ATOM {i} C CA . GLY A 1 {i + 1} ? {3.8 * i:.3f} {y:.3f} 0.0 1.0 10.0 {10 + i} {chain} 1\n"
        for i in range(n)
    )


def test_mmcif_uses_author_names_of_any_length_and_gzip(tmp_path):
    text = CIF + cif_rows("HeavyChain-2", 3) + cif_rows("b2", 2, y=20.0)
    path = tmp_path / "m.cif.gz"
    path.write_bytes(gzip.compress(text.encode()))
    model = AtomicModel.read(path)
    assert model.chains == ("HeavyChain-2", "b2")
    assert model.residue_number.tolist() == [10, 11, 12, 10, 11]
    assert model.path == path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.pdb", "REMARK nothing\nEND\n", "no polymer"),
        ("m.cif", "data_x\n_a.b 1\n", "no polymer"),
        ("m.cif", CIF + "ATOM 1 C\n", "cannot be read"),
        ("m.pdb.gz", "not gzip", "cannot be read|no polymer"),
        ("m.bcif", "not binary", "cannot be read"),
        ("m.txt", "hello", "not the name of"),
        ("m.pdb", pdb_line(1, "O", "HOH", "A", 1, (0, 0, 0), element="O", hetero=True), "no polymer"),
        ("m.pdb", pdb_line(1, "CB", "ALA", "A", 1, (0, 0, 0)), "no residue holds a CA"),
        ("m.pdb", pdb_line(1, "CA", "ALA", "A", 1, (float("nan"), 0, 0)), "not finite, first at A:1 ALA CA"),
    ],
)
def test_faults_name_the_file(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        AtomicModel.read(path)
    assert caught.value.file == path
    assert caught.value.remedy


def test_missing_file():
    with pytest.raises(InputError, match="does not exist"):
        AtomicModel.read("no/such/file.pdb")


@pytest.mark.parametrize(
    "lines",
    [
        glycine(7, 0.0) + glycine(7, 9.0),
        glycine(7, 0.0) + glycine(8, 3.8) + glycine(7, 9.0),
        glycine(7, 0.0) + glycine(7, 9.0, residue="ALA"),
    ],
    ids=["merged", "later", "two names"],
)
def test_duplicate_residues(tmp_path, lines):
    with pytest.raises(InputError, match="duplicate residues: A:7"):
        AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))


def test_two_residues_at_one_place(tmp_path):
    lines = [pdb_line(1, "CA", "GLY", "A", 1, (0, 0, 0)), pdb_line(2, "CA", "GLY", "A", 2, (0, 0, 0))]
    with pytest.raises(InputError, match="A:1 and A:2 lie at the same place"):
        AtomicModel.read(write_pdb(tmp_path / "m.pdb", lines))


def test_moving_and_cutting_carry_the_heavy_atoms(tmp_path):
    model = AtomicModel.read(
        write_pdb(tmp_path / "m.pdb", glycine(1, 0.0) + glycine(2, 3.8) + glycine(3, 7.6))
    )
    moved = model.translated((1, 2, 3))
    np.testing.assert_allclose(
        moved.heavy_coords - model.heavy_coords, np.tile([1, 2, 3], (12, 1)), atol=1e-6
    )
    new = model.coords.copy()
    new[1] += 5
    bent = model.with_coords(new)
    np.testing.assert_allclose((bent.heavy_coords - model.heavy_coords)[:, 0], [0] * 4 + [5] * 4 + [0] * 4)
    cut = model.subset([2, 0])
    assert cut.residue_number.tolist() == [3, 1]
    np.testing.assert_allclose(cut.heavy_coords[cut.heavy_residue == 0], model.heavy_coords[8:])
    with pytest.raises(ValueError, match="shape"):
        model.with_coords(new[:2])


def test_radius_and_box():
    model = make_model(np.array([[10.0, 0, 0], [-30, 0, 0], [20, 0, 0]]))
    assert model.radius == pytest.approx(30)
    assert fits_in_box(model, box=60, pixel_size=1.0)
    assert not fits_in_box(model, box=58, pixel_size=1.0)
    assert not fits_in_box(model.translated((0, 40, 0)), box=60, pixel_size=1.0)
