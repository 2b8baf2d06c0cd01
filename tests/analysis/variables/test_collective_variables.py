"""Collective variables against other programs' formulas, finite differences, and what they refuse."""

import numpy as np
import pytest
import torch
from biotite.structure import angle as biotite_angle
from biotite.structure import dihedral as biotite_dihedral
from scipy.spatial.transform import Rotation

from cryoscape.analysis.components import PrincipalComponents, decoded_motion
from cryoscape.analysis.variables.variable_syntax import cv_of_run, parse_cv
from cryoscape.errors import InputError
from cryoscape.structures.ensemble import write_ensemble
from tests.analysis.fakes import chain_model, fake_run


@pytest.fixture(scope="module")
def model():
    return chain_model(40)


@pytest.fixture(scope="module")
def coords(model):
    rng = np.random.default_rng(0)
    return model.coords.astype(float) + rng.normal(0, 2, (6, len(model), 3))


@pytest.fixture(scope="module")
def reference(model, tmp_path_factory):
    """The model turned and moved, as a file."""
    path = tmp_path_factory.mktemp("reference") / "turned model.cif"
    turned = model.coords @ Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix().T + [5, -80, 12]
    write_ensemble(path, model, turned[None].astype(np.float32))
    return path


def evaluated(cv, coords):
    return cv(torch.as_tensor(coords)).numpy()


def check_gradient(cv, coords):
    """Autograd against central differences in random directions."""
    x = torch.as_tensor(coords).double().requires_grad_()
    (gradient,) = torch.autograd.grad(cv(x).sum(), x)
    rng = np.random.default_rng(1)
    for _ in range(3):
        way = torch.as_tensor(rng.normal(size=coords.shape))
        way /= way.norm()
        ahead, back = (float(cv(x.detach() + step * way).sum()) for step in (1e-4, -1e-4))
        assert float((gradient * way).sum()) == pytest.approx((ahead - back) / 2e-4, rel=1e-5, abs=1e-7)


def test_distance_is_that_of_the_centres(model, coords):
    cv = parse_cv("distance A:3-6,B:2 B", model)
    chosen = [2, 3, 4, 5, 21]
    expected = np.linalg.norm(coords[:, chosen].mean(1) - coords[:, 20:].mean(1), axis=1)
    np.testing.assert_allclose(evaluated(cv, coords), expected, rtol=1e-12)
    check_gradient(cv, coords)
    assert (cv.unit, cv.text) == ("A", "distance A:3-6,B:2 B")


def test_blanks_after_commas_are_allowed(model, coords):
    spaced, plain = (parse_cv(text, model) for text in ("distance A:3, B:2 B:9", "distance A:3,B:2 B:9"))
    np.testing.assert_array_equal(evaluated(spaced, coords), evaluated(plain, coords))


def test_angle_is_biotites(model, coords):
    cv = parse_cv("angle A:1 A:10 B:4-8", model)
    expected = np.degrees(biotite_angle(coords[:, 0], coords[:, 9], coords[:, 23:28].mean(1)))
    # Biotite has single precision.
    np.testing.assert_allclose(evaluated(cv, coords), expected, atol=1e-4)
    check_gradient(cv, coords)


def test_dihedral_is_biotites(model, coords):
    cv = parse_cv("dihedral A:1 A:9 B:9 B:1", model)
    expected = np.degrees(biotite_dihedral(*(coords[:, i] for i in (0, 8, 28, 20))))
    np.testing.assert_allclose(evaluated(cv, coords), expected, atol=1e-4)
    check_gradient(cv, coords)


@pytest.mark.parametrize("turn", [-170.0, -60.0, 0.0, 60.0, 179.0])
def test_a_clockwise_turn_is_positive(turn):
    # The bond points along z, away from the eye; x is to the right, so that y is down: x to y is clockwise.
    a = np.radians(turn)
    places = np.array([[1, 0, 0], [0, 0, 0], [0, 0, 1.5], [2 * np.cos(a), 2 * np.sin(a), 1.5]])
    model = chain_model(4, "A")
    cv = parse_cv("dihedral A:1 A:2 A:3 A:4", model)
    assert evaluated(cv, places[None])[0] == pytest.approx(turn, abs=1e-9)


