"""Maps against the truth, by CPU time: cryoscape's volume decoders and cryoDRGN on the same images.

    python benchmarks/volume_accuracy.py --cryodrgn-python VENV/bin/python --set SET [--set SET ...]

VENV is an environment with cryoDRGN 4 (docs/benchmarks.md). SET is a folder written by `cryoscape simulate`.
cryoDRGN is trained once and scored along the way; cryoscape is trained once for each number of epochs,
because its learning rate ends with the run. The score is CryoBench's area under the Fourier shell correlation
of each conformation: the map decoded at the latent nearest to the mean latent of the images of that state,
against the true map, all shells up to Nyquist; and the same within a mask around the density of all states,
where noise in the solvent does not count. Runs are kept below --out and found again.
"""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SimulatedSet, machine, one_thread, script_parser, table, write_json
from numpy.typing import NDArray
from peers import HERE

from cryoscape import Config, Particles, Run, train
from cryoscape.analysis.evaluation.map_comparison import TrueSpectra, central_particles, compare_maps
from cryoscape.analysis.evaluation.map_metrics import auc_ceiling
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.physics.masking import automatic_mask
from cryoscape.training.embed import embed
from cryoscape.training.presets import merged, preset

PEER = "cryoDRGN"


@dataclass(frozen=True)
class Point:
    """A program after some training."""

    program: str
    epochs: float
    cpu_seconds: float
    auc: float
    auc_sd: float
    masked: float
    auc_per_state: list[float]


