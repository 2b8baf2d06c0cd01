"""Does the state follow the pose or the defocus? Populations by view and by defocus.

Molecules froze without knowing from where they would be seen or how far from focus: each state has the same
population in every view. What an image *tells* of its state does depend on the view, so posterior means may
follow the view where nothing is wrong; the populations that make all images of a view most likely do not.
With the ratio r_i = p(x_i | high) / p(x_i | low) they maximise sum_i ln(1 - p + p r_i), which is concave.

Opposite views are kept apart. They are mirror images and tell the same, so an honest population cannot
differ between them any more than between others; a wrong one, or particles that stick to the surface of the
water with one face, can.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betainc, expit
from scipy.stats import chi2

from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.view_information import view_information

Array = NDArray[np.float64]

RARE = 1e-3
"""p-value below which populations differ at all: hardly any run then raises a false alarm."""

ENTANGLED_SHARE = 0.25
"""Standard deviation of a population over cells, in units of sqrt(p (1 - p)), from which it follows the pose.

0 where every cell has the same population, 1 where each cell is all of one state. A quarter is 0.125 for two
equal states: a cell in three is then off by more than that. In simulations of 3000 images it is 0.01
to 0.04 on average for equal populations, whatever the information in the views (at most 0.17; 0.3 where some
views are rare), 0.53 to 0.56 where half of the views hold 80 % of a state, and 0.99 where they hold all."""

CELLS = 8
FEWEST = 50
"""Images in a cell; octants with fewer give way to cells that hold about equally many."""

_GRID = 250  # populations
_LOGITS = [(-8.0, 8.0), (-4.0, 5.0)]  # bounds of the mean and the share, as log odds
_BETTER = 1e-3  # nats, the rounding of sums on the grid
_WIDTH = np.deg2rad(15.0)  # of the kernel that measures the density of views
_MOST_WEIGHT = 10.0  # of a rare view over the median one: beyond, a few images would speak for all
_REFERENCES = 4000


@dataclass(frozen=True, eq=False)
class CellPopulations:
    """Population of the high state in C cells.

    Attributes
    ----------
    count : ndarray, shape (C,), int64
        Images.
    population, error : ndarray, shape (C,)
        Most likely, and its standard error from the observed information.
    shared, shared_error : float
        One population for all.
    statistic, p_value : float
        Likelihood ratio of C populations over one, and its chance under C - 1 degrees of freedom.
    share : float
        Standard deviation of the population over cells beyond sampling, in units of sqrt(p (1 - p)): the
        maximum likelihood of populations that are Beta distributed over cells.
    """

    count: NDArray[np.int64]
    population: Array
    error: Array
    shared: float
    shared_error: float
    statistic: float
    p_value: float
    share: float

    @property
    def between(self) -> float:
        """Standard deviation of the population over cells, beyond sampling."""
        return self.share * float(np.sqrt(self.shared * (1 - self.shared)))

    @property
    def entangled(self) -> bool:
        """Whether populations differ beyond chance, and by much."""
        return self.p_value < RARE and self.share > ENTANGLED_SHARE

    def as_values(self) -> dict[str, object]:
        """Everything by name, for a record."""
        return {
            "count": self.count,
            "population": self.population,
            "error": self.error,
            "shared": self.shared,
            "shared_error": self.shared_error,
            "statistic": self.statistic,
            "p_value": self.p_value,
            "share": self.share,
            "between_sd": self.between,
            "entangled": self.entangled,
        }


def view_cells(directions: Array, seed: int = 0) -> NDArray[np.int64]:
    """Cell of each view: its octant, or one of k-means where an octant holds too few images.

    Parameters
    ----------
    directions : ndarray, shape (n, 3)
        Third rows of the rotations.
    seed : int
        Of k-means.

    Returns
    -------
    ndarray, shape (n,), int64
        From 0 without gaps.
    """
    octant = (directions > 0) @ np.array([1, 2, 4])
    if np.bincount(octant, minlength=CELLS).min() >= FEWEST:
        return octant
    from sklearn.cluster import KMeans

    k = int(np.clip(len(directions) // (2 * FEWEST), 1, CELLS))
    return KMeans(k, n_init=4, random_state=seed).fit_predict(directions).astype(np.int64)


def defocus_cells(defocus: Array) -> NDArray[np.int64]:
    """Tertile of each defocus, shape (n,); one cell where there is only one defocus."""
    label = np.searchsorted(np.quantile(defocus, [1 / 3, 2 / 3]), defocus, side="left")
    return np.unique(label, return_inverse=True)[1].astype(np.int64)


def cell_populations(low: Array, high: Array, cell: NDArray[np.int64]) -> CellPopulations:
    """Populations by cell, and whether they differ.

    Parameters
    ----------
    low, high : ndarray, shape (n,)
        Log evidence of each image under the two states, nats.
    cell : ndarray, shape (n,), int64
        0 .. C - 1, each with an image.

    Returns
    -------
    CellPopulations
    """
    log_ratio = np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)
    n_cells = int(cell.max()) + 1
    population, error = _maximum(log_ratio, cell, np.ones(len(cell)))
    alone = np.zeros(len(cell), dtype=np.int64)
    shared, shared_error = (x[0] for x in _maximum(log_ratio, alone, np.ones(len(cell))))
    apart = _log_mixture(log_ratio, population[cell]) - _log_mixture(log_ratio, np.full(len(cell), shared))
    statistic = max(2 * float(apart.sum()), 0.0)
    p_value = float(chi2.sf(statistic, n_cells - 1)) if n_cells > 1 else 1.0
    share = _share_between(log_ratio, cell, float(shared)) if n_cells > 1 else 0.0
    count = np.bincount(cell, minlength=n_cells)
    return CellPopulations(
        count, population, error, float(shared), float(shared_error), statistic, p_value, share
    )


def _score(log_ratio: Array, p: Array) -> Array:
    """Derivative (r - 1) / (1 - p + p r) of an image's log evidence in p; no overflow of either sign."""
    small = np.exp(-np.abs(log_ratio))
    up = (1 - small) / np.maximum((1 - p) * small + p, 1e-300)
    down = (small - 1) / np.maximum((1 - p) + p * small, 1e-300)
    return np.where(log_ratio > 0, up, down)


