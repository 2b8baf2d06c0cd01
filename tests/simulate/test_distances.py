"""Nats between states, against sums over the pixels of noise-free images."""

from dataclasses import replace

import mrcfile
import numpy as np
import pytest

from cryoscape.progress import Silent
from cryoscape.simulate.dataset import simulate
from cryoscape.simulate.distances import nats_between, state_pairs
from cryoscape.simulate.imaging import draw_views
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.scenarios import build_scenario

BOX, PIXEL, SNR = 32, 5.0, 0.02


@pytest.fixture(scope="module")
def parts():
    options = SimulationOptions(populations=(0.5, 0.3, 0.2))
    built = build_scenario("states", [], options, Silent())
    return built, draw_views(built.population, 200, options, 3), options


def test_pairs():
    assert state_pairs(3).tolist() == [[0, 1], [1, 2]]
    assert state_pairs(50).tolist() == [[0, 49]]
    assert state_pairs(1).shape == (0, 2)


def test_scales_with_the_noise_and_is_written(tmp_path, parts):
    built, views, options = parts
    one = nats_between(built, views, options, 1.0, BOX, PIXEL, 3)
    np.testing.assert_allclose(nats_between(built, views, options, 4.0, BOX, PIXEL, 3), one / 4, rtol=1e-6)
    report = simulate(
        "states", tmp_path / "a", particles=200, box=BOX, pixel=PIXEL, snr=SNR, seed=3, options=options
    )
    assert "nats between neighbouring states" in "\n".join(report.lines())
    with np.load(tmp_path / "a" / "truth.npz") as truth:
        np.testing.assert_array_equal(truth["nats_between"], report.nats_between)


def test_against_pixels(tmp_path, parts):
    """Two simulations of one state each share poses and noise: their difference is the signal's alone."""
    built, views, options = parts
    found = {}
    for k in (0, 1):
        alone = replace(options, populations=tuple(1 - 2e-6 if i == k else 1e-6 for i in range(3)))
        simulate(
            "states", tmp_path / str(k), particles=60, box=BOX, pixel=PIXEL, snr=1e6, seed=3, options=alone
        )
        with np.load(tmp_path / str(k) / "truth.npz") as truth:
            scale = 1 / float(abs(truth["gain"]))
        found[k] = mrcfile.read(tmp_path / str(k) / "particles.mrcs").astype(float) * scale
    difference = found[0] - found[1]
    difference -= difference.mean(axis=(1, 2), keepdims=True)
    want = 0.5 * (difference**2).sum(axis=(1, 2)).mean()
    views = draw_views(built.population, 60, options, 3)
    got = nats_between(built, views, options, 1.0, BOX, PIXEL, 3)[0]
    assert abs(got / want - 1) < 2e-3