def test_straight_angles_have_finite_gradients():
    model = chain_model(4, "A")
    places = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]]).requires_grad_()
    for text in ("angle A:1 A:2 A:3", "dihedral A:1 A:2 A:3 A:4"):
        (gradient,) = torch.autograd.grad(parse_cv(text, model)(places).sum(), places)
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize(("selection", "rows"), [("", slice(0, 40)), (" A:5-20,B:1-4", [*range(4, 24)])])
def test_rmsd_is_scipys(model, coords, reference, selection, rows):
    cv = parse_cv(f"rmsd '{reference}'{selection}", model)
    target = model.coords[rows].astype(float)
    expected = []
    for one in coords[:, rows]:
        a, b = one - one.mean(0), target - target.mean(0)
        expected.append(Rotation.align_vectors(b, a)[1] / np.sqrt(len(target)))
    np.testing.assert_allclose(evaluated(cv, coords), expected, rtol=1e-4)
    check_gradient(cv, coords)


def test_rmsd_of_the_same_structure_is_zero_with_a_gradient_of_zero(model, reference):
    x = torch.as_tensor(model.coords).double()[None].requires_grad_()
    value = parse_cv(f"rmsd '{reference}'", model)(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert float(value.detach()) == pytest.approx(0, abs=2e-3)
    assert bool(gradient.isfinite().all())


def test_gyration_radius_weighs_electrons_that_are_there(model, coords):
    weights = np.linspace(30, 90, 40)
    heavy = chain_model(40)
    object.__setattr__(heavy, "weights", weights)
    cv = parse_cv("rg A", heavy)
    present = np.ones((6, 40))
    present[:, :7] = 0.25
    share = (weights * present)[:, :20]
    share = (share / share.sum(1, keepdims=True))[..., None]
    x = coords[:, :20]
    centre = (share * x).sum(1, keepdims=True)
    expected = np.sqrt((share * (x - centre) ** 2).sum((1, 2)))
    found = cv(torch.as_tensor(coords), torch.as_tensor(present)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    check_gradient(cv, coords)
    np.testing.assert_allclose(
        evaluated(parse_cv("rg", model), coords),
        np.sqrt(((coords - coords.mean(1, keepdims=True)) ** 2).sum(2).mean(1)),
        rtol=1e-6,
    )


def test_components_are_those_of_the_analysis(tmp_path):
    run = fake_run(tmp_path / "run")
    motion = decoded_motion(run, run.embedding.z)
    for k in (0, 1):
        cv = parse_cv(f"pc {k + 1}", run.structure, components=motion.components)
        np.testing.assert_allclose(
            evaluated(cv, run.decode(run.embedding.z)), motion.components.scores[:, k], atol=2e-4
        )


def test_what_is_wrong_is_said(model, reference, tmp_path):
    chain = chain_model(20, "A")
    write_ensemble(tmp_path / "short.cif", chain, chain.coords[None])
    axes = np.eye(120)[:3]
    components = PrincipalComponents(np.zeros(120), axes, np.array([2.0, 1.0, 0]), 3.0, np.zeros((5, 3)))
    wrong = [
        ("distance A:3 C:5", "no chain 'C'", "A, B"),
        ("distance A:3 A:99", "no residue 99", "1 to 20"),
        ("distance A:3 A:3", "the same residues", "different residues"),
        ("distance A:3", "has 1 arguments", "distance SEL SEL"),
        ("distance A:3 A:x", "cannot be read", "A:55"),
        ("angle A:1 A:2 A:2", "A:2 and A:2", "different"),
        ("dihedral A:1 A:2 A:3 A:2", "the same residues", "different"),
        ("torsion A:1 A:2", "no collective variable", "dihedral SEL"),
        ("", "empty", "distance SEL"),
        ("rmsd nothere.pdb", "no such file", "path"),
        ("rmsd 'half", "cannot be read", "quote"),
        (f"rmsd '{reference}' A:1-2", "2 residues can always", "three"),
        (f"rmsd {tmp_path}/short.cif", "20 of 40 residues are not in this file, B:1 ALA", "select residues"),
        ("rg A:1", "one residue", "two"),
        ("pc 3", "no component 3", "1 to 2"),
        ("pc first", "no component first", "1 to 2"),
    ]
    for text, message, remedy in wrong:
        with pytest.raises(InputError, match=message) as caught:
            parse_cv(text, model, components=components)
        assert remedy in caught.value.remedy, text


def test_runs_say_what_they_lack(tmp_path):
    run = fake_run(tmp_path / "run")
    with pytest.raises(InputError, match="has not been analysed"):
        cv_of_run(run, "pc 1")
    run.has_structures = False
    with pytest.raises(InputError, match="this run decodes maps"):
        cv_of_run(run, "distance A:1 A:2")
