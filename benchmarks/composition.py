"""Subunits that come and go: how well does each prior find their cooperativity.

    python benchmarks/composition.py --set SET [--set SET ...] --steps 1500 --seeds 0 1 2

SET is a folder of `cryoscape simulate composition`; where its name holds {seed}, each seed has a set of its
own. Every run has the atomic decoder without motion. Priors over bits are tied to the subunits, one bit a
subunit; priors over real latents decode to the occupancies of chains. All are judged by the subunits of
decoded draws (`cryoscape evaluate`): the correlation of the couplings with the true ones, and the mean log
probability of a composition drawn from the truth, which at best is minus the entropy. As floors, the same
numbers for the true compositions of the particles themselves, counted: nothing that sees noisy images can be
expected to do better. For `bm` also the populations of all 2^m structures that the run decodes, fitted to
the likelihoods of all images under each (images x structures).

Runs are kept below --out and found again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SimulatedSet, machine, row_text, script_parser, table, write_json
from training_runs import trained

from cryoscape.analysis.evaluation.composition import CompositionEvaluation, pairwise_model
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.analysis.populations.ensemble_weights import fit_weights
from cryoscape.analysis.populations.likelihood_table import likelihood_table
from cryoscape.training.run import Run

BITS: dict[str, dict[str, Any]] = {
    "bm": {"kind": "bm"},
    "rbm": {"kind": "rbm"},
    "rbm, 16 hidden": {"kind": "rbm", "hidden": 16},
    "dbm": {"kind": "dbm"},
    "bernoulli": {"kind": "bernoulli"},
}
REAL: dict[str, dict[str, Any]] = {
    "mixture": {"kind": "mixture", "components": 16},
    "boltzmann": {"kind": "boltzmann"},
    "normal": {"kind": "normal"},
}


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    set: str
    seed: int
    prior: str
    accuracy: float | None
    correlation: float | None
    slope: float
    log_probability: float
    best: float
    distance: float
    evidence: float | None
    cpu_seconds: float | None


def measure(data: SimulatedSet, seed: int, arguments: argparse.Namespace) -> list[Result]:
    """All rows of one set and seed."""
    truth = Truth.read(data.truth)
    assert truth.present is not None
    m = truth.present.shape[1]
    rows = [counted(data, seed, truth)]
    print(row_text(rows[-1]), flush=True)
    for name in arguments.kinds:
        tied = name in BITS
        settings = {
            "z_dim": m,
            "prior": (BITS | REAL)[name],
            "decoder": {"kind": "atomic", "occupancy": "tied" if tied else "free", "displace": False},
            "data": {"frame": "corner", "invert": False},
        }
        label = f"{data.name}-{name.replace(', ', '-').replace(' ', '')}-{arguments.steps}-seed{seed}"
        done = trained(data, arguments.out / label, arguments.steps, seed=seed, settings=settings)
        embedding = done.run.embedding
        rows.append(
            row(
                data,
                seed,
                name,
                done.evaluation.composition,
                float(embedding.elbo[embedding.held_out].mean()),
                done.cpu_seconds,
            )
        )
        print(row_text(rows[-1]), flush=True)
        if name == "bm":
            rows.append(asked_of_images(data, seed, truth, done.run))
            print(row_text(rows[-1]), flush=True)
    return rows


def row(
    data: SimulatedSet,
    seed: int,
    name: str,
    found: CompositionEvaluation | None,
    evidence: float,
    cpu_seconds: float,
) -> Result:
    assert found is not None
    return Result(
        data.name,
        seed,
        name,
        float(np.mean(found.accuracy)),
        found.correlation,
        strength(np.array(found.couplings), np.array(found.true_couplings)),
        found.log_probability,
        -found.entropy,
        found.distance,
        evidence,
        cpu_seconds,
    )


def counted(data: SimulatedSet, seed: int, truth: Truth) -> Result:
    """The true compositions of the particles: what perfect images would give."""
    counts = np.bincount(truth.state, minlength=len(truth.population))
    return of_table(data, seed, truth, "counted", counts / len(truth.state), 1.0)


def asked_of_images(data: SimulatedSet, seed: int, truth: Truth, run: Run) -> Result:
    """Populations of all compositions from the likelihoods of the images, without the encoder."""
    assert truth.present is not None
    sets = truth.present.astype(np.float32)
    table = likelihood_table(run, sets)
    fitted = fit_weights(table, resamples=0)
    found = fitted.responsibilities(table) @ sets > 0.5
    right = float((found == truth.present[truth.state[run.embedding.row]]).mean())
    return of_table(data, seed, truth, "images x structures", fitted.weight, right)


def of_table(
    data: SimulatedSet, seed: int, truth: Truth, name: str, share: np.ndarray, right: float
) -> Result:
    """The row of populations of all compositions."""
    assert truth.present is not None
    p, n = truth.population, len(truth.state)
    smooth = (share * n + 0.5) / (n + 0.5 * len(p))
    couplings, known = (pairwise_model(truth.present, law)[1] for law in (smooth, p))
    above = np.triu_indices(len(known), 1)
    return Result(
        data.name,
        seed,
        name,
        right,
        float(np.corrcoef(couplings[above], known[above])[0, 1]),
        strength(couplings, known),
        float(p @ np.log(smooth)),
        float(p[p > 0] @ np.log(p[p > 0])),
        float(0.5 * np.abs(share - p).sum()),
        None,
        None,
    )


def strength(couplings: np.ndarray, known: np.ndarray) -> float:
    """How much of the true couplings is found: slope of the regression without constant."""
    return float((couplings * known).sum() / (known * known).sum())


HEADER = [
    "set",
    "seed",
    "prior",
    "right",
    "correlation of J",
    "slope of J",
    "log p(s)",
    "best",
    "TVD",
    "held-out ELBO",
    "CPU-s",
]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--set", required=True, action="append", dest="sets", metavar="SET")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=list(BITS | REAL), choices=list(BITS | REAL))
    parser.add_argument("--out", type=Path, default=Path("runs/composition"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: list[Result] = []
    for path in arguments.sets:
        for seed in arguments.seeds:
            results += measure(SimulatedSet(Path(path.format(seed=seed))).check(), seed, arguments)
    print(table(HEADER, [list(asdict(r).values()) for r in results]))
    content = {"steps": arguments.steps, "machine": machine(), "results": [asdict(r) for r in results]}
    write_json(arguments.out / "composition.json", content)


if __name__ == "__main__":
    main()
