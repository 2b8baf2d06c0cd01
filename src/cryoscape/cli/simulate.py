"""``cryoscape simulate``: particle stacks with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import OutFolder, need_file, one_thread
from cryoscape.simulate.options import SCENARIOS, SimulationOptions


def simulate(
    scenario: Annotated[str, Parameter(help=", ".join(SCENARIOS))],
    /,
    *,
    out: OutFolder,
    models: Annotated[
        tuple[Path, ...],
        Parameter(consume_multiple=True, show_default=False, help="Structures, .cif or .pdb."),
    ] = (),
    particles: int = 10_000,
    box: Annotated[int, Parameter(help="Box side, px.")] = 128,
    pixel: Annotated[float, Parameter(help="Pixel size, A.")] = 1.0,
    snr: Annotated[float, Parameter(help="Variance of the signal over that of the noise.")] = 0.1,
    seed: int = 0,
    force: Annotated[bool, Parameter(show_default=False, help="Replace an earlier simulation.")] = False,
    options: Annotated[SimulationOptions | None, Parameter(name="*", consume_multiple=True)] = None,
) -> None:
    """Write particles.star, particles.mrcs, reference.cif and truth.npz."""
    from cryoscape.simulate.dataset import simulate as run_simulation

    one_thread()
    for path in models:
        need_file(path, "Give .cif or .pdb files to --models.")
    report = run_simulation(
        scenario,
        out,
        models=models,
        particles=particles,
        box=box,
        pixel=pixel,
        snr=snr,
        seed=seed,
        options=options,
        force=force,
        progress=reporter(),
    )
    say("\n".join(report.lines()))
