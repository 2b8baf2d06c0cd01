"""Which annealers sample a Boltzmann law, and with which schedules.

Annealers were made to find the lowest energy, and so are their defaults: on the 12 spins of `calibrate` the
default of simulated annealing ends at beta = 107 and is 0.95 off in total variation. A sampler has to end at
the temperature that is asked for, and a path-integral annealer with its transverse field off.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from cryoscape.errors import InputError

if TYPE_CHECKING:
    import dimod

Control = Literal["schedule", "beta", "none"]
"""How the temperature of a sampler is set: by a schedule, by a parameter, or not at all (hardware)."""

OPTIMISERS = {
    "ExactSolver": "lists all states by energy",
    "SteepestDescentSolver": "descends to the next minimum",
    "TabuSampler": "searches for the lowest energy",
    "PlanarGraphSolver": "finds the lowest energy",
    "TreeDecompositionSolver": "finds the lowest energies",
    "NullSampler": "returns nothing",
    "IdentitySampler": "returns what it is given",
    "RandomSampler": "tosses coins",
    "RotorModelAnnealingSampler": "samples rotors, whose signs have another law",
}

_REMEDY = (
    "Use simulated_annealing() or path_integral(), or give a schedule that ends at 1, the temperature that "
    "is asked for, "
)
_SA_EXAMPLE = "for example beta_range=(0.1, 1.0), beta_schedule_type='linear', num_sweeps=100."
_PIA_EXAMPLE = "for example beta_schedule_type='custom' with Hp_field from 0 to 1 and Hd_field from 1 to 0."


def innermost(sampler: dimod.Sampler) -> dimod.Sampler:
    """The sampler inside composites such as an embedding."""
    while children := getattr(sampler, "children", None):
        sampler = children[0]
    return sampler


def has_transverse_field(sampler: dimod.Sampler) -> bool:
    """Whether a sampler takes the schedule of a transverse field, which it does not list as a parameter."""
    return "Hd_field" in inspect.signature(innermost(sampler).sample).parameters


def control_of(sampler: dimod.Sampler, options: Mapping[str, Any]) -> Control:
    """How the temperature of a sampler is set.

    Raises
    ------
    InputError
        If it is known not to sample a Boltzmann law, or the options set a temperature of their own.
    """
    inner = innermost(sampler)
    name = type(inner).__name__
    if name in OPTIMISERS:
        raise InputError(
            f"{name} {OPTIMISERS[name]}: it does not sample a Boltzmann law",
            remedy="Use simulated_annealing(), path_integral(), TreeSampler or BlockGibbs.",
        )
    parameters = inner.parameters or {}
    if "beta_schedule_type" in parameters:
        return "schedule"
    if float(options.get("beta", 1.0)) != 1.0:
        raise InputError(
            f"beta={options['beta']} would be multiplied with the inverse temperature that is asked for",
            remedy="Leave beta out here, and give it to sample_ising.",
        )
    # A quantum annealer has had a parameter of this name, for its post-processing.
    return "beta" if "beta" in parameters and "auto_scale" not in parameters else "none"


def check_schedule(sampler: dimod.Sampler, options: Mapping[str, Any]) -> bool:
    """Whether the schedule of an annealer stays where it ends, so that chains can go on from where they are.

    Raises
    ------
    InputError
        If it is the default, ends at another temperature, or with a transverse field.
    """
    name, transverse = type(innermost(sampler)).__name__, has_transverse_field(sampler)
    remedy = _REMEDY + (_PIA_EXAMPLE if transverse else _SA_EXAMPLE)
    schedule = _given_schedule(options, "Hp_field" if transverse else "beta_schedule")
    if schedule is None:
        raise InputError(
            f"the default schedule of {name} looks for the lowest energy: it ends far below the temperature "
            "that is asked for, and its states are not samples",
            remedy=remedy,
        )
    if not math.isclose(schedule[-1], 1.0, rel_tol=1e-6):
        raise InputError(
            f"the schedule of {name} ends at {schedule[-1]:.4g} times the inverse temperature that is asked "
            "for, so that the samples would have that one",
            remedy=remedy,
        )
    field = [float(value) for value in options.get("Hd_field", [0.0])]
    if field[-1] != 0.0:
        raise InputError(
            f"the schedule of {name} ends in a transverse field of {field[-1]:.4g}: the samples would have "
            "another law, which no change of temperature mends",
            remedy=remedy,
        )
    return min(schedule) == max(schedule) and not any(field)


def _given_schedule(options: Mapping[str, Any], custom: str) -> list[float] | None:
    """The inverse temperatures that the options set, or None where they leave them to the sampler."""
    given = (
        options.get(custom) if options.get("beta_schedule_type") == "custom" else options.get("beta_range")
    )
    values = [] if given is None else [float(value) for value in given]
    return values or None
