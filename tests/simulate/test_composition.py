"""Subunits present and absent: probabilities by enumeration, geometry, and what the data set says of them."""

from __future__ import annotations

from itertools import product
from math import exp, log

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.errors import InputError
from cryoscape.progress import Silent
from cryoscape.simulate.atoms import write_atoms
from cryoscape.simulate.composition import IsingModel, assembly, contacts, default_model, split_subunits
from cryoscape.simulate.dataset import simulate
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.scenarios import build_scenario
from cryoscape.structures.atomic_model import AtomicModel

CHAIN = np.eye(4, k=1, dtype=bool) | np.eye(4, k=-1, dtype=bool)


def test_probabilities_are_those_of_the_enumerated_energies():
    h = (0.3, -1.0, 0.7)
    j = {(0, 1): 1.2, (0, 2): -0.4, (1, 2): 0.9}
    model = default_model(np.zeros((3, 3), bool), h, tuple(j.values()))
    energy = {
        s: -sum(a * b for a, b in zip(h, s)) - sum(j[p] * s[p[0]] * s[p[1]] for p in j)
        for s in product((0, 1), repeat=3)
    }
    z = sum(exp(-e) for e in energy.values())
    assert model.log_partition == pytest.approx(log(z))
    states = [tuple(int(x) for x in s) for s in model.configurations]
    assert sorted(states) == sorted(energy)
    assert states[0] == (1, 1, 1)
    assert states[-1] == (0, 0, 0)
    np.testing.assert_allclose(model.probabilities, [exp(-energy[s]) / z for s in states])


def test_default_couplings_are_cooperative_and_default_fields_differ():
    model = default_model(CHAIN, None, None)
    s, p = model.configurations.astype(float), model.probabilities
    occupancy = p @ s
    assert (np.diff(occupancy) > 0.03).all()
    joint = s.T @ (s * p[:, None])
    covariance = joint - np.outer(occupancy, occupancy)
    assert covariance[0, 1] > 0.05
    # Neighbours tell more of each other than the ends of the chain do.
    assert covariance[0, 1] > 2 * covariance[0, 3] > 0
    even = IsingModel(model.fields - np.linspace(-0.8, 0.8, 4), model.couplings)
    np.testing.assert_allclose(even.probabilities @ s, 0.5)


@pytest.mark.parametrize("m", [1, 4, 6])
def test_generated_assembly_is_in_contact_without_clashes(m):
    atoms = assembly(m)
    beads, chain = atoms.bead_coords, atoms.chain_id[atoms.bead]
    assert list(dict.fromkeys(chain)) == list("ABCDEFG"[: m + 1])
    subunit = split_subunits(atoms, tuple("BCDEFG"[:m]))
    assert (subunit[chain == "A"] == -1).all()
    assert (subunit[chain == "B"] == 0).all()
    for name in set(chain):
        others = cdist(beads[chain == name], beads[chain != name]).min()
        assert 5.9 < others < 6.1
    # Subunit after subunit in contact, so that the default couplings make a chain.
    assert np.diagonal(contacts(beads, subunit, m), 1).all()


def test_chains_of_a_given_model_are_subunits(tmp_path):
    write_atoms(tmp_path / "m.cif", assembly(3), "m")
    built = build_scenario("composition", [tmp_path / "m.cif"], SimulationOptions(), Silent())
    assert len(built.coords) == 8
    named = SimulationOptions(subunits=("B,D", "C:1-40"), couplings=(0.0,), fields=(0.0, 2.0))
    built = build_scenario("composition", [tmp_path / "m.cif"], named, Silent())
    # Without couplings the subunits are independent.
    on = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(built.population, [0.5 * on, 0.5 * on, 0.5 * (1 - on), 0.5 * (1 - on)])
    chain = built.atoms.chain_id
    assert (built.weights[1, np.isin(chain, ["B", "D"])] == 0).all()
    assert (built.weights[2, np.isin(chain, ["B", "D"])] > 0).all()
    assert set(built.facts["subunit"]) == {-1, 0, 1}
    assert (built.facts["subunit"] == 1).sum() == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subunits": ("B", "B:3")}, "overlaps"),
        ({"subunits": ("A,B,C",)}, "whole model"),
        ({"subunits": ("Z",)}, "no chain"),
        ({"subunits": tuple("B" * 9)}, "9 subunits"),
        ({"fields": (0.0,)}, "1 fields for 2"),
        ({"couplings": (1.0, 2.0)}, "2 couplings for 2"),
        ({"fields": (0.0, float("nan"))}, "not finite"),
        ({"populations": (0.5, 0.5)}, "follow from the scenario"),
        ({"profile": "bimodal"}, "no path"),
        ({"states": 4}, "states that its subunits give"),
    ],
)
def test_nonsense_is_refused(tmp_path, options, message):
    write_atoms(tmp_path / "m.cif", assembly(2), "m")
    with pytest.raises(InputError, match=message):
        build_scenario("composition", [tmp_path / "m.cif"], SimulationOptions(**options), Silent())


def test_absent_subunits_are_missing_from_images_and_maps(tmp_path):
    options = SimulationOptions(fields=(0.5, -0.5), couplings=(1.0,))
    report = simulate("composition", tmp_path / "c", particles=40, box=32, pixel=4.0, options=options)
    truth, known = Truth.read(tmp_path / "c"), np.load(tmp_path / "c" / "truth.npz")
    z = 1 + np.exp(0.5) + np.exp(-0.5) + np.exp(1.0)
    assert float(known["log_partition"]) == pytest.approx(np.log(z))
    np.testing.assert_allclose(truth.population, np.array([np.exp(1.0), np.exp(-0.5), np.exp(0.5), 1]) / z)
    assert known["present"].tolist() == [[True, True], [False, True], [True, False], [False, False]]
    np.testing.assert_array_equal(np.bincount(truth.state, minlength=4), report.counts)
    assert "RMSD" not in "\n".join(report.lines())
    model = AtomicModel.read(tmp_path / "c" / "reference.cif")
    assert len(model) == len(truth.subunit) == truth.coords.shape[1]
    assert (np.ptp(truth.coords, axis=0) == 0).all()
    whole, without, *_, core = truth.density([0, 1, 2, 3], 32, 4.0)
    beads = truth.coords[0, truth.subunit == 0] - 64.0
    index = np.round(beads[:, ::-1] / 4.0).astype(int) + 16
    missing = (whole - without)[tuple(index.T)]
    assert missing.mean() > 0.5 * whole.max() / 4
    electrons = model.weights[truth.subunit == 0].sum()
    assert (whole - without).sum() * 64 == pytest.approx(electrons, rel=1e-3)
    assert core.sum() * 64 == pytest.approx(model.weights[truth.subunit < 0].sum(), rel=1e-3)
    # A particle's signal is that of its own subunits.
    power = known["signal_variance"]
    assert power[truth.state == 0].mean() > 1.2 * power[truth.state == 3].mean()
