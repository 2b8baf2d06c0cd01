"""Stretched, crashed and absent chains, against counts by hand."""

import numpy as np
import pytest

from cryoscape.analysis.validation.geometry_check import MORE_CLASHES, MOST_BOND_CHANGE, geometry_check
from cryoscape.analysis.validation.results import Status
from tests.analysis.fakes import chain_model


def test_the_reference_itself_passes():
    model = chain_model()
    check = geometry_check(model.coords[None], model)
    assert check.number == 12
    assert check.status is Status.PASSED
    assert check.values["bond_rms_mean"] == pytest.approx(0, abs=1e-5)
    assert check.values["clashes_more_each_residue"] == 0
    assert check.values["off_usual_bond"] == check.values["off_usual_bond_reference"]
    assert "not judged" in check.text


def test_stretched_bonds_fail():
    model = chain_model()
    centre = model.coords.mean(0)
    swollen = np.stack([centre + (model.coords - centre) * factor for factor in (1.0, 1.3)])
    check = geometry_check(swollen, model)
    length = np.linalg.norm(np.diff(model.coords[:20], axis=0), axis=1).mean()
    assert check.values["bond_rms_mean"] == pytest.approx(0.5 * 0.3 * length, rel=1e-3)
    assert check.values["bond_rms_mean"] > MOST_BOND_CHANGE
    assert check.status is Status.FAILED


def crossed(model):
    """The second helix in the place of the first, half a turn on."""
    coords = model.coords.copy()
    coords[20:] = coords[:20] + np.array([0.0, 0.0, 0.75])
    return coords


def test_clashes_are_counted_over_all_pairs_beyond_the_references_own():
    model = chain_model()
    coords = crossed(model)
    apart = np.linalg.norm(coords[:20, None] - coords[None, 20:], axis=-1)
    inside = np.linalg.norm(model.coords[:20, None] - model.coords[None, :20], axis=-1) < 4
    own = np.triu(inside, 3).sum()
    check = geometry_check(np.stack([model.coords, coords]), model)
    assert check.values["clashes_reference"] == 2 * own
    assert check.values["clashes_max"] == (apart < 4).sum() + 2 * own
    assert check.values["clashes_more_each_residue"] == pytest.approx(0.5 * (apart < 4).sum() / 40)
    assert check.values["clashes_more_each_residue"] > MORE_CLASHES
    assert check.status is Status.FAILED
    # The same, measured by a reference that has them itself.
    same = chain_model()
    same.coords[:] = coords
    assert geometry_check(coords[None], same).status is Status.PASSED


def test_a_chain_that_is_not_there_cannot_clash():
    model = chain_model()
    present = np.ones((1, 40))
    present[0, 20:] = 0.1
    assert geometry_check(crossed(model)[None], model, present=present).status is Status.PASSED
    assert geometry_check(crossed(model)[None], model).status is Status.FAILED


def test_maps_are_not_judged():
    check = geometry_check(None, chain_model())
    assert check.status is Status.NOT_RUN
    assert "Maps" in check.text
