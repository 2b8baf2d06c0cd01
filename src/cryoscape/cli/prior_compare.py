"""``cryoscape prior compare``: the table of priors with its floors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cryoscape.cli import overrides
from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.prior_fitting.comparison import JudgedPrior, PriorComparison
    from cryoscape.analysis.prior_fitting.metrics import SampleScores

EmbeddingFile = Annotated[
    Path, Parameter(help="A run, .npy (N, d), .npz with z, cryoDRGN's z.N.pkl, RECOVAR's latent_coords.npy.")
]
Entry = Annotated[
    str | None, Parameter(help="Which embedding of a file with several, e.g. 10_noreg of RECOVAR's.")
]
ObjectiveName = Annotated[
    Literal["aggregate", "deconvolved"],
    Parameter(help="The law of the embeddings, or that of the population behind their errors."),
]

_COLUMNS = (
    "prior", "log p, nats", "below best", "TVD 20", "TVD 50", "TVD 100", "sliced W",
    "AUROC", "accuracy", "holes, %", "fit, s",
)  # fmt: skip


def compare(
    embedding: EmbeddingFile,
    /,
    *,
    kinds: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, show_default=False, help="Kinds; by default all that suit."),
    ] = (),
    objective: ObjectiveName = "aggregate",
    samples: Annotated[
        int | None, Parameter(help="Samples of each prior; by default as many as half of the particles.")
    ] = None,
    seed: int = 0,
    entry: Entry = None,
    json: Annotated[Path | None, Parameter(help="Write the table as JSON.")] = None,
    plot: Annotated[Path | None, Parameter(help="Draw samples over data, .png.")] = None,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show=False)] = (),
) -> None:
    """Fit priors to one half of the particles, and judge them on the other beside the floors.

    Settings can be given as --KIND.option VALUE, for example --mixture.components 32. The prior that a run
    was trained with is an extra row.
    """
    from cryoscape.analysis.prior_fitting.comparison import compare_priors
    from cryoscape.analysis.prior_fitting.embedding_sources import read_embedding
    from cryoscape.analysis.records import write_json

    if plot is not None and plot.suffix != ".png":
        raise InputError("unknown kind of file", file=plot, remedy="End the name in .png.")
    if samples is not None and samples < 100:
        raise InputError(f"{samples} samples are too few to be judged", remedy="Give --samples 100 or more.")
    chosen = resolve_all(kinds, settings)
    one_thread()
    source = read_embedding(embedding, entry)
    if not kinds:
        chosen = [each for each in chosen if each.support == source.support]
    found = compare_priors(source, chosen, objective, samples=samples, seed=seed, progress=reporter())
    say(describe(found))
    if json is not None:
        origin = {"embedding": str(embedding), "entry": entry, "description": source.description}
        say(f"written: {write_json(json, origin | {'seed': seed} | found.to_dict())}")
    if plot is not None:
        from cryoscape.report.prior_plots import write_prior_plot

        say(f"written: {write_prior_plot(plot, found)}")


def resolve_all(kinds: tuple[str, ...], pairs: tuple[str, ...]) -> list[Any]:
    """Settings of several kinds (of all where none is named), with --KIND.option values.

    Raises
    ------
    InputError
        For unknown kinds and names, and values out of range.
    """
    from pydantic import create_model

    from cryoscape.analysis.prior_fitting.fit import prior_kinds
    from cryoscape.settings import Section

    known = prior_kinds()
    for kind in kinds:
        if kind not in known:
            raise InputError(f"there is no prior {kind!r}", remedy=f"Choose among {', '.join(known)}.")
    tree = overrides.nested(pairs)
    for kind, given in tree.items():
        for name in ("lr", "start"):
            if isinstance(given, dict) and name in given:
                raise InputError(
                    f"--{kind}.{name} is a setting of joint training alone", remedy="Leave it out."
                )
    fields: dict[str, Any] = {kind: (cls, cls()) for kind, cls in known.items()}
    every = overrides.build(create_model("KindSettings", __base__=Section, **fields), tree)
    return [getattr(every, kind) for kind in (dict.fromkeys(kinds) or known)]


def describe(found: PriorComparison) -> str:
    """Lay out a comparison: the table, what it rests on, and its warnings."""
    rows = [_row(row) for row in found.rows]
    for name, scores in (("floor", found.floor), ("  its sd", found.floor_sd)):
        rows.append((name, "", "", *_cells(scores, ["  "] * len(scores.values())), ""))
    lines = [
        table(_COLUMNS, rows),
        "",
        f"fitted to {found.train} particles, judged on {found.held_out} others; {found.samples} samples each "
        f"(AUROC and accuracy: {found.classified})",
        "* not above the floor, which is what one half of the data gets against the other",
    ]
    if found.objective == "deconvolved":
        lines.append("log p: evidence of the images over that under the prior of the embedding")
    lines += [f"note: {note}" for note in found.notes]
    lines += [f"warning: {row.name}: {text}" for row in found.rows for text in row.warnings]
    lines += [f"warning: {kind} could not be fitted: {why}" for kind, why in found.failed]
    return "\n".join(lines)


def _row(row: JudgedPrior) -> tuple[str, ...]:
    behind = "best" if row.behind_error == 0 else f"{row.behind:.3f} +- {row.behind_error:.3f}"
    marks = [" *" if good else "  " for good in row.at_floor.values()]
    seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
    log_p = f"{row.log_prob:.3f} +- {row.log_prob_error:.3f}"
    return (row.name, log_p, behind, *_cells(row.scores, marks), seconds)


def _cells(scores: SampleScores, marks: list[str]) -> list[str]:
    """Format the scores, each with its mark."""
    values = scores.values()
    shown = [f"{100 * v:.2f}" if name == "holes" else f"{v:.3f}" for name, v in values.items()]
    return [cell + mark for cell, mark in zip(shown, marks)]
