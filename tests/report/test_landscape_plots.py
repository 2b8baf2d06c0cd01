"""The figure of a landscape shows what is known, and greys what is not."""

from types import SimpleNamespace

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.figure import Figure

from cryoscape.analysis.landscape.profile import Axis, make_profile
from cryoscape.report.landscape_plots import draw_profile, draw_surface, write_landscape_plot
from cryoscape.report.style import GREY


def landscape(axes=1, lost=False):
    value = np.linspace(0, 10, 50)
    weight = np.exp(-np.square(np.abs(value - 5) - 3))
    weight /= weight.sum()
    values = np.stack([value, value**2])[:axes]
    lines = [
        Axis(name, unit, None, np.linspace(0, top, 11))
        for name, unit, top in (("d", "A", 10), ("q", "", 100))
    ]
    drawn = weight * np.exp(0.1 * np.random.default_rng(0).standard_normal((40, 50)))
    profile = make_profile(lines[:axes], values, weight, drawn, 500)
    member = np.stack([value < 5, value >= 5], axis=1)
    states = [
        SimpleNamespace(name=name, population=p, low=p - 0.02, high=p + 0.02)
        for name, p in zip(("shut", "open"), weight @ member)
    ]
    unresolved = np.full(profile.population.shape, lost)
    return SimpleNamespace(
        profile=profile,
        values=values,
        states=states,
        member=member,
        fit=SimpleNamespace(fine=weight),
        unresolved=unresolved,
        finest=(2.5,) * axes,
    )


def texts(figure):
    return " ".join(t.get_text() for axes in figure.axes for t in axes.texts)


@pytest.mark.parametrize("lost", [False, True])
def test_a_profile(lost):
    figure = Figure()
    found = landscape(lost=lost)
    draw_profile(figure, found)
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), found.profile.free_energy)
    assert axes.get_xlabel() == "d (Å)"
    assert "shut" in texts(figure)
    assert "finest detail 2.5 Å" in texts(figure)
    grey = matplotlib.colors.to_rgb(GREY)
    shown = [
        np.allclose(band.get_facecolor()[0, :3], grey) for band in axes.collections if len(band.get_paths())
    ]
    assert any(shown) == lost
    assert (axes.get_legend() is not None) == lost


def test_a_surface(tmp_path):
    figure = Figure()
    draw_surface(figure, landscape(axes=2))
    assert figure.axes[0].get_ylabel() == "q"
    assert "open" in texts(figure)
    written = write_landscape_plot(landscape(axes=2, lost=True), tmp_path / "new")
    assert written.read_bytes().startswith(b"\x89PNG")
