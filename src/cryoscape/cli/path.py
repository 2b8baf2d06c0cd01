"""``cryoscape path``: the path of minimum free energy between two conformations, with its barrier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import RunFolder, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.paths.barriers import Interval
    from cryoscape.analysis.paths.free_energy_path import FreeEnergyPath


def path(
    run: RunFolder,
    /,
    *,
    start: Annotated[
        str | None,
        Parameter(
            name="--from",
            help="State by name, or row of a particle in its table, from 0 [the most populated state].",
        ),
    ] = None,
    end: Annotated[str | None, Parameter(name="--to", help="The same [the next].")] = None,
    cv: Annotated[
        tuple[str, ...],
        Parameter(help='Collective variable to follow, once or more, as of `landscape`: "rg A".'),
    ] = (),
    frames: Annotated[int, Parameter(help="Structures or maps along the path.")] = 20,
    candidates: Annotated[int, Parameter(help="Structures that all images are compared with.")] = 48,
    bins: Annotated[int, Parameter(help="Of the profile.")] = 30,
    resamples: Annotated[int, Parameter(help="Fits behind the intervals.")] = 200,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="One folder for all results [RUN/analysis, ...].")
    ] = None,
    threads: Annotated[int, Parameter(help="CPU threads; 0 for all.")] = 1,
    seed: int = 0,
) -> None:
    """Find the path of minimum free energy between two states, and its barrier from the images.

    Writes path.json, .npz and .png, and the frames as ensemble/path.cif or maps/path_01.mrc, ...
    Barriers are those of populations in the vitrified sample, and no rates.
    """
    from cryoscape.analysis.paths.free_energy_path import make_path
    from cryoscape.analysis.paths.path_files import write_path
    from cryoscape.report.path_plots import write_path_plot
    from cryoscape.training.run import Run

    one_thread(threads)
    opened = Run.open(run)
    if out is not None and out.exists() and not out.is_dir():
        raise InputError("this is a file, not a folder", file=out, remedy="Name a folder with -o.")
    found = make_path(
        opened,
        start,
        end,
        cv,
        frames=frames,
        candidates=candidates,
        bins=bins,
        resamples=resamples,
        seed=seed,
        progress=reporter(),
    )
    written = write_path(opened, found, out)
    written.append(write_path_plot(found, Path(run) / "analysis" if out is None else out))
    say(describe(found))
    say(f"written: {', '.join(str(one) for one in written)}")


def describe(found: FreeEnergyPath) -> str:
    """Lay out the three ways as a table, then the barrier from the images and what it rests on."""
    from cryoscape.analysis.paths.path_files import NO_RATE

    unit = found.decoded.unit
    rows = [(way.name, f"{way.length:.2f}", f"{way.highest:.2f}") for way in found.ways]
    images, barriers = found.images, found.images.barriers
    away = "at least " if barriers.at_least else ""
    lines = [
        f"from {found.ends[0].name} to {found.ends[1].name}, on {found.population.source}",
        table(("way", f"length, {unit}", "highest free energy there, kT"), rows),
        f"from {images.n_images} images and {len(images.z)} structures, the distribution of the vitrified "
        "sample, 95 % intervals:",
        f"barrier {away}{_told(barriers.forth)} kT from {found.ends[0].name}, "
        f"{away}{_told(barriers.back)} kT from {found.ends[1].name}, "
        f"at {images.profile.axes[0].centres[barriers.top]:.2f} {unit}; {NO_RATE}",
        f"dG of the side of {found.ends[1].name} over the side of {found.ends[0].name} "
        f"{_told(barriers.difference)} kT; {100 * images.elsewhere:.1f} % of the sample lie elsewhere",
    ]
    if images.frame_nats is not None:
        low, high = float(images.frame_nats.min()), float(images.frame_nats.max())
        lines.append(f"{low:.2g} to {high:.2g} nats an image between neighbouring frames")
    for variable, row in zip(found.variables, found.values):
        lines.append(f"{variable.text}: {variable.write(row[0])} to {variable.write(row[-1])}")
    return "\n".join([*lines, *(f"warning: {text}" for text in found.warnings)])


def _told(one: Interval) -> str:
    return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"