class Judge:
    """True maps of a set's states, evenly chosen, transformed once for every box that is asked for."""

    def __init__(self, data: SimulatedSet, n_states: int) -> None:
        particles = Particles.read(data.star)
        self.truth = Truth.read(data.truth)
        every = np.unique(self.truth.state)
        self.states = every[:: max(1, len(every) // n_states)]
        self.box, self.width = particles.box, particles.box * particles.pixel_size
        self._known: dict[int, list[TrueSpectra]] = {}

    def particles(self, z: NDArray[Any], row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The particle of each state that lies nearest to the state's mean latent."""
        states, particles = central_particles(z, self.truth.state[row])
        return particles[np.isin(states, self.states)]

    def auc(self, maps: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Area under |FSC| of one map a state, without and within a mask, at the box of the particles.

        What a map lacks counts 0. Shape (states, 2).
        """
        box, place = maps.shape[-1], np.arange(len(self.states))
        if box not in self._known:
            voxel = self.width / box
            outline = np.max([self.truth.density([s], box, voxel)[0] for s in self.states], axis=0)
            # Wherever any state has density, with a soft edge.
            mask = automatic_mask(*(torch.from_numpy(outline),) * 2, voxel).numpy()
            self._known[box] = [
                TrueSpectra(lambda s: self.truth.density(s, box, voxel), self.states, m) for m in (None, mask)
            ]
        scores = [
            compare_maps(place[:, None], self.states, place, lambda i: maps[i[:, 0]], known)
            for known in self._known[box]
        ]
        return np.stack([each.auc(self.box) for each in scores], axis=1)

    def one_map(self) -> list[float]:
        """What the mean of the true maps scores, a perfect map without heterogeneity; then in the mask."""
        weights = np.bincount(self.truth.state) / len(self.truth.state)
        mean = np.zeros((self.box,) * 3)
        for state in np.flatnonzero(weights):
            mean += weights[state] * self.truth.density([state], self.box, self.width / self.box)[0]
        return self.auc(np.broadcast_to(mean, (len(self.states), *mean.shape))).mean(axis=0).tolist()


def point(program: str, epochs: float, seconds: float, auc: NDArray[np.float64]) -> Point:
    """A point of the curve."""
    plain, masked = auc.T
    return Point(program, epochs, seconds, plain.mean(), plain.std(), masked.mean(), plain.tolist())


def scored_epochs(last: int) -> list[int]:
    """1, 2, 3, then ever fewer, and the last: decoding maps takes cryoDRGN seconds each."""
    return sorted({e for e in (1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50) if e < last} | {last})


def peer_points(python: Path, data: SimulatedSet, out: Path, judge: Judge, arguments: Any) -> list[Point]:
    """Train cryoDRGN unless that is done, and score it along the way."""
    driver = [str(python.absolute()), str(HERE / "cryodrgn_driver.py")]
    out.mkdir(parents=True, exist_ok=True)

    def call(*words: str) -> None:
        with (out / "log.txt").open("a") as log:
            subprocess.run([*driver, *words], check=True, stdout=log, stderr=log, env=one_thread())

    if not (out / f"weights.{arguments.peer_epochs}.pkl").is_file():
        words = ["--epochs", str(arguments.peer_epochs), "--seed", str(arguments.seed)]
        options = ["--", *arguments.peer_options.split()] if arguments.peer_options else []
        call("train", "--star", str(data.star.resolve()), "--out", str(out), *words, *options)
    lines = [json.loads(line) for line in (out / "clock.jsonl").read_text().splitlines()]
    seconds = {line["epoch"]: line["cpu_seconds"] for line in lines}
    points = []
    for epoch in scored_epochs(arguments.peer_epochs):
        scored = out / f"auc.{epoch}-{len(judge.states)}.npy"
        if not scored.is_file():
            z, chosen, volumes = (str(out / f"{name}.npy") for name in ("z", "z_chosen", "volumes"))
            at = ["--out", str(out), "--epoch", str(epoch)]
            call("latents", *at, "--z", z)
            latents = np.load(z)
            np.save(chosen, latents[judge.particles(latents, np.arange(len(latents)))])
            call("decode", *at, "--z", chosen, "--volumes", volumes)
            np.save(scored, judge.auc(np.load(volumes)))
        points.append(point(PEER, epoch, seconds[epoch], np.load(scored)))
    return points


def our_point(
    name: str, settings: dict[str, Any], epochs: float, data: SimulatedSet, out: Path, judge: Judge, seed: int
) -> Point:
    """Train cryoscape, unless that is done, and score it.

    The CPU-seconds are those of everything that `train` does: reading, consensus, features, steps, embedding.
    """
    record = out / "benchmark.json"
    training = {"training": {"epochs": epochs, "seed": seed, "device": "cpu", "threads": 1}}
    config = Config(**merged(merged(preset("cryoscape"), training), settings))
    asked = json.loads(config.model_dump_json())
    if not record.is_file() or json.loads(record.read_text())["asked"] != asked:
        start = time.process_time()
        embed(train(Particles.read(data.star), None, config, out, force=True))
        seconds = time.process_time() - start
        record.write_text(json.dumps({"asked": asked, "cpu_seconds": seconds}))
    run = Run.open(out)
    latents = run.embedding
    auc = judge.auc(run.decode_maps(latents.z[judge.particles(latents.z, latents.row)]))
    return point(name, epochs, json.loads(record.read_text())["cpu_seconds"], auc)


def at_time(points: list[Point], seconds: float) -> float | None:
    """Score of a curve at a CPU time, interpolated; None before its first point, its last one afterwards."""
    times = [p.cpu_seconds for p in points]
    return (
        None if not times or seconds < times[0] else float(np.interp(seconds, times, [p.auc for p in points]))
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """AUC over CPU time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for program in dict.fromkeys(p["program"] for p in result["points"]):
        mine = [p for p in result["points"] if p["program"] == program]
        axes.plot([p["cpu_seconds"] for p in mine], [p["auc"] for p in mine], "o-", ms=4, label=program)
    axes.axhline(result["ceiling"], color="0.3", lw=1, ls="--", label="perfect maps")
    axes.axhline(result["one_map"][0], color="0.6", lw=1, ls=":", label="mean of the true maps")
    axes.set(xscale="log", xlabel="CPU-seconds, one thread", ylabel="FSC AUC per conformation")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(result["set"])
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    print(f"written: {path}")


HEADER = ["program", "epochs", "CPU-s", "AUC", "sd of states", "of perfect", "in mask"]
HEADER += [f"{PEER} at that time", "gain over it", f"gain over {PEER}'s best"]


def row(p: Point, peer: list[Point], ceiling: float) -> list[Any]:
    """One line of the table."""
    same = at_time(peer, p.cpu_seconds) if p.program != PEER else None
    best = max((q.auc for q in peer), default=None)
    text = [f"{p.auc:.4f}", f"{p.auc_sd:.4f}", f"{100 * p.auc / ceiling:.1f} %", f"{p.masked:.4f}"]
    gain = [None if x is None else f"{100 * (p.auc / x - 1):+.1f} %" for x in (same, best)]
    return [p.program, p.epochs, round(p.cpu_seconds), *text, None if same is None else f"{same:.4f}", *gain]


def compare(arguments: Any, data: SimulatedSet) -> dict[str, Any]:
    """All programs on one set."""
    judge, out = Judge(data, arguments.states), (arguments.out / data.name).resolve()
    ceiling = auc_ceiling(judge.box)
    peer = []
    if arguments.cryodrgn_python:
        peer = peer_points(arguments.cryodrgn_python, data, out / "cryodrgn", judge, arguments)
    points = list(peer)
    for decoder in arguments.decoder:
        kind, _, extra = decoder.partition(":")
        settings: dict[str, Any] = {"decoder": {"kind": kind, **json.loads(extra or "{}")}}
        if not arguments.own_band:
            settings["data"] = {"cutoff": 2 * judge.width / judge.box}
        for epochs in arguments.epochs:
            label = "".join(c if c.isalnum() or c in ".-" else "_" for c in decoder)
            folder = out / f"{label}-{epochs:g}{'-own' if arguments.own_band else ''}-seed{arguments.seed}"
            points.append(our_point(decoder, settings, epochs, data, folder, judge, arguments.seed))
            print(table(HEADER, [row(p, peer, ceiling) for p in points]), flush=True)
    result = {
        "set": data.name,
        "states_compared": len(judge.states),
        "ceiling": ceiling,
        "one_map": judge.one_map(),
        "machine": machine(),
        "points": [vars(p) for p in points],
    }
    print(f"{data.name}: perfect maps {ceiling:.4f}; mean of the true maps, and in mask: {result['one_map']}")
    write_json(out / "volume_accuracy.json", result)
    draw(result, out / "volume_accuracy.png")
    return result


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--cryodrgn-python", type=Path, metavar="PYTHON", help="without it, cryoscape alone")
    parser.add_argument("--set", type=Path, required=True, action="append", dest="sets", metavar="SET")
    parser.add_argument("--out", type=Path, default=Path("runs/volume_accuracy"))
    parser.add_argument(
        "--decoder", action="append", metavar='KIND[:{"OPTION": VALUE}]', help="default: voxels and field"
    )
    parser.add_argument("--epochs", type=float, nargs="*", default=[2, 5, 10, 20, 40])
    parser.add_argument("--own-band", action="store_true", help="the default band, not up to Nyquist")
    parser.add_argument("--states", type=int, default=25, help="true states that are compared, evenly chosen")
    parser.add_argument("--peer-epochs", type=int, default=20)
    parser.add_argument("--peer-options", default="", help="options of `cryodrgn train_vae`, in quotes")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.decoder = arguments.decoder or ["voxels", "field"]
    for path in arguments.sets:
        compare(arguments, SimulatedSet(path).check())


if __name__ == "__main__":
    main()
