"""``cryoscape states``: a map of each state from the images alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import Device, RunFolder, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.states.states import StatesSummary

SURE, CLEAR = 4.0, 0.25
"""Margin (standard deviations) and correlation of differences from which a state counts as told apart."""


def states(
    run: RunFolder,
    /,
    *,
    number: Annotated[
        int | None, Parameter(name="--states", help="How many [what prior or codes show].")
    ] = None,
    weights: Annotated[
        Path | None, Parameter(help="Memberships of your own: .npy, particles by states.")
    ] = None,
    landscape: Annotated[
        bool, Parameter(show_default=False, help="Memberships that `cryoscape landscape` found.")
    ] = False,
    box: Annotated[
        Literal["band", "full"], Parameter(help="Sampling of the maps: the run's band, or the images'.")
    ] = "band",
    b_factor: Annotated[
        float | None, Parameter(help="Of the sharpened maps, A^2, negative sharpens [from each map].")
    ] = None,
    threads: Annotated[int, Parameter(help="CPU threads; 0 for all.")] = 1,
    device: Device = "auto",
    seed: int = 0,
) -> None:
    """Back-project the images of each state into half maps, and compare maps with models."""
    from cryoscape.analysis.landscape.membership import read_landscape_membership
    from cryoscape.analysis.prior_fitting.states import states_of_run
    from cryoscape.analysis.states.membership import read_weights
    from cryoscape.analysis.states.states import make_states
    from cryoscape.report.state_plots import write_state_plots
    from cryoscape.training.hardware import find_device
    from cryoscape.training.run import Run

    if number is not None and weights is not None:
        raise InputError(
            "--states and --weights exclude each other", remedy="The columns of --weights are the states."
        )
    if landscape and (number is not None or weights is not None):
        raise InputError(
            "--landscape excludes --states and --weights", remedy="The states of the landscape are taken."
        )
    one_thread(threads)
    opened = Run.open(run)
    if landscape:
        membership = read_landscape_membership(opened)
    elif weights is None:
        reporter().note("states of the latent codes")
        membership = states_of_run(opened, number, seed)
    else:
        membership = read_weights(weights, opened)
    summary = make_states(
        opened,
        membership,
        box=box,
        b_factor=b_factor,
        device=str(find_device(device)),
        seed=seed,
        progress=reporter(),
    )
    plots = write_state_plots(summary)
    say(describe(summary))
    say(f"written: {summary.folder} ({len(summary.files) + 1 + len(plots)} files)")


def describe(summary: StatesSummary) -> str:
    """Lay out the states as a table, and say what the comparison with the models found."""
    member, score = summary.membership, summary.specificity
    rows = []
    for k, state in enumerate(summary.maps):
        bound = "<= " if state.at_the_limit else ""
        several = len(summary.maps) > 1
        rows.append(
            (
                member.names[k],
                f"{100 * member.share[k]:.1f}",
                f"{member.effective[k]:.0f}",
                "none" if state.resolution == float("inf") else f"{bound}{state.resolution:.2f}",
                "-" if state.b_factor is None else f"{state.b_factor:.0f}",
                f"{score.plain[k, k]:.2f}",
                f"{score.difference[k, k]:.2f}" if several else "-",
                f"{score.margin[k]:+.1f}" if several else "-",
                ("yes" if score.won[k] else "NO") if several else "-",
            )
        )
    head = (
        *("state", "share, %", "images", "resolution, A", "B, A^2"),
        *("model", "difference", "margin, sd", "own model best"),
    )
    return "\n".join([table(head, rows), *_remarks(summary)])


def _remarks(summary: StatesSummary) -> list[str]:
    member, score = summary.membership, summary.specificity
    lines = []
    if len(summary.maps) == 1:
        lines.append("one state: there is nothing to tell it from; --states K divides the codes into K")
    else:
        lost = [name for name, won in zip(member.names, score.won) if not won]
        sure = score.won_in_both_halves & (score.margin >= SURE) & (score.difference.diagonal() >= CLEAR)
        shaky = [name for name, won, well in zip(member.names, score.won, sure) if won and not well]
        if not lost:
            lines.append("every map's difference from the mean fits its own model best")
        else:
            lines.append(f"warning: not told apart from another state by its images: {', '.join(lost)}")
        if shaky:
            lines.append(f"warning: told apart so weakly that chance may do it: {', '.join(shaky)}")
    none = int((member.label < 0).sum())
    if none:
        lines.append(f"{none} particles have no state with more than half of their weight")
    lines += [
        f"{name}: the half maps agree to the end of the band; --box full shows how far they do"
        for name, state in zip(member.names, summary.maps)
        if state.at_the_limit
    ]
    lines += [
        f"{name}: not sharpened, its resolution is too low for a Guinier plot (--b-factor gives a value)"
        for name, state in zip(member.names, summary.maps)
        if state.sharpened is None
    ]
    return lines
