"""``cryoscape junk``: which images are no good particles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import RunFolder, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.junk.find import Junk


def junk(
    run: RunFolder,
    /,
    *,
    fdr: Annotated[float, Parameter(help="Expected share of good particles among those called junk.")] = 0.05,
    candidates: Annotated[int, Parameter(help="Structures that all images are compared with.")] = 24,
    resamples: Annotated[int, Parameter(help="Fits behind the interval.")] = 200,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder of the results [RUN/analysis].")
    ] = None,
    threads: Annotated[int, Parameter(help="CPU threads; 0 for all.")] = 1,
    seed: int = 0,
) -> None:
    """Weigh for every image whether it shows the particle, another object, a displaced particle or nothing.

    All images are compared with structures that cover what the run decodes; the encoder has no say. Writes
    junk.json, .npz and .png, and the particle table with the scores: all rows, and those that are kept.
    """
    from cryoscape.analysis.junk.find import find_junk
    from cryoscape.analysis.junk.junk_files import write_junk
    from cryoscape.report.junk_plots import write_junk_plot
    from cryoscape.training.run import Run

    one_thread(threads)
    opened = Run.open(run)
    folder = Path(run) / "analysis" if out is None else out
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, not a folder", file=folder, remedy="Name a folder with -o.")
    found = find_junk(
        opened, rate=fdr, candidates=candidates, resamples=resamples, seed=seed, progress=reporter()
    )
    written = [*write_junk(found, opened.particles, folder), write_junk_plot(found, folder)]
    say(describe(found))
    say(f"written: {', '.join(str(path) for path in written)}")


def describe(found: Junk) -> str:
    """Lay out the classes as a table, and say what was called junk and what that rests on."""
    from cryoscape.analysis.junk.junk_files import junk_record

    record = junk_record(found)
    rows = [
        (
            row["name"],
            f"{100 * row['share']:.1f}",
            f"{100 * row['low']:.1f} .. {100 * row['high']:.1f}",
            str(row["most_probable"]),
            str(row["called"]),
        )
        for row in record["classes"]
    ]
    by = f"{found.groups} micrographs" if found.groups else "particles"
    share = f"{100 * record['junk_share']:.1f} % [{100 * record['junk_share_low']:.1f}, "
    lines = [
        table(("class", "%", "95 %", "most probable", "called junk"), rows),
        f"{share}{100 * record['junk_share_high']:.1f}] of {record['particles']} images are junk, from "
        f"{found.structures} structures; intervals by {by}",
        _cut(record),
    ]
    if record["kept"]:
        lines.append(
            f"kept particles: {record['gain_over_one_structure']:+.2f} nats an image over the best single "
            f"structure; strength {record['amplitude_mean']:.2f} +- {record['amplitude_sd']:.2f}; what is "
            f"left of them has z {record['residual_z_mean']:+.2f} +- {record['residual_z_sd']:.2f} "
            "(noise: 0 +- 1)"
        )
    return "\n".join([*lines, *(f"warning: {text}" for text in found.warnings)])


def _cut(record: dict) -> str:
    rate = f"{100 * record['fdr']:g} %"
    if not record["called"]:
        return f"nothing is called junk: among no images would {rate} or fewer be good"
    good, kept = 100 * record["expected_good_among_called"], record["kept"]
    left = f", {100 * record['expected_junk_among_kept']:.2g} % of them junk" if kept else ""
    return (
        f"called junk: {record['called']} images with a probability of "
        f"{record['probability_at_the_cut']:.2g} or more, {good:.2g} % of them good (at most {rate}); "
        f"kept: {kept}{left}"
    )
