import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from cryoscape.analysis.prior_fitting.comparison import JudgedPrior, PriorComparison
from cryoscape.analysis.prior_fitting.metrics import SampleScores
from cryoscape.report.prior_plots import draw_priors, write_prior_plot

SCORES = SampleScores({20: 0.1, 50: 0.1, 100: 0.1}, 0.1, 0.5, 0.5, 0.001)


def comparison(names, d=3):
    rng = np.random.default_rng(0)
    rows = tuple(
        JudgedPrior(name, -1.0, 0.1, 0.0, 0.1, SCORES, {}, 1.0, (), rng.normal(size=(800, d)) * (1 + k))
        for k, name in enumerate(names)
    )
    axes = np.eye(d)[:2]
    data = rng.normal(size=(800, d))
    return PriorComparison("aggregate", 800, 800, 800, 800, SCORES, SCORES, rows, (), (), axes, data)


@pytest.mark.parametrize(("count", "shape"), [(1, (2, 1)), (3, (2, 3)), (6, (4, 4))])
def test_a_panel_a_prior(count, shape):
    names = [f"prior {k}" for k in range(count)]
    figure = Figure()
    draw_priors(figure, comparison(names))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == names
    assert len(figure.axes) == shape[0] * shape[1]
    planes = [axes for axes in figure.axes if axes.collections]
    assert len(planes) == count
    # All with the same limits, those of the data.
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in planes}) == 1


def test_histograms_have_unit_area():
    figure = Figure()
    draw_priors(figure, comparison(["one"]))
    for patch in figure.axes[0].patches:
        values, edges, _ = patch.get_data()
        assert abs((values * np.diff(edges)).sum() - 1) < 0.02


def test_what_falls_outside_is_counted():
    figure = Figure()
    found = comparison(["wide"])
    found.rows[0].points[:] = 0.0
    found.rows[0].points[:80, 1] = 50.0
    draw_priors(figure, found)
    assert "10.0 % outside" in [text.get_text() for axes in figure.axes for text in axes.texts]


def test_one_dimension(tmp_path):
    path = write_prior_plot(tmp_path / "p.png", comparison(["one", "two"], d=1))
    with Image.open(path) as image:
        assert image.size[0] > image.size[1] > 300
