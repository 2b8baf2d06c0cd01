"""``cryoscape pose-search``: orientations and shifts anew, against the maps of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import DataDir, Passthrough, RunFolder, one_thread, read_particles
from cryoscape.errors import InputError

LARGEST_RANGE = 90.0  # degrees; beyond, all rotations are searched as fast
SHIFT_PIXELS = 5  # pixels of the images, the default range of shifts


def pose_search(
    run: RunFolder,
    particles: Annotated[Path | None, Parameter(help="Other particles than those of the run.")] = None,
    /,
    *,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Table to write [RUN/particles/poses.star or .cs].")
    ] = None,
    range_: Annotated[
        float, Parameter(name="--range", help="Degrees searched around the poses given.")
    ] = 10.0,
    shift_range: Annotated[
        float | None, Parameter(help="A searched around the shifts given [5 pixels].")
    ] = None,
    anywhere: Annotated[
        bool, Parameter(name="--global", show_default=False, help="All rotations, whatever the poses given.")
    ] = False,
    rounds: Annotated[
        int,
        Parameter(
            help="Not against the run's maps: against the back-projection of the other half, made anew so "
            "many times."
        ),
    ] = 0,
    passes: Annotated[int, Parameter(help="Searches; each but the first with codes embedded anew.")] = 2,
    templates: Annotated[int, Parameter(help="Maps that stand for all conformations on the grid.")] = 16,
    keep: Annotated[int | None, Parameter(help="Rotations that survive each level [8; 24 global].")] = None,
    resolution: Annotated[float | None, Parameter(help="Finest detail compared, A [the run's].")] = None,
    threads: Annotated[int, Parameter(help="CPU threads; 0 for all.")] = 1,
    datadir: DataDir = None,
    passthrough: Passthrough = (),
) -> None:
    """Search orientations and shifts by likelihood, and write the particles with those that are better."""
    from cryoscape.data.images import BandImages
    from cryoscape.data.poses import write_with_poses
    from cryoscape.poses.from_halves import search_between_halves
    from cryoscape.poses.from_run import search_poses
    from cryoscape.poses.search import SearchSettings
    from cryoscape.training.run import Run

    _check(range_, shift_range, resolution)
    _check_counts(
        rounds=rounds, passes=passes - 1, templates=templates - 1, keep=(1 if keep is None else keep) - 1
    )
    one_thread(threads)
    opened = Run.open(run)
    table = None if particles is None else read_particles(particles, datadir, passthrough)
    chosen = opened.particles if table is None else table
    target = out or run / "particles" / f"poses{chosen.source.suffix}"
    if target.suffix.lower() not in (".star", ".cs"):
        raise InputError("the particles are written as .star or .cs", file=target, remedy="Name such a file.")
    pixel = chosen.pixel_size
    settings = SearchSettings(
        reach=None if anywhere else math.radians(range_),
        shift_reach=SHIFT_PIXELS * pixel if shift_range is None else shift_range,
        keep=keep or (24 if anywhere else 8),
        limit=math.inf if resolution is None else 1 / resolution,
    )
    if rounds:
        signed = chosen.with_sign(opened.info["particles"]["data_sign"])
        images = BandImages(signed, opened.geometry.cutoff)
        found, log = search_between_halves(images, settings, rounds=rounds, progress=reporter())
        for number, one in enumerate(log, start=1):
            say(
                f"round {number}: half maps agree to {one.resolution:.1f} A; poses moved by "
                f"{one.angle:.2f} degrees and {one.distance:.2f} A (medians), {one.gain:.1f} nats better"
            )
    else:
        found = search_poses(
            opened, settings, particles=table, passes=passes, templates=templates, progress=reporter()
        )
    # Poses that a run refined are not those of the file, which rows that stay would be copied from.
    source = opened.as_given if table is None else table
    write_with_poses(source, target, found.rotations, found.shifts)
    found.write(target.with_suffix(".npz"))
    say("\n".join(found.lines(pixel)))
    say(f"written: {target}, {target.with_suffix('.npz').name}")


def _check(range_: float, shift_range: float | None, resolution: float | None) -> None:
    if not 0 < range_ <= LARGEST_RANGE:
        raise InputError(
            f"a range of {range_:g} degrees",
            remedy=f"Give --range more than 0 and up to {LARGEST_RANGE:g}, or --global.",
        )
    if shift_range is not None and not 0 <= shift_range < math.inf:
        raise InputError(f"a shift range of {shift_range:g} A", remedy="Give 0 or more Angstrom.")
    if resolution is not None and not 0 < resolution < math.inf:
        raise InputError(f"a resolution of {resolution:g} A", remedy="Give a positive number of Angstrom.")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if value < 0:
            raise InputError(f"--{name} is too small", remedy=f"Give --{name} a larger whole number.")
