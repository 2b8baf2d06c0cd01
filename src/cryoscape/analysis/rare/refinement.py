"""A structure made to fit a group of images: its code, or the decoder itself where no code will do.

Both climb the log likelihood of the group, every image with the probability that it belongs to it,

    sum_i r_i log p(x_i | structure) / sum_i r_i,

which is the M-step of expectation-maximisation for one structure of a mixture. A tuned decoder is a copy, for
this structure alone: what it makes of other codes is not looked at. Its structure stays under the restraints
of the training, relaxed by how it differs from the others (`training.restraining`). The group shares one
structure, so that the energy counts once for all of its images, where training counts it for each.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoscape.data.images import ImageBatch
from cryoscape.models.decoders.base import Decoder, Scene, StructureDecoder, VolumeDecoder
from cryoscape.models.image_model import ImageModel

if TYPE_CHECKING:
    from cryoscape.training.restraining import Restraints
    from cryoscape.training.run import Run

CODE_STEPS, CODE_RATE = 30, 0.1
"""Steps of Adam for a code, and their length in units of z."""

TUNE_STEPS, TUNE_RATE = 60, 1e-4
"""Steps of Adam for a decoder, and their rate: 1e-3 throws structures back to the reference."""

MOST_IMAGES = 400
"""Of a group, those that belong to it most surely."""

LEAST_SHARE = 0.05
"""Probability of an image below which it does not count."""

_CHUNK = 128


@dataclass(frozen=True, eq=False)
class Conformation:
    """One structure or map that a run can be asked about.

    Attributes
    ----------
    z : ndarray, shape (d,), float32
        Its code.
    source : str
        Where it comes from, in two words.
    decoder : Decoder or None
        That makes it of its code; the run's own where None.
    """

    z: NDArray[np.float32]
    source: str
    decoder: Decoder | None = None


@torch.no_grad()
def scenes_of(run: Run, conformations: Sequence[Conformation]) -> list[Scene]:
    """Scenes of one object each."""
    own = run.image_model.decoder
    return [(one.decoder or own)(torch.from_numpy(one.z)[None]) for one in conformations]


@torch.no_grad()
def coordinates_of(run: Run, conformations: Sequence[Conformation]) -> NDArray[np.float32]:
    """Structures (n, N, 3), A, in the frame of the model file."""
    found, offset = [], torch.tensor(run.geometry.offset)
    for one in conformations:
        decoder = one.decoder or run.image_model.decoder
        assert isinstance(decoder, StructureDecoder)
        found.append(decoder.coordinates(torch.from_numpy(one.z)[None])[0] + offset)
    return torch.stack(found).numpy()


@torch.no_grad()
def maps_of(run: Run, conformations: Sequence[Conformation]) -> NDArray[np.float32]:
    """Maps (n, box, box, box) of a run that decodes maps."""
    found = []
    for one in conformations:
        decoder = one.decoder or run.image_model.decoder
        assert isinstance(decoder, VolumeDecoder)
        found.append(decoder.volumes(torch.from_numpy(one.z)[None])[0])
    return torch.stack(found).numpy()


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """Images with the probability that they belong to a structure.

    Attributes
    ----------
    batch : ImageBatch
        Of n images.
    weights : Tensor, shape (n,)
        They sum to 1.
    images : float
        How many images of all belong to it.
    """

    batch: ImageBatch
    weights: Tensor
    images: float

    def chunks(self) -> Iterable[tuple[ImageBatch, Tensor]]:
        """Parts that fit into memory with their gradients."""
        for rows in torch.arange(len(self.weights)).split(_CHUNK):
            part = ImageBatch(
                *(getattr(self.batch, name)[rows] for name in ("rows", "images", "ctf", "rotations", "group"))
            )
            yield part, self.weights[rows]


def image_group(run: Run, share: NDArray[np.float64]) -> ImageGroup | None:
    """The images of a run that belong to a structure with the probabilities (N,); None where none does."""
    rows = np.flatnonzero(share >= LEAST_SHARE * share.max(initial=0.0))
    rows = np.sort(rows[np.argsort(-share[rows], kind="stable")][:MOST_IMAGES])
    if not len(rows) or share[rows].sum() <= 0:
        return None
    weights = torch.from_numpy(share[rows] / share[rows].sum()).float()
    return ImageGroup(run.images().batch(torch.from_numpy(rows)), weights, float(share.sum()))


def fit_code(run: Run, start: Conformation, group: ImageGroup) -> Conformation:
    """Climb in the code of a conformation, with the decoder as it is.

    Parameters
    ----------
    run : Run
    start : Conformation
    group : ImageGroup

    Returns
    -------
    Conformation
    """
    z = torch.from_numpy(start.z)[None].clone().requires_grad_()
    decoder = start.decoder or run.image_model.decoder
    _climb(run.image_model, lambda: decoder(z), group, [z], CODE_STEPS, CODE_RATE)
    return Conformation(z.detach()[0].numpy(), "fitted code", start.decoder)


def tune_decoder(
    run: Run, start: Conformation, group: ImageGroup, others: Sequence[Conformation] = ()
) -> Conformation:
    """Fit a copy of the decoder to the group, at the code of a conformation.

    Parameters
    ----------
    run : Run
    start : Conformation
    group : ImageGroup
    others : sequence of Conformation
        The populated ones: springs that differ between them and this one are relaxed.

    Returns
    -------
    Conformation
    """
    decoder = copy.deepcopy(start.decoder or run.image_model.decoder).requires_grad_(True)
    z = torch.from_numpy(start.z)[None]
    held = _holding(run, decoder, z, others, max(group.images, 1.0))
    parameters = [p for p in decoder.parameters() if p.requires_grad]
    _climb(run.image_model, lambda: decoder(z), group, parameters, TUNE_STEPS, TUNE_RATE, held)
    return Conformation(start.z, "tuned decoder", decoder.requires_grad_(False))


def _holding(
    run: Run, decoder: Decoder, z: Tensor, others: Sequence[Conformation], images: float
) -> Callable[[], Tensor]:
    """Restraint energy of the structure and penalty of the decoder, nats an image."""
    if not isinstance(decoder, StructureDecoder):
        return lambda: decoder.penalty() / images
    restraints = restraints_of(run)
    offset = torch.tensor(run.geometry.offset)
    around = torch.from_numpy(coordinates_of(run, others)) - offset if others else torch.zeros(0)

    def energy() -> Tensor:
        coords = decoder.coordinates(z)
        batch = torch.cat([around, coords]) if len(around) else coords
        # The others do not change: the gradient of the sum is that of the structure.
        return (restraints.terms(batch).total * len(batch) + decoder.penalty()) / images

    return energy


def restraints_of(run: Run) -> Restraints:
    """The restraints that a run of structures was trained with."""
    from cryoscape.training.assemble import degrees_of_freedom
    from cryoscape.training.restraining import Restraints

    scale = degrees_of_freedom(run.geometry)
    return Restraints(run.structure, run.config.restraints, scale, torch.device("cpu"))


def _climb(
    model: ImageModel,
    scene: Callable[[], Scene],
    group: ImageGroup,
    parameters: Sequence[Tensor],
    steps: int,
    rate: float,
    energy: Callable[[], Tensor] | None = None,
) -> None:
    """Adam, with steps that shrink to nothing."""
    adam = torch.optim.Adam(parameters, lr=rate)
    for step in range(steps):
        adam.param_groups[0]["lr"] = rate * 0.5 * (1.02 + math.cos(math.pi * step / steps))
        adam.zero_grad(set_to_none=True)
        for batch, weights in group.chunks():
            with torch.enable_grad():
                (-(weights * model.scene_log_likelihood(scene(), batch)).sum()).backward()
        with torch.enable_grad():
            held = None if energy is None else energy()
        # A decoder without a penalty has a constant one.
        if held is not None and held.requires_grad:
            held.backward()
        adam.step()
