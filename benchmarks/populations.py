"""Do learned priors find better populations? Every prior x way of learning x weight of the KL term.

    python benchmarks/populations.py --set SET [--set SET ...] --steps 2000 --seeds 0 1 2

SET is a folder of `cryoscape simulate states` or `double-well`; where its name holds {seed}, each seed has a
set of its own. For every set, seed and weight, one run with N(0, I) and one for each learned prior. On the
posteriors of the first the same priors are then fitted after the fact, to what the encoder says (aggregate)
and to what the images say (deconvolved). Populations are those of decoded samples. Beside them: the count of
posterior means; the population of structures that the run decodes, fitted to the likelihoods of all images
under each (images x structures); and the best that can be known, the same for the true structures. Evidence
is that of held-out particles, importance-weighted over 64 samples.

Runs are kept below --out and found again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import SimulatedSet, machine, row_text, script_parser, table, write_json
from training_runs import trained

from cryoscape import Run
from cryoscape.analysis.evaluation.populations import (
    SAMPLES,
    PopulationEvaluation,
    compare_populations,
    evaluate_populations,
    shares_against_truth,
)
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.analysis.populations.ensemble_weights import fit_weights
from cryoscape.analysis.populations.likelihood_table import candidate_codes, likelihood_table, scene_table
from cryoscape.analysis.prior_fitting.embedding_sources import read_embedding
from cryoscape.analysis.prior_fitting.fit import fit_to_embedding
from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.estimators import importance_bound
from cryoscape.priors.base import LatentPrior
from cryoscape.training.config import Config

KINDS = ("mixture", "boltzmann", "flow")
# cryoSTAR's own weight of a nat of KL against one of likelihood at SNR 0.01, and its free bits.
WEIGHTS: dict[str, dict[str, Any]] = {
    "1": {},
    "cryoSTAR": {"beta": 0.006, "beta_start": 0.0, "hold": 0.0, "ramp": 0.1, "free_bits": 3.0},
}
_IMPORTANCE = 64


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    set: str
    seed: int
    weight: str
    prior: str
    learned: str
    distance: float
    largest_error: float
    rarest: float
    profile: float | None
    evidence: float | None
    accuracy: float | None
    cpu_seconds: float | None


def measure(data: SimulatedSet, seed: int, weight: str, arguments: argparse.Namespace) -> list[Result]:
    """All rows of one set, seed and weight."""
    rows: list[Result] = []
    truth = Truth.read(data.truth)
    rare = int(np.argmin(truth.population)) if len(truth.population) <= 6 else -1

    def row(kind: str, how: str, found: PopulationEvaluation, **more: Any) -> None:
        values = {"evidence": None, "accuracy": None, "cpu_seconds": None, **more}
        share = found.share[rare] if rare >= 0 else float("nan")
        rows.append(
            Result(
                data.name,
                seed,
                weight,
                kind,
                how,
                found.distance,
                found.largest_error,
                share,
                found.profile_error,
                **values,
            )
        )
        print(row_text(rows[-1]), flush=True)

    for kind in ("normal", *arguments.kinds):
        settings = {
            "prior": {"kind": kind},
            "objective": WEIGHTS[weight],
            **({"training": {"batch": arguments.batch}} if arguments.batch else {}),
        }
        name = f"{data.name}-{kind}-{weight}-{arguments.steps}-seed{seed}"
        done = trained(data, arguments.out / name, arguments.steps, seed=seed, settings=settings)
        run, more = done.run, {"accuracy": done.evaluation.accuracy, "cpu_seconds": done.cpu_seconds}
        row(
            kind,
            "joint",
            evaluate_populations(run, truth, samples=SAMPLES),
            evidence=held_out_evidence(run, run.prior),
            **more,
        )
        if kind != "normal":
            continue
        row("-", "count of means", compare_populations(run, truth, run.embedding.z, "means"))
        row("-", "images x structures", decoded_structures(run, truth))
        row("-", "true structures", true_structures(run, truth))
        source = read_embedding(run.path)
        for fitted in arguments.kinds:
            for objective in ("aggregate", "deconvolved"):
                section = Config(prior={"kind": fitted}).prior
                prior, _ = fit_to_embedding(section, source, objective, seed=seed)
                z = prior.sample(SAMPLES, torch.Generator().manual_seed(0)).numpy()
                found = compare_populations(run, truth, z, objective)
                row(fitted, objective, found, evidence=held_out_evidence(run, prior))
    return rows


@torch.no_grad()
def held_out_evidence(run: Run, prior: LatentPrior) -> float:
    """Mean log p(x) of held-out particles over pure noise, importance-weighted, nats."""
    model, images, embedding = run.image_model, run.images(), run.embedding
    rows = torch.from_numpy(np.flatnonzero(embedding.held_out))
    total = 0.0
    generator = torch.Generator().manual_seed(0)
    for part in rows.split(128):
        batch = images.batch(part)
        q = model.posterior(model.features(batch)).float()
        z = q.sample(_IMPORTANCE, generator)
        likelihood = torch.stack([model.log_likelihood(one, batch) for one in z])
        total += float(importance_bound(likelihood, prior.log_prob(z), q.log_prob(z)).sum())
    return total / len(rows)


def decoded_structures(run: Run, truth: Truth) -> PopulationEvaluation:
    """Population of structures that cover what the run decodes, fitted to log p(x | structure)."""
    z = candidate_codes(run)
    weight = fit_weights(likelihood_table(run, z), resamples=0).weight
    # A set of draws with these populations is judged like any other.
    drawn = np.random.default_rng(0).choice(len(z), SAMPLES, p=weight)
    return compare_populations(run, truth, z[drawn], "decoded structures")


@torch.no_grad()
def true_structures(run: Run, truth: Truth, limit: int = 25) -> PopulationEvaluation:
    """Population fitted to log p(x | true structure) of all images by expectation-maximisation."""
    decoder = run.image_model.decoder
    assert isinstance(decoder, StructureDecoder)
    chosen = np.unique(np.linspace(0, len(truth.coords) - 1, limit).round().astype(int))
    in_model, in_truth = truth.match(run.structure)
    assert len(in_model) == len(run.structure)
    world = truth.coords[chosen][:, in_truth] - np.asarray(run.geometry.offset, dtype=np.float32)
    scenes = [decoder.scene(torch.from_numpy(one[None]).float()) for one in world]
    log_likelihood = scene_table(run, scenes)
    share = fit_weights(log_likelihood, resamples=0).weight
    full = np.zeros(len(truth.population))
    full[chosen] = share
    if len(chosen) < len(full):
        full = np.interp(np.arange(len(full)), chosen, share)
        full /= full.sum()
    return shares_against_truth(truth, full, len(log_likelihood), "true structures")


HEADER = [
    "set",
    "seed",
    "KL weight",
    "prior",
    "learned",
    "TVD",
    "largest error",
    "rarest",
    "profile, kT",
    "evidence, nats",
    "nearest state",
    "CPU-s",
]


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--set", required=True, action="append", dest="sets", metavar="SET")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS))
    parser.add_argument("--weights", nargs="+", default=list(WEIGHTS), choices=list(WEIGHTS))
    parser.add_argument("--out", type=Path, default=Path("runs/populations"))
    parser.add_argument("--name", default="populations")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: list[Result] = []
    for path in arguments.sets:
        for seed in arguments.seeds:
            data = SimulatedSet(Path(path.format(seed=seed))).check()
            for weight in arguments.weights:
                results += measure(data, seed, weight, arguments)
    print(table(HEADER, [list(asdict(r).values()) for r in results]))
    content = {"steps": arguments.steps, "machine": machine(), "results": [asdict(r) for r in results]}
    write_json(arguments.out / f"{arguments.name}.json", content)


if __name__ == "__main__":
    main()
