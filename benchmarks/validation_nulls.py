"""What does `validate` say where the truth is known? Nulls must not be called motions, motions must.

    python benchmarks/validation_nulls.py --sets 20 --steps 1000 --particles 4000 --snr 0.1

Every set has a seed of its own (hinge, box 32, 4 A), is trained on and judged at the quick level:

noise       there is no molecule
still       there is one, and it does not move
posed       it does not move, and its poses are wrong by 3 degrees and 2 A in each direction
hinge       it moves
faint       it moves, at a tenth of the signal-to-noise ratio
followed    it moves, and each side of the motion is seen from its own side
restraints  the still molecule's images, and structures that an elastic network alone made

Counted are the verdicts on the leading motion, and how often any motion of a null is called supported.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import SimulatedSet, machine, script_parser, table, write_json

from cryoscape import AtomicModel, Config, Particles, train
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.analysis.validation.results import ReportCard
from cryoscape.analysis.validation.validate import validate_files, validate_run
from cryoscape.cli.main import main as cryoscape
from cryoscape.structures.ensemble import write_ensemble
from cryoscape.structures.normal_modes import anisotropic_network_modes

KINDS = ("noise", "still", "posed", "hinge", "faint", "followed", "restraints")
NULLS = ("noise", "still", "posed", "restraints")
_READ_AS_GIVEN = {"data": {"frame": "corner", "invert": False, "cutoff": 8.0}}


@dataclass(frozen=True)
class Judged:
    """One set."""

    kind: str
    seed: int
    verdicts: list[str]
    gain: list[float]
    sigmas: list[float]
    sigmas_beyond_poses: list[float]
    train_cpu: float
    validate_cpu: float


def simulated(kind: str, seed: int, arguments: argparse.Namespace) -> SimulatedSet:
    """The set of a kind and a seed."""
    moving = kind in ("hinge", "faint", "followed")
    twice = 2 if kind == "followed" else 1
    name = "still" if kind == "restraints" else kind
    folder = arguments.out / f"{name}_{seed}"
    if (folder / "truth.npz").is_file():
        return SimulatedSet(folder)
    snr = {"noise": 1e-7, "faint": 0.1 * arguments.snr}.get(kind, arguments.snr)
    words = ["simulate", "hinge", "-o", folder, "--particles", twice * arguments.particles, "--box", 32]
    words += ["--pixel", 4, "--snr", snr, "--seed", seed, "--angle", 40 if moving else 1e-3]
    if kind == "posed":
        words += ["--pose-error", 3, "--shift-error", 2]
    if cryoscape([str(word) for word in words]) != 0:
        raise SystemExit(1)
    if kind == "followed":
        _keep_followers(folder, seed)
    return SimulatedSet(folder)


def _keep_followers(folder: Path, seed: int) -> None:
    """Keep particles whose side of the motion is, nine times in ten, that of their view."""
    particles, truth = Particles.read(folder / "particles.star"), Truth.read(folder / "truth.npz")
    assert particles.rotations is not None
    upper = np.asarray(particles.rotations)[:, 2, 2] > 0
    far = np.asarray(truth.state) >= len(truth.population) // 2
    chance = np.random.default_rng(seed).random(len(particles))
    particles.select(np.flatnonzero((upper == far) ^ (chance < 0.1))).write(folder / "followed.star", {})


def judge(kind: str, seed: int, arguments: argparse.Namespace) -> Judged:
    """Train where there is something to train, and validate."""
    data = simulated(kind, seed, arguments)
    start = time.process_time()
    if kind == "restraints":
        series = data.path / "elastic.cif"
        if not series.is_file():
            _write_modes(AtomicModel.read(data.model), series)
        card = validate_files([series], Particles.read(data.star), seed=seed).card
        return _judged(kind, seed, card, 0.0, time.process_time() - start)
    star = data.path / "followed.star" if kind == "followed" else data.star
    training = {"steps": arguments.steps, "seed": seed, "threads": 1}
    config = Config(**{"training": training, **(_READ_AS_GIVEN if kind == "noise" else {})})
    run = train(
        Particles.read(star),
        AtomicModel.read(data.model),
        config,
        arguments.out / f"{kind}_{seed}-run",
        force=True,
    )
    middle = time.process_time()
    card = validate_run(run, seed=seed).card
    return _judged(kind, seed, card, middle - start, time.process_time() - middle)


def _judged(kind: str, seed: int, card: ReportCard, train: float, validate: float) -> Judged:
    def column(name: str) -> list[float]:
        return [float(motion.values[name]) for motion in card.motions]

    verdicts = [str(motion.verdict) for motion in card.motions]
    return Judged(
        kind, seed, verdicts, column("gain"), column("sigmas"), column("sigmas_beyond_poses"), train, validate
    )


def _write_modes(model: AtomicModel, path: Path, amplitude: float = 3.0) -> None:
    """Structures along the softest mode of the elastic network, up to an rms of 3 A to either side."""
    _, modes = anisotropic_network_modes(model.coords, 1)
    steps = np.linspace(-amplitude, amplitude, 9)[:, None, None] * np.sqrt(len(model))
    write_ensemble(path, model, model.coords + steps * modes[0])


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--particles", type=int, default=4000)
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--out", type=Path, default=Path("runs/validation"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for seed in range(arguments.first, arguments.first + arguments.sets):
        for kind in arguments.kinds:
            results.append(judge(kind, seed, arguments))
            print(json.dumps(asdict(results[-1])), flush=True)
    rows = []
    for kind in arguments.kinds:
        mine = [one for one in results if one.kind == kind]
        leading = Counter(one.verdicts[0] if one.verdicts else "no motion" for one in mine)
        supported = sum("supported" in one.verdicts for one in mine)
        most = max((max(one.sigmas, default=0.0) for one in mine), default=0.0)
        cost = [one.validate_cpu / one.train_cpu for one in mine if one.train_cpu > 0]
        rows.append(
            [
                kind,
                len(mine),
                ", ".join(f"{name} {count}" for name, count in leading.most_common()),
                f"{supported}{' (null)' if kind in NULLS else ''}",
                f"{most:.1f}",
                f"{np.median(cost):.2f}" if cost else "-",
            ]
        )
    head = [
        "images",
        "sets",
        "verdict on the leading motion",
        "any supported",
        "most sigmas",
        "cost/training",
    ]
    print(table(head, rows))
    write_json(
        arguments.out / "validation.json",
        {"machine": machine(), "results": [asdict(one) for one in results]},
    )


if __name__ == "__main__":
    main()
