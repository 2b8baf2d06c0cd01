"""Collective variables in plain words: "distance A:55 A:169", "rmsd open.pdb A:1-214", "pc 1"."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.analysis.components import PrincipalComponents
from cryoscape.analysis.variables.collective_variables import (
    Angle,
    CartesianComponent,
    CollectiveVariable,
    Dihedral,
    Distance,
    GyrationRadius,
    Rmsd,
    match_residues,
)
from cryoscape.analysis.variables.decoded_latents import density_of_run
from cryoscape.analysis.variables.map_variables import (
    MapFit,
    MapOccupancy,
    StructureOccupancy,
    fit_target,
    mask_on_grid,
    read_mask,
    values_at,
)
from cryoscape.errors import InputError
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.selection import select

if TYPE_CHECKING:
    from cryoscape.training.run import Run

USAGE = {
    "distance": "distance SEL SEL",
    "angle": "angle SEL SEL SEL",
    "dihedral": "dihedral SEL SEL SEL SEL",
    "rmsd": "rmsd FILE [SEL]",
    "rg": "rg [SEL]",
    "pc": "pc N",
    "occupancy": "occupancy MASK.mrc",
    "fit": "fit MAP.mrc [RESOLUTION]",
}
"""Every kind, as it is written. A SEL is as of `cryoscape.structures.selection.select`: A:55, A:30-60, A."""


def parse_cv(
    text: str,
    structure: AtomicModel | None,
    *,
    components: PrincipalComponents | None = None,
    run: Run | None = None,
) -> CollectiveVariable:
    """Read a collective variable.

    Parameters
    ----------
    text : str
        One of `USAGE`. Words are separated by blanks; a file name that has some goes in quotes.
    structure : AtomicModel or None
        Whose residues the selections name; None where only maps are decoded.
    components : PrincipalComponents, optional
        Cartesian ones of the decoded structures, for `pc`. Those of the run's analysis by default.
    run : Run, optional
        For `fit`, for `pc` without `components`, and for `occupancy` where maps are decoded.

    Returns
    -------
    CollectiveVariable

    Raises
    ------
    InputError
        The text cannot be read, names what is not there, or asks for what is not decoded.
    """
    kind, words = split_words(text)
    if kind in _GEOMETRY:
        return _of_points(kind, words, text, _need(structure, kind))
    if kind == "rmsd":
        return _rmsd(words, text, _need(structure, kind))
    if kind == "rg":
        model = _need(structure, kind)
        _count(text, kind, words, 0, 1)
        rows = select(model, words[0]) if words else np.arange(len(model))
        if len(rows) < 2:
            raise InputError(
                f"`{text}`: one residue has no radius of gyration", remedy="Select two residues or more."
            )
        return GyrationRadius(text, rows, model.weights[rows])
    if kind == "pc":
        return _component(words, text, _need(structure, kind), components, run)
    if kind == "occupancy":
        return _occupancy(words, text, structure, run)
    return _fit(words, text, run)


def cv_of_run(run: Run, text: str) -> CollectiveVariable:
    """Read a collective variable of what a run decodes.

    Parameters
    ----------
    run : Run
    text : str
        One of `USAGE`.

    Raises
    ------
    InputError
        As `parse_cv`.
    """
    return parse_cv(text, run.structure if run.has_structures else None, run=run)


def split_words(text: str) -> tuple[str, list[str]]:
    """Kind and arguments of a variable; blanks after the commas of a selection are allowed.

    Raises
    ------
    InputError
        A quote is not closed, or there is no such kind.
    """
    try:
        words = shlex.split(text.replace(", ", ",").replace(" ,", ","))
    except ValueError as error:
        raise InputError(f"`{text}` cannot be read: {error}", remedy="Close the quote.") from error
    if not words or words[0] not in USAGE:
        raise InputError(
            f"`{text}` is no collective variable" if words else "the collective variable is empty",
            remedy=f"Write one of: {'; '.join(USAGE.values())}.",
        )
    return words[0], words[1:]


def _count(text: str, kind: str, words: Sequence[str], least: int, most: int) -> None:
    if not least <= len(words) <= most:
        raise InputError(f"`{text}` has {len(words)} arguments", remedy=f"Write `{USAGE[kind]}`.")


def _need(structure: AtomicModel | None, kind: str) -> AtomicModel:
    if structure is None:
        raise InputError(
            f"`{kind}` needs decoded structures, and this run decodes maps",
            remedy="Use `occupancy MASK.mrc` or `fit MAP.mrc`, or a run with an atomic decoder.",
        )
    return structure


@dataclass(frozen=True)
class _Geometry:
    """A variable of so many points, of which certain pairs must not be the same."""

    build: Callable[..., CollectiveVariable]
    points: int
    apart: tuple[tuple[int, int], ...]


_GEOMETRY = {
    "distance": _Geometry(Distance, 2, ((0, 1),)),
    "angle": _Geometry(Angle, 3, ((0, 1), (1, 2))),
    "dihedral": _Geometry(Dihedral, 4, ((0, 1), (1, 2), (2, 3), (0, 2), (1, 3))),
}


def _of_points(kind: str, words: list[str], text: str, model: AtomicModel) -> CollectiveVariable:
    geometry = _GEOMETRY[kind]
    _count(text, kind, words, geometry.points, geometry.points)
    chosen: list[NDArray[np.int64]] = [select(model, word) for word in words]
    for i, j in geometry.apart:
        if np.array_equal(chosen[i], chosen[j]):
            raise InputError(
                f"`{text}`: {words[i]} and {words[j]} are the same residues",
                remedy="Name different residues.",
            )
    return geometry.build(text, *chosen)


def _rmsd(words: list[str], text: str, model: AtomicModel) -> CollectiveVariable:
    _count(text, "rmsd", words, 1, 2)
    _need_path(words[0], text)
    rows = select(model, words[1]) if len(words) > 1 else np.arange(len(model))
    if len(rows) < 3:
        raise InputError(
            f"`{text}`: {len(rows)} residues can always be superposed",
            remedy="Select three residues or more.",
        )
    matched = match_residues(model, rows, AtomicModel.read(words[0]))
    return Rmsd(text, matched.rows, matched.coords)


def _component(
    words: list[str],
    text: str,
    model: AtomicModel,
    components: PrincipalComponents | None,
    run: Run | None,
) -> CollectiveVariable:
    _count(text, "pc", words, 1, 1)
    if components is None:
        components = _analysed(run, text)
    count = int(np.count_nonzero(components.variance > 0))
    if not words[0].isdigit() or not 1 <= int(words[0]) <= count:
        raise InputError(
            f"`{text}`: there is no component {words[0]}", remedy=f"Give a number from 1 to {count}."
        )
    if components.axes.shape[1] != 3 * len(model):
        raise InputError(
            f"`{text}`: the components are of {components.axes.shape[1] // 3} residues, "
            f"the structure has {len(model)}",
            remedy="Run `cryoscape analyze` again.",
        )
    axis = int(words[0]) - 1
    return CartesianComponent(text, components.mean, components.axes[axis])


def _analysed(run: Run | None, text: str) -> PrincipalComponents:
    from cryoscape.analysis.summary import AnalysisSummary

    summary = None if run is None else AnalysisSummary.read(run.path)
    if summary is None or summary.motion is None:
        raise InputError(
            f"`{text}`: the run has not been analysed",
            file=None if run is None else run.path,
            remedy="Run `cryoscape analyze` first: it finds the components.",
        )
    return summary.motion.components


def _occupancy(
    words: list[str], text: str, structure: AtomicModel | None, run: Run | None
) -> CollectiveVariable:
    _count(text, "occupancy", words, 1, 1)
    _need_path(words[0], text)
    mask = read_mask(words[0])
    if structure is not None:
        inside = values_at(mask, torch.as_tensor(structure.coords))
        _need_overlap(bool((inside > 0).any()), words[0], text)
        return StructureOccupancy(text, mask, structure.weights)
    if run is None:
        raise ValueError("the occupancy of decoded maps needs the run")
    geometry = run.geometry
    on_grid = mask_on_grid(mask, geometry.box, geometry.pixel_size, geometry.map_origin)
    _need_overlap(bool((on_grid > 0).any()), words[0], text)
    return MapOccupancy(text, on_grid)


def _need_overlap(overlaps: bool, path: str, text: str) -> None:
    if not overlaps:
        raise InputError(
            f"`{text}`: nothing of the molecule lies in this mask",
            file=path,
            remedy="Give a mask in the frame of the model file: its header's origin says where it lies.",
        )


def _fit(words: list[str], text: str, run: Run | None) -> CollectiveVariable:
    _count(text, "fit", words, 1, 2)
    _need_path(words[0], text)
    resolution = None
    if len(words) > 1:
        try:
            resolution = float(words[1])
        except ValueError:
            resolution = -1.0
        if not 0 < resolution < 1000:
            raise InputError(
                f"`{text}`: {words[1]} is no resolution", remedy="Give it in A: `fit MAP.mrc 12`."
            )
    if run is None:
        raise ValueError("the fit to a map needs the run")
    density = density_of_run(run, resolution)
    return MapFit(text, fit_target(words[0], density), density)


def _need_path(name: str, text: str) -> None:
    if not Path(name).is_file():
        raise InputError(f"`{text}`: there is no such file", file=name, remedy="Check the path.")
