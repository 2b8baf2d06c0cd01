"""Points whose distances are those of what a run decodes, as functions of the latent codes.

Structures: the coordinates themselves, over the root of their number, so that distances are A rms. Maps are
too dear to be decoded at every step, so the scores of their leading components, relative to the norm of the
mean map, are learned as a smooth function of the codes from 500 maps, or as many as take a minute to decode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.analysis.interpolation import fit_smooth
from cryoscape.analysis.map_variation import decoded_variation
from cryoscape.analysis.paths.metric import FLOOR, MAP_FLOOR, Places
from cryoscape.models.decoders.base import StructureDecoder

if TYPE_CHECKING:
    from cryoscape.training.run import Run

_COMPONENTS = 8
_MAPS = 500
_ABSENT = 10.0  # A that a chain which is there and one which is not lie apart
_LEAST = 0.9


@dataclass(frozen=True)
class DecodedPlaces:
    """Places of a run's codes.

    Attributes
    ----------
    places : callable
    unit : str
        "A" (root mean square over the residues), or "of the map" (norm of a difference over that of the
        mean map).
    floor : float
        A step that is nothing, in that unit.
    predicted : float
        Share of the variance of held-back maps that is predicted from their codes; 1 for structures.
    """

    places: Places
    unit: str
    floor: float
    predicted: float = 1.0

    @property
    def warning(self) -> str | None:
        """What is wrong with lengths, if anything."""
        if self.predicted >= _LEAST:
            return None
        return (
            f"only {100 * self.predicted:.0f} % of what the maps differ in is predicted from their codes: "
            "lengths are rough"
        )


def places_of_run(run: Run, codes: NDArray, seed: int = 0) -> DecodedPlaces:
    """Places of the codes of a run.

    Parameters
    ----------
    run : Run
    codes : ndarray, shape (n, d)
        Codes of the population, for the maps to learn from.
    seed : int
    """
    decoder = run.image_model.decoder
    if isinstance(decoder, StructureDecoder):
        return DecodedPlaces(_of_structures(decoder), "A", FLOOR)
    codes = codes[:_MAPS]
    variation, _ = decoded_variation(run, codes, _COMPONENTS, seed)
    smooth, share = fit_smooth(codes, variation.components.scores, seed)
    return DecodedPlaces(smooth, "of the map", MAP_FLOOR, min(share, variation.predicted))


def _of_structures(decoder: StructureDecoder) -> Places:
    root = len(decoder.reference) ** 0.5

    def places(z: Tensor) -> Tensor:
        # Of absolute coordinates, hundreds of A, the digits of small steps would be lost.
        moved = (decoder.coordinates(z) - decoder.reference).flatten(1) / root
        present = decoder.occupancy(z)
        return moved if present is None else torch.cat([moved, _ABSENT * present], dim=1)

    return places
