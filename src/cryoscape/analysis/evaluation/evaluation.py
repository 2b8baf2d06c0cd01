"""What a comparison with the known truth found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from os import PathLike
from typing import Any

from cryoscape.analysis.evaluation.composition import CompositionEvaluation
from cryoscape.analysis.evaluation.junk import JunkEvaluation
from cryoscape.analysis.evaluation.latents import LatentEvaluation
from cryoscape.analysis.evaluation.maps import MapEvaluation
from cryoscape.analysis.evaluation.populations import PopulationEvaluation
from cryoscape.analysis.records import read_json
from cryoscape.errors import InputError


@dataclass(frozen=True)
class StateRow:
    """One true state. Lengths in A, rmsd without superposition.

    Parameters
    ----------
    state, particles : int
        Number of the state and of its particles.
    cv : float or None
        Its collective variable.
    population : float
        Its true population.
    nearest : float
        Share of all particles whose decoded structure is nearest to this state: a count of posterior
        means, not an estimate of the population.
    rmsd, rmsd_sd : float or None
        Mean and sd over its particles of the rmsd to this state; None without particles.
    trivial : float
        The rmsd of the reference model.
    constant : float
        The rmsd of the best single structure.
    bias : float or None
        The rmsd of the mean decoded structure: what averaging over particles does not remove.
    """

    state: int
    cv: float | None
    population: float
    nearest: float
    particles: int
    rmsd: float | None
    rmsd_sd: float | None
    trivial: float
    constant: float
    bias: float | None


@dataclass(frozen=True)
class Evaluation:
    """Recovered against true, of a run that decodes structures.

    Lengths in A, rmsd without superposition, of the structure at the posterior mean.

    Parameters
    ----------
    n_particles, n_residues : int
        What was compared.
    rmsd, rmsd_median : float
        Mean and median over particles.
    rmsd_states : float
        Mean over states, each counting the same.
    trivial, constant : float
        Mean over particles of the rmsd of the reference model everywhere, and of the population-weighted
        mean of the true structures everywhere.
    accuracy, majority : float
        Share of particles whose decoded structure is nearest to their true state; the share that always
        naming the commonest state would get.
    population_distance : float
        Total variation distance of the nearest-state counts from the true populations.
    far_state : int
        The state farthest from the reference.
    far_recovered : float or None
        Share of the displacement reference -> far state that its particles show (projection).
    order : float or None
        Spearman correlation of the position along the path of states with the true state; None where the
        states are not ordered, close into a circle, or are fewer than five.
    bond_deviation, bond_deviation_truth : float
        Rms deviation of bond lengths from the reference's, of decoded and of true structures.
    clashes, clashes_reference : float
        Mean number of pairs within 4 A in decoded structures, and in the reference.
    held_out : dict
        `particles`, `rmsd`, `rmsd_median`, `accuracy` over particles that training did not see; empty
        without any.
    states : tuple of StateRow
        One row a state.
    scenario : str
        The simulation's name.
    warnings : tuple of str
        What the reader should know.
    maps : MapEvaluation or None
        Decoded maps against true ones; None where the truth holds no atoms.
    codes : LatentEvaluation or None
        Codes against truth, poses and optics; None for very few particles or a single state.
    populations : PopulationEvaluation or None
        Of the run's prior against the truth; None where the prior was not learned, or composition varies.
    composition : CompositionEvaluation or None
        Subunits against the truth; None where none come and go, in the truth or in the run.
    junk : JunkEvaluation or None
        How well scores tell junk from particles; None where there is none.
    """

    n_particles: int
    n_residues: int
    rmsd: float
    rmsd_median: float
    rmsd_states: float
    trivial: float
    constant: float
    accuracy: float
    majority: float
    population_distance: float
    far_state: int
    far_recovered: float | None
    order: float | None
    bond_deviation: float
    bond_deviation_truth: float
    clashes: float
    clashes_reference: float
    held_out: dict[str, float]
    states: tuple[StateRow, ...]
    scenario: str = ""
    warnings: tuple[str, ...] = ()
    maps: MapEvaluation | None = None
    codes: LatentEvaluation | None = None
    populations: PopulationEvaluation | None = None
    composition: CompositionEvaluation | None = None
    junk: JunkEvaluation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Evaluation:
        """Read the JSON file that `evaluate` wrote for a run that decodes structures.

        Parameters
        ----------
        path : path
            The file.

        Returns
        -------
        Evaluation

        Raises
        ------
        InputError
            The file is not one of ours.
        """
        found = read_evaluation(path)
        if not isinstance(found, cls):
            raise InputError("this evaluation is of maps alone", file=path, remedy="Name another run.")
        return found


@dataclass(frozen=True)
class VolumeEvaluation:
    """Recovered against true, of a run that decodes maps.

    Parameters
    ----------
    n_particles : int
        Of the run.
    maps : MapEvaluation or None
        Decoded maps against true ones; None where all particles are junk.
    codes : LatentEvaluation or None
        Codes against truth, poses and optics; None for very few particles or a single state.
    junk : JunkEvaluation or None
        How well scores tell junk from particles; None where there is none.
    scenario : str
        The simulation's name.
    warnings : tuple of str
        What the reader should know.
    """

    n_particles: int
    maps: MapEvaluation | None
    codes: LatentEvaluation | None
    junk: JunkEvaluation | None = None
    scenario: str = ""
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        return asdict(self)


def read_evaluation(path: str | PathLike[str]) -> Evaluation | VolumeEvaluation:
    """Read the JSON file that `evaluate` wrote.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    Evaluation or VolumeEvaluation
        By the kind of run.

    Raises
    ------
    InputError
        The file is not one of ours.
    """
    content = read_json(path)
    kind = Evaluation if "rmsd" in content else VolumeEvaluation
    try:
        content["warnings"] = tuple(content["warnings"])
        if kind is Evaluation:
            content["states"] = tuple(StateRow(**row) for row in content["states"])
            found = content.get("populations")
            content["populations"] = None if found is None else PopulationEvaluation(**found)
            found = content.get("composition")
            content["composition"] = None if found is None else CompositionEvaluation.from_dict(found)
        found = content.get("junk")
        content["junk"] = None if found is None else JunkEvaluation(**found)
        for name, part in (("maps", MapEvaluation), ("codes", LatentEvaluation)):
            content[name] = None if content.get(name) is None else part.from_dict(content[name])
        return kind(**{field.name: content[field.name] for field in fields(kind)})
    except (KeyError, TypeError) as error:
        raise InputError("this is not an evaluation", file=path, remedy="Run evaluate again.") from error
