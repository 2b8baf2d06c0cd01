"""The maps of a run against the true maps of a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.evaluation.map_comparison import (
    MapScores,
    TrueSpectra,
    compare_maps,
    per_conformation_auc,
    per_image_auc,
    spaced_particles,
)
from cryoscape.analysis.evaluation.map_metrics import Maps, auc_ceiling, fsc_resolution, mean_correlation
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.progress import ProgressReporter, ProgressTask, reporter_or_silent

if TYPE_CHECKING:
    from cryoscape.training.run import Run


@dataclass(frozen=True)
class MapScore:
    """Shell correlations of some decoded maps with true ones, in a few numbers.

    Parameters
    ----------
    maps : int
        How many.
    auc, auc_sd : float
        Mean and standard deviation over them of the area under |FSC|, at the box of the particles: shells
        beyond the run's box count 0.
    auc_run : float
        Mean at the box of the run, over its own pixel.
    in_band : float
        Mean |FSC| over the shells of the run's box in which the truth has signal, from 0 to 1.
    resolution : float
        Median resolution where the FSC falls below 0.5, A.
    """

    maps: int
    auc: float
    auc_sd: float
    auc_run: float
    in_band: float
    resolution: float


@dataclass(frozen=True)
class MapEvaluation:
    """Decoded maps against true ones (`cryoscape.analysis.evaluation.map_comparison`).

    Parameters
    ----------
    box, pixel_size
        Of the particles, A.
    ceiling : float
        The area of perfect maps at that box.
    run_box, run_pixel_size
        Of the run's maps.
    run_ceiling : float
        The area at the particles' box of maps that are perfect within the run's box.
    per_conformation : MapScore
        One map a true state, decoded at the particle nearest to the state's mean code.
    per_image : MapScore or None
        Maps decoded at single particles; None where not asked for.
    one_map : MapScore
        The mean of the true maps for every state: what a perfect map without heterogeneity reaches.
    accuracy, majority : float or None
        Share of the single particles whose map is nearest to the true map of their state, and share of the
        commonest state among them.
    """

    box: int
    pixel_size: float
    ceiling: float
    run_box: int
    run_pixel_size: float
    run_ceiling: float
    per_conformation: MapScore
    per_image: MapScore | None
    one_map: MapScore
    accuracy: float | None
    majority: float | None

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> MapEvaluation:
        """Inverse of `dataclasses.asdict`."""
        scores = {
            name: None if content[name] is None else MapScore(**content[name])
            for name in ("per_conformation", "per_image", "one_map")
        }
        return cls(**{**content, **scores})


@dataclass(frozen=True, eq=False)
class MapRecord:
    """What stands behind a `MapEvaluation`: every curve.

    Attributes
    ----------
    conformations, one_map : MapScores
        One row a true state.
    images : MapScores or None
        One row a particle.
    pixel_size : float
        Of the run's maps, A.
    box : int
        Of the particles.
    """

    conformations: MapScores
    one_map: MapScores
    images: MapScores | None
    pixel_size: float
    box: int

    def arrays(self, row: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Arrays for a file.

        Parameters
        ----------
        row : ndarray, shape (n,), int
            Row of the particle file of every particle that was evaluated.
        """
        n_shells = self.conformations.curves.shape[1]
        out: dict[str, NDArray[Any]] = {
            "frequency": np.arange(n_shells) / (2 * n_shells * self.pixel_size),
            "state": self.conformations.state.astype(np.int32),
            "row": row[self.conformations.particle],
            "auc": self.conformations.auc(self.box),
            "curves": self.conformations.curves.astype(np.float32),
            "one_map_curves": self.one_map.curves.astype(np.float32),
        }
        if self.images is not None:
            out |= {
                "image_state": self.images.state.astype(np.int32),
                "image_row": row[self.images.particle],
                "image_auc": self.images.auc(self.box),
                "image_curves": self.images.curves.astype(np.float32),
            }
            if self.images.nearest is not None:
                out["image_nearest"] = self.images.nearest.astype(np.int32)
        return out


