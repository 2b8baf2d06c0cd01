"""Runs that benchmarks need: trained once, found again the next time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import SimulatedSet

from cryoscape import AtomicModel, Config, Particles, Run, train
from cryoscape.analysis.evaluation.evaluate import evaluate
from cryoscape.analysis.evaluation.evaluation import Evaluation
from cryoscape.training.embed import embed
from cryoscape.training.presets import merged, preset

_RECORD = "benchmark.json"


@dataclass(frozen=True)
class TrainedRun:
    """A finished run, what it cost and how well it did."""

    run: Run
    evaluation: Evaluation
    cpu_seconds: float


def trained(
    data: SimulatedSet,
    out: Path,
    steps: int,
    *,
    name: str = "cryoscape",
    seed: int = 0,
    model: Path | None = None,
    settings: dict[str, Any] | None = None,
) -> TrainedRun:
    """Train a preset on a set and evaluate it, or open the run where that was done before.

    The CPU-seconds are those of everything that `train` does: reading, check, features, steps, embedding.
    """
    record = out / _RECORD
    asked = {
        "set": data.name,
        "steps": steps,
        "preset": name,
        "seed": seed,
        "model": str(model),
        **(settings or {}),
    }
    if record.is_file():
        known = json.loads(record.read_text())
        if known["asked"] == json.loads(json.dumps(asked)):
            run = Run.open(out)
            return TrainedRun(run, evaluate(run, data.truth), known["cpu_seconds"])
        raise SystemExit(f"{out} holds another run ({known['asked']}); give another --out or remove it")
    training = {"training": {"steps": steps, "seed": seed, "device": "cpu", "threads": 1}}
    config = Config(**merged(merged(preset(name), training), settings or {}))
    start = time.process_time()
    run = train(
        Particles.read(data.star),
        AtomicModel.read(model or data.model),
        config,
        out,
        resume=(out / "checkpoints/last.safetensors").is_file(),
    )
    embed(run)
    seconds = time.process_time() - start
    evaluation = evaluate(run, data.truth)
    record.write_text(json.dumps({"asked": asked, "cpu_seconds": seconds}))
    return TrainedRun(run, evaluation, seconds)
