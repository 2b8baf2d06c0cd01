"""Whether rare states are found, with the right population, and nothing where there is none.

    python benchmarks/rare_states.py --trajectory adk_dims_ca.npz --seeds 3

Three kinds of sets are simulated from the frames of a trajectory of adenylate kinase: `three` has 60, 35 and
5 % in frames 0, 49 and 97; `two` has 60 and 40 % in the first two; `one` is the first alone. Runs are trained
and searched. Told are the rare states found, the population of the one nearest to the 5 % state, whether its
interval holds 5 %, its CA-RMSD to the truth, and the share of wrong particles in its list.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import SimulatedSet, machine, row_text, script_parser, write_json
from training_runs import trained

from cryoscape import Run
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.analysis.rare.finder import find_rare_states
from cryoscape.analysis.rare.refinement import coordinates_of
from cryoscape.cli.main import main as cryoscape

KINDS = {"three": ((0, 49, 97), (0.6, 0.35, 0.05)), "two": ((0, 49), (0.6, 0.4)), "one": ((0,), (1.0,))}


@dataclass(frozen=True)
class Result:
    """One set; what concerns the rare state is None where there is none or it was not found."""

    set: str
    rare_found: int
    population: float | None = None
    low: float | None = None
    high: float | None = None
    inside: bool | None = None
    rmsd: float | None = None
    listed: int | None = None
    wrong: float | None = None


def measure(run: Run, truth: Truth, name: str) -> Result:
    """Search one run."""
    found = find_rare_states(run)
    if not found.rare:
        return Result(name, 0)
    in_model, in_truth = truth.match(run.structure)
    coords = coordinates_of(run, found.conformations)
    true = truth.coords[-1][in_truth].astype(np.float64)
    rmsd = np.sqrt(np.square(coords[:, in_model] - true).sum(-1).mean(-1))
    best = min(found.rare, key=lambda k: rmsd[k])
    state, share = found.states[best], float(truth.population[-1])
    state_of = truth.state[np.asarray(found.row)[state.retrieved]]
    return Result(
        name,
        len(found.rare),
        state.population,
        state.low,
        state.high,
        state.low <= share <= state.high,
        float(rmsd[best]),
        len(state.retrieved),
        float(np.mean(state_of != len(truth.coords) - 1)) if len(state_of) else None,
    )


def simulated(kind: str, seed: int, arguments: argparse.Namespace) -> SimulatedSet:
    """A set of its own seed."""
    frames, populations = KINDS[kind]
    a = arguments
    folder = a.out / f"{kind}_{a.snr}_{a.particles}_{a.box}_{seed}"
    if not (folder / "truth.npz").is_file():
        scenario = "models" if kind == "one" else "states"
        words = ["simulate", scenario, "--models", a.trajectory, "-o", folder, "--particles", a.particles]
        words += ["--box", a.box, "--pixel", a.pixel, "--snr", a.snr, "--seed", seed]
        words += ["--frames", *frames, "--populations", *populations]
        if cryoscape([str(word) for word in words]) != 0:
            raise SystemExit(1)
    return SimulatedSet(folder)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--trajectory", type=Path, required=True)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2700)
    parser.add_argument("--particles", type=int, default=6000)
    parser.add_argument("--box", type=int, default=128)
    parser.add_argument("--pixel", type=float, default=1.0)
    parser.add_argument("--snr", type=float, default=0.003)
    parser.add_argument("--out", type=Path, default=Path("runs/rare"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for seed in range(arguments.seeds):
        for kind in arguments.kinds:
            data = simulated(kind, seed, arguments)
            folder = arguments.out / f"{data.name}-run"
            done = trained(data, folder, arguments.steps, seed=seed, settings={})
            results.append(measure(done.run, Truth.read(data.truth), data.name))
            print(row_text(results[-1]), flush=True)
    content = {"machine": machine(), "results": [asdict(row) for row in results]}
    write_json(arguments.out / "rare_states.json", content)


if __name__ == "__main__":
    main()
