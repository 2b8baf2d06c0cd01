"""Do 95 % intervals of landscapes hold the truth? Populations and profiles of simulated double wells.

    python benchmarks/coverage.py --sets 20 --steps 2000 --particles 10000 --snr 0.02

Every set has a seed of its own: a double well (box 32, 4 A) is simulated, a run is trained on it, and its
landscape is drawn along the distance that changes most. Counted is how often the interval of the left well's
population, and of every bin of the free energy within 4 kT, holds the true one. Beside it the same for the
naive way: count decoded posterior means, with the error of a count. The decoder is frozen, so what it got
wrong is in neither interval: that is what this measures and tests on known laws cannot.

Sets and runs are kept below --out and found again; --run RUN TRUTH judges finished ones instead.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SimulatedSet, machine, script_parser, table, write_json
from numpy.typing import NDArray
from training_runs import trained

from cryoscape import Run
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.analysis.landscape.landscape import Landscape, make_landscape
from cryoscape.cli.main import main as cryoscape

HIGHEST = 4.0
_EDGE = 1.96


@dataclass(frozen=True)
class Result:
    """One set, one way."""

    set: str
    way: str
    population: float
    true: float
    inside: bool
    bins_inside: float
    profile_error: float


def measure(run: Run, truth: Truth, name: str, arguments: argparse.Namespace) -> list[Result]:
    """Both ways on one run."""
    first, second = widest_pair(truth)
    cv = f"distance {selection(run, first)} {selection(run, second)}"
    in_model, in_truth = truth.match(run.structure)
    place = {int(m): int(t) for m, t in zip(in_model, in_truth)}
    true = distance_between(truth.coords, place[first], place[second])
    cut = float(np.interp(0.5, truth.cv if truth.cv is not None else [0, 1], true))
    left = f"left: {cv} < {cut:.4f}"
    found = make_landscape(
        run, [cv], states=[left], candidates=arguments.candidates, resamples=arguments.resamples
    )
    means = distance_between(run.decode(run.embedding.z), first, second)
    share = float(truth.population[true < cut].sum())
    truly = found.profile.axes[0].marks(true) @ truth.population
    return [_ours(name, found, truly, share), _counted(name, found, truly, share, means, cut)]


def widest_pair(truth: Truth) -> tuple[int, int]:
    """Two residues of the model whose distance changes most between the ends of the path."""
    ends = truth.coords[[0, -1]].astype(np.float64)
    apart = np.linalg.norm(ends[:, :, None] - ends[:, None], axis=-1)
    change = np.abs(apart[1] - apart[0])
    first, second = np.unravel_index(change.argmax(), change.shape)
    return int(first), int(second)


def selection(run: Run, row: int) -> str:
    """A residue of the model, in the syntax of collective variables."""
    model = run.structure
    return f"{model.chain_id[row]}:{model.residue_number[row]}"


def distance_between(coords: NDArray, first: int, second: int) -> NDArray[np.float64]:
    """Distances (n,) of two residues in structures (n, N, 3), A."""
    return np.linalg.norm(coords[:, first] - coords[:, second], axis=1).astype(np.float64)


def _ours(name: str, found: Landscape, truly: NDArray, share: float) -> Result:
    state, profile = found.states[0], found.profile
    energy = -np.log(np.maximum(truly, 1e-300) / profile.population.max())
    seen = energy - energy.min() < HIGHEST
    inside = (profile.low <= energy) & (energy <= profile.high)
    error = -np.log(np.maximum(profile.population, 0.5 / found.n_images) / profile.population.max()) - energy
    return Result(
        name,
        "landscape",
        state.population,
        share,
        state.low <= share <= state.high,
        float(inside[seen].mean()),
        float(error[seen].std()),
    )


def _counted(
    name: str, found: Landscape, truly: NDArray, share: float, means: NDArray[np.float64], cut: float
) -> Result:
    n = len(means)
    counted = found.profile.axes[0].marks(means).sum(axis=1) / n
    error = np.sqrt(counted * (1 - counted) / n)
    seen = -np.log(np.maximum(truly, 1e-300) / truly.max()) < HIGHEST
    left = float((means < cut).mean())
    energy = -np.log(np.maximum(counted, 0.5 / n)) + np.log(np.maximum(truly, 1e-300))
    return Result(
        name,
        "count of means",
        left,
        share,
        abs(left - share) <= _EDGE * np.sqrt(left * (1 - left) / n),
        float((np.abs(counted - truly) <= _EDGE * error)[seen].mean()),
        float(energy[seen].std()),
    )


def simulated(seed: int, arguments: argparse.Namespace) -> SimulatedSet:
    """A double well of its own seed."""
    folder = arguments.out / f"well_{arguments.snr}_{arguments.particles}_{seed}"
    if not (folder / "truth.npz").is_file():
        words = ["simulate", "double-well", "-o", folder, "--particles", arguments.particles, "--box", 32]
        words += ["--pixel", 4, "--snr", arguments.snr, "--seed", seed]
        if cryoscape([str(word) for word in words]) != 0:
            raise SystemExit(1)
    return SimulatedSet(folder)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--particles", type=int, default=10_000)
    parser.add_argument("--snr", type=float, default=0.02)
    parser.add_argument("--candidates", type=int, default=48)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--run", nargs=2, action="append", default=[], metavar=("RUN", "TRUTH"))
    parser.add_argument("--out", type=Path, default=Path("runs/coverage"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: list[Result] = []

    def judge(run: Run, truth: Path, name: str) -> None:
        results.extend(measure(run, Truth.read(truth), name, arguments))
        for row in results[-2:]:
            print(row, flush=True)

    for run, truth in arguments.run:
        judge(Run.open(run), Path(truth), Path(run).name)
    for seed in () if arguments.run else range(arguments.sets):
        data = simulated(seed, arguments)
        done = trained(data, arguments.out / f"{data.name}-run", arguments.steps, seed=seed, settings={})
        judge(done.run, data.truth, data.name)
    ways = list(dict.fromkeys(row.way for row in results))
    summary: list[list[Any]] = []
    for way in ways:
        rows = [row for row in results if row.way == way]
        summary.append(
            [
                way,
                len(rows),
                float(np.mean([row.inside for row in rows])),
                float(np.mean([row.bins_inside for row in rows])),
                float(np.mean([row.profile_error for row in rows])),
            ]
        )
    print(table(["way", "sets", "population held", "bins held", "profile error, kT"], summary))
    content = {"machine": machine(), "results": [asdict(row) for row in results]}
    write_json(arguments.out / "coverage.json", content)


if __name__ == "__main__":
    main()
