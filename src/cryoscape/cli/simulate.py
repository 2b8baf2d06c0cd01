"""``cryoscape simulate``: particle stacks with known truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import OutFolder, need_empty_folder, need_file, one_thread
from cryoscape.simulate.options import SCENARIOS, SimulationOptions


def simulate(
    scenario: Annotated[str, Parameter(help=", ".join(SCENARIOS))],
    /,
    *,
    out: OutFolder,
    models: Annotated[
        tuple[Path, ...],
        Parameter(consume_multiple=True, show_default=False, help="Structures to simulate from."),
    ] = (),
    particles: int | None = None,
    box: Annotated[int | None, Parameter(help="Box side, px.")] = None,
    pixel: Annotated[float | None, Parameter(help="Pixel size, A.")] = None,
    snr: Annotated[float | None, Parameter(help="Variance of the signal over that of the noise.")] = None,
    seed: int = 0,
    options: Annotated[SimulationOptions | None, Parameter(name="*")] = None,
) -> None:
    """Write particles.star, particles.mrcs, reference.cif and truth.npz."""
    from cryoscape.simulate.dataset import simulate as run_simulation

    one_thread()
    for path in models:
        need_file(path, "Give .cif or .pdb files to --models.")
    need_empty_folder(out, "Name a new folder with -o.")
    chosen = {"particles": particles, "box": box, "pixel": pixel, "snr": snr}
    report = run_simulation(
        scenario,
        out,
        models=models,
        seed=seed,
        options=options or SimulationOptions(),
        progress=reporter(),
        **{name: value for name, value in chosen.items() if value is not None},
    )
    say(str(report))
