"""Kinds of junk, by what differs from the same set without any."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cryoscape.errors import InputError
from cryoscape.physics.fourier import forward, frequency_grid, inverse, shift_phase
from cryoscape.simulate.dataset import simulate
from cryoscape.simulate.hinge import hinge_protein
from cryoscape.simulate.imaging import draw_views, stream
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.wrong_molecule import LONGEST_CHAIN, wrong_molecule
from tests.simulate.test_dataset import stack, table

KINDS = ("noise", "shifted", "wrong")
SIZE = {"particles": 60, "box": 48, "pixel": 4.0, "snr": 1e6, "seed": 4}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("junk")
    clean, junk = SimulationOptions(), SimulationOptions(junk=0.3, junk_kinds=KINDS, junk_shift=(15.0, 30.0))
    simulate("hinge", folder / "clean", options=clean, **SIZE)
    simulate("hinge", folder / "junk", options=junk, **SIZE)
    return [
        (stack(folder / n), dict(np.load(folder / n / "truth.npz")), table(folder / n))
        for n in ("clean", "junk")
    ]


def test_kinds_in_equal_parts(sets):
    truth = sets[1][1]
    assert {kind: int((truth["junk_kind"] == kind).sum()) for kind in KINDS} == dict.fromkeys(KINDS, 6)
    np.testing.assert_array_equal(truth["junk_kind"] != "", truth["junk"])


def test_noise_is_empty_and_does_not_count_for_the_snr(sets):
    images, truth, _ = sets[1]
    empty = truth["junk_kind"] == "noise"
    assert images[empty].std() < 2e-3
    assert truth["signal_variance"][empty].max() == 0
    assert truth["signal_variance"][~empty].mean() / truth["noise_variance"] == pytest.approx(1e6, rel=1e-6)


def test_shifted_ones_are_the_molecule_elsewhere(sets):
    images, truth, rows = sets[1]
    moved = truth["junk_kind"] == "shifted"
    length = np.linalg.norm(truth["shifts"], axis=1)
    assert (length[~moved] == 0).all()
    assert length[moved].min() >= 15
    assert length[moved].max() <= 30
    # The table does not say so.
    assert {float(x) for x in rows["OriginXAngst"]} == {0.0}
    for i in np.flatnonzero(moved):
        back = shift_phase(torch.from_numpy(-truth["shifts"][i : i + 1]).float(), frequency_grid(48, 4.0))
        centred = inverse(forward(torch.from_numpy(images[i : i + 1])) * back, 48)[0].numpy()
        # Moved back, it lies in the middle.
        where = np.square(centred) / np.square(centred).sum()
        axis = 4.0 * (np.arange(48) - 24)
        assert np.hypot(where.sum(axis=0) @ axis, where.sum(axis=1) @ axis) < 6


def test_the_rest_is_untouched(sets):
    (clean, before, _), (_, after, _) = sets
    good = ~after["junk"]
    np.testing.assert_array_equal(before["rotations"], after["rotations"])
    np.testing.assert_array_equal(before["defocus_u"], after["defocus_u"])
    scattered = draw_views(np.ones(1), 60, SimulationOptions(junk=0.3), 4)
    np.testing.assert_array_equal(scattered.junk, ~good)
    assert set(scattered.junk_kind[scattered.junk]) == {"scattered"}
    assert clean.shape == (60, 48, 48)


def test_the_wrong_molecule_is_another_of_the_same_size():
    right = hinge_protein(0.0)
    coords, weights = wrong_molecule(right, stream(0, "wrong molecule"))
    assert weights.sum() == pytest.approx(right.weights.sum())
    np.testing.assert_allclose(weights @ coords, 0, atol=1e-6)
    beads, known = coords.reshape(-1, 5, 3)[:, 1], right.bead_coords - right.bead_coords.mean(axis=0)
    assert len(beads) == len(known)
    beads = beads - beads.mean(axis=0)

    def gyration(points):
        return np.sqrt(np.square(points).sum(axis=1).mean())

    assert gyration(beads) == pytest.approx(gyration(known), rel=0.5)
    assert np.linalg.norm(np.diff(beads, axis=0), axis=1) == pytest.approx(3.8, abs=0.1)
    for points in (beads, beads[::-1]):
        assert Rotation.align_vectors(known, points)[1] / np.sqrt(len(known)) > 8
    again, _ = wrong_molecule(right, stream(0, "wrong molecule"))
    np.testing.assert_array_equal(coords, again)


def test_a_large_molecule_gets_several_chains():
    from cryoscape.simulate.composition import assembly

    right = assembly(1)
    coords, _ = wrong_molecule(right, stream(0, "wrong molecule"))
    beads = coords.reshape(-1, 5, 3)[:, 1]
    assert len(beads) == len(right.bead) > LONGEST_CHAIN
    bonds = np.linalg.norm(np.diff(beads, axis=0), axis=1)
    assert (bonds > 4).sum() == 1
    cut = int(bonds.argmax()) + 1
    assert np.linalg.norm(beads[:cut, None] - beads[cut:], axis=-1).min() >= 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"junk_kinds": ()}, "empty"),
        ({"junk_kinds": ("carbon",)}, "carbon"),
        ({"junk_shift": (30.0, 10.0)}, "displacement"),
        ({"junk_shift": (-1.0, 10.0)}, "displacement"),
    ],
)
def test_senseless_options(options, said):
    with pytest.raises(InputError, match=said):
        SimulationOptions(**options)


def test_displaced_particles_need_room(tmp_path):
    options = SimulationOptions(junk=0.3, junk_kinds=("shifted",), junk_shift=(15.0, 80.0))
    with pytest.raises(InputError, match="from the centre of a box"):
        simulate("hinge", tmp_path / "out", options=options, **SIZE)
