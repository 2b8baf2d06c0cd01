"""``cryoscape rare``: states of a few per cent, with the evidence for them and their particles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import RunFolder, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.rare.states import RareFindings, RareState


def rare(
    run: RunFolder,
    /,
    *,
    fdr: Annotated[float, Parameter(help="Expected share of wrong particles in the list of a state.")] = 0.05,
    candidates: Annotated[int, Parameter(help="Structures that all images are compared with first.")] = 48,
    resamples: Annotated[int, Parameter(help="Fits behind the intervals.")] = 200,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"], help="Folder of the results [RUN].")] = None,
    threads: Annotated[int, Parameter(help="CPU threads; 0 for all.")] = 1,
    seed: int = 0,
) -> None:
    """Look for rare states, and keep those that images which did not propose them ask for.

    Writes analysis/rare.json, .npz (with the probability of each state for every particle) and .png,
    ensemble/rare.cif or maps/rare_1.mrc, ..., and the particles of each rare state.
    """
    from cryoscape.analysis.rare.files import write_rare
    from cryoscape.analysis.rare.finder import find_rare_states
    from cryoscape.report.rare_plots import write_rare_plot
    from cryoscape.training.run import Run

    one_thread(threads)
    opened = Run.open(run)
    folder = Path(run) if out is None else out
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, not a folder", file=folder, remedy="Name a folder with -o.")
    found = find_rare_states(
        opened,
        fdr=fdr,
        candidates=candidates,
        resamples=resamples,
        seed=seed,
        progress=reporter(),
    )
    written = [*write_rare(found, opened, folder), write_rare_plot(found, folder / "analysis")]
    say(describe(found))
    say(f"written: {', '.join(str(path) for path in written)}")


def describe(found: RareFindings) -> str:
    """Lay out the states as a table, and say what they rest on."""
    head = (
        *("state", "kind", "%", "95 %", "nearest", "A from it", "nats from it", "held-out nats"),
        *("particles", "images to detect", "to halve the interval"),
    )
    return "\n".join([table(head, [_row(state, found) for state in found.states]), *_remarks(found)])


def _row(state: RareState, found: RareFindings) -> tuple[str, ...]:
    held = state.held_out
    return (
        state.name,
        state.kind,
        f"{100 * state.population:.2f}",
        f"{100 * state.low:.2f} .. {100 * state.high:.2f}",
        "-" if state.nearest is None else found.states[state.nearest].name,
        "-" if state.rmsd is None else f"{state.rmsd:.2f}",
        "-" if state.nats is None else f"{state.nats:.2g}",
        "-" if held is None else f"{held.gain:.1f} +- {held.error:.1f}",
        str(len(state.retrieved)),
        _more(state.to_detect, found.n_images),
        _more(state.to_halve, found.n_images),
    )


def _more(needed: float | None, n: int) -> str:
    from cryoscape.analysis.rare.files import more_images

    more = more_images(needed, n)
    return "-" if more is None else "enough" if more == 0 else f"+{more}"


def _remarks(found: RareFindings) -> list[str]:
    n = len(found.rare)
    count = "no rare state" if n == 0 else f"{n} rare state{'s' if n > 1 else ''}"
    lines = [
        f"{count}; {found.n_images} images, {found.n_tested} of them held out from the fit that is tested",
        f"particles: lists with an expected {100 * found.fdr:.3g} % of wrong ones",
        f"evidence is {-found.misfit:+.2f} +- {found.misfit_error:.2f} nats an image from what right "
        "structures would give",
    ]
    for state in found.states:
        if state.kind == "tail" and state.nearest is not None:
            near = found.states[state.nearest].name
            lines.append(f"{state.name} is no state of its own: the population does not dip towards {near}")
        if state.kind == "unsure":
            lines.append(f"warning: held-out images do not ask for {state.name} by two standard errors")
    if found.crowded:
        lines.append(
            "warning: most states lie so near to another that they may be marks along one continuous motion: "
            "look at cryoscape landscape"
        )
    for one in found.suspects:
        lines.append(
            f"perhaps one more at {100 * one.population:.2g} %, {one.nats:.2g} nats from the others: "
            f"held out {one.held_out.gain:+.1f} +- {one.held_out.error:.1f} nats; "
            f"{one.to_detect:.0f} images would tell"
        )
    return lines
