"""`junk.json`, `junk.npz` and the particle tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.junk.find import Junk
from cryoscape.analysis.junk.mixture import CLASSES
from cryoscape.analysis.records import write_arrays, write_json

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles

SCORED, KEPT = "particles_scored", "particles_kept"
"""Names of the tables: all rows with the scores, and those of the particles that are kept."""


def write_junk(found: Junk, particles: Particles, folder: Path) -> list[Path]:
    """Write all files into a folder.

    Parameters
    ----------
    found : Junk
    particles : Particles
        The same particles, in the same order.
    folder : Path

    Returns
    -------
    list of Path
        The files written. There is no table of kept particles where none is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    suffix = particles.source.suffix
    columns = junk_columns(found, suffix)
    written = [folder / f"{SCORED}{suffix}"]
    particles.write(written[0], columns)
    kept, rows = folder / f"{KEPT}{suffix}", np.flatnonzero(~found.called)
    if len(rows):
        particles.select(rows).write(kept, {name: values[rows] for name, values in columns.items()})
        written.append(kept)
    else:
        kept.unlink(missing_ok=True)
    written.append(write_arrays(folder / "junk.npz", junk_arrays(found)))
    written.append(write_json(folder / "junk.json", junk_record(found)))
    return written


def junk_columns(found: Junk, suffix: str) -> dict[str, NDArray[Any]]:
    """Columns of the tables, by their names in a `.star` or `.cs` file."""
    star = suffix == ".star"
    name: Callable[[str], str] = (
        (lambda words: "cryoscape" + "".join(w.capitalize() for w in words.split()))
        if star
        else (lambda words: "cryoscape/" + words.replace(" ", "_"))
    )
    evidence = found.mixture.evidence
    columns: dict[str, NDArray[Any]] = {
        "junk": found.called.astype(np.int32),
        "junk probability": found.probability,
        "junk log odds": found.log_odds,
        "junk class": found.mixture.posterior.argmax(axis=1).astype(np.int32),
        "log odds noise": evidence[:, 0],
        "log odds homogeneous": evidence[:, 0] - found.mixture.single,
        **{
            f"log odds {label}": evidence[:, 0] - evidence[:, k]
            for k, label in enumerate(CLASSES)
            if label in ("contaminant", "displaced")
        },
        "amplitude": found.mixture.amplitude,
        "residual z": found.residual_z,
        "log prior": found.log_prior,
    }
    return {
        name(words): values if values.dtype.kind == "i" else values.astype(np.float32)
        for words, values in columns.items()
    }


def junk_arrays(found: Junk) -> dict[str, NDArray[Any]]:
    """Arrays of `junk.npz`, one row a particle where the first axis has N."""
    mixture = found.mixture
    return {
        "uid": found.uid,
        "row": found.row,
        "probability": found.probability,
        "log_odds": found.log_odds,
        "called": found.called,
        "classes": np.array(CLASSES),
        "evidence": mixture.evidence,
        "homogeneous": mixture.single,
        "posterior": mixture.posterior,
        "amplitude": mixture.amplitude,
        "residual_z": found.residual_z,
        "log_prior": found.log_prior,
        "share": mixture.share,
        "resampled": mixture.resampled,
        "structure_share": mixture.structure_share,
    }


def junk_record(found: Junk) -> dict[str, Any]:
    """Plain values for `junk.json`."""
    mixture, (share, low, high) = found.mixture, found.share
    interval = np.quantile(mixture.resampled, (0.025, 0.975), axis=0)
    kind, kept = found.kind, ~found.called
    return {
        "particles": len(found.uid),
        "junk_share": share,
        "junk_share_low": max(low, 0.0),
        "junk_share_high": high,
        "fdr": found.rate,
        "called": int(found.called.sum()),
        "kept": int(kept.sum()),
        "expected_good_among_called": _mean(1 - found.probability[found.called]),
        "expected_junk_among_kept": _mean(found.probability[kept]),
        "probability_at_the_cut": float(found.probability[found.called].min())
        if found.called.any()
        else None,
        "classes": [
            {
                "name": name,
                "share": mixture.share[k],
                "low": interval[0, k],
                "high": interval[1, k],
                "most_probable": int((kind == name).sum()),
                "called": int(((kind == name) & found.called).sum()),
            }
            for k, name in enumerate(CLASSES)
        ],
        "gain_over_one_structure": _mean(mixture.evidence[kept, 0] - mixture.single[kept]),
        "amplitude_mean": mixture.mean,
        "amplitude_sd": float(np.sqrt(mixture.variance)),
        "residual_z_mean": _mean(found.residual_z[kept]),
        "residual_z_sd": float(found.residual_z[kept].std()) if kept.any() else None,
        "structures": found.structures,
        "drawn_by": "micrograph" if found.groups else "particle",
        "micrographs": found.groups,
        "warnings": found.warnings,
    }


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
