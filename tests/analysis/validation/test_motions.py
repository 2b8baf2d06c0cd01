"""Claimed motions of a linear ensemble, and the ensemble without them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cryoscape.analysis.validation.motion_floor import fluctuations, motion_floor
from cryoscape.analysis.validation.motions import claimed_motions
from cryoscape.analysis.validation.restraint_modes import mode_overlap
from cryoscape.structures.normal_modes import anisotropic_network_modes
from tests.structures.builders import walk

N, K = 40, 9


def linear_subject(present=None):
    """Nine structures along two orthogonal directions, the first three times as far."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.standard_normal((3 * N, 2)))
    steps = np.stack([np.tile([-3.0, 0.0, 3.0], 3), np.repeat([-1.0, 0.0, 1.0], 3)], axis=1)
    coords = walk(N).reshape(-1) + steps @ basis.T * np.sqrt(N)
    structure = SimpleNamespace(
        chain_id=np.array(["A"] * 25 + ["B"] * 15),
        residue_number=np.r_[1:26, 1:16],
        chains=["A", "B"],
    )
    return (
        SimpleNamespace(
            objects=torch.from_numpy(coords.reshape(K, N, 3)).float(),
            present=present,
            claimed=np.full(K, 1 / K),
            has_structures=True,
            structure=structure,
        ),
        basis,
        steps,
    )


def test_components_have_their_directions_and_their_size_in_angstrom():
    subject, basis, steps = linear_subject()
    found = claimed_motions(subject, 3)
    assert [motion.name for motion in found] == ["motion 1", "motion 2"]
    for motion, direction, step in zip(found, basis.T, steps.T):
        along = abs(float(motion.axis.flatten().double() @ torch.from_numpy(direction)))
        assert along == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(np.abs(motion.score), np.abs(step), atol=1e-4)
        assert motion.amplitude(subject.claimed) == pytest.approx(step.std(), abs=1e-4)
    assert found[0].share == pytest.approx(0.9, abs=1e-4)


def test_without_a_motion_nothing_moves_along_it_and_all_else_stays():
    subject, basis, _ = linear_subject()
    first = claimed_motions(subject, 2)[0]
    still, _ = first.without(subject)
    flat = still.flatten(1).double().numpy()
    spread = (flat - flat.mean(0)) @ basis
    np.testing.assert_allclose(spread[:, 0], 0, atol=1e-3)
    before = subject.objects.flatten(1).double().numpy()
    np.testing.assert_allclose(spread[:, 1], (before - before.mean(0)) @ basis[:, 1], atol=1e-3)
    np.testing.assert_allclose(flat.mean(0), before.mean(0), atol=1e-3)


def test_where_names_the_stretch_that_moves():
    subject, _, _ = linear_subject()
    coords = np.tile(walk(N), (K, 1, 1))
    coords[:, 28:33, 1] += np.linspace(-4, 4, K)[:, None]
    subject.objects = torch.from_numpy(coords).float()
    (motion,) = claimed_motions(subject, 3)
    assert motion.where == "B:4-8, up to 8.0 A"


def test_a_chain_that_comes_and_goes_is_a_motion():
    present = torch.ones(K, 2)
    present[::2, 1] = 0.0
    subject, _, _ = linear_subject(present)
    chain = claimed_motions(subject, 1)[-1]
    assert (chain.name, chain.chain) == ("chain B", 1)
    _, still = chain.without(subject)
    np.testing.assert_allclose(still[:, 1], 4 / 9, rtol=1e-6)
    np.testing.assert_allclose(still[:, 0], 1)


def test_structures_that_are_all_the_same_claim_nothing():
    subject, _, _ = linear_subject()
    subject.objects = subject.objects[:1].expand(K, -1, -1).clone()
    assert claimed_motions(subject, 3) == []


def test_floor_is_what_null_populations_make():
    coords = np.zeros((2, 3, 3))
    coords[1, 0, 0], coords[1, 1, 0] = 2.0, 0.2
    weight = np.array([0.5, 0.5])
    np.testing.assert_allclose(fluctuations(coords, weight), [1.0, 0.1, 0.0])
    null = np.tile([0.9, 0.1], (20, 1))
    found = motion_floor(coords, weight, null)
    np.testing.assert_allclose(found.floor, [0.6, 0.06, 0.0])
    assert found.moves.tolist() == [True, True, False]


def test_soft_modes_overlap_with_themselves_and_rigid_moves_do_not_count():
    coords = walk(N)
    _, modes = anisotropic_network_modes(coords, 8)
    found = mode_overlap(coords, modes[[0, 7]])
    np.testing.assert_allclose(found.each, [1, 0], atol=1e-6)
    assert found.rmsip == pytest.approx(np.sqrt(0.5))
    turned = modes[0] + 3 * np.cross([0, 0, 0.1], coords - coords.mean(0)) + [1.0, 0, 0]
    np.testing.assert_allclose(mode_overlap(coords, turned[None]).each, 1, atol=1e-6)
    whole = np.cross([0, 1.0, 0], coords - coords.mean(0))
    assert mode_overlap(coords, whole[None]).rigid == pytest.approx([1])
    assert found.rigid == pytest.approx([0, 0], abs=1e-9)
    rng = np.random.default_rng(0)
    chance = [mode_overlap(coords, rng.standard_normal((1, N, 3))).each[0] ** 2 for _ in range(50)]
    assert np.mean(chance) == pytest.approx(found.random**2, rel=0.35)
