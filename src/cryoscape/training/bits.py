"""What the decoder sees of binary latents, as a run goes on."""

from __future__ import annotations

from cryoscape.models.relaxations import Relaxation, RelaxationName, build_relaxation
from cryoscape.training.config import AtomicConfig, Config


def relaxation_at(config: Config, step: int, total: int) -> Relaxation:
    """Relaxation of the bits in a step.

    By default what was found best for the decoder (docs/binary-latents.md). Where chains are tied to bits:
    straight-through at first, which is the quieter; and the unbiased `reinmax` from where the weight of the
    KL term begins to rise, because straight-through posteriors are less sure than the images allow, and a
    population of doubtful bits has weak couplings. Elsewhere exponential smoothing.

    Parameters
    ----------
    config : Config
    step, total : int
        Of the run.

    Returns
    -------
    Relaxation
    """
    e = config.encoder
    if e.relaxation != "auto":
        return build_relaxation(e.relaxation, e.sharpness)
    if not (isinstance(config.decoder, AtomicConfig) and config.decoder.occupancy == "tied"):
        return build_relaxation("exponential", e.sharpness)
    name: RelaxationName = "straight-through" if step < config.objective.hold * total else "reinmax"
    return build_relaxation(name, e.sharpness)
