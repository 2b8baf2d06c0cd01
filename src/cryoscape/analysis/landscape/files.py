"""`landscape.json` and `landscape.npz`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cryoscape.analysis.landscape.landscape import Landscape
from cryoscape.analysis.records import write_arrays, write_json

WHAT = (
    "distribution of the vitrified sample; kT is a unit of populations, at an unknown effective temperature"
)
"""What the numbers are, for all that shows them."""


def write_landscape(found: Landscape, folder: Path) -> list[Path]:
    """Write both files into a folder.

    Parameters
    ----------
    found : Landscape
    folder : Path

    Returns
    -------
    list of Path
        The files written.
    """
    return [
        write_json(folder / "landscape.json", landscape_record(found)),
        write_arrays(folder / "landscape.npz", _arrays(found)),
    ]


def landscape_record(found: Landscape) -> dict[str, Any]:
    """Plain values for JSON; free energies of bins without images are NaN there, which becomes null."""
    profile = found.profile
    axes = []
    for d, axis in enumerate(profile.axes):
        detail = None if found.detail is None else found.detail[d]
        axes.append(
            {
                "variable": axis.text,
                "unit": axis.unit,
                "edges": axis.edges,
                "nats_between_bins": None if detail is None else detail.bin_nats,
                "error_of_an_image": None if detail is None else detail.error,
                "finest_detail": None if detail is None else detail.finest,
                "finest_detail_median": None if found.finest is None else found.finest[d],
            }
        )
    return {
        "what": WHAT,
        "axes": axes,
        "population": profile.population,
        "free_energy_kt": profile.free_energy,
        "free_energy_low_kt": profile.low,
        "free_energy_high_kt": profile.high,
        "unresolved": found.unresolved,
        "states": [asdict(state) for state in found.states],
        "elsewhere": found.elsewhere,
        "nats_between_states": found.nats_between,
        "nats_needed": found.needed_nats,
        "images": found.n_images,
        "resamples": len(profile.resampled),
        "drawn_by": "micrograph" if found.groups else "particle",
        "micrographs": found.groups,
        "candidates": len(found.z),
        "correlation_length": found.fit.length,
        "amplitude_kt": found.fit.amplitude,
        "evidence": found.evidence,
        "gain_over_one_structure": found.gain,
        "gain_error": found.gain_error,
        "warnings": found.warnings,
    }


def _arrays(found: Landscape) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {
        "uid": found.uid,
        "row": found.row,
        "membership": found.membership,
        "state": np.array([state.name for state in found.states]),
        "z": found.z,
        "weight": found.fit.weight,
        "values": found.values,
        "fine_weight": found.fit.fine,
        "resampled": found.profile.resampled.astype(np.float32),
        "population": found.profile.population,
        "free_energy": found.profile.free_energy,
        "low": found.profile.low,
        "high": found.profile.high,
        "unresolved": found.unresolved,
    }
    return {**arrays, **{f"edges_{d + 1}": axis.edges for d, axis in enumerate(found.profile.axes)}}
