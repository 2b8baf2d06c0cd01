"""``cryoscape analyze``: what moves, how much, and in which groups."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import RunFolder, one_thread

if TYPE_CHECKING:
    from cryoscape.analysis.prior_fitting.states import PriorFindings
    from cryoscape.analysis.summary import AnalysisSummary


_SERIES = re.compile(r"(.*/(?:pc\d+|cluster|state)_)\d+(\.mrc)")
_LISTED = 12


def analyze(
    run: RunFolder,
    /,
    *,
    components: Annotated[int, Parameter(help="Walks along principal components to write.")] = 3,
    frames: Annotated[int, Parameter(help="Structures or maps a walk.")] = 15,
    clusters: Annotated[int, Parameter(help="Groups for k-means.")] = 6,
    mixture: Annotated[int, Parameter(help="Largest Gaussian mixture to try.")] = 8,
    snap: Annotated[bool, Parameter(show_default=False, help="Walk over real particles only.")] = False,
    umap: Annotated[bool, Parameter(show_default=False, help="Add a UMAP map (an extra).")] = False,
    seed: int = 0,
) -> None:
    """Write components, walks, groups, conformers and plots into the run."""
    from cryoscape.analysis.analyze import analyze as analyze_run
    from cryoscape.training.run import Run

    one_thread()
    summary = analyze_run(
        Run.open(run),
        components=components,
        frames=frames,
        clusters=clusters,
        mixture=mixture,
        snap=snap,
        umap=umap,
        seed=seed,
        say=reporter().note,
    )
    say(describe(summary))
    names = dict.fromkeys(_SERIES.sub(r"\1*\2", name) for name in summary.files)
    say(f"written: {', '.join(str(run / name) for name in (*names, 'analysis/analysis.json'))}")


def describe(summary: AnalysisSummary) -> str:
    """Lay out the short results of an analysis."""
    lines = [
        f"latent code: {summary.collapse.verdict}",
        *(f"  {reason}" for reason in summary.collapse.reasons),
    ]
    if summary.motion is not None:
        found = summary.motion.components
        rows = [
            (f"pc{k + 1}", f"{found.variance[k] ** 0.5:.2f}", f"{100 * found.explained[k]:.1f}")
            for k in range(min(3, len(found.variance)))
        ]
        lines.append(table(("motion", "rms, A", "share, %"), rows))
    if summary.density is not None:
        found = summary.density.components
        rows = [
            (f"pc{k + 1}", f"{100 * found.variance[k] ** 0.5:.1f}", f"{100 * found.explained[k]:.1f}")
            for k in range(min(3, len(found.variance)))
        ]
        lines.append(table(("change of density", "rms, % of it", "share, %"), rows))
        if summary.walks_of is not None:
            lines.append(f"walks and groups are those of {summary.walks_of}")
    if summary.prior is not None:
        lines += _prior_lines(summary.prior)
    count = summary.clusters.count
    rows = [(str(k + 1), str(n), f"{100 * n / count.sum():.1f}") for k, n in enumerate(count)]
    lines.append(table(("group", "particles", "share, %"), rows))
    return "\n".join([*lines, *(f"warning: {text}" for text in summary.warnings)])


def _prior_lines(prior: PriorFindings) -> list[str]:
    """Populations of the prior's states, and the couplings of its switches."""
    held, lines = prior.weights.sum(axis=0), []
    rows = [
        (str(k + 1), f"{100 * share:.1f}", f"{held[k]:.0f}", _parts(prior.members[k]))
        for k, share in enumerate(prior.share[:_LISTED])
    ]
    if rows:
        lines.append(table(("state of the prior", "population, %", "images", "made of"), rows))
    if len(prior.share) > _LISTED:
        rest = 100 * prior.share[_LISTED:].sum()
        lines.append(f"and {len(prior.share) - _LISTED} more, {rest:.1f} % together")
    if prior.couplings is not None:
        m = len(prior.couplings)
        strongest = sorted(
            ((abs(prior.couplings[i, j]), i, j) for i in range(m) for j in range(i + 1, m)), reverse=True
        )
        said = ", ".join(f"{i + 1}-{j + 1} {prior.couplings[i, j]:+.2f}" for _, i, j in strongest[:6])
        lines.append(f"couplings of the switches, kT, strongest first: {said}")
    return lines


def _parts(members: tuple[str, ...]) -> str:
    return members[0] if len(members) == 1 else f"{len(members)} parts"
