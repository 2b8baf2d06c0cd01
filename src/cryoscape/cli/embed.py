"""``cryoscape embed``: posteriors per particle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import DataDir, Device, Passthrough, RunFolder, read_particles
from cryoscape.errors import InputError


def embed(
    run: RunFolder,
    particles: Annotated[Path | None, Parameter(help="Other particles than those of the run.")] = None,
    /,
    *,
    refine_steps: Annotated[int, Parameter(help="Gradient steps on each particle's own posterior.")] = 0,
    out: Annotated[
        Path | None,
        Parameter(name=["--out", "-o"], help="For other particles, .npz [RUN/particles/NAME.npz]."),
    ] = None,
    device: Device = "auto",
    datadir: DataDir = None,
    passthrough: Passthrough = (),
) -> None:
    """Write mean, sd and elbo (nats) of each particle's latent posterior."""
    from cryoscape.training.embed import embed as embed_particles
    from cryoscape.training.hardware import find_device
    from cryoscape.training.run import Run

    opened = Run.open(run)
    table = None if particles is None else read_particles(particles, datadir, passthrough)
    if particles is None:
        if out is not None:
            raise InputError("-o is for other particles", remedy="Name particles, or leave -o out.")
        target = run / "embedding.npz"
    else:
        target = out or run / "particles" / f"{particles.stem}.npz"
    found = embed_particles(
        opened, table, refine_steps=refine_steps, device=str(find_device(device)), progress=reporter()
    )
    if particles is not None:
        found.write(target)
    say(f"{len(found)} particles, mean elbo {found.elbo.mean():.2f} nats")
    say(f"written: {target}")