def evaluate_maps(
    run: Run,
    truth: Truth,
    z: NDArray[Any],
    state: NDArray[np.int64],
    *,
    images: int = 100,
    mask: Maps | None = None,
    progress: ProgressReporter | None = None,
) -> tuple[MapEvaluation, MapRecord]:
    """Decode maps and compare them with the truth.

    Parameters
    ----------
    run : Run
        Any run: its `decode_maps` gives maps on the grid of `run.geometry`.
    truth : Truth
        With atoms.
    z : ndarray, shape (n, d)
        Posterior means.
    state : ndarray, shape (n,), int
        True states.
    images : int
        Single particles to decode; 0 for none.
    mask : ndarray, shape (box, box, box), optional
        On the grid of the run.
    progress : ProgressReporter, optional
        Told about maps.

    Returns
    -------
    MapEvaluation, MapRecord

    Raises
    ------
    InputError
        The truth has no atoms.
    """
    geometry, reporter = run.geometry, reporter_or_silent(progress)
    states = np.unique(state)
    weights = np.bincount(state) / len(state)
    with reporter.task("true maps", len(states), "maps") as bar:
        making = _TrueMaps(truth, geometry.box, geometry.pixel_size, weights, bar)
        known = TrueSpectra(making, states, mask)
    images = min(images, len(z))
    n_maps = len(states) + (len(spaced_particles(len(z), images)) if images else 0)
    with reporter.task("decode", n_maps, "maps") as bar:

        def decode(codes: NDArray[Any]) -> Maps:
            maps = run.decode_maps(codes)
            bar.advance(len(codes))
            return maps

        conformations = per_conformation_auc(z, state, decode, known)
        single = per_image_auc(z, state, decode, known, images) if images else None
    mean = making.mean[None]
    nobody = np.full(len(states), -1)
    one_map = compare_maps(
        np.zeros((len(states), 1)),
        states,
        nobody,
        lambda codes: np.broadcast_to(mean, (len(codes), *mean.shape[1:])),
        known,
    )
    box = geometry.image_box
    signal = known.signal()
    record = MapRecord(conformations, one_map, single, geometry.pixel_size, box)

    def score(scores: MapScores) -> MapScore:
        return _score(scores, box, geometry.pixel_size, signal)

    perfect = MapScores(states[:1], nobody[:1], np.ones((1, geometry.box // 2)))
    accuracy, majority = (None, None) if single is None else _placed(single)
    return (
        MapEvaluation(
            box=box,
            pixel_size=geometry.image_pixel_size,
            ceiling=auc_ceiling(box),
            run_box=geometry.box,
            run_pixel_size=geometry.pixel_size,
            run_ceiling=float(perfect.auc(box)[0]),
            per_conformation=score(conformations),
            per_image=None if single is None else score(single),
            one_map=score(one_map),
            accuracy=accuracy,
            majority=majority,
        ),
        record,
    )


def _score(scores: MapScores, box: int, pixel_size: float, signal: NDArray[np.bool_]) -> MapScore:
    area = scores.auc(box)
    return MapScore(
        maps=len(area),
        auc=float(area.mean()),
        auc_sd=float(area.std()),
        auc_run=float(scores.auc().mean()),
        in_band=float(mean_correlation(scores.curves, signal).mean()),
        resolution=float(np.median(fsc_resolution(scores.curves, pixel_size))),
    )


def _placed(scores: MapScores) -> tuple[float | None, float | None]:
    """Share of maps nearest to their own state, and share of the commonest state."""
    if scores.nearest is None:
        return None, None
    counts = np.bincount(scores.state)
    return float(np.mean(scores.nearest == scores.state)), float(counts.max() / len(scores.state))


class _TrueMaps:
    """True maps on demand, and their mean once all states have been seen."""

    def __init__(
        self, truth: Truth, box: int, pixel_size: float, weights: NDArray[np.float64], bar: ProgressTask
    ) -> None:
        self._truth, self._box, self._pixel_size, self._bar = truth, box, pixel_size, bar
        self._weights = weights.copy()
        self.mean = np.zeros((box,) * 3)

    def __call__(self, states: NDArray[np.int64]) -> Maps:
        maps = self._truth.density(states, self._box, self._pixel_size)
        for state, one in zip(states, maps):
            if self._weights[state]:
                self.mean += self._weights[state] * one
                self._weights[state] = 0.0
                self._bar.advance()
        return maps
