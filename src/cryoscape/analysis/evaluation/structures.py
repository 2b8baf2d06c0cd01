"""The structures of a run against the true ones of a simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.components import decode_in_chunks
from cryoscape.analysis.evaluation.evaluation import Evaluation, StateRow
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.structures.geometry import bond_deviation, clash_counts
from cryoscape.structures.restraints import find_pairs

if TYPE_CHECKING:
    from cryoscape.training.embedding import Embedding
    from cryoscape.training.run import Run

_GEOMETRY_PARTICLES = 200
_FRAME_OFFSET = 10.0
# With fewer states most ranks are ties, which bound the correlation below 1 for perfect structures.
_ORDERED = 5


def evaluate_structures(
    run: Run, truth: Truth, z: NDArray, state: NDArray[np.int64]
) -> tuple[Evaluation, dict[str, NDArray]]:
    """Compare the decoded structure of every particle with its true state.

    Nothing is superposed: model file and truth are both taken in the box-corner frame, and residues are
    matched by chain, number and insertion code (so the run's model may be another file, for example the
    other end state). Structures are decoded in chunks.

    Parameters
    ----------
    run : Run
        A run that decodes structures.
    truth : Truth
        Of the simulation.
    z : ndarray, shape (n, d)
        Posterior means, as in the run's embedding.
    state : ndarray, shape (n,), int
        True states.

    Returns
    -------
    Evaluation
        Without maps and codes.
    dict of ndarray
        `state`, `rmsd`, `nearest` (state) and `position` (along the path of states) of every particle.

    Raises
    ------
    InputError
        A truth of another molecule.
    """
    in_model, in_truth = truth.match(run.structure)
    states = truth.coords[:, in_truth].astype(np.float64)
    reference = np.asarray(run.structure.coords, dtype=np.float64)[in_model]
    found = _compare(run, z, in_model, states, state, reference)
    result = _summarise(run, truth, run.embedding, found, states, reference, in_model)
    return result, {
        "state": found.state.astype(np.int32),
        "rmsd": found.rmsd.astype(np.float32),
        "nearest": found.nearest.astype(np.int32),
        "position": found.position.astype(np.float32),
    }


@dataclass
class _Comparison:
    """Per particle: true state, rmsd, nearest state, path position; per state: summed structures."""

    state: NDArray[np.int64]
    rmsd: NDArray[np.float64]
    nearest: NDArray[np.int64]
    position: NDArray[np.float64]
    projection: NDArray[np.float64]
    sums: NDArray[np.float64]
    far: int


def _compare(
    run: Run, z: NDArray, in_model: NDArray, states: NDArray, state: NDArray, reference: NDArray
) -> _Comparison:
    n, n_residues = len(z), len(in_model)
    # Displacements from the reference: squared distances then lose no digits to the frame's offset.
    moves = (states - reference).reshape(len(states), -1)
    norms = (moves**2).sum(axis=1)
    far = int(norms.argmax())
    out = _Comparison(
        state, np.empty(n), np.empty(n, np.int64), np.empty(n), np.empty(n), np.zeros_like(states), far
    )
    for rows, coords in decode_in_chunks(run, z):
        move = (coords[:, in_model] - reference).reshape(len(coords), -1)
        inner = move @ moves.T
        squared = np.maximum((move**2).sum(axis=1)[:, None] - 2 * inner + norms, 0.0)
        out.rmsd[rows] = np.sqrt(squared[np.arange(len(coords)), state[rows]] / n_residues)
        out.nearest[rows] = squared.argmin(axis=1)
        out.position[rows] = path_position(squared, moves)
        out.projection[rows] = inner[:, far] / max(norms[far], 1e-12)
        for s in np.unique(state[rows]):
            out.sums[s] += coords[state[rows] == s][:, in_model].sum(axis=0, dtype=np.float64)
    return out


def path_position(squared: NDArray, states: NDArray) -> NDArray[np.float64]:
    """Position of points along the path through the states, in states (2.5: midway from 2 to 3).

    The nearest point of the polyline, found from distances alone.

    Parameters
    ----------
    squared : ndarray, shape (n, S)
        Squared distances of the points from the states.
    states : ndarray, shape (S, d)
        The states in order.

    Returns
    -------
    ndarray, shape (n,)
    """
    if len(states) < 2:
        return np.zeros(len(squared))
    length2 = np.maximum(((states[1:] - states[:-1]) ** 2).sum(axis=1), 1e-12)
    along = np.clip((squared[:, :-1] - squared[:, 1:] + length2) / (2 * length2), 0, 1)
    # |p - a - t (b - a)|^2 with p.(b - a) replaced by the two distances.
    distance2 = squared[:, :-1] - along * (squared[:, :-1] - squared[:, 1:] + length2) + along**2 * length2
    segment = distance2.argmin(axis=1)
    return segment + along[np.arange(len(squared)), segment]


def _summarise(
    run: Run,
    truth: Truth,
    embedding: Embedding,
    found: _Comparison,
    states: NDArray,
    reference: NDArray,
    in_model: NDArray,
) -> Evaluation:
    n = len(embedding.row)
    best = np.tensordot(truth.population, states, axes=1)
    trivial, constant = _rmsd(reference, states), _rmsd(best, states)
    table = _state_rows(truth, found, states, trivial, constant)
    correct = found.nearest == found.state
    counted = np.bincount(found.nearest, minlength=len(states)) / n
    of_far = found.projection[found.state == found.far]
    bonds_rms, bonds_truth, clashes, clashes_reference = _soundness(run, embedding.z, states, in_model)
    unseen: dict[str, float] = {}
    mask = np.asarray(embedding.held_out, dtype=bool)
    if mask.any():
        unseen = {
            "particles": int(mask.sum()),
            "rmsd": float(found.rmsd[mask].mean()),
            "rmsd_median": float(np.median(found.rmsd[mask])),
            "accuracy": float(correct[mask].mean()),
        }
    return Evaluation(
        n_particles=n,
        n_residues=len(in_model),
        rmsd=float(found.rmsd.mean()),
        rmsd_median=float(np.median(found.rmsd)),
        rmsd_states=float(np.mean([row.rmsd for row in table if row.rmsd is not None])),
        trivial=float(trivial[found.state].mean()),
        constant=float(constant[found.state].mean()),
        accuracy=float(correct.mean()),
        majority=float(np.bincount(found.state).max() / n),
        population_distance=float(0.5 * np.abs(counted - truth.population).sum()),
        far_state=found.far,
        far_recovered=float(of_far.mean()) if len(of_far) else None,
        order=_order(truth, found),
        bond_deviation=bonds_rms,
        bond_deviation_truth=bonds_truth,
        clashes=clashes,
        clashes_reference=clashes_reference,
        held_out=unseen,
        states=table,
        scenario=truth.scenario,
        warnings=_warnings(run, truth, found, best, in_model),
    )


def _state_rows(
    truth: Truth, found: _Comparison, states: NDArray, trivial: NDArray, constant: NDArray
) -> tuple[StateRow, ...]:
    counted = np.bincount(found.nearest, minlength=len(states)) / len(found.state)
    rows = []
    for s in range(len(states)):
        mine = found.rmsd[found.state == s]
        rows.append(
            StateRow(
                state=s,
                cv=None if truth.cv is None else float(truth.cv[s]),
                population=float(truth.population[s]),
                nearest=float(counted[s]),
                particles=len(mine),
                rmsd=float(mine.mean()) if len(mine) else None,
                rmsd_sd=float(mine.std()) if len(mine) else None,
                trivial=float(trivial[s]),
                constant=float(constant[s]),
                bias=float(_rmsd(found.sums[s] / len(mine), states[s])) if len(mine) else None,
            )
        )
    return tuple(rows)


def _rmsd(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    return np.sqrt(((a - b) ** 2).sum(axis=-1).mean(axis=-1))


def _order(truth: Truth, found: _Comparison) -> float | None:
    from scipy.stats import spearmanr

    step = np.zeros(0) if truth.cv is None else np.diff(truth.cv)
    ordered = len(step) >= _ORDERED - 1 and (np.all(step > 0) or np.all(step < 0))
    if not ordered or truth.scenario.startswith("circular") or len(np.unique(found.state)) < 3:
        return None
    # All structures alike have no order at all.
    return 0.0 if np.ptp(found.position) == 0 else float(spearmanr(found.position, found.state).statistic)


def _soundness(run: Run, z: NDArray, states: NDArray, in_model: NDArray) -> tuple[float, float, float, float]:
    model = run.structure
    pairs = find_pairs(model)
    bonds, lengths = np.asarray(pairs.bonds), np.asarray(pairs.bond_lengths)
    part = np.random.default_rng(0).permutation(len(z))[:_GEOMETRY_PARTICLES]
    deviation, clashes = [], []
    for _, coords in decode_in_chunks(run, z[part]):
        deviation.append(bond_deviation(coords, bonds, lengths))
        clashes.append(clash_counts(coords, bonds))
    place = np.full(len(model), -1)
    place[in_model] = np.arange(len(in_model))
    shared = (place[bonds] >= 0).all(axis=1) if len(bonds) else np.zeros(0, dtype=bool)
    in_truth = bond_deviation(states, place[bonds[shared]], lengths[shared])
    return (
        float(np.sqrt(np.mean(np.concatenate(deviation) ** 2))),
        float(np.sqrt(np.mean(in_truth**2))),
        float(np.concatenate(clashes).mean()),
        float(clash_counts(np.asarray(model.coords)[None], bonds)[0]),
    )


def _warnings(
    run: Run, truth: Truth, found: _Comparison, best: NDArray, in_model: NDArray
) -> tuple[str, ...]:
    notes = []
    offset = float(np.linalg.norm(found.sums.sum(axis=0).mean(axis=0) / len(found.state) - best.mean(axis=0)))
    if offset > _FRAME_OFFSET:
        notes.append(
            f"decoded and true structures lie {offset:.0f} A apart on average: "
            "give the run a model in the frame of the simulation's reference.cif"
        )
    if len(in_model) < max(len(run.structure), truth.coords.shape[1]):
        notes.append(
            f"compared over the {len(in_model)} residues that the run's model ({len(run.structure)}) "
            f"and the truth ({truth.coords.shape[1]}) share"
        )
    return tuple(notes)
