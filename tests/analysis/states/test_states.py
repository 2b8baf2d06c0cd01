"""States of a small simulated set: maps, tables and comparison, with memberships that are known."""

import json
import shutil

import numpy as np
import pytest
import starfile
import torch

from cryoscape.analysis.states.membership import membership_of_weights
from cryoscape.analysis.states.states import make_states
from cryoscape.data.mrc import read_map
from cryoscape.errors import InputError
from cryoscape.physics.resolution import fsc, soft_sphere
from cryoscape.training.run import Run
from cryoscape.training.train import train
from tests.training.builders import BOX, KNOWN, PIXEL, make_sample, settings


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("sample"), n=400, snr=0.3, share=0.6)


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    few = {"steps": 2, "batch": 16, "device": "cpu", "precision": "32"}
    return train(sample.particles, sample.model, settings(training=few), out, interpretation=KNOWN)


@pytest.fixture(scope="module")
def true_maps(sample):
    """Densities (2, D, D, D) of the two true states on the grid of the band, drawn directly."""

    def on(box):
        step = BOX * PIXEL / box
        axis = (np.arange(box) - box // 2) * step
        maps = []
        for coords in sample.states - np.array([BOX // 2 * PIXEL] * 3):
            e = [np.exp(-((axis - coords[:, i, None]) ** 2) / (2 * 2.5**2)) for i in range(3)]
            maps.append(np.einsum("nz,ny,nx->zyx", e[2], e[1], e[0]))
        return np.array(maps, dtype=np.float32)

    return on


@pytest.fixture(scope="module")
def made(trained, sample, true_maps):
    run = Run.open(trained.path)
    run.decode_maps = lambda z: true_maps(run.geometry.box)
    weights = np.stack([sample.state == 0, sample.state == 1], axis=1) * 0.98 + 0.01
    return run, make_states(run, membership_of_weights(weights, run.embedding.z)), weights


def test_every_map_is_that_of_its_state(made, true_maps):
    run, summary, _ = made
    maps = true_maps(run.geometry.box)
    mask = soft_sphere(run.geometry.box, 8, 2)
    for k in range(2):
        found = read_map(summary.folder / f"state_{k + 1}.mrc")
        assert found.voxel_size == pytest.approx(run.geometry.pixel_size)
        np.testing.assert_allclose(found.origin, run.map_origin, atol=1e-3)
        shown = torch.from_numpy(found.data.copy())
        own, other = (fsc(shown, torch.from_numpy(maps[i]), mask)[1:6].mean() for i in (k, 1 - k))
        assert own > 0.9
        assert own > other + 0.02
    assert summary.specificity.won.all()
    assert summary.specificity.won_in_both_halves.all()
    assert summary.specificity.margin.min() > 4
    assert np.diag(summary.specificity.difference).min() > 0.5


def test_half_maps_share_no_image(made, sample):
    run, summary, weights = made
    halves = [read_map(summary.folder / f"state_1_half{h}.mrc").data for h in (1, 2)]
    assert not np.allclose(*halves)
    by_half = [weights[sample.particles.half == h, 0].sum() for h in (1, 2)]
    assert summary.maps[0].count == pytest.approx(by_half, rel=1e-5)
    record = json.loads((summary.folder / "states.json").read_text())
    curve = record["states"][0]["fsc"]
    assert len(curve["corrected"]) == len(curve["frequency"]) == run.geometry.box // 2 + 1
    assert 6 < record["states"][0]["resolution"] < 30
    assert record["specificity"]["won"] == [True, True]


def test_the_table_keeps_every_column_and_gains_the_weights(made, sample):
    _, summary, weights = made
    before = starfile.read(sample.folder / "particles.star")
    after = starfile.read(summary.folder / "particles.star")
    assert before["optics"].equals(after["optics"])
    old, new = before["particles"], after["particles"]
    assert list(new.columns[: len(old.columns)]) == list(old.columns)
    for name in set(old.columns) - {"rlnImageName"}:
        assert old[name].equals(new[name]), name
    # From the new folder the stack's name must still lead to it.
    assert (new["rlnImageName"].str.split("@").str[0] == old["rlnImageName"].str.split("@").str[0]).all()
    assert set(new["rlnImageName"].str.split("@").str[1]) == {str(sample.folder / "particles.mrcs")}
    for k in range(2):
        np.testing.assert_allclose(new[f"cryoscapeState{k + 1}Weight"], weights[:, k], atol=1e-6)
        rows = starfile.read(summary.folder / f"state_{k + 1}_particles.star")["particles"]
        assert list(rows["rlnAngleRot"]) == list(old["rlnAngleRot"][sample.state == k])
    np.testing.assert_array_equal(new["cryoscapeState"], sample.state + 1)


def test_other_boxes_other_numbers_of_states_and_foreign_embeddings(made, sample, tmp_path, true_maps):
    run = Run.open(shutil.copytree(made[0].path, tmp_path / "run"))
    run.decode_maps = lambda z: true_maps(run.geometry.box)[:1]
    one = membership_of_weights(np.ones((400, 1)), run.embedding.z)
    summary = make_states(run, one, box="full", b_factor=-50.0)
    assert read_map(summary.folder / "state_1_half1.mrc").data.shape == (BOX,) * 3
    assert read_map(summary.folder / "state_1_sharpened.mrc").voxel_size == PIXEL
    assert summary.maps[0].half1.shape[0] == run.geometry.box
    assert summary.maps[0].frequency[-1] == pytest.approx(1 / (2 * PIXEL))
    assert not (summary.folder / "state_2.mrc").exists()
    assert np.isnan(summary.specificity.difference).all()
    empty = membership_of_weights((sample.particles.half == 1)[:, None] * 1.0, run.embedding.z)
    with pytest.raises(InputError, match="no particle in half 2"):
        make_states(run, empty)


def test_a_cryosparc_table_gains_fields(sample, trained, tmp_path, true_maps):
    from cryoscape.data.particles import Particles

    sample.particles.write(tmp_path / "particles.cs")
    before = np.load(tmp_path / "particles.cs")
    run = Run.open(trained.path)
    run.particles = Particles.read(tmp_path / "particles.cs")
    run.decode_maps = lambda z: true_maps(run.geometry.box)
    weights = np.eye(2)[sample.state]
    summary = make_states(run, membership_of_weights(weights, run.embedding.z))
    after = np.load(summary.folder / "particles.cs")
    for name in before.dtype.names:
        if name != "blob/path":
            np.testing.assert_array_equal(before[name], after[name])
    np.testing.assert_allclose(after["cryoscape/state2_weight"], weights[:, 1])
    np.testing.assert_array_equal(after["cryoscape/state"], sample.state + 1)