def _log_mixture(log_ratio: Array, p: Array) -> Array:
    """ln(1 - p + p r), elementwise."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log1p(-p), np.log(p) + log_ratio)


def _maximum(log_ratio: Array, cell: NDArray[np.int64], weight: Array) -> tuple[Array, Array]:
    """Most likely population of every cell and its error; the slope falls, so halving finds its zero."""
    n_cells = int(cell.max()) + 1
    low, high = np.zeros(n_cells), np.ones(n_cells)
    for _ in range(50):
        middle = 0.5 * (low + high)
        slope = np.bincount(cell, weight * _score(log_ratio, middle[cell]), n_cells)
        low, high = np.where(slope > 0, middle, low), np.where(slope > 0, high, middle)
    p = 0.5 * (low + high)
    score = _score(log_ratio, p[cell])
    information = np.bincount(cell, weight * score**2, n_cells)
    spread = np.bincount(cell, (weight * score) ** 2, n_cells)
    # Of weighted images: the sandwich, which is the inverse information where all weights are 1.
    return p, np.sqrt(spread) / np.maximum(information, 1e-300)


def _share_between(log_ratio: Array, cell: NDArray[np.int64], shared: float) -> float:
    """Standard deviation over cells in units of sqrt(p (1 - p)), by the likelihood of Beta populations.

    A Beta law of mean m and size v has the variance m (1 - m) / (v + 1): the share is (v + 1)^-1/2.
    """
    edges = np.sin(np.linspace(0, np.pi / 2, _GRID + 1)) ** 2
    middle = np.sin((np.arange(_GRID) + 0.5) / _GRID * np.pi / 2) ** 2
    fit = _fit_of_cells(log_ratio, cell, middle)

    def loss(free: Array) -> float:
        mean, share = expit(free)
        size = share**-2 - 1
        mass = np.diff(betainc(mean * size, (1 - mean) * size, edges)).clip(1e-300)
        return -float(np.logaddexp.reduce(fit + np.log(mass)[:, None], axis=0).sum())

    start = float(np.clip(shared, 0.02, 0.98))
    first = np.array([np.log(start / (1 - start)), -1.0])
    found = minimize(loss, first, method="Nelder-Mead", bounds=_LOGITS, options={"xatol": 1e-3})
    # One population for all cells is the rival, and the simpler answer where no law is better.
    alone = -float(fit.sum(axis=1).max())
    return float(expit(found.x[1])) if found.fun < alone - _BETTER else 0.0


def _fit_of_cells(log_ratio: Array, cell: NDArray[np.int64], populations: Array) -> Array:
    """Log evidence of every cell's images, (P, C), under each of P populations strictly between 0 and 1."""
    top = np.maximum(log_ratio, 0.0)
    low, step = np.exp(-top), np.exp(log_ratio - top) - np.exp(-top)
    n_cells = int(cell.max()) + 1
    return np.stack([np.bincount(cell, top + np.log(low + p * step), n_cells) for p in populations])


