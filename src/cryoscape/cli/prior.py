"""``cryoscape prior``: laws of the population, fitted to embeddings of any program after the fact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from cryoscape.cli import overrides
from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import PRIOR_KINDS, one_thread
from cryoscape.cli.prior_compare import EmbeddingFile, Entry, ObjectiveName, compare
from cryoscape.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cryoscape.priors.base import LatentPrior

prior = App(name="prior", help="Fit, compare, score and sample priors on saved embeddings.")


PriorFolder = Annotated[Path, Parameter(help="Folder that `prior fit` wrote, or a run.")]
_CHUNK = 20_000


@prior.command
def fit(
    embedding: EmbeddingFile,
    /,
    *,
    kind: Annotated[
        str,
        Parameter(help=PRIOR_KINDS),
    ],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Folder to write.")],
    objective: ObjectiveName = "aggregate",
    steps: Annotated[
        int | None, Parameter(help="Optimiser steps after the warm start; by default those of the kind.")
    ] = None,
    lr: Annotated[float | None, Parameter(help="Learning rate; by default that of the kind.")] = None,
    seed: int = 0,
    entry: Entry = None,
    force: Annotated[bool, Parameter(show_default=False, help="Replace an earlier prior.")] = False,
    settings: Annotated[tuple[str, ...], Parameter(name="--set", show=False)] = (),
) -> None:
    """Fit one prior to an embedding.

    Every setting of the kind can be given as --prior.option VALUE, for example --prior.components 32.
    """
    from cryoscape.analysis.prior_fitting.embedding_sources import read_embedding
    from cryoscape.analysis.prior_fitting.fit import fit_to_embedding
    from cryoscape.cli.prior_summary import describe_fit
    from cryoscape.priors.folder import StoredPrior, need_place, save_prior

    chosen = resolve(kind, settings)
    if (steps is not None and steps < 0) or (lr is not None and not lr > 0):
        raise InputError("--steps is negative, or --lr not positive", remedy="Give larger ones.")
    need_place(out, force)
    one_thread()
    source = read_embedding(embedding, entry)
    fitted, report = fit_to_embedding(
        chosen, source, objective, steps=steps, lr=lr, seed=seed, progress=reporter()
    )
    origin = {"path": str(embedding), "entry": entry, "description": source.description, "seed": seed}
    stored = StoredPrior(fitted, chosen, report, origin)
    say(describe_fit(stored, len(source)))
    say(f"written: {save_prior(out, stored, replace=force)}")


@prior.command
def score(
    folder: PriorFolder,
    points: Annotated[Path, Parameter(help="Points, .npy (n, d), in the units of the embedding.")],
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Scores to write, .npy (n,).")],
) -> None:
    """Write log p of points, nats, in the units of the embedding as it was given (float64)."""
    from cryoscape.analysis.prior_fitting.embedding_sources import read_points

    _need_npy(out)
    one_thread()
    z = read_points(points)
    found = _open(folder)
    _need_fit(found, z, points)
    scores = _log_prob(found, z)
    _write_npy(out, scores)
    partition = found.log_partition()
    error = f", each with the error of log Z, {partition.std_err:.2g} nats ({partition.method})"
    mean = f"mean log p {scores.mean():.4g} nats"
    say(f"written: {out} ({len(z)} points, {mean}{error if partition.std_err > 0 else ''})")
    _say_faults(found)


@prior.command
def sample(
    folder: PriorFolder,
    /,
    *,
    number: Annotated[int, Parameter(name=["-n", "--number"], help="How many.")],
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="Points to write, .npy (n, d).")],
    seed: int = 0,
) -> None:
    """Draw points from a prior, in the units of the embedding (float32)."""
    import numpy as np
    import torch

    _need_npy(out)
    if number < 1:
        raise InputError(f"{number} samples cannot be drawn", remedy="Give -n 1 or more.")
    one_thread()
    found = _open(folder)
    points = found.sample(number, torch.Generator().manual_seed(seed))
    _write_npy(out, points.numpy().astype(np.float32))
    say(f"written: {out} ({number} points of {found.z_dim} dimensions)")
    _say_faults(found)


prior.command(compare)


def resolve(kind: str, pairs: tuple[str, ...]) -> Any:
    """Settings of a prior from its kind and --prior.option values.

    Raises
    ------
    InputError
        For unknown names and values out of range, by dotted path.
    """
    from cryoscape.priors.config import PriorConfig
    from cryoscape.settings import Section

    class Settings(Section):
        prior: PriorConfig

    tree = overrides.nested(pairs)
    given = tree.get("prior", {})
    if isinstance(given, dict):
        if given.get("kind", kind) != kind:
            raise InputError(
                f"--kind {kind} and --prior.kind {given['kind']} differ", remedy="Give one of them."
            )
        for name in ("lr", "start"):
            if name in given:
                instead = "Give --lr." if name == "lr" else "Leave it out."
                raise InputError(f"--prior.{name} is a setting of joint training alone", remedy=instead)
        overrides.put(tree, "prior.kind", kind)
    return overrides.build(Settings, tree).prior


def _open(folder: Path) -> LatentPrior:
    if (folder / "run.json").is_file():
        from cryoscape.training.run import Run

        return Run.open(folder).prior
    from cryoscape.priors.folder import load_prior

    return load_prior(folder).prior


def _need_fit(found: LatentPrior, z: np.ndarray, path: Path) -> None:
    import numpy as np

    if z.shape[1] != found.z_dim:
        raise InputError(
            f"points of {z.shape[1]} dimensions do not fit a prior of {found.z_dim}",
            file=path,
            remedy=f"Give an array (n, {found.z_dim}).",
        )
    if found.support == "binary":
        bits = np.isin(z, (0.0, 1.0)).all(axis=1)
        if not bits.all():
            raise InputError(
                "not all values are 0 or 1, and the prior is a law of bits",
                file=path,
                row=int((~bits).argmax()) + 1,
                remedy="Give bits; sample probabilities first.",
            )


def _log_prob(found: LatentPrior, z: np.ndarray) -> np.ndarray:
    """Log density in double precision, shape (n,)."""
    import numpy as np
    import torch

    found = found.double()
    with torch.no_grad():
        parts = torch.from_numpy(z).split(_CHUNK)
        return np.concatenate([found.log_prob(part).numpy() for part in parts]).astype(np.float64)


def _need_npy(out: Path) -> None:
    if out.suffix != ".npy":
        raise InputError("unknown kind of file", file=out, remedy="End the name in .npy.")
    if out.is_dir():
        raise InputError("this is a folder", file=out, remedy="Name a file to write.")


def _write_npy(out: Path, array: np.ndarray) -> None:
    import numpy as np

    from cryoscape.files import atomic_path

    with atomic_path(out) as temporary, open(temporary, "wb") as stream:
        np.save(stream, array)


def _say_faults(found: LatentPrior) -> None:
    for fault in found.faults():
        say(f"warning: {fault}")
