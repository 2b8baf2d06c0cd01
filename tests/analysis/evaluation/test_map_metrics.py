import numpy as np
import pytest

from cryoscape.analysis.evaluation.map_metrics import (
    area_under_curves,
    auc_ceiling,
    fsc_auc,
    fsc_curves,
    fsc_resolution,
    mean_correlation,
    shell_spectra,
    signal_shells,
)

BOX = 16


def smooth_maps(n, box=BOX, seed=0):
    """Random maps whose power falls with frequency, none of it zero."""
    rng = np.random.default_rng(seed)
    k = np.fft.fftfreq(box) ** 2
    fall = np.exp(-20 * (k[:, None, None] + k[:, None] + k))
    return np.fft.ifftn(np.fft.fftn(rng.standard_normal((n, box, box, box)), axes=(1, 2, 3)) * fall).real


def low_pass(maps, shells):
    """Nothing at or beyond the given radius."""
    box = maps.shape[-1]
    k = np.fft.fftfreq(box, 1 / box)
    keep = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2) < shells
    return np.fft.ifftn(np.fft.fftn(maps, axes=(1, 2, 3)) * keep, axes=(1, 2, 3)).real


def curve_by_hand(a, b):
    """The definition, on the full transform, one shell after another."""
    box = len(a)
    x = np.arange(-box // 2, box // 2)
    radius = np.sqrt(x[:, None, None] ** 2 + x[:, None] ** 2 + x**2)
    fa, fb = (np.fft.fftshift(np.fft.fftn(m)) for m in (a, b))
    curve = [1.0]
    for i in range(1, box // 2):
        shell = (radius >= i - 1) & (radius < i)
        cross = np.vdot(fa[shell], fb[shell]).real
        curve.append(cross / np.sqrt(np.vdot(fa[shell], fa[shell]).real * np.vdot(fb[shell], fb[shell]).real))
    return np.array(curve)


def test_curves_follow_the_definition():
    a = smooth_maps(3)
    b = a + 0.7 * smooth_maps(3, seed=1)
    expected = [curve_by_hand(x, y) for x, y in zip(a, b)]
    # Shell 1 is the mean alone: 1 or -1 by the formula, 1 by convention.
    found = fsc_curves(a, b)
    np.testing.assert_allclose(found[:, 2:], np.array(expected)[:, 2:], atol=1e-5)
    assert (found[:, :2] == 1).all()
    area = [np.trapezoid(np.abs([1, 1, *curve[2:]]), np.arange(BOX // 2) / BOX) for curve in expected]
    np.testing.assert_allclose(fsc_auc(a, b), area, atol=1e-6)
    assert fsc_auc(a[0], b[0]) == pytest.approx(area[0], abs=1e-6)


def test_ceiling_and_scale():
    a = smooth_maps(2)
    assert auc_ceiling(128) == pytest.approx(0.492, abs=5e-4)
    np.testing.assert_allclose(fsc_auc(a, 3.0 * a + 5.0), auc_ceiling(BOX), atol=1e-6)
    # Inverted contrast counts as agreement, as in the definition.
    np.testing.assert_allclose(fsc_auc(a, -a), auc_ceiling(BOX), atol=1e-6)


def test_mask_multiplies_both():
    a, b = smooth_maps(1), smooth_maps(1, seed=1)
    mask = np.zeros((BOX,) * 3)
    mask[2:9, 3:12, 4:10] = 0.5
    np.testing.assert_allclose(fsc_curves(a, b, mask), fsc_curves(a * mask, b * mask), atol=1e-6)
    assert abs(fsc_auc(a, b, mask) - fsc_auc(a, b)).max() > 1e-3
    with pytest.raises(ValueError, match="mask has shape"):
        fsc_auc(a, b, mask[1:])


def test_shells_without_signal_count_nothing():
    a = smooth_maps(2)
    found = fsc_curves(low_pass(a, 5), a)
    np.testing.assert_allclose(found[:, 2:6], 1, atol=1e-5)
    assert (found[:, 6:] == 0).all()
    signal = signal_shells(shell_spectra(low_pass(a, 5)), BOX)
    np.testing.assert_array_equal(signal, [False, False, True, True, True, True, False, False])
    np.testing.assert_allclose(mean_correlation(found, signal), 1, atol=1e-5)
    assert np.isnan(mean_correlation(found, np.zeros(8, dtype=bool))).all()


def test_curves_of_a_small_box_at_the_large_one():
    """The same field of view: what a cropped map lacks counts as 0."""
    large = smooth_maps(1, 24)
    spectrum = np.fft.fftshift(np.fft.fftn(large[0]))[4:20, 4:20, 4:20]
    small = np.fft.ifftn(np.fft.ifftshift(spectrum)).real[None]
    other = smooth_maps(1, 24, seed=4) + large
    spectrum = np.fft.fftshift(np.fft.fftn(other[0]))[4:20, 4:20, 4:20]
    small_other = np.fft.ifftn(np.fft.ifftshift(spectrum)).real[None]
    curves = fsc_curves(small, small_other)
    np.testing.assert_allclose(area_under_curves(curves, 24), fsc_auc(low_pass(large, 7), other), atol=1e-5)
    with pytest.raises(ValueError, match="do not fit"):
        area_under_curves(curves, 14)


def test_resolution_where_the_curve_falls_below_half():
    curves = np.array([[1, 1, 1, 0.75, 0.25, 0.6], [1, 1, 0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0, 0, 0]])
    np.testing.assert_allclose(fsc_resolution(curves, 2.0), [24 / 3.5, 24 / 5, 24 / 1.5])
    assert fsc_resolution(curves, 2.0, threshold=0.65)[1] == pytest.approx(24 / 4.5)


def test_boxes_that_have_no_shells():
    with pytest.raises(ValueError, match="even box"):
        fsc_auc(np.zeros((7, 7, 7)), np.zeros((7, 7, 7)))
    with pytest.raises(ValueError, match="cubes"):
        fsc_curves(np.zeros((1, 8, 8, 6)), np.zeros((1, 8, 8, 6)))
    assert fsc_auc(np.zeros((8, 8, 8)), np.zeros((8, 8, 8))) == pytest.approx(1.5 / 8)
