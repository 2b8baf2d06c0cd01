"""Boltzmann machines on bits: likelihoods on small sets where log Z is exact, and annealing beside it.

    python benchmarks/boltzmann_machines.py [--only bars digits deep choose] [--seeds 3]

bars: the 30 bars and stripes of 4 x 4 pixels, 16 hidden units; no model gets above -log 30 = -3.401 nats.
digits: 1,797 digits of 8 x 8 pixels, 1 where the grey value is above half of the largest; shuffled with seed
0, 1,500 to train and 297 to test; 16 hidden units. deep: bars and stripes with two hidden layers of 8 units.
Contrastive divergence (CD-k), which starts its chains at the data in every step, is there for comparison.
Columns "AIS" and "trajectory" are errors of annealing against the exact log Z, with their own estimates of
the standard error beside them.

choose: learning rate and decay for the digits, by the last 300 of the training images; the test images are
not looked at. The settings of `digits` were chosen so.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measuring import machine as computer
from measuring import script_parser, table, write_json
from torch import Tensor
from torch.nn.functional import softplus

from cryoscape.priors.machines.graph import configurations
from cryoscape.priors.machines.kinds import (
    BoltzmannMachine,
    independent_bits,
    layered_machine,
    restricted_machine,
)
from cryoscape.priors.machines.negative_phase import coins, drawn_seed
from cryoscape.priors.samplers.gibbs import BlockGibbs

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests.priors.machines.sets import bars_and_stripes, binary_digits

Loss = Callable[[BoltzmannMachine, Tensor, torch.Generator], Tensor]


def persistent(machine: BoltzmannMachine, z: Tensor, generator: torch.Generator) -> Tensor:
    return machine.loss(z, generator=generator)


def contrastive(sweeps: int) -> Loss:
    """The loss of CD-k: as many chains as the machine has, from the data."""

    def loss(machine: BoltzmannMachine, z: Tensor, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(z), (len(machine.chains.spins),), generator=generator)
        start = 2 * coins(machine.completed(z[rows]), generator) - 1
        found = BlockGibbs(sweeps).sample_ising(
            machine.problem(), num_reads=len(rows), initial_states=start, seed=drawn_seed(generator)
        )
        model = machine.completed((found.spins[:, : machine.z_dim] + 1).to(z) / 2)
        return machine.pairs(machine.completed(z)).mean() - machine.pairs(model).mean()

    return loss


def descend(
    machine: BoltzmannMachine, z: Tensor, loss: Loss, steps: int, lr: float, batch: int | None, seed: int
) -> float:
    """Adam, its rate falling to 0 by a cosine; return the CPU-seconds."""
    began, generator = time.process_time(), torch.Generator().manual_seed(seed)
    machine.warm_start(z, generator)
    optimizer = torch.optim.Adam(machine.parameters(), lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.arange(len(z)) if batch is None else torch.randint(len(z), (batch,), generator=generator)
        optimizer.zero_grad()
        loss(machine, z[rows], generator).backward()
        optimizer.step()
    return time.process_time() - began


@torch.no_grad()
def facts_of(machine: BoltzmannMachine, seconds: float, sets: dict[str, Tensor]) -> dict[str, Any]:
    """Mean log likelihoods with the exact log Z, and what annealing makes of log Z."""
    found = machine.log_partition_estimates()
    exact, ais = found["enumeration"].value, found["ais"]
    facts: dict[str, Any] = {name: -float(machine.energy(z).mean()) - exact for name, z in sets.items()}
    facts |= {"log Z": exact, "AIS": ais.value - exact, "AIS sd": ais.std_err, "AIS ESS": round(ais.ess)}
    if "trajectory" in found:
        along = found["trajectory"]
        facts |= {"trajectory": along.value - exact, "trajectory sd": along.std_err}
    return facts | {"CPU-s": round(seconds)}


def bars(seeds: int) -> list[dict[str, Any]]:
    z, results = bars_and_stripes(4), []
    for name, sweeps, loss in (
        ("PCD-10", 10, persistent),
        ("PCD-5", 5, persistent),
        ("PCD-1", 1, persistent),
        ("CD-10", 1, contrastive(10)),
        ("CD-1", 1, contrastive(1)),
    ):
        for seed in range(seeds):
            machine = restricted_machine(16, 16, sampler=BlockGibbs(sweeps), decay=0.0)
            seconds = descend(machine, z, loss, 3000, 5e-3, None, seed)
            results.append({"model": name, "seed": seed, **facts_of(machine, seconds, {"patterns": z})})
    return results


def digits(seeds: int) -> list[dict[str, Any]]:
    train, test = binary_digits()
    sets = {"train": train, "test": test}
    independent = independent_bits(64)
    independent.warm_start(train)
    results = [
        {"model": "independent bits", **{k: independent.log_prob(v).mean().item() for k, v in sets.items()}}
    ]
    for name, sweeps, loss in (
        ("PCD-1", 1, persistent),
        ("PCD-5", 5, persistent),
        ("CD-1", 1, contrastive(1)),
    ):
        for seed in range(seeds):
            machine = restricted_machine(64, 16, sampler=BlockGibbs(sweeps))
            seconds = descend(machine, train, loss, 6000, 3e-2, 256, seed)
            results.append({"model": name, "seed": seed, **facts_of(machine, seconds, sets)})
    return results


def choose(seeds: int) -> list[dict[str, Any]]:
    train, held_out = binary_digits()[0].split([1200, 300])
    results = []
    for lr in (3e-3, 1e-2, 3e-2):
        for decay in (1e-4, 1e-3):
            machine = restricted_machine(64, 16, sampler=BlockGibbs(1), decay=decay)
            seconds = descend(machine, train, persistent, 6000, lr, 256, 0)
            facts = facts_of(machine, seconds, {"train": train, "held out": held_out})
            results.append({"model": "PCD-1", "lr": lr, "decay": decay, **facts})
    return results


@torch.no_grad()
def exact_deep(machine: BoltzmannMachine, z: Tensor, middle: slice) -> float:
    """Mean log probability of latents z, the middle layer of three enumerated, the others summed out."""
    bias, coupling = machine.fields_kt().double(), machine.couplings_kt().double()
    h, d = configurations(middle.stop - middle.start).double(), machine.z_dim
    top = softplus(bias[middle.stop :] + h @ coupling[middle, middle.stop :]).sum(1)
    base, onto = h @ bias[middle] + top, bias[:d] + h @ coupling[middle, :d]
    log_z = torch.logsumexp(base + softplus(onto).sum(1), 0)
    return float((torch.logsumexp(base + z.double() @ onto.T, 1) - log_z).mean())


def deep(seeds: int) -> list[dict[str, Any]]:
    z, results = bars_and_stripes(4), []
    for name, pretrain in (("16-8-8", False), ("16-8-8, from a stack", True)):
        for seed in range(seeds):
            machine = layered_machine(16, hidden=(8, 8), sampler=BlockGibbs(10), decay=0.0, pretrain=pretrain)
            seconds = descend(machine, z, persistent, 6000, 5e-3, None, seed)
            facts = facts_of(machine, seconds, {"bound": z})
            exact = exact_deep(machine, z, slice(16, 24))
            results.append({"model": name, "seed": seed, "patterns": exact, **facts})
    return results


PARTS = {"bars": bars, "digits": digits, "deep": deep, "choose": choose}


def shown(results: list[dict[str, Any]]) -> str:
    header = list(dict.fromkeys(key for r in results for key in r))
    exact = {"patterns", "train", "test", "held out", "bound", "log Z"}
    rows = [[f"{r[k]:.3f}" if k in exact and k in r else r.get(k) for k in header] for r in results]
    return table(header, rows)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=["bars", "digits", "deep"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/boltzmann_machines"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for part in arguments.only:
        results = PARTS[part](arguments.seeds)
        print(f"\n{part}\n\n{shown(results)}\n", flush=True)
        write_json(arguments.out / f"{part}.json", {"machine": computer(), "results": results})


if __name__ == "__main__":
    main()
