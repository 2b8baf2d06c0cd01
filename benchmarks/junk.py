"""Does `cryoscape junk` find junk? Sets with noise, displaced particles and another molecule among them.

    python benchmarks/junk.py --seeds 0 1 2 --snr 0.1

Every seed has a set of its own (hinge; 20 % junk, a third of each kind; box 48, 4 A). A run is trained on all
of it, as a user would, and judged: the area under the ROC curve of the log odds, for all junk and each kind
against all good particles; the share of good ones among those called junk at 5 %; the share of junk that is
called; the share of junk found, with its interval; and the whiteness of what is left of good particles.

Sets and runs are kept below --out and found again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from measuring import SimulatedSet, machine, row_text, script_parser, table, timed, write_json
from training_runs import trained

from cryoscape import Run
from cryoscape.analysis.junk.find import RATE, find_junk
from cryoscape.cli.main import main as cryoscape

KINDS = ("noise", "shifted", "wrong")


@dataclass(frozen=True)
class Result:
    """One set."""

    seed: int
    snr: float
    auroc: float
    noise: float
    shifted: float
    wrong: float
    embedding: float
    fdr: float
    recall: float
    share: float
    low: float
    high: float
    residual_mean: float
    residual_sd: float
    cpu_seconds: float


def measure(run: Run, truth: Path, seed: int, snr: float, candidates: int) -> Result:
    """Judge the scores of one run."""
    from sklearn.metrics import roc_auc_score

    found, seconds = timed(lambda: find_junk(run, rate=RATE, candidates=candidates, seed=seed))
    with np.load(truth) as known:
        junk, kind = known["junk"][found.row], known["junk_kind"][found.row]
    area = {
        name: float(roc_auc_score(junk[there], found.log_odds[there]))
        for name, there in ((name, ~junk | (kind == name)) for name in KINDS)
    }
    share, low, high = found.share
    return Result(
        seed,
        snr,
        float(roc_auc_score(junk, found.log_odds)),
        **area,
        embedding=float(roc_auc_score(~junk, run.embedding.elbo)),
        fdr=float((~junk[found.called]).mean()) if found.called.any() else 0.0,
        recall=float(found.called[junk].mean()),
        share=share,
        low=low,
        high=high,
        residual_mean=float(found.residual_z[~junk].mean()),
        residual_sd=float(found.residual_z[~junk].std()),
        cpu_seconds=seconds,
    )


def simulated(seed: int, arguments: argparse.Namespace) -> SimulatedSet:
    """A contaminated set of its own seed."""
    parts = (arguments.snr, arguments.particles, arguments.scale_spread, seed)
    folder = arguments.out / "_".join(["hinge", *map(str, parts)])
    if not (folder / "truth.npz").is_file():
        words = ["simulate", "hinge", "-o", folder, "--particles", arguments.particles, "--box", 48]
        words += ["--pixel", 4, "--snr", arguments.snr, "--seed", seed, "--junk", arguments.junk]
        words += ["--scale-spread", arguments.scale_spread, "--junk-kinds", *KINDS]
        if cryoscape([str(word) for word in words]) != 0:
            raise SystemExit(1)
    return SimulatedSet(folder)


HEADER = [
    *("seed", "SNR", "AUROC", "noise", "shifted", "wrong", "ELBO alone", "FDR at 5 %", "found"),
    *("share", "low", "high", "z mean", "z sd", "CPU-s"),
]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--snr", type=float, default=0.1)
    parser.add_argument("--junk", type=float, default=0.2)
    parser.add_argument("--scale-spread", type=float, default=0.0)
    parser.add_argument("--particles", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path("runs/junk"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for seed in arguments.seeds:
        data = simulated(seed, arguments)
        done = trained(data, arguments.out / f"{data.name}-run", arguments.steps, seed=seed, settings={})
        results.append(measure(done.run, data.truth, seed, arguments.snr, arguments.candidates))
        print(row_text(results[-1]), flush=True)
    print(table(HEADER, [list(asdict(row).values()) for row in results]))
    content = {"machine": machine(), "results": [asdict(row) for row in results]}
    write_json(arguments.out / f"junk_{arguments.snr}_{arguments.scale_spread}.json", content)


if __name__ == "__main__":
    main()
