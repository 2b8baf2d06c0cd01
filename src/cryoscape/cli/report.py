"""``cryoscape report``: the run as one page."""

from __future__ import annotations

from cryoscape.cli.console import say
from cryoscape.cli.options import RunFolder


def report(run: RunFolder, /) -> None:
    """Write report.html, one file that opens offline."""
    from cryoscape.report.page import write_report
    from cryoscape.training.run import Run

    say(f"written: {write_report(Run.open(run))}")
