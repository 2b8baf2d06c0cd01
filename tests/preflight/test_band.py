"""Which band follows from which curves."""

import pytest
import torch

from cryoscape.preflight.band import choose_band, more_particles

SHELLS = torch.arange(33).double()


def falling(at, width=2.0):
    return 1 / (1 + torch.exp((SHELLS - at) / width))


def band(half, model, nyquist=2.0, factor=1.0):
    return choose_band(half, model, 64, 2.0, nyquist, factor)


def test_the_band_ends_where_model_and_map_part():
    found = band(torch.ones(33), falling(12.0, 1.0))
    assert found.limited_by == "model"
    assert found.agreement == pytest.approx(128 / 12.0, rel=0.02)
    # 1 / (1 + exp(x)) = 0.143 at x = 1.79.
    assert found.cutoff == pytest.approx(128 / 13.79, rel=0.03)


def test_noise_is_not_taken_for_disagreement():
    half = falling(12.0)
    perfect = (2 * half / (1 + half)).sqrt()
    found = band(half, perfect)
    assert found.limited_by == "noise"
    assert found.cutoff == 4.0


def test_never_beyond_the_pixels_nor_finer_than_a_bead():
    ones = torch.ones(33)
    assert band(ones, ones, nyquist=5.2).cutoff == 5.2
    assert band(ones, ones, nyquist=2.0).cutoff == 4.0


def test_a_model_that_parts_early_still_leaves_a_useful_band():
    found = band(torch.ones(33), falling(4.0, 0.5))
    assert found.cutoff == 10.0


def test_without_any_signal():
    found = band(torch.zeros(33), torch.zeros(33))
    assert found.limited_by == "noise"
    assert found.cutoff == 4.0


def test_without_a_model_all_particles_count():
    few, many = band(falling(12.0), None), band(falling(12.0), None, factor=10.0)
    assert few.agreement is None
    assert many.cutoff < few.cutoff


def test_more_particles_adds_signal_to_noise():
    half = torch.tensor([0.2, 0.5])
    # F / (1 - F) is 0.25 and 1; times 4: 1 and 4.
    assert torch.allclose(more_particles(half, 4.0), torch.tensor([0.5, 0.8]))
