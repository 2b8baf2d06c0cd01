"""``cryoscape validate``: the report card of a run."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import DataDir, one_thread, read_particles
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.validation.results import ReportCard

UNSOUND = 3
"""Exit code of --strict where a motion is not supported or a check failed."""


def validate(
    run: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Run folder; or the structures (.pdb, .cif) or maps (.mrc) that another program made.",
        ),
    ],
    /,
    *,
    level: Annotated[
        Literal["quick", "standard", "full"],
        Parameter(help="quick: nothing is trained again; standard: halves and nulls are; full: all."),
    ] = "quick",
    strict: Annotated[
        bool, Parameter(negative="", help="Exit with 3 unless all motions are supported and no check fails.")
    ] = False,
    particles: Annotated[
        Path | None, Parameter(help="Of another program's structures or maps: their .star or .cs.")
    ] = None,
    latents: Annotated[
        Path | None,
        Parameter(help="Of another program: its z.npy or z.N.pkl, in the order of the particles."),
    ] = None,
    reference: Annotated[
        Path | None, Parameter(help="An independent model to start from, at level full.")
    ] = None,
    out: Annotated[
        Path | None, Parameter(name=["--out", "-o"], help="Folder of the results [RUN/analysis].")
    ] = None,
    datadir: DataDir = None,
    threads: Annotated[int, Parameter(help="CPU threads; 0 for all.")] = 1,
    seed: int = 0,
) -> int:
    """Judge every motion: supported, prior-limited, pose-entangled or not distinguishable from null.

    Writes validation.json, .npz and .png, and the page of the report where it is a run of ours.
    """
    from cryoscape.analysis.validation.results import Level
    from cryoscape.analysis.validation.validate import validate_files, validate_run
    from cryoscape.files import is_run
    from cryoscape.report.validation_plots import write_validation_plot

    one_thread(threads)
    ours = len(run) == 1 and is_run(run[0])
    folder = _folder(run, particles, ours, out)
    if ours:
        from cryoscape.training.run import Run

        if particles is not None or latents is not None:
            raise InputError(
                "a run of ours knows its particles and latents", remedy="Leave out --particles and --latents."
            )
        found = validate_run(
            Run.open(run[0]), Level(level), reference=reference, seed=seed, progress=reporter()
        )
    else:
        assert particles is not None
        found = validate_files(
            run,
            read_particles(particles, datadir),
            Level(level),
            latents=latents,
            seed=seed,
            progress=reporter(),
        )
    written = [*found.write(folder), write_validation_plot(found.card, found.arrays, found.model, folder)]
    if ours and out is None:
        from cryoscape.report.page import write_report

        written.append(write_report(Run.open(run[0])))
    say(describe(found.card))
    say(f"written: {', '.join(str(path) for path in written)}")
    return UNSOUND if strict and not found.card.sound else 0


def _folder(run: tuple[Path, ...], particles: Path | None, ours: bool, out: Path | None) -> Path:
    if not run:
        raise InputError("nothing to judge", remedy="Give a run folder, or structures and --particles.")
    if not ours:
        if any(path.is_dir() for path in run):
            raise InputError(
                "this is not a run folder (no run.json)",
                file=next(path for path in run if path.is_dir()),
                remedy="Give a run folder, or the structures or maps of another program as files.",
            )
        if particles is None:
            raise InputError(
                "structures or maps alone cannot be judged", remedy="Name their images with --particles."
            )
        if out is None:
            raise InputError("there is no run folder to write into", remedy="Name a folder with -o.")
    folder = run[0] / "analysis" if out is None else out
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, not a folder", file=folder, remedy="Name a folder with -o.")
    return folder


def describe(card: ReportCard) -> str:
    """Lay out the verdicts and the checks."""
    lines = []
    for motion in card.motions:
        lines += [f"{motion.name} ({motion.where}): {str(motion.verdict).upper()}", f"    {motion.why}"]
    lines.append("")
    for check in card.checks:
        lines += _wrapped(f"{check.number:2d}  {check.status!s:<9} {check.name}: {check.text}")
    lines += [f"warning: {text}" for text in card.warnings]
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, width=118, subsequent_indent=" " * 14)
