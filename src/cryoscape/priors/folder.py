"""A fitted prior in a folder: `prior.json` says what it is, `prior.safetensors` holds its numbers."""

from __future__ import annotations

import json
import math
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from cryoscape.errors import InputError
from cryoscape.files import explain_os_errors
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.config import PriorConfig
from cryoscape.priors.fitting import FitReport

if TYPE_CHECKING:
    from torch import Tensor

DESCRIPTION, TENSORS = "prior.json", "prior.safetensors"
FORMAT = "cryoscape prior 1"

_SETTINGS: TypeAdapter[Any] = TypeAdapter(PriorConfig)
_AGAIN = "Give the folder that `cryoscape prior fit -o` wrote, or fit again."


@dataclass(frozen=True, eq=False)
class StoredPrior:
    """A prior with what it was fitted to.

    Attributes
    ----------
    prior : LatentPrior
        Ready to be used; on the CPU, in single precision.
    settings : PriorConfig
        Its kind and the settings of that.
    report : FitReport or None
        Of the fit.
    source : dict
        Where the embedding came from, in the words of whoever saved it.
    """

    prior: LatentPrior
    settings: Any
    report: FitReport | None = None
    source: dict[str, Any] = field(default_factory=dict)


def need_place(folder: str | PathLike[str], replace: bool = False) -> None:
    """Refuse a folder that `save_prior` must not write to.

    Parameters
    ----------
    folder : path
    replace : bool
        Whether a prior that is there may go; files of any other kind never may.

    Raises
    ------
    InputError
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError("this is a file, not a folder", file=folder, remedy="Choose another output folder.")
    held = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    if held - {DESCRIPTION, TENSORS}:
        raise InputError(
            f"the folder holds other files than a prior ({min(held - {DESCRIPTION, TENSORS})})",
            file=folder,
            remedy="Choose another output folder.",
        )
    if held and not replace:
        raise InputError(
            "the folder holds another prior",
            file=folder,
            remedy="Choose another one, or replace it with --force.",
        )


def save_prior(folder: str | PathLike[str], stored: StoredPrior, replace: bool = False) -> Path:
    """Write a prior, whole or not at all.

    Both files are written into a new folder, which then takes the name of the old one.

    Parameters
    ----------
    folder : path
        Made where needed.
    stored : StoredPrior
    replace : bool
        Whether a prior that is there may go.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        If the folder is not to be written to, or the disk is full.
    """
    folder = Path(folder)
    need_place(folder, replace)
    partition = stored.prior.log_partition()
    description = {
        "format": FORMAT,
        "settings": stored.settings.model_dump(mode="json"),
        "z_dim": stored.prior.z_dim,
        "support": stored.prior.support,
        "log_partition": {name: _finite(value) for name, value in asdict(partition).items()},
        "report": None if stored.report is None else _finite(stored.report.to_dict()),
        "source": stored.source,
    }
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in stored.prior.state_dict().items()}
    mark = secrets.token_hex(4)
    # Behind a link, the folder itself is what is replaced.
    given, folder = folder, folder.resolve()
    fresh, old = (folder.with_name(f".{mark}.{word}.{folder.name}") for word in ("new", "old"))
    try:
        with explain_os_errors(given):
            fresh.mkdir(parents=True)
            _write(fresh / TENSORS, save(tensors))
            _write(fresh / DESCRIPTION, (json.dumps(description, indent=2, allow_nan=False) + "\n").encode())
            if folder.exists():
                os.rename(folder, old)
            os.rename(fresh, folder)
    finally:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return given


def load_prior(folder: str | PathLike[str]) -> StoredPrior:
    """Read what `save_prior` wrote.

    Parameters
    ----------
    folder : path

    Returns
    -------
    StoredPrior

    Raises
    ------
    InputError
        If it is no such folder, or damaged.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise InputError("this is not a fitted prior (no prior.json)", file=folder, remedy=_AGAIN)
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']!r}")
        settings = _SETTINGS.validate_python(description["settings"])
        prior = settings.build(int(description["z_dim"]))
        report = description["report"]
        found = None if report is None else FitReport(**report | {"warnings": tuple(report["warnings"])})
        source = dict(description["source"])
    except (ValidationError, ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"the description of the prior cannot be read: {error}", file=path, remedy=_AGAIN
        ) from error
    _restore(prior, folder / TENSORS)
    return StoredPrior(prior.eval().requires_grad_(False), settings, found, source)


def _restore(prior: LatentPrior, path: Path) -> None:
    try:
        tensors: dict[str, Tensor] = load_file(path)
        prior.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            "the numbers of the prior cannot be read, or are not those of prior.json",
            file=path,
            remedy=_AGAIN,
        ) from error


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _finite(value: Any) -> Any:
    """Plain values for JSON, which knows neither NaN nor infinities."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
