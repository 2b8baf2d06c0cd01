"""Priors fitted to a law that is known, what a fit costs, and what one training step costs.

    python benchmarks/ring_priors.py [--kinds mixture flow boltzmann vamp grbm] [--seeds 3] [--out runs/ring]

One thread. The law is the eight-dimensional ring of `tests/priors/ring.py`: 20,000 points to fit to and 2,000
to judge by, of which the log density is known, so that the distance is in nats. Every fit is one with default
settings. `--large` also times a fit to 50,000 points, and `--step` the KL term and the loss of a prior in a
training step of 64 particles, forward and backward: the first with respect to z, the second to the
parameters; the tenth percentile of many, since other work on the machine only ever adds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported, which reads it once.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch
from measuring import machine, script_parser, table, timed, write_json

from cryoscape.models.posteriors import DiagonalGaussian
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.boltzmann import BoltzmannPrior
from cryoscape.priors.diffusion.hierarchy import HierarchyPrior
from cryoscape.priors.diffusion.prior import DiffusionPrior
from cryoscape.priors.energies.prior import EnergyPrior
from cryoscape.priors.energies.recovery import RecoveryPrior
from cryoscape.priors.flow import FlowPrior
from cryoscape.priors.grbm import GaussianRbmPrior
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.priors.vamp import VampPrior

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests.priors.ring import DIMENSION, Ring, make_ring

KINDS: dict[str, Callable[[], LatentPrior]] = {
    "normal": lambda: NormalPrior(DIMENSION),
    "mixture": lambda: MixturePrior(DIMENSION),
    "vamp": lambda: VampPrior(DIMENSION),
    "flow": lambda: FlowPrior(DIMENSION),
    "diffusion": lambda: DiffusionPrior(DIMENSION),
    "diffusion-mixture": lambda: DiffusionPrior(DIMENSION, base="mixture"),
    "hierarchy": lambda: HierarchyPrior(DIMENSION),
    "energy": lambda: EnergyPrior(DIMENSION),
    "recovery": lambda: RecoveryPrior(DIMENSION),
    "boltzmann": lambda: BoltzmannPrior(DIMENSION),
    "boltzmann-additive": lambda: BoltzmannPrior(DIMENSION, emission="additive"),
    "grbm": lambda: GaussianRbmPrior(DIMENSION),
}
TRAIN, TEST, LARGE, BATCH, STEPS = 20_000, 2_000, 50_000, 64, 200
DRAWN = 100_000


def build(kind: str, seed: int) -> LatentPrior:
    """A new prior with weights of a seed."""
    torch.manual_seed(seed)
    return KINDS[kind]()


def fitted(kind: str, ring: Ring, seed: int) -> dict[str, Any]:
    """Fit with default settings to points of a seed of their own, and measure the distance from the law."""
    test, _ = ring.draw(TEST, 1000 + seed)
    train, is_minor = ring.draw(TRAIN, seed)
    prior = build(kind, seed)
    report, seconds = timed(lambda: prior.fit(train, seed=seed))
    with torch.no_grad():
        gap = ring.log_prob(test) - prior.log_prob(test).double().numpy()
    drawn = prior.sample(DRAWN, torch.Generator().manual_seed(seed)).double().numpy()
    return {
        "kl": float(gap.mean()),
        "kl_error": float(gap.std() / np.sqrt(len(gap))),
        "minor": float(ring.in_minor_state(drawn).mean()),
        "minor_of_data": float(is_minor.mean()),
        "cpu_seconds": seconds,
        "warnings": report.warnings,
    }


def in_training(kind: str) -> dict[str, float]:
    """CPU-ms of the KL term and of the loss of a prior that is not new, as training uses it."""
    prior = build(kind, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    mean = torch.randn(BATCH, DIMENSION, generator=generator).requires_grad_()
    log_var = torch.full((BATCH, DIMENSION), -2.0).requires_grad_()
    exemplars = torch.randn(128, DIMENSION, generator=generator).requires_grad_()

    def kl() -> None:
        q = DiagonalGaussian(mean, log_var)
        prior.requires_grad_(False)
        if isinstance(prior, VampPrior):
            prior.place(exemplars, torch.full_like(exemplars, -2.0))
        prior.kl_divergence(q, q.rsample(1)).mean().backward()

    def loss() -> None:
        prior.requires_grad_(True)
        prior.loss(mean.detach()).backward()

    parts = {"kl": kl}
    if list(prior.parameters()):
        parts["loss"] = loss
    laps: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(STEPS):
        for name, part in parts.items():
            start = time.process_time()
            part()
            laps[name].append(1e3 * (time.process_time() - start))
    found = {name: float(np.percentile(each[20:], 10)) for name, each in laps.items()}
    return found | {
        "median": float(np.median(np.sum([each[20:] for each in laps.values()], axis=0))),
        "both": sum(found.values()),
    }


def spread(values: list[float]) -> str:
    """Mean with the range."""
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/ring"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ring = make_ring()
    truth = ring.log_prob(ring.draw(20_000, 999)[0])
    print(f"E log p of the law: {truth.mean():.4f} +- {truth.std() / np.sqrt(len(truth)):.4f} nats")
    result: dict[str, Any] = {"machine": machine(), "log_p": float(truth.mean()), "kinds": {}}
    rows = []
    for kind in arguments.kinds:
        entry = measured(kind, ring, arguments)
        result["kinds"][kind] = entry
        rows.append(row_of(kind, entry))
    header = ["prior", "KL, nats", "minor state", "fit 20k, CPU-s", "fit 50k, CPU-s", "KL + loss, CPU-ms"]
    print(table(header, rows))
    write_json(arguments.out / "ring-priors.json", result)


def measured(kind: str, ring: Ring, arguments: argparse.Namespace) -> dict[str, Any]:
    """All that was asked for of one kind."""
    entry: dict[str, Any] = {"fits": [fitted(kind, ring, seed) for seed in range(arguments.seeds)]}
    if arguments.large:
        points, prior = ring.draw(LARGE, 50)[0], build(kind, 0)
        _, entry["large_cpu_seconds"] = timed(lambda: prior.fit(points))
    if arguments.step:
        entry["step_ms"] = in_training(kind)
    return entry


def row_of(kind: str, entry: dict[str, Any]) -> list[Any]:
    """Its line in the table."""
    fits, step = entry["fits"], entry.get("step_ms")
    return [
        kind,
        spread([fit["kl"] for fit in fits]),
        spread([fit["minor"] for fit in fits]),
        float(np.mean([fit["cpu_seconds"] for fit in fits])),
        entry.get("large_cpu_seconds"),
        None if step is None else f"{step['kl']:.2f} + {step.get('loss', 0.0):.2f}",
    ]


if __name__ == "__main__":
    main()
