"""Training images per CPU-second of cryoscape, and where a step goes.

    python benchmarks/throughput.py --set SET [--steps 300] [--preset cryoscape] [--batch 64]

One thread. The first run is timed as it is; a second, shorter one is taken apart: CPU time of each part of
a step (exclusive), the backward pass by what it differentiates, and the arithmetic floor, which is the
FLOPs of the step's matrix products at the rate at which this machine multiplies large matrices.
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
from measuring import SimulatedSet, machine, matrix_rate, script_parser, table, write_json
from stopwatch import Arithmetic, BackwardProfile, StepListener, Stopwatch, backward_shares, threads

from cryoscape import AtomicModel, Config, Particles, train
from cryoscape.data.images import BandImages
from cryoscape.models.decoders.atomic import AtomicDecoder
from cryoscape.models.decoders.modes import ModesDecoder
from cryoscape.models.encoders import Encoder
from cryoscape.models.image_model import FeatureMap
from cryoscape.models.likelihoods import CorrelationLikelihood, GaussianLikelihood
from cryoscape.physics import gaussians
from cryoscape.training.presets import merged, preset
from cryoscape.training.restraining import Restraints

PARTS: dict[str, list[tuple[Any, str]]] = {
    "images and CTF": [(BandImages, "batch")],
    "encoder features": [(FeatureMap, "forward")],
    "encoder": [(Encoder, "forward")],
    "decoder": [(AtomicDecoder, "coordinates"), (ModesDecoder, "coordinates")],
    "projection": [(gaussians, "project_fourier")],
    "likelihood": [(GaussianLikelihood, "log_prob"), (CorrelationLikelihood, "log_prob")],
    "noise and gain": [(GaussianLikelihood, "observe")],
    "restraints": [(Restraints, "terms")],
    "backward": [(torch.Tensor, "backward")],
    "optimiser": [(torch.optim.AdamW, "step")],
}
# Steps at the start of a run that do not count: memory is touched for the first time.
WARM_UP = 20
COUNTED, PROFILED = 6, 20


def run_once(
    data: SimulatedSet, arguments: argparse.Namespace, steps: int, listener: StepListener
) -> dict[str, float]:
    """Train in a folder that is thrown away; return CPU-seconds and steps."""
    training = {"steps": steps, "batch": arguments.batch, "seed": 0, "device": "cpu", "threads": 1}
    config = Config(**merged(preset(arguments.preset), {"training": training}))
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        particles, model = Particles.read(data.star), AtomicModel.read(data.model)
        start = time.process_time()
        run = train(particles, model, config, Path(folder) / "run", progress=listener)
        facts = {"total": time.process_time() - start, "particles": len(particles), "residues": len(model)}
        return facts | {"box": run.geometry.box, "cutoff": run.geometry.cutoff}


def plain_run(data: SimulatedSet, arguments: argparse.Namespace) -> dict[str, Any]:
    """The rate, without any instrument but a clock."""
    marks: list[float] = []
    begin_to_train: list[float] = []

    def begin() -> None:
        begin_to_train.append(time.process_time())
        marks.append(time.process_time())

    started = time.process_time()
    listener = StepListener(begin, lambda _: marks.append(time.process_time()))
    facts = run_once(data, arguments, arguments.steps, listener)
    steps = np.diff(marks)[WARM_UP:]
    low, middle, high = np.percentile(steps, [25, 50, 75])
    setup = begin_to_train[0] - started
    training = marks[-1] - marks[0]
    return {
        "steps": arguments.steps,
        "particles": facts["particles"],
        "residues": facts["residues"],
        "band": {"box": facts["box"], "cutoff": facts["cutoff"]},
        "cpu_ms_per_step": {"median": 1e3 * middle, "quartiles": [1e3 * low, 1e3 * high]},
        "images_per_cpu_second": arguments.batch / middle,
        # With the logging, the looks at the held-out particles and the checkpoints between steps.
        "images_per_cpu_second_overall": arguments.batch * arguments.steps / training,
        "setup_cpu_seconds": setup,
        "training_cpu_seconds": training,
        "afterwards_cpu_seconds": facts["total"] - setup - training,
    }


def taken_apart(data: SimulatedSet, arguments: argparse.Namespace) -> dict[str, Any]:
    """The parts of a step, the backward pass by kind, and the FLOPs."""
    watch, arithmetic, backward = Stopwatch(), Arithmetic(), BackwardProfile(PROFILED)
    timed = max(60, arguments.steps // 3)

    def lap(step: int) -> None:
        # The instruments take turns, so that none measures another.
        if step <= timed:
            watch.lap()
        if timed < step <= timed + COUNTED:
            arithmetic.stop()
        if timed <= step < timed + COUNTED:
            arithmetic.start()
        if step == timed + COUNTED:
            backward.start()
        if step == timed + COUNTED + PROFILED:
            backward.stop()

    with watch.watching(PARTS):
        run_once(data, arguments, timed + COUNTED + PROFILED + 1, StepListener(watch.begin, lap))
    steps = watch.steps[WARM_UP:]
    medians = {
        part: 1e3 * float(np.median([step.get(part, 0.0) for step in steps])) for part in [*PARTS, "step"]
    }
    medians["the rest"] = medians["step"] - sum(medians[part] for part in PARTS)
    return {
        "cpu_ms": medians,
        "backward_shares": backward_shares(backward.seconds),
        "flops": arithmetic.flops,
    }


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--set", type=Path, required=True, dest="data", metavar="SET")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--preset", default="cryoscape")
    parser.add_argument("--out", type=Path, default=Path("runs/throughput"))
    arguments = parser.parse_args()
    data = SimulatedSet(arguments.data).check()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rate = matrix_rate()
    plain = plain_run(data, arguments)
    parts = taken_apart(data, arguments)

    flops = sum(parts["flops"].values())
    floor = 1e3 * flops / rate
    step = plain["cpu_ms_per_step"]["median"]
    print(
        f"{data.name}, {plain['residues']} residues, band {plain['band']['cutoff']:.2f} A in "
        f"{plain['band']['box']} pixels, batch {arguments.batch}, {threads()} thread, "
        f"preset {arguments.preset}: {step:.2f} CPU-ms a step, "
        f"{plain['images_per_cpu_second']:.0f} images per CPU-second"
    )
    print(
        f"set-up {plain['setup_cpu_seconds']:.1f} CPU-s, {plain['steps']} steps "
        f"{plain['training_cpu_seconds']:.1f}, afterwards {plain['afterwards_cpu_seconds']:.1f}"
    )
    rows = [[part, parts["cpu_ms"][part], parts["cpu_ms"][part] / parts["cpu_ms"]["step"]] for part in PARTS]
    at = [row[0] for row in rows].index("backward") + 1
    whole = parts["cpu_ms"]["backward"]
    rows[at:at] = [
        [f"- of it {name}", whole * share, None] for name, share in parts["backward_shares"].items()
    ]
    rows += [
        [name, parts["cpu_ms"][name], parts["cpu_ms"][name] / parts["cpu_ms"]["step"]]
        for name in ("the rest", "step")
    ]
    print(table(["part", "CPU-ms", "share"], rows))
    print(table(["matrix products", "MFLOP"], [[name, f / 1e6] for name, f in parts["flops"].items()]))
    print(
        f"arithmetic floor: {flops / 1e9:.2f} GFLOP at {rate / 1e9:.0f} GFLOP/s = {floor:.2f} ms; "
        f"a step takes {step / floor:.1f} times that"
    )
    result = {"set": data.name, "preset": arguments.preset, "batch": arguments.batch, "threads": threads()}
    result |= {
        "machine": machine(),
        "plain": plain,
        "parts": parts,
        "matrix_gflops": rate / 1e9,
        "floor_ms": floor,
    }
    write_json(arguments.out / f"throughput-{data.name}-{arguments.preset}.json", result)


if __name__ == "__main__":
    main()
