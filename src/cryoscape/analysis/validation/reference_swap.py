"""Training again from other structures, to see what the result keeps of its start (check 6).

Half A of the split is trained on once more from every other reference. In the test set it is compared with
half A as trained from the run's own reference: the same images, another start. Half B, other images and the
same start, says how far two trainings lie apart anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.validation.halves import HalfSets
from cryoscape.analysis.validation.other_references import (
    TURN,
    conformer,
    matched_model,
    moving_domain,
    with_domain_turned,
    write_model,
)
from cryoscape.analysis.validation.results import Check, Status
from cryoscape.analysis.validation.retraining import Retraining, file_digest
from cryoscape.analysis.validation.split import A
from cryoscape.analysis.validation.two_states import (
    MainMotion,
    Population,
    decode_flat,
    length_unit,
    some_rows,
    upper_population,
)
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.superposition import rmsd
from cryoscape.training.embed import embed
from cryoscape.training.run import Run

ALLOWED = 1.5
"""Times the distance between half sets that trainings from two references may lie apart."""

NUMBER, NAME = 6, "reference swap"


@dataclass(frozen=True, eq=False)
class Start:
    """Another structure to start from.

    Attributes
    ----------
    name : str
        Of the training.
    text : str
        For people.
    model : AtomicModel
    recipe : dict
        What it was made of.
    """

    name: str
    text: str
    model: AtomicModel
    recipe: dict[str, Any]


def swap_check(
    retraining: Retraining,
    half_sets: HalfSets,
    motion: MainMotion,
    population: Population | None,
    reference: Path | None = None,
) -> Check:
    """Check 6: train from a far conformer, a turned domain and, where there is one, an independent model.

    Parameters
    ----------
    retraining : Retraining
    half_sets : HalfSets
    motion : MainMotion
    population : Population, optional
        Of half A; None where the likelihood is not in nats.
    reference : Path, optional
        An independent model of the same residues.

    Raises
    ------
    InputError
        If the independent model does not match.
    """
    run = retraining.run
    if not run.has_structures:
        text = "Not run: maps are trained without a reference structure."
        return Check(NUMBER, NAME, Status.NOT_RUN, text)
    starts = other_starts(run, motion, reference)
    limit = ALLOWED * _apart(half_sets, half_sets.run_b, half_sets.z_b)
    values: dict[str, Any] = {"limit": limit, "half_set_rmsd": limit / ALLOWED}
    failed, said = [], []
    for start in starts:
        found = _swap(retraining, half_sets, motion, population, start)
        values[start.name] = found
        said.append(f"{found['rmsd']:.2g} A from {start.text}")
        if found["rmsd"] > limit:
            failed.append(f"the structures from {start.text} lie farther apart")
        if found.get("agrees") is False:
            failed.append(f"the population from {start.text} is another ({found['change']:+.2f})")
    text = (
        f"Trained again from other references, structures of the same particles differ by {', '.join(said)}; "
        f"{limit:.2g} A, {ALLOWED} times the distance of the half sets, is allowed"
    )
    text += f", but {'; '.join(failed)}." if failed else ", and populations agree."
    if population is None and not failed:
        text = text.replace(", and populations agree.", ".")
    return Check(NUMBER, NAME, Status.FAILED if failed else Status.PASSED, text, values)


def _swap(
    retraining: Retraining,
    half_sets: HalfSets,
    motion: MainMotion,
    population: Population | None,
    start: Start,
) -> dict[str, Any]:
    """Train half A from another structure, and compare with the training from the run's own."""
    run, progress = retraining.run, retraining.progress
    path = retraining.folder / "references" / f"{start.name}.cif"
    model = write_model(path, start.model, start.text)
    particles = run.as_given.select(half_sets.split.rows(A))
    swapped = retraining.train(start.name, particles, model=model, recipe=start.recipe)
    z = embed(swapped, half_sets.test, progress=progress).z
    found: dict[str, Any] = {
        "start_rmsd": float(rmsd(start.model.coords, run.structure.coords)),
        "rmsd": _apart(half_sets, swapped, z),
        "recipe": start.recipe,
    }
    if population is not None:
        other = upper_population(swapped, motion, seed=retraining.seed, progress=progress)
        change, low, high = population.change_to(other)
        found |= {
            "population": other.to_dict(),
            "change": change,
            "interval": (low, high),
            "agrees": low <= 0 <= high,
        }
    return found


def _apart(half_sets: HalfSets, run: Run, z: NDArray) -> float:
    """Mean over the test set of the rms distance, A, of what a training and half A make of a particle."""
    rows = some_rows(run, len(z))
    a, b = (decode_flat(one, code[rows]) for one, code in ((half_sets.run_a, half_sets.z_a), (run, z)))
    return float(rmsd(a.reshape(len(rows), -1, 3), b.reshape(len(rows), -1, 3)).mean())


def other_starts(run: Run, motion: MainMotion, reference: Path | None = None) -> list[Start]:
    """Structures to start from.

    Parameters
    ----------
    run : Run
    motion : MainMotion
    reference : Path, optional
        An independent model.
    """
    model, starts = run.structure, []
    if reference is not None:
        recipe = {"start": "file", "digest": file_digest(reference)}
        starts.append(Start("reference", reference.name, matched_model(model, reference), recipe))
    z = run.embedding.z
    rows = some_rows(run, len(z))
    scores = motion.scores(run, z[rows])
    own = (model.coords.ravel().astype(np.float64) - motion.centre) @ motion.axis
    own /= length_unit(run, motion.centre)
    # Of the two ends, the one that the reference is not at.
    row = int(rows[np.abs(scores - own).argmax()])
    far = conformer(model, run.decode(z[row : row + 1])[0])
    end = {"start": "far end", "row": row}
    starts.append(Start("far_end", "the far end of the motion", far, end))
    displacement = motion.axis.reshape(-1, 3)
    domain = moving_domain(model, displacement)
    turned = with_domain_turned(model, domain)
    text = f"{model.label(domain[0])} to {model.label(domain[1])} turned by {TURN:.0f} degrees"
    starts.append(Start("turned", text, turned, {"start": "turned", "domain": domain, "degrees": TURN}))
    return starts
