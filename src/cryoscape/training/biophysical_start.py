"""A Boltzmann prior that starts from the molecule: every switch is a normal mode, or the motion of a domain.

A switch s_j = +-1 moves the mean of its configurations by +-w_j in the latent space. w_j is the direction in
which the codes of the particles change when what they decode to moves by one standard deviation along mode
or domain motion j: the regression of z on that coordinate, cov(z, c_j) / sd(c_j). Couplings start at 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.normal_modes import anisotropic_network_modes
from cryoscape.structures.segments import Segments, initial_segments

Origin = Literal["modes", "domains"]

_CUTOFF = 12.0
_DECODED = 4000


@torch.no_grad()
def switch_directions(
    origin: Origin, decoder: StructureDecoder, model: AtomicModel, z: Tensor, n_switches: int
) -> Tensor:
    """Latent displacement of every switch.

    Parameters
    ----------
    origin : {"modes", "domains"}
        The lowest normal modes of the reference (elastic network, 12 A), or equal pieces of its chains, each
        along the main motion that its residues make.
    decoder : StructureDecoder
    model : AtomicModel
        The reference.
    z : Tensor, shape (N, d)
        Posterior samples.
    n_switches : int
        m.

    Returns
    -------
    Tensor, shape (m, d)

    Raises
    ------
    InputError
        If the model has fewer modes, or fewer residues, than there are switches.
    """
    z = z[torch.linspace(0, len(z) - 1, min(_DECODED, len(z))).long()]
    coords = torch.cat([decoder.coordinates(part).cpu() for part in z.split(256)])
    motion = coords - coords.mean(0)
    if origin == "modes":
        _, modes = anisotropic_network_modes(model.coords, n_switches, _CUTOFF)
        along = torch.einsum("nri,mri->nm", motion, torch.as_tensor(modes, dtype=motion.dtype))
    else:
        along = _domain_motion(
            motion, initial_segments(model, max(n_switches, len(model.chains))), n_switches
        )
    along = (along - along.mean(0)).to(z)
    spread = along.std(0).clamp_min(1e-9)
    return (along.T @ (z - z.mean(0))) / len(z) / spread[:, None]


def _domain_motion(motion: Tensor, division: Segments, n_switches: int) -> Tensor:
    """Leading principal component of the motion of each piece, (N, R, 3) -> (N, m)."""
    label = division.responsibilities().argmax(1)
    pieces, count = label.unique(return_counts=True)
    chosen = pieces[count.argsort(descending=True)[:n_switches]].sort().values
    scores = []
    for piece in chosen:
        part = motion[:, label == piece].flatten(1)
        # The sign is that of the mean displacement, so that it does not depend on the factorisation.
        _, _, axes = torch.linalg.svd(part, full_matrices=False)
        axis = axes[0] * torch.sign(axes[0].sum() + 1e-12)
        scores.append(part @ axis)
    return torch.stack(scores, 1)
