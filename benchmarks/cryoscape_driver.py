"""Train cryoscape by turns on one set; run by `peers.py` and `volume_speed.py`, not by hand."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from turns import Turns

from cryoscape import AtomicModel, Config, Particles, train
from cryoscape.progress import Silent, SilentTask
from cryoscape.training.embed import embed
from cryoscape.training.presets import merged, preset


class StepClock(SilentTask):
    """A progress bar that takes a turn's step for every training step."""

    def __init__(self, turns: Turns, speed_only: bool) -> None:
        self.turns, self.speed_only = turns, speed_only

    def advance(self, count: float = 1) -> None:
        for _ in range(int(count)):
            self.turns.step()

    def __enter__(self) -> StepClock:
        self.turns.ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.turns.flush()
        if self.speed_only:
            self.turns.done(torch=torch.__version__, threads=torch.get_num_threads())
            raise SystemExit


class TurnsReporter(Silent):
    """Hears when training starts; everything else is getting ready."""

    def __init__(self, turns: Turns, speed_only: bool) -> None:
        self.turns, self.speed_only = turns, speed_only

    def task(self, name: str, total: float | None = None, unit: str = "") -> SilentTask:
        return StepClock(self.turns, self.speed_only) if name == "training" else SilentTask()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--star", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="none for maps")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", default="cryoscape")
    parser.add_argument("--settings", type=json.loads, default={}, help="over the preset, as JSON")
    parser.add_argument("--speed-only", action="store_true", help="end with the last step")
    parser.add_argument("--coords", type=Path, help="write the decoded coordinates here (.npy)")
    parser.add_argument("--turns", type=int, nargs=2, required=True, metavar=("READ", "WRITE"))
    arguments = parser.parse_args()
    turns = Turns(*arguments.turns, arguments.block)
    settings = {
        "training": {
            "steps": arguments.steps,
            "batch": arguments.batch,
            "seed": arguments.seed,
            "device": "cpu",
            "threads": 1,
        }
    }
    config = Config(**merged(merged(preset(arguments.preset), settings), arguments.settings))
    shutil.rmtree(arguments.out / "run", ignore_errors=True)
    run = train(
        Particles.read(arguments.star),
        AtomicModel.read(arguments.model) if arguments.model else None,
        config,
        arguments.out / "run",
        progress=TurnsReporter(turns, arguments.speed_only),
    )
    if arguments.coords:
        embedding = embed(run)
        coords = np.empty((len(embedding.row), len(run.model), 3), np.float32)
        for part in np.array_split(np.arange(len(coords)), max(1, len(coords) // 1000)):
            coords[embedding.row[part]] = run.decode(embedding.z[part])
        np.save(arguments.coords, coords)
    turns.done(
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        band={"box": run.geometry.box, "cutoff": run.geometry.cutoff},
    )


if __name__ == "__main__":
    main()
