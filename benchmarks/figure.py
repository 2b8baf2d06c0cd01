"""The comparison of the cryoSTAR paper: RMSD of every state, for cryoSTAR, its two baselines and the default.

    python benchmarks/figure.py --set SET --steps 2000 [--peers runs/peers/SET-2000/peers.json]

Trains the presets on the same images for the same number of steps and draws the mean CA-RMSD (without
alignment, posterior mean) of the particles of each state along the path. With --peers the official
cryoSTAR measured there is drawn as well. Writes one PNG and one JSON table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from measuring import SimulatedSet, machine, script_parser, table, write_json
from training_runs import trained

mpl.use("Agg")
from matplotlib import pyplot as plt

LABELS = {
    "nma": "NMA (16 modes + rigid)",
    "cont": "CONT (continuity only)",
    "cryostar": "cryoSTAR preset",
    "cryosphere": "cryoSPHERE preset",
    "cryoscape": "cryoscape (default)",
}
# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = {
    "nma": "#E69F00",
    "cont": "#009E73",
    "cryostar": "#56B4E9",
    "cryosphere": "#CC79A7",
    "cryoscape": "#0072B2",
    "official": "#000000",
}
OFFICIAL = "official cryoSTAR"


def official_curve(path: Path, data: SimulatedSet, steps: int) -> list[float | None]:
    """Per-state RMSD of official cryoSTAR from a result file of `peers.py`."""
    result = json.loads(path.read_text())
    facts = result["programs"][OFFICIAL]
    if result["set"] != data.name or facts["steps"] != steps or "rmsd" not in facts:
        raise SystemExit(f"{path} was not measured on {data.name} with {steps} steps and --accuracy")
    return facts["rmsd"]["per_state"]


def draw(
    curves: dict[str, dict[str, Any]], trivial: list[float], cv: list[float], title: str, out: Path
) -> None:
    """One line a method; the trivial predictor, which never moves, as a grey line on a second axis."""
    figure, axes = plt.subplots(figsize=(7.2, 4.5), constrained_layout=True)
    for key, curve in curves.items():
        values = np.array([np.nan if v is None else v for v in curve["per_state"]])
        axes.plot(
            cv,
            values,
            label=f"{curve['label']}: {curve['mean']:.2f} A",
            color=COLOURS[key],
            linestyle="--" if key == "official" else "-",
            linewidth=1.8,
        )
    axes.plot(cv, trivial, color="0.6", linestyle=":", label="reference, never moved")
    top = max(np.nanmax([v for v in c["per_state"] if v is not None]) for c in curves.values())
    axes.set(
        xlabel="state along the path", ylabel="CA-RMSD without alignment, A", ylim=(0, 1.1 * top), title=title
    )
    axes.legend(frameon=False, fontsize=9, title="mean over particles", title_fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=160)
    plt.close(figure)
    print(f"written: {out}")


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--set", type=Path, required=True, dest="data", metavar="SET")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument(
        "--presets", nargs="+", default=["nma", "cont", "cryostar", "cryoscape"], choices=LABELS
    )
    parser.add_argument("--peers", type=Path, help="peers.json of the same set and number of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/figure"))
    arguments = parser.parse_args()
    data = SimulatedSet(arguments.data).check()
    arguments.out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, dict[str, Any]] = {}
    trivial: list[float] = []
    for name in arguments.presets:
        folder = arguments.out / f"{data.name}-{name}-{arguments.steps}-seed{arguments.seed}"
        done = trained(data, folder, arguments.steps, name=name, seed=arguments.seed)
        trivial = [state.trivial for state in done.evaluation.states]
        curves[name] = {
            "label": LABELS[name],
            "mean": done.evaluation.rmsd,
            "per_state": [state.rmsd for state in done.evaluation.states],
            "cpu_seconds": done.cpu_seconds,
        }
        print(f"{name}: {done.evaluation.rmsd:.3f} A", flush=True)
    if arguments.peers:
        official = official_curve(arguments.peers, data, arguments.steps)
        mean = json.loads(arguments.peers.read_text())["programs"][OFFICIAL]["rmsd"]["mean"]
        curves["official"] = {"label": OFFICIAL, "mean": mean, "per_state": official}
    with np.load(data.truth) as truth:
        snr = float(truth["snr"])
        cv = list(np.linspace(0, 1, len(truth["coords"])))
        particles = len(truth["state"])
    stem = arguments.out / f"{data.name}-{arguments.steps}-seed{arguments.seed}"
    title = f"{data.name}: {particles:,} particles, SNR {snr:g}, {arguments.steps:,} steps of 64"
    draw(curves, trivial, cv, title, stem.with_name(f"{stem.name}.png"))
    picks = sorted({0, len(cv) // 4, len(cv) // 2, 3 * len(cv) // 4, len(cv) - 1})
    rows = [[c["label"], c["mean"], *(c["per_state"][s] for s in picks)] for c in curves.values()]
    print(table(["method", "mean, A", *(f"state {s}" for s in picks)], rows))
    result = {"set": data.name, "snr": snr, "steps": arguments.steps, "seed": arguments.seed}
    result |= {"machine": machine(), "trivial_per_state": trivial, "curves": curves}
    write_json(stem.with_name(f"{stem.name}.json"), result)


if __name__ == "__main__":
    main()
