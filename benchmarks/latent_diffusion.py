"""Ways through the latent space of a diffusion prior, beside straight ways and dynamics in z.

    python benchmarks/latent_diffusion.py --embedding RUN_OR_FILE [--pairs 40]

A diffusion prior is fitted to the embedding. *Holes*: how many points of ways between random pairs of
particles lie where the embedding has nothing, that is where a mixture of 32 Gaussians fitted to it is below
the 0.1 % quantile of its density over the particles; straight in z, straight and along a great circle in the
base of the prior. *Dynamics*: the integrated autocorrelation time of the slowest coordinate of Langevin
dynamics in the base (exact, dt = 0.1) and in z (MALA, the step tuned to an acceptance of about 0.6);
and how many steps pass between visits to the two groups of k-means that lie farthest apart.

The distances of samples from data (Table 1 of Kreis et al. 2022) come from `cryoscape prior compare`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from measuring import machine, script_parser, table, timed, write_json
from sklearn.cluster import KMeans
from torch import Tensor

from cryoscape.analysis.populations.farthest_points import farthest_pair
from cryoscape.analysis.prior_fitting.embedding_sources import read_embedding
from cryoscape.analysis.prior_fitting.fit import fit_to_embedding
from cryoscape.priors.diffusion.langevin import Trajectory, adjusted_langevin, ornstein_uhlenbeck
from cryoscape.priors.mixture import MixturePrior
from cryoscape.priors.transport import TransportPrior
from cryoscape.training.config import Config

FRAMES = 50


def ways(prior: TransportPrior, z: Tensor, pairs: int, seed: int) -> dict[str, Tensor]:
    """Points (pairs * FRAMES, d) of every kind of way between the same random pairs of z."""
    chosen = torch.from_numpy(np.random.default_rng(seed).choice(len(z), (pairs, 2)))
    t = torch.linspace(0, 1, FRAMES)[:, None]
    found: dict[str, list[Tensor]] = {"straight in z": [], "straight in the base": [], "great circle": []}
    with torch.no_grad():
        for a, b in z[chosen]:
            found["straight in z"].append(a + t * (b - a))
            found["straight in the base"].append(prior.interpolate(a, b, FRAMES, "linear"))
            found["great circle"].append(prior.interpolate(a, b, FRAMES, "slerp"))
    return {name: torch.cat(parts) for name, parts in found.items()}


def steps_between(trajectory: Trajectory, groups: KMeans) -> float:
    """Mean number of steps per change between the two groups that lie farthest apart."""
    ends = farthest_pair(groups.cluster_centers_)
    points = trajectory.points.numpy().astype(np.float64)
    steps, chains = points.shape[:2]
    label = groups.predict(points.reshape(steps * chains, -1)).reshape(steps, chains)
    changes = 0
    for series in label.T:
        visits = series[np.isin(series, ends)]
        changes += int((np.diff(visits) != 0).sum())
    return steps * chains / changes if changes else float("inf")


def in_z(
    prior: TransportPrior, start: Tensor, steps: int, generator: torch.Generator
) -> tuple[Trajectory, float]:
    """MALA at the step whose acceptance is nearest to 0.6, and that step."""
    sizes = float(start.std()) * np.array([0.5, 0.25, 0.12, 0.06, 0.03, 0.015])
    trials = [
        adjusted_langevin(prior, start[:16], 10, step_size=s, generator=generator).accepted for s in sizes
    ]
    best = float(sizes[int(np.abs(np.array(trials) - 0.6).argmin())])
    return adjusted_langevin(prior, start, steps, step_size=best, generator=generator), best


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--embedding", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/latent_diffusion"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = read_embedding(arguments.embedding)
    z = torch.as_tensor(source.z, dtype=torch.float32)
    (prior, report), fitting = timed(
        lambda: fit_to_embedding(Config(prior={"kind": "diffusion"}).prior, source, "aggregate", seed=0)
    )
    assert isinstance(prior, TransportPrior)
    print(
        f"fitted in {fitting:.0f} CPU-s, held-out log p {report.log_prob:.3f} +- {report.log_prob_error:.3f}"
    )
    judge = MixturePrior(z.shape[1], 32)
    judge.fit(z)
    with torch.no_grad():
        floor = torch.quantile(judge.log_prob(z), 0.001)
        paths = ways(prior, z, arguments.pairs, arguments.seed)
        holes = {
            name: float((judge.log_prob(points) < floor).float().mean()) for name, points in paths.items()
        }
    print(table(["way", "in holes, %"], [[name, 100 * share] for name, share in holes.items()]))
    generator = torch.Generator().manual_seed(arguments.seed)
    start = z[torch.randperm(len(z), generator=generator)[: arguments.chains]]
    groups = KMeans(6, n_init=3, random_state=0).fit(z.double().numpy())
    base = ornstein_uhlenbeck(prior, start, arguments.steps, generator=generator)
    plain, size = in_z(prior, start, arguments.steps, generator)
    rows = []
    for name, chain in (("in the base", base), (f"in z, step {size:.3g}", plain)):
        rows.append([name, chain.accepted, chain.autocorrelation(), steps_between(chain, groups)])
    print(table(["Langevin", "accepted", "autocorrelation, steps", "steps between far states"], rows))
    content = {
        "embedding": str(arguments.embedding.name),
        "machine": machine(),
        "fit_cpu_seconds": fitting,
        "log_prob": report.log_prob,
        "holes": holes,
        "dynamics": rows,
    }
    write_json(arguments.out / f"{arguments.embedding.name}.json", content)


if __name__ == "__main__":
    main()
