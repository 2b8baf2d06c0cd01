"""What the molecule does: states, their populations and a collective variable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.progress import ProgressReporter
from cryoscape.simulate.atoms import Atoms
from cryoscape.simulate.composition import SUBUNITS, assembly, contacts, default_model, split_subunits
from cryoscape.simulate.domains import bending_axis, find_arm, new_clashes, turned, turning_axis
from cryoscape.simulate.hinge import HINGE_ANGLE, HINGE_RESIDUE, arm_protein, hinge_protein
from cryoscape.simulate.imaging import stream
from cryoscape.simulate.linker import arm_coordinates, oriented, random_orientations
from cryoscape.simulate.options import SCENARIOS, SimulationOptions
from cryoscape.simulate.paths import elastic_path
from cryoscape.simulate.populations import double_well_populations, equal_populations, path_populations
from cryoscape.simulate.reading import read_states, select_residues

Array = NDArray[np.float64]

_PATHS = ("hinge", "adk", "linear1d", "circular1d")


@dataclass(frozen=True)
class Scenario:
    """States of a molecule.

    Attributes
    ----------
    name : str
    atoms : Atoms
        Names and weights; its coordinates are those of the first state.
    coords : ndarray, shape (S, n, 3)
        World frame (the first state's centre of mass at the origin), Angstrom.
    population : ndarray, shape (S,)
        Sums to 1.
    cv : ndarray, shape (S,)
        Collective variable: fraction of the path from 0 to 1, angle in degrees, or number of the state.
    notes : tuple of str
        What the user ought to know.
    weights : ndarray, shape (S, n), or None
        Electrons of the atoms in every state, where they differ between states.
    facts : dict of ndarrays
        What else is known; goes into `truth.npz` as it is.
    """

    name: str
    atoms: Atoms
    coords: Array
    population: Array
    cv: Array
    notes: tuple[str, ...] = ()
    weights: Array | None = None
    facts: dict[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def state_weights(self) -> Array:
        """Electrons of the atoms in every state, shape (S, n)."""
        if self.weights is not None:
            return self.weights
        return np.broadcast_to(self.atoms.weights, self.coords.shape[:2])


def build_scenario(
    name: str, models: list[Path], options: SimulationOptions, reporter: ProgressReporter, seed: int = 0
) -> Scenario:
    """Build the states of a scenario.

    Parameters
    ----------
    name : str
        See `cryoscape.simulate.options.SCENARIOS`.
    models : list of Path
        Structure files or `.npz` trajectories.
    options : SimulationOptions
    reporter : ProgressReporter
        Told about the states.
    seed : int
        Of the states that are drawn at random (`linker`).

    Returns
    -------
    Scenario
        With the first state's centre of mass at the origin.

    Raises
    ------
    InputError
        If the scenario is unknown, or the models or populations do not fit it.
    """
    builders: dict[str, Callable[..., Scenario]] = {
        "hinge": _path,
        "adk": _path,
        "linear1d": _path,
        "circular1d": _circle,
        "linker": partial(_linker, seed=seed),
        "states": _states,
        "double-well": _double_well,
        "composition": _composition,
        "models": _states,
    }
    if name not in builders:
        raise InputError(f"there is no scenario {name!r}", remedy=f"Choose one of {', '.join(SCENARIOS)}.")
    if name == "hinge" and models:
        raise InputError(
            "hinge generates its own model", remedy="Leave out --models, or choose linear1d or double-well."
        )
    if options.profile != "equal" and name not in _PATHS:
        raise InputError(f"{name} has no path", remedy=f"Leave out --profile, or choose {', '.join(_PATHS)}.")
    with reporter.task("states", unit="states"):
        built = builders[name](name, models, options)
    weights = built.atoms.weights / built.atoms.weights.sum()
    coords = built.coords - weights @ built.coords[0]
    return replace(built, coords=coords, atoms=built.atoms.with_coords(coords[0]))


def _path(name: str, models: list[Path], options: SimulationOptions) -> Scenario:
    """A path from 0 to 1: morph of two models, bend of one, or the hinge."""
    n = options.states or 50
    _no_populations(name, options)
    atoms, coords, cv, notes = _path_states(name, models, options, np.linspace(0, 1, n))
    return Scenario(name, atoms, coords, path_populations(cv, options.profile), cv, notes)


def _double_well(name: str, models: list[Path], options: SimulationOptions) -> Scenario:
    """The same path, populated by a double-well potential."""
    cv = np.linspace(0, 1, options.states or 101)
    population = double_well_populations(cv, options.barrier, options.populations)
    atoms, coords, cv, notes = _path_states(name, models, options, cv)
    return Scenario(name, atoms, coords, population, cv, notes)


def _path_states(
    name: str, models: list[Path], options: SimulationOptions, fractions: Array
) -> tuple[Atoms, Array, Array, tuple[str, ...]]:
    """Atoms, states, collective variable and notes along a path."""
    if not models and name == "adk":
        raise InputError(
            "adk needs two models, none given", remedy="Give the ends: --models 1ake.pdb 4ake.pdb."
        )
    if not models:
        angle = HINGE_ANGLE if options.angle is None else options.angle
        states = [hinge_protein(f * angle) for f in fractions]
        return states[0], np.stack([s.coords for s in states]), fractions, ()
    atoms, ends, unmatched = read_states(models, options.frames)
    notes = _notes(unmatched)
    if len(ends) == 2:
        first, last = (atoms.with_coords(x) for x in ends)
        # Beads alone have their neighbours farther away than atoms have.
        cutoff = 6.0 if len(atoms) > len(atoms.bead) else 12.0
        return atoms, np.stack(elastic_path(first, last, len(fractions), cutoff=cutoff)), fractions, notes
    if len(ends) != 1 or name == "adk":
        raise InputError(
            f"{name} needs the two ends of the path, {len(ends)} models given",
            remedy="Give two models, or choose two with the option frames.",
        )
    angle = np.deg2rad(40.0 if options.angle is None else options.angle)
    arm = find_arm(atoms, select_residues(atoms, options.moving))
    axis = bending_axis(atoms, arm, angle)
    coords = np.stack([turned(atoms, arm, axis, f * angle) for f in fractions])
    clashes = new_clashes(atoms, arm, axis, fractions[1:] * angle)
    return atoms, coords, fractions, (*notes, *_clash_notes(clashes))


def _circle(name: str, models: list[Path], options: SimulationOptions) -> Scenario:
    """A full turn of a domain; the last state is one step before the first."""
    n = options.states or 100
    _no_populations(name, options)
    degrees = np.arange(n) * 360.0 / n
    population = path_populations(degrees / 360.0, options.profile, circle=True)
    if not models:
        states = [arm_protein(a) for a in degrees]
        return Scenario(name, states[0], np.stack([s.coords for s in states]), population, degrees)
    atoms, ends, unmatched = read_states(models, options.frames)
    if len(ends) != 1:
        raise InputError(f"{name} turns one model, {len(ends)} given", remedy="Give one model.")
    arm = find_arm(atoms, select_residues(atoms, options.moving))
    axis = turning_axis(atoms, arm)
    coords = np.stack([turned(atoms, arm, axis, a) for a in np.deg2rad(degrees)])
    notes = (*_notes(unmatched), *_clash_notes(new_clashes(atoms, arm, axis, np.deg2rad(degrees[1:]))))
    return Scenario(name, atoms, coords, population, degrees, notes)


def _linker(name: str, models: list[Path], options: SimulationOptions, seed: int) -> Scenario:
    """Random orientations of a domain about its hinge, the model as given first."""
    n = options.states or 100
    _no_populations(name, options)
    if models:
        atoms, ends, unmatched = read_states(models, options.frames)
        if len(ends) != 1:
            raise InputError(f"{name} turns one model, {len(ends)} given", remedy="Give one model.")
        moving, notes = select_residues(atoms, options.moving), _notes(unmatched)
    else:
        atoms, notes = arm_protein(0.0), ()
        moving = np.arange(len(atoms.bead)) > HINGE_RESIDUE
    arm = find_arm(atoms, moving)
    limit = np.deg2rad(180.0 if options.angle is None else options.angle)
    rotations = random_orientations(atoms, arm, n, limit, stream(seed, "linker"))
    distance, dihedral = arm_coordinates(atoms, arm, rotations)
    coords = np.stack([oriented(atoms, arm, rotation) for rotation in rotations])
    facts = {"arm_rotation": rotations, "distance": distance, "dihedral": dihedral}
    return Scenario(name, atoms, coords, equal_populations(n), distance, notes, facts=facts)


def _composition(name: str, models: list[Path], options: SimulationOptions) -> Scenario:
    """Every set of subunits, populated by an Ising model; absent atoms weigh nothing."""
    _no_populations(name, options)
    if options.states is not None:
        raise InputError(
            "composition has the states that its subunits give",
            remedy="Leave out --states; without a model one subunit is made for each of the --fields.",
        )
    if models:
        atoms, ends, _ = read_states(models, options.frames)
        if len(ends) != 1:
            raise InputError(f"{name} takes one model apart, {len(ends)} given", remedy="Give one model.")
        subunit = split_subunits(atoms, options.subunits)
    else:
        if options.subunits is not None:
            raise InputError("there is no model to take subunits from", remedy="Give it with --models.")
        atoms = assembly(SUBUNITS if options.fields is None else len(options.fields))
        subunit = split_subunits(atoms, tuple(dict.fromkeys(map(str, atoms.chain_id[atoms.bead])))[1:])
    m = int(subunit.max()) + 1
    ising = default_model(contacts(atoms.bead_coords, subunit, m), options.fields, options.couplings)
    present = ising.configurations
    # The core is a subunit that is always there, at index -1.
    with_core = np.concatenate([present, np.ones((len(present), 1), dtype=bool)], axis=1)
    facts = {
        "present": present,
        "subunit": subunit,
        "fields": ising.fields,
        "couplings": ising.couplings,
        "log_partition": np.array(ising.log_partition),
    }
    occupancy = ", ".join(f"{p:.2f}" for p in ising.probabilities @ present)
    return Scenario(
        name,
        atoms,
        np.broadcast_to(atoms.coords, (len(present), *atoms.coords.shape)),
        ising.probabilities,
        present.sum(axis=1).astype(float),
        (f"{m} subunits, each present in {occupancy} of the particles",),
        weights=atoms.weights * with_core[:, subunit[atoms.residue]],
        facts=facts,
    )


def _states(name: str, models: list[Path], options: SimulationOptions) -> Scenario:
    """The models given, as they are, or states of the hinge."""
    if models:
        atoms, coords, unmatched = read_states(models, options.frames)
        notes = _notes(unmatched)
    elif name == "states":
        n = len(options.populations) if options.populations is not None else options.states or 3
        angle = HINGE_ANGLE if options.angle is None else options.angle
        proteins = [hinge_protein(a) for a in np.linspace(0, angle, n)]
        atoms, coords, notes = proteins[0], np.stack([p.coords for p in proteins]), ()
    else:
        raise InputError(f"{name} needs models", remedy="Give them with --models.")
    n = len(coords)
    if name == "states" and not 2 <= n <= 6:
        raise InputError(
            f"{n} discrete states, where 2 to 6 make sense",
            remedy="Choose some with the option frames, or use the scenario models.",
        )
    population = equal_populations(n)
    if options.populations is not None:
        population = np.array(options.populations)
    elif name == "states" and n == 3:
        population = np.array([0.6, 0.3, 0.1])
    if len(population) != n:
        raise InputError(
            f"{len(population)} populations for {n} states", remedy="Give one population a state."
        )
    return Scenario(name, atoms, coords, population, np.arange(n, dtype=float), notes)


def _no_populations(name: str, options: SimulationOptions) -> None:
    if options.populations is not None:
        raise InputError(
            f"the populations of {name} follow from the scenario",
            remedy="Leave out the populations, or choose states, models or double-well; "
            f"{', '.join(_PATHS)} know --profile.",
        )


def _notes(unmatched: int) -> tuple[str, ...]:
    return (f"{unmatched} atoms are not in all models and were left out",) if unmatched else ()


def _clash_notes(clashes: int) -> tuple[str, ...]:
    return (f"the motion makes {clashes} clashes over all states",) if clashes else ()
