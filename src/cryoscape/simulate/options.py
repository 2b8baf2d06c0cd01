"""Settings of a simulation, with their defaults and what they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from cryoscape.errors import InputError

ScenarioName = Literal[
    "hinge", "adk", "linear1d", "circular1d", "linker", "states", "double-well", "composition", "models"
]
SCENARIOS: tuple[ScenarioName, ...] = get_args(ScenarioName)

JunkKind = Literal["scattered", "noise", "shifted", "wrong"]
JUNK_KINDS: tuple[JunkKind, ...] = get_args(JunkKind)


@dataclass(frozen=True)
class SimulationOptions:
    """Everything about a simulation beyond its size and its signal-to-noise ratio.

    Attributes
    ----------
    states : int, optional
        Number of states of a continuous scenario. Default: 50; 100 for `circular1d` and `linker`, 101
        for `double-well`; for `states` the number of populations.
    populations : tuple of float, optional
        Populations of the states, summing to 1. Default: equal; for `states` 0.6, 0.3, 0.1.
    profile : "equal" or "bimodal"
        Populations along the path of `hinge`, `adk`, `linear1d` and `circular1d`: bimodal has 70 % round a
        quarter and 30 % round three quarters of the way.
    frames : tuple of int, optional
        Which of the models given to use, from 0.
    moving : str, optional
        Residues that move in `linear1d`, `circular1d` and `linker`, for example ``"L,H:1-235"``. Default:
        the smaller side of the thinnest cut through the contacts of the model.
    angle : float, optional
        Range of the motion in degrees: hinge 50, bending of `linear1d` 40, rotations of `linker` 180.
    subunits : tuple of str, optional
        Subunits of `composition` in a given model, for example ``"B" "C,D"``; the rest is the core. Default:
        every chain but the largest.
    fields : tuple of float, optional
        Fields h of `composition`, kT, one a subunit; without a model as many subunits are made, else 5.
    couplings : tuple of float, optional
        Couplings J of `composition`, kT: one for all subunits in contact (1.5), or one for every pair.
    barrier : float
        Height of the barrier of `double-well` in kT.
    reference : "first", "last" or int
        The state written as `reference.cif`.
    frame : "corner" or "centre"
        Where the origin of `reference.cif` and of the true coordinates is: voxel 0, or the centre voxel.
    defocus : "lognormal" or "uniform"
        Distribution of the defocus.
    defocus_median, defocus_spread : float
        Lognormal: median in Angstrom and standard deviation of the logarithm.
    defocus_range : tuple of float
        Uniform: lower and upper limit in Angstrom.
    astigmatism : float
        Largest difference of the two defoci in Angstrom, drawn uniformly, at any angle.
    voltage, cs, amplitude_contrast : float
        kV, mm, fraction.
    orientation_strength : float
        Concentration kappa of the viewing directions around the z axis of the model (von Mises-Fisher);
        0 is uniform, 3 is strongly preferred.
    shift : float
        Particles lie off the centre by a uniform amount up to this in x and in y, Angstrom.
    scale_spread : float
        Standard deviation of the logarithm of the particles' signal strength.
    pose_error, shift_error : float
        Standard deviation per axis of the error of the poses in the particle file, degrees and Angstrom.
    junk : float
        Fraction of particles that are not the molecule.
    junk_kinds : tuple of str
        What they are, in equal parts: `scattered`, the atoms of the molecule thrown about; `noise`, an empty
        image; `shifted`, the molecule far from where the table puts it; `wrong`, another molecule of its
        size, the same in all of them.
    junk_shift : tuple of float
        Least and largest displacement of the shifted ones, Angstrom, in any direction.
    noise : "white" or "coloured"
        Coloured noise is five times stronger at low than at high frequency, as ice is.
    sign : 1 or -1
        -1 stores the images with protein dark.
    """

    states: int | None = None
    populations: tuple[float, ...] | None = None
    profile: Literal["equal", "bimodal"] = "equal"
    frames: tuple[int, ...] | None = None
    moving: str | None = None
    angle: float | None = None
    subunits: tuple[str, ...] | None = None
    fields: tuple[float, ...] | None = None
    couplings: tuple[float, ...] | None = None
    barrier: float = 3.0
    reference: Literal["first", "last"] | int = "first"
    frame: Literal["corner", "centre"] = "corner"
    defocus: Literal["lognormal", "uniform"] = "lognormal"
    defocus_median: float = 10_000.0
    defocus_spread: float = 0.3
    defocus_range: tuple[float, float] = (5_000.0, 25_000.0)
    astigmatism: float = 0.0
    voltage: float = 300.0
    cs: float = 2.7
    amplitude_contrast: float = 0.1
    orientation_strength: float = 0.0
    shift: float = 0.0
    scale_spread: float = 0.0
    pose_error: float = 0.0
    shift_error: float = 0.0
    junk: float = 0.0
    junk_kinds: tuple[JunkKind, ...] = ("scattered",)
    junk_shift: tuple[float, float] = (15.0, 40.0)
    noise: Literal["white", "coloured"] = "white"
    sign: Literal[1, -1] = 1

    def __post_init__(self) -> None:
        if self.states is not None and self.states < 2:
            raise InputError(f"{self.states} states are too few", remedy="Ask for 2 states or more.")
        if self.populations is not None:
            check_populations(self.populations)
        spreads = "defocus_spread scale_spread pose_error shift_error"
        for name in f"{spreads} barrier astigmatism orientation_strength shift".split():
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"{name} is {value}", remedy=f"Give {name} a number that is not negative.")
        for name in ("defocus_median", "voltage"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value}", remedy=f"Give {name} a positive number.")
        low, high = self.defocus_range
        if not 0 < low <= high:
            raise InputError(
                f"the defocus range {low} to {high} A is empty", remedy="Give 0 < lower <= upper."
            )
        low, high = self.junk_shift
        if not (0 <= low <= high and math.isfinite(high)):
            raise InputError(
                f"the displacement {low} to {high} A is empty", remedy="Give 0 <= least <= largest."
            )
        if not self.junk_kinds or not set(self.junk_kinds) <= set(JUNK_KINDS):
            raise InputError(
                f"junk_kinds is {' '.join(self.junk_kinds) or 'empty'}",
                remedy=f"Choose one or more of {', '.join(JUNK_KINDS)}.",
            )
        for name in ("junk", "amplitude_contrast"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", remedy=f"Give {name} in [0, 1).")
        choices = {
            "profile": ("equal", "bimodal"),
            "noise": ("white", "coloured"),
            "defocus": ("lognormal", "uniform"),
            "frame": ("corner", "centre"),
            "sign": (1, -1),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}",
                    remedy=f"Choose one of {', '.join(map(str, allowed))}.",
                )


def check_populations(populations: tuple[float, ...]) -> None:
    """Refuse populations that are no probabilities.

    Raises
    ------
    InputError
        If one is not positive or they do not sum to 1 within 1e-6.
    """
    if not all(math.isfinite(p) and p > 0 for p in populations):
        raise InputError("a population is not positive", remedy="Give one positive number a state.")
    if abs(sum(populations) - 1) > 1e-6:
        raise InputError(
            f"the populations sum to {sum(populations):.6g}", remedy="Give populations that sum to 1."
        )


def check_size(particles: int, box: int, pixel: float, snr: float) -> None:
    """Refuse sizes that make no data set.

    Parameters
    ----------
    particles, box, pixel, snr
        As given to `simulate`.

    Raises
    ------
    InputError
        If one of them is out of range.
    """
    if particles < 2:
        raise InputError(f"{particles} particles are too few", remedy="Ask for 2 particles or more.")
    if box % 2 or not 8 <= box <= 4096:
        raise InputError(f"a box of {box} pixels", remedy="Give an even box between 8 and 4096 pixels.")
    if not (math.isfinite(pixel) and pixel > 0):
        raise InputError(f"a pixel of {pixel} A", remedy="Give a positive pixel size in Angstrom.")
    if not (math.isfinite(snr) and snr > 0):
        raise InputError(
            f"a signal-to-noise ratio of {snr}", remedy="Give a positive number, for example 0.1."
        )
