"""``cryoscape check``: do poses, CTF, frame and model fit the images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import (
    DataDir,
    Passthrough,
    need_file,
    one_thread,
    read_model,
    read_particles,
    scan_images,
)

_SCANNED = 50_000  # images of which every pixel is looked at


def check(
    particles: Annotated[Path, Parameter(help="Particle table, .star or .cs.")],
    /,
    *,
    model: Annotated[Path | None, Parameter(help="Reference model, .cif or .pdb.")] = None,
    map_: Annotated[Path | None, Parameter(name="--map", help="Consensus map, .mrc.")] = None,
    datadir: DataDir = None,
    passthrough: Passthrough = (),
    limit: Annotated[int, Parameter(help="Particles to use at most.")] = 3000,
    seed: int = 0,
    force: Annotated[bool, Parameter(show_default=False, help="Report, but do not refuse.")] = False,
) -> None:
    """Read everything, test frames, signs and hand, and say what was found.

    Back-projects up to LIMIT particles with the poses as read, under both hands and both data signs,
    and correlates the map with the model under each frame convention. Ends with exit code 2 where no
    interpretation fits.
    """
    from cryoscape.data.mrc import read_map
    from cryoscape.preflight.check import preflight

    one_thread()
    if map_ is not None:
        need_file(map_, "Give an .mrc map.")
    table = read_particles(particles, datadir, passthrough)
    structure = None if model is None else read_model(model)
    volume = None if map_ is None else read_map(map_)
    scan_images(table, limit=_SCANNED)
    if len(table) > _SCANNED:
        say(f"pixels: {_SCANNED} of the images were looked at; training refuses a bad one when it reads it")
    report = preflight(table, structure, volume, limit=limit, seed=seed, progress=reporter())
    say(str(report))
    if not force:
        report.require()
