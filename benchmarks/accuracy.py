"""How near the decoded structures come to the truth, against the targets.

    python benchmarks/accuracy.py --set SET [--set SET ...] --steps 2000 10000

One run a set and number of steps, with the defaults (or --preset). SET is a folder written by `cryoscape
simulate`; --model starts from another structure in the same frame, for example the other end state.
Runs are kept below --out and found again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from measuring import SimulatedSet, machine, script_parser, table, write_json
from training_runs import trained

# Mean CA-RMSD without alignment, A, for adenylate kinase with 10,000 particles: (SNR, steps) -> target.
RMSD_TARGETS = {(0.1, 2000): 0.50, (0.1, 10000): 0.30, (0.01, 2000): 0.80, (0.01, 10000): 0.50}
# Nearest-state accuracy of three discrete states (60/35/5 %), 6,000 particles.
STATE_TARGETS = {(0.003, 2000): 0.92, (0.001, 2000): 0.82}


def facts_of(data: SimulatedSet, out: Path, steps: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train, evaluate, and name the target that applies."""
    done = trained(data, out, steps, name=arguments.preset, seed=arguments.seed, model=arguments.model)
    found = done.evaluation
    with np.load(data.truth) as truth:
        snr, discrete = float(truth["snr"]), len(truth["coords"]) < 10
    metric = "accuracy" if discrete else "rmsd"
    target = (STATE_TARGETS if discrete else RMSD_TARGETS).get((snr, steps))
    value = found.accuracy if discrete else found.rmsd
    return {
        "set": data.name,
        "snr": snr,
        "steps": steps,
        "rmsd": found.rmsd,
        "rmsd_median": found.rmsd_median,
        "trivial": found.trivial,
        "accuracy": found.accuracy,
        "order": found.order,
        "held_out": found.held_out,
        "metric": metric,
        "target": target,
        "met": None if target is None else bool(value >= target if discrete else value <= target),
        "cpu_seconds": done.cpu_seconds,
        "per_state": [state.rmsd for state in found.states],
    }


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--set", type=Path, required=True, action="append", dest="sets", metavar="SET")
    parser.add_argument("--steps", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--preset", default="cryoscape")
    parser.add_argument("--model", type=Path, help="start from this structure, not from the set's reference")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    arguments = parser.parse_args()
    results = []
    swap = f"-from-{arguments.model.stem}" if arguments.model else ""
    header = [
        "set",
        "SNR",
        "steps",
        "CA-RMSD, A",
        "trivial",
        "nearest state",
        "order",
        "target",
        "met",
        "CPU-s",
    ]
    for path in arguments.sets:
        data = SimulatedSet(path).check()
        for steps in arguments.steps:
            name = f"{data.name}-{arguments.preset}-{steps}-seed{arguments.seed}{swap}"
            results.append(facts_of(data, arguments.out / name, steps, arguments))
            print(table(header, [row(r) for r in results]), flush=True)
    name = f"accuracy-{arguments.preset}-seed{arguments.seed}{swap}.json"
    write_json(
        arguments.out / name,
        {"preset": arguments.preset, "model": arguments.model, "machine": machine(), "results": results},
    )


def row(r: dict[str, Any]) -> list[Any]:
    """One line of the table."""
    target = None if r["target"] is None else f"{'>=' if r['metric'] == 'accuracy' else '<='} {r['target']}"
    met = {None: None, True: "yes", False: "no"}[r["met"]]
    return [
        r["set"],
        r["snr"],
        r["steps"],
        r["rmsd"],
        r["trivial"],
        r["accuracy"],
        r["order"],
        target,
        met,
        round(r["cpu_seconds"]),
    ]


if __name__ == "__main__":
    main()
