"""``cryoscape landscape``: free energy along collective variables, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import RunFolder, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.landscape.landscape import Landscape


def landscape(
    run: RunFolder,
    /,
    *,
    cv: Annotated[
        tuple[str, ...],
        Parameter(
            help='Collective variable, once or twice: "distance A:55 A:169", "angle SEL SEL SEL", '
            '"dihedral SEL SEL SEL SEL", "rmsd FILE [SEL]", "rg [SEL]", "pc 1", "occupancy MASK.mrc".'
        ),
    ],
    state: Annotated[
        tuple[str, ...],
        Parameter(
            help='State, once or more: "closed: distance A:55 A:169 < 20" [basins of the profile].',
            show_default=False,
        ),
    ] = (),
    bins: Annotated[int, Parameter(help="Of each variable.")] = 30,
    candidates: Annotated[int, Parameter(help="Structures that all images are compared with.")] = 48,
    resamples: Annotated[int, Parameter(help="Fits behind the intervals.")] = 200,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder of the results [RUN/analysis].")
    ] = None,
    threads: Annotated[int, Parameter(help="CPU threads; 0 for all.")] = 1,
    seed: int = 0,
) -> None:
    """Find populations and free energies of the vitrified sample from the images, with 95 % intervals.

    All images are compared with structures that cover what the run decodes; the encoder has no say. Writes
    landscape.json, .npz (with the probability of each state for every particle) and .png.
    """
    from cryoscape.analysis.landscape.files import write_landscape
    from cryoscape.analysis.landscape.landscape import make_landscape
    from cryoscape.report.landscape_plots import write_landscape_plot
    from cryoscape.training.run import Run

    one_thread(threads)
    opened = Run.open(run)
    folder = Path(run) / "analysis" if out is None else out
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, not a folder", file=folder, remedy="Name a folder with -o.")
    found = make_landscape(
        opened,
        cv,
        states=state,
        bins=bins,
        candidates=candidates,
        resamples=resamples,
        seed=seed,
        progress=reporter(),
    )
    written = [*write_landscape(found, folder), write_landscape_plot(found, folder)]
    say(describe(found))
    say(f"written: {', '.join(str(path) for path in written)}")


def describe(found: Landscape) -> str:
    """Lay out the states as a table, and say what they rest on."""
    rows = [
        (
            state.name,
            state.range,
            f"{100 * state.population:.2f}",
            f"{100 * state.low:.2f} .. {100 * state.high:.2f}",
            f"{state.free_energy:.2f}",
            f"{state.free_energy_low:.2f} .. {state.free_energy_high:.2f}",
            "-" if state.nats is None else f"{state.nats:.2g}",
        )
        for state in found.states
    ]
    if found.elsewhere > 0.0005:
        rows.append(("elsewhere", "", f"{100 * found.elsewhere:.2f}", "", "", "", ""))
    head = ("state", "range", "%", "95 %", "dG, kT", "95 %", "nats to nearest")
    return "\n".join([table(head, rows), *_remarks(found)])


def _remarks(found: Landscape) -> list[str]:
    by = f"{found.groups} micrographs" if found.groups else "particles"
    lines = [
        "the distribution of the vitrified sample, from "
        f"{found.n_images} images and {len(found.z)} structures; intervals by {by}",
        f"evidence {found.evidence:.4f} nats an image, {found.gain:+.4f} +- {found.gain_error:.4f} over the "
        "best single structure",
    ]
    for d, axis in enumerate(found.profile.axes):
        if found.finest is None or found.detail is None:
            continue
        nats = found.detail[d].bin_nats
        low, high = float(nats.min()), float(nats.max())
        lines.append(
            f"{axis.text}: {low:.2g} to {high:.2g} nats an image between neighbouring bins; the images "
            f"cannot resolve this profile finer than {found.finest[d]:.3g} {axis.unit}".rstrip()
        )
    return [*lines, *(f"warning: {text}" for text in found.warnings)]
