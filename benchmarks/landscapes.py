"""Landscapes where the truth is known: barriers, rare states, falling signal, images that hardly change.

    python benchmarks/landscapes.py --steps 2000 --particles 10000

well      double wells of 1, 3 and 5 kT at SNR 0.1, and of 3 kT where the signal falls: error of the profile
          within 5 kT, half width of the band, and whether bins are flagged as not resolved
states    three states, 60, 35 and 5 %, and two, 97 and 3 %, at two SNRs: populations with
          intervals, beside the share of decoded posterior means that are nearest to each state; where
          training lost a state, by `rare`
crop      the well of 3 kT again, from images that 0.2 % of noise was added to: what moves

Box 32, 4 A. Sets and runs are kept below --out and found again.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import torch
from coverage import distance_between, selection, widest_pair
from measuring import SimulatedSet, machine, script_parser, table, write_json
from numpy.typing import NDArray
from training_runs import trained

from cryoscape import Run
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.analysis.landscape.landscape import Landscape, make_landscape
from cryoscape.analysis.rare.finder import find_rare_states
from cryoscape.cli.main import main as cryoscape
from cryoscape.errors import InputError

HIGHEST = 5.0
CHANGE = 0.002
WELLS = ((1.0, 0.1), (3.0, 0.1), (5.0, 0.1), (3.0, 0.01), (3.0, 0.002))
STATES = (((0.6, 0.35, 0.05), 0.1), ((0.6, 0.35, 0.05), 0.02), ((0.97, 0.03), 0.1), ((0.97, 0.03), 0.02))


@dataclass(frozen=True)
class Well:
    """One double well."""

    barrier: float
    snr: float
    error: float
    band: float
    flagged: float
    barrier_found: float
    left: float
    left_interval: tuple[float, float]
    left_true: float


@dataclass(frozen=True)
class State:
    """One state of one set."""

    snr: float
    true: float
    found: float
    low: float
    high: float
    counted: float
    way: str

    @property
    def inside(self) -> bool:
        return self.low <= self.true <= self.high


def simulated(folder: Path, *words: Any) -> SimulatedSet:
    """A set, simulated where it is not there yet."""
    if not (folder / "truth.npz").is_file():
        command = ["simulate", words[0], "-o", folder, "--box", 32, "--pixel", 4, *words[1:]]
        if cryoscape([str(word) for word in command]) != 0:
            raise SystemExit(1)
    return SimulatedSet(folder)


def landscape(run: Run, truth: Truth, cuts: list[float]) -> tuple[Landscape, NDArray, NDArray]:
    """Landscape along the distance that changes most, with states between cuts of the true one."""
    first, second = widest_pair(truth)
    cv = f"distance {selection(run, first)} {selection(run, second)}"
    in_model, in_truth = truth.match(run.structure)
    place = {int(m): int(t) for m, t in zip(in_model, in_truth)}
    true = distance_between(truth.coords, place[first], place[second])
    edges = [-np.inf, *cuts, np.inf]
    states = [
        text
        for k, (low, high) in enumerate(pairwise(edges))
        for text in (
            [f"s{k}: {cv} > {low:.4f}"] * bool(np.isfinite(low))
            + [f"s{k}: {cv} < {high:.4f}"] * bool(np.isfinite(high))
        )
    ]
    means = distance_between(run.decode(run.embedding.z), first, second)
    return make_landscape(run, [cv], states=states), true, means


def well(
    data: SimulatedSet, barrier: float, snr: float, arguments: argparse.Namespace
) -> tuple[Well, Landscape]:
    """One double well, measured."""
    done = trained(data, arguments.out / f"{data.name}-run", arguments.steps, settings={})
    truth = Truth.read(data.truth)
    true = _true_distance(done.run, truth)
    middle = float(np.interp(0.5, truth.cv, true))
    found, _, _ = landscape(done.run, truth, [middle])
    profile = found.profile
    truly = profile.axes[0].marks(true) @ truth.population
    energy = -np.log(np.maximum(truly, 1e-300) / truly.max())
    seen = energy < HIGHEST
    ours = -np.log(np.maximum(profile.population, 0.5 / found.n_images))
    difference = (ours - energy)[seen]
    inner = (profile.axes[0].centres > np.interp(0.25, truth.cv, true)) & (
        profile.axes[0].centres < np.interp(0.75, truth.cv, true)
    )
    top = float(ours[inner].max() - ours.min())
    width = 0.5 * (profile.high - profile.low)[seen]
    left = found.states[0]
    return Well(
        barrier=barrier,
        snr=snr,
        error=float(np.std(difference)),
        band=float(np.median(width[np.isfinite(width)])),
        flagged=float(found.unresolved.mean()),
        barrier_found=top,
        left=left.population,
        left_interval=(left.low, left.high),
        left_true=float(truth.population[true < middle].sum()),
    ), found


def _true_distance(run: Run, truth: Truth) -> NDArray[np.float64]:
    first, second = widest_pair(truth)
    in_model, in_truth = truth.match(run.structure)
    place = {int(m): int(t) for m, t in zip(in_model, in_truth)}
    return distance_between(truth.coords, place[first], place[second])


def states(data: SimulatedSet, snr: float, arguments: argparse.Namespace) -> list[State]:
    """Populations of discrete states."""
    done = trained(data, arguments.out / f"{data.name}-run", arguments.steps, settings={})
    truth = Truth.read(data.truth)
    true = _true_distance(done.run, truth)
    order = np.argsort(true)
    cuts = [float(0.5 * (true[a] + true[b])) for a, b in pairwise(order)]
    try:
        found, _, means = landscape(done.run, truth, cuts)
    except InputError:
        # Training lost a state, so that no structure of the run is in it.
        return _by_rare_states(done.run, truth, snr)
    place = np.searchsorted(cuts, means)
    return [
        State(
            snr,
            float(truth.population[k]),
            s.population,
            s.low,
            s.high,
            float((place == j).mean()),
            "landscape",
        )
        for j, (k, s) in enumerate(zip(order, found.states))
    ]


def _by_rare_states(run: Run, truth: Truth, snr: float) -> list[State]:
    """Populations by `rare`, states matched by how full they are; the decoder alone has them not."""
    found = find_rare_states(run).states
    true = np.sort(truth.population)[::-1]
    if len(found) < len(true):
        nothing = State(snr, float(true[-1]), 0.0, 0.0, 0.0, 0.0, "rare: not found")
        return [nothing]
    return [
        State(snr, float(p), s.population, s.low, s.high, float(k == 0), "rare")
        for k, (p, s) in enumerate(zip(true, found))
    ]


def changed(data: SimulatedSet) -> SimulatedSet:
    """The same set with 0.2 % of noise added to its images."""
    folder = data.path.with_name(f"{data.name}_changed")
    if not folder.is_dir():
        shutil.copytree(data.path, folder)
        with mrcfile.open(folder / "particles.mrcs", "r+") as stack:
            images = np.array(stack.data)
            noise = np.random.default_rng(1).standard_normal(images.shape)
            stack.set_data((images + CHANGE * images.std() * noise).astype(np.float32))
    return SimulatedSet(folder)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--particles", type=int, default=10_000)
    parser.add_argument("--parts", nargs="+", default=["well", "states", "crop"])
    parser.add_argument("--out", type=Path, default=Path("runs/landscapes"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"machine": machine()}
    n = ["--particles", arguments.particles]
    if "well" in arguments.parts:
        wells = []
        for barrier, snr in WELLS:
            data = simulated(
                arguments.out / f"well_{barrier:g}_{snr:g}",
                *["double-well", "--barrier", barrier, "--snr", snr, "--seed", 7, *n],
            )
            wells.append(well(data, barrier, snr, arguments)[0])
            print(wells[-1], flush=True)
        results["well"] = [asdict(one) for one in wells]
        head = [
            "barrier, kT",
            "SNR",
            "error, kT",
            "half band, kT",
            "flagged",
            "barrier found",
            "left",
            "true",
        ]
        rows = [
            [
                *(w.barrier, w.snr, w.error, w.band, w.flagged, w.barrier_found),
                f"{w.left:.3f} [{w.left_interval[0]:.3f}, {w.left_interval[1]:.3f}]",
                w.left_true,
            ]
            for w in wells
        ]
        print(table(head, rows))
    if "states" in arguments.parts:
        found: list[State] = []
        for populations, snr in STATES:
            name = "_".join(f"{100 * p:.0f}" for p in populations)
            words = ["states", "--populations", *populations, "--snr", snr]
            data = simulated(arguments.out / f"states_{name}_{snr:g}", *words, "--seed", 7, *n)
            found += states(data, snr, arguments)
            print(found[-len(populations) :], flush=True)
        results["states"] = [asdict(one) for one in found]
        rows = [
            [
                *(s.snr, 100 * s.true, f"{100 * s.found:.2f} [{100 * s.low:.2f}, {100 * s.high:.2f}]"),
                *("yes" if s.inside else "NO", 100 * s.counted, s.way),
            ]
            for s in found
        ]
        print(table(["SNR", "true, %", "found, %", "inside", "counted means, %", "by"], rows))
    if "crop" in arguments.parts:
        words = ["double-well", "--barrier", 3.0, "--snr", 0.1, "--seed", 7, *n]
        data = simulated(arguments.out / "well_3_0.1", *words)
        (one, a), (two, b) = (well(d, 3.0, 0.1, arguments) for d in (data, changed(data)))
        axis = a.profile.axes[0]
        other = np.interp(axis.centres, b.profile.axes[0].centres, b.profile.free_energy)
        seen = (a.profile.free_energy < 4) & np.isfinite(other)
        moved = other[seen] - a.profile.free_energy[seen]
        results["crop"] = {"first": asdict(one), "second": asdict(two), "moved": moved.tolist()}
        print(
            f"0.2 % of noise: left well {one.left:.4f} and {two.left:.4f} (interval {one.left_interval}); "
            f"profile moves by {np.sqrt(np.mean(moved**2)):.3f} kT rms, {np.abs(moved).max():.3f} at most"
        )
    write_json(arguments.out / "landscapes.json", results)


if __name__ == "__main__":
    main()
