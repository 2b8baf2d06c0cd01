"""``cryoscape embed``: posteriors per particle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import DataDir, RunFolder, one_thread, read_particles


def embed(
    run: RunFolder,
    particles: Annotated[Path | None, Parameter(help="Other particles than those of the run.")] = None,
    /,
    *,
    refine_steps: Annotated[int, Parameter(help="Gradient steps on each particle's own posterior.")] = 0,
    datadir: DataDir = None,
) -> None:
    """Write mean, sd and elbo (nats) of each particle's latent posterior."""
    from cryoscape.training.embed import embed as embed_particles
    from cryoscape.training.run import Run

    one_thread()
    opened = Run.open(run)
    table = None if particles is None else read_particles(particles, datadir)
    found = embed_particles(opened, particles=table, refine_steps=refine_steps, progress=reporter())
    say(f"{len(found)} particles, mean elbo {found.elbo.mean():.2f} nats")
    say(f"written: {run / 'embedding.npz'}")