def view_weights(directions: Array, seed: int = 0) -> Array:
    """Weight of each image as if all views were equally frequent, shape (n,); the mean is 1.

    One over the density of views, from a von Mises and Fisher kernel of 15 degrees, with rare views capped at
    ten times the median weight.

    Parameters
    ----------
    directions : ndarray, shape (n, 3)
        Unit vectors.
    seed : int
        Of the sample that measures the density of very many views.
    """
    rng = np.random.default_rng(seed)
    chosen = directions
    if len(directions) > _REFERENCES:
        chosen = directions[rng.choice(len(directions), _REFERENCES, replace=False)]
    density = np.concatenate(
        [np.exp((part @ chosen.T - 1) / _WIDTH**2).mean(1) for part in _parts(directions, 1000)]
    )
    weight = 1 / np.maximum(density, 1e-300)
    weight = np.minimum(weight, _MOST_WEIGHT * np.median(weight))
    return weight / weight.mean()


def _parts(values: Array, size: int) -> list[Array]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def weighted_population(low: Array, high: Array, weight: Array) -> tuple[float, float]:
    """Population of the high state from weighted images, and its standard error.

    Parameters
    ----------
    low, high, weight : ndarray, shape (n,)
    """
    log_ratio = np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64)
    p, error = _maximum(log_ratio, np.zeros(len(log_ratio), dtype=np.int64), np.asarray(weight))
    return float(p[0]), float(error[0])


def pose_entangled(view: CellPopulations, defocus: CellPopulations) -> bool:
    """Whether the population of a motion follows the view or the defocus.

    Both have to hold of either: a difference that chance does not make (p < 0.001), and one that is large
    (`ENTANGLED_SHARE`), because with enough images any imperfection of the poses is significant.

    Parameters
    ----------
    view, defocus : CellPopulations
    """
    return view.entangled or defocus.entangled


def entanglement_check(
    low: Array,
    high: Array,
    directions: Array,
    defocus: Array,
    *,
    code: Array | None = None,
    seed: int = 0,
) -> tuple[Check, bool]:
    """Pose and CTF entanglement of one motion.

    Parameters
    ----------
    low, high : ndarray, shape (n,)
        Log evidence of each image under the states at either end, nats, without the encoder.
    directions : ndarray, shape (n, 3)
        Third rows of the rotations.
    defocus : ndarray, shape (n,)
        A.
    code : ndarray, shape (n,) or (n, d), optional
        Codes, or the coordinate of the motion, whose information on the view is reported.
    seed : int

    Returns
    -------
    check : Check
    entangled : bool
        For the verdict.
    """
    view = cell_populations(low, high, view_cells(directions, seed))
    focus = cell_populations(low, high, defocus_cells(defocus))
    even, even_error = weighted_population(low, high, view_weights(directions, seed))
    entangled = pose_entangled(view, focus)
    text = (
        f"The population of the high state is {view.shared:.3f} +- {view.shared_error:.3f}, {even:.3f} +- "
        f"{even_error:.3f} with all views alike; over {len(view.count)} cells of views it varies by "
        f"{view.between:.3f} beyond sampling (p = {view.p_value:.2g}), over {len(focus.count)} of defocus by "
        f"{focus.between:.3f} (p = {focus.p_value:.2g})."
    )
    values: dict[str, object] = {
        "view": view.as_values(),
        "defocus": focus.as_values(),
        "even_views": even,
        "even_views_error": even_error,
    }
    if code is not None:
        found = view_information(code, directions, seed=seed)
        text += f" The code shares {found.nats:.3f} nats with the view (p = {found.p_value:.2g})."
        values["information"] = {"nats": found.nats, "null_sd": found.null_sd, "p_value": found.p_value}
    status = Status.FAILED if entangled else Status.PASSED
    return Check(10, "pose entanglement", status, text, values), entangled
