"""``cryoscape evaluate``: recovered against true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import say, table
from cryoscape.cli.options import RunFolder, need_file, one_thread

if TYPE_CHECKING:
    from cryoscape.analysis.evaluation import Evaluation

_ROWS = 12  # states that fit on a screen


def evaluate(
    run: RunFolder,
    /,
    *,
    truth: Annotated[Path, Parameter(help="truth.npz of the simulation.")],
    json: Annotated[Path | None, Parameter(help="Also write the numbers here.")] = None,
) -> None:
    """Compare a run with known truth: CA-RMSD without superposition, populations, order of states."""
    from cryoscape.analysis.evaluate import evaluate as evaluate_run
    from cryoscape.training.run import Run

    one_thread()
    if not truth.is_dir():
        need_file(truth, "Give the truth.npz that the simulation wrote.")
    say(describe(evaluate_run(Run.open(run), truth, json_path=json)))


def describe(found: Evaluation) -> str:
    """Lay out recovered against true."""
    rows = [
        ("mean CA-RMSD, A", f"{found.rmsd:.2f}", f"{found.trivial:.2f}", f"{found.constant:.2f}"),
        ("median CA-RMSD, A", f"{found.rmsd_median:.2f}", "", ""),
        ("mean over states, A", f"{found.rmsd_states:.2f}", "", ""),
    ]
    if found.held_out:
        rows.append(("mean CA-RMSD of particles held out, A", f"{found.held_out['rmsd']:.2f}", "", ""))
    rows.append(("nearest state right, %", f"{100 * found.accuracy:.1f}", f"{100 * found.majority:.1f}", ""))
    lines = [
        f"{found.n_particles} particles, {found.n_residues} residues, no superposition",
        table(("recovered against true", "run", "trivial", "one structure"), rows),
        "",
        _states(found),
    ]
    return "\n".join([*lines, *(f"warning: {text}" for text in found.warnings)])


def _states(found: Evaluation) -> str:
    step = max(1, -(-len(found.states) // _ROWS))
    rows = [
        (
            str(row.state),
            f"{100 * row.population:.1f}",
            f"{100 * row.nearest:.1f}",
            "-" if row.rmsd is None else f"{row.rmsd:.2f}",
            f"{row.trivial:.2f}",
        )
        for row in found.states[::step]
    ]
    every = "" if step == 1 else f" (every {step}th)"
    return table((f"state{every}", "true %", "nearest %", "RMSD, A", "trivial, A"), rows)
