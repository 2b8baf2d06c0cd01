"""What a learned prior costs a training run, beside N(0, I).

    python benchmarks/prior_cost.py --set SET [--steps 600] [--rounds 3]

One thread, CPU time. The kinds are trained one after the other, round after round, so that a change of the
machine's load falls on all alike. *Step* is the median of the steps in which the learned prior is in force,
over that of N(0, I) in the same round; *take-over* is the step in which it starts, fitted to the posteriors
of up to 20,000 particles; *run* is all between the first step and the last, over that of N(0, I),
with the prior in force for the second half as it is by default.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

# Before torch is imported, which reads it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from measuring import SimulatedSet, machine, script_parser, table, write_json
from stopwatch import StepListener

from cryoscape import AtomicModel, Config, Particles, train
from cryoscape.training.presets import merged, preset

KINDS: dict[str, dict[str, Any]] = {
    "normal": {"kind": "normal"},
    "mixture": {"kind": "mixture", "components": 16},
    "boltzmann": {"kind": "boltzmann", "spins": 6},
    "grbm": {"kind": "grbm"},
    "vamp": {"kind": "vamp"},
    "flow": {"kind": "flow"},
}


def one_run(data: SimulatedSet, kind: str, arguments: argparse.Namespace) -> tuple[float, float, float]:
    """Median step with the prior in force, the take-over, and the whole training, CPU-seconds."""
    marks: list[float] = []

    def mark(_: int = 0) -> None:
        marks.append(time.process_time())

    training = {"steps": arguments.steps, "batch": arguments.batch, "seed": 0, "device": "cpu", "threads": 1}
    settings = {"training": training, "prior": KINDS[kind]}
    config = Config(**merged(preset(arguments.preset), settings))
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        train(
            Particles.read(data.star),
            AtomicModel.read(data.model),
            config,
            Path(folder) / "run",
            progress=StepListener(mark, mark),
        )
    steps = np.diff(marks)
    half = arguments.steps // 2
    return float(np.median(steps[half + 5 :])), float(steps[half]), marks[-1] - marks[0]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--set", type=Path, required=True, dest="data", metavar="SET")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--preset", default="cryoscape")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("runs/prior_cost"))
    arguments = parser.parse_args()
    data = SimulatedSet(arguments.data).check()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rounds = [
        {kind: one_run(data, kind, arguments) for kind in arguments.kinds} for _ in range(arguments.rounds)
    ]
    rows: list[list[Any]] = []
    for kind in arguments.kinds:
        of_kind = np.array([each[kind] for each in rounds])
        of_normal = np.array([each["normal"] for each in rounds])
        step, run = (np.median(of_kind[:, i] / of_normal[:, i]) for i in (0, 2))
        rows.append(
            [
                kind,
                1e3 * float(np.median(of_kind[:, 0])),
                float(step),
                float(np.median(of_kind[:, 1])),
                float(run),
            ]
        )
    print(table(["prior", "CPU ms/step", "step, ratio", "take-over, CPU-s", "run, ratio"], rows))
    content = {
        "set": data.name,
        "steps": arguments.steps,
        "batch": arguments.batch,
        "machine": machine(),
        "rounds": rounds,
    }
    write_json(arguments.out / f"{data.name}.json", content)


if __name__ == "__main__":
    main()
