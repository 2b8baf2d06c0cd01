"""The learned population over the codes of the particles: samples, a way between states, dynamics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.populations.farthest_points import farthest_pair
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.priors.diffusion.langevin import ornstein_uhlenbeck
from cryoscape.priors.transport import TransportPrior
from cryoscape.report.figures import dressed
from cryoscape.report.style import GREY, ORANGE, TEAL

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from cryoscape.training.run import Run

_SHOWN = 2000
_FRAMES = 40
_STEPS = 150


def population_figure(run: Run, summary: AnalysisSummary) -> Figure | None:
    """Codes of the particles in the plane of their first two components, and what the prior makes of them.

    Samples of the prior; the way between the two groups of particles that lie farthest apart, straight in z
    and, where the prior is a bijection to a Gaussian, along a great circle there; and Langevin dynamics of
    one code in that base.

    Parameters
    ----------
    run : Run
    summary : AnalysisSummary

    Returns
    -------
    Figure or None
        None where the prior was not learned, or z has one dimension or bits.
    """
    from plotly.graph_objects import Figure

    settings = run.config.prior
    if not settings.learned or settings.support == "binary" or run.config.z_dim < 2:
        return None
    prior = run.prior
    codes = run.embedding.z
    rng = np.random.default_rng(0)
    some = codes[np.sort(rng.permutation(len(codes))[:_SHOWN])]
    figure = Figure()

    def draw(z: NDArray, name: str, **how: object) -> None:
        xy = np.round((z - summary.latent.mean) @ summary.latent.axes[:2].T, 3)
        figure.add_scatter(x=xy[:, 0], y=xy[:, 1], name=name, hoverinfo="name", **how)

    draw(some, "particles", mode="markers", marker={"size": 4, "color": GREY, "opacity": 0.5})
    drawn = {"size": 4, "color": TEAL, "opacity": 0.5}
    draw(run.sample(_SHOWN), "samples of the prior", mode="markers", marker=drawn)
    of_groups = codes[summary.clusters.particle]
    start, end = of_groups[list(farthest_pair(of_groups))]
    line = start + np.linspace(0, 1, _FRAMES)[:, None] * (end - start)
    draw(line, "straight in z", mode="lines", line={"color": "#555555", "dash": "dot"})
    if isinstance(prior, TransportPrior):
        ends = torch.from_numpy(np.stack([start, end])).to(prior.shift)
        with torch.no_grad():
            way = prior.interpolate(ends[0], ends[1], _FRAMES).numpy()
        draw(way, "in the prior's space", mode="lines", line={"color": ORANGE, "width": 3})
        chain = ornstein_uhlenbeck(prior, ends[:1], _STEPS, generator=torch.Generator().manual_seed(0))
        trace = {"color": "#8e44ad", "width": 1}
        walk = chain.points[:, 0].numpy()
        draw(walk, "Langevin dynamics", mode="lines", line=trace, visible="legendonly")
    figure.update_xaxes(title="component 1 of the codes")
    figure.update_yaxes(title="component 2 of the codes", scaleanchor="x")
    return dressed(figure, height=480, legend={"orientation": "h", "y": -0.15, "x": 0})
