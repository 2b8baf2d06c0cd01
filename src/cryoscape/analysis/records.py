"""JSON and array files of the analysis folder."""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from cryoscape.errors import InputError
from cryoscape.files import atomic_path


def plain(value: Any) -> Any:
    """Turn numpy values into what JSON knows; NaN and infinities become null."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def write_json(path: str | PathLike[str], content: dict[str, Any]) -> Path:
    """Write a JSON file atomically; its folder is made where needed.

    Parameters
    ----------
    path : path
        Where to.
    content : dict
        What; numpy values are allowed.

    Returns
    -------
    Path
        The file written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Path(temporary).write_text(
            json.dumps(plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
    return path


def write_arrays(path: str | PathLike[str], arrays: dict[str, np.ndarray]) -> Path:
    """Write an .npz file atomically; its folder is made where needed.

    Parameters
    ----------
    path : path
        Where to.
    arrays : dict of ndarray
        What.

    Returns
    -------
    Path
        The file written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    return path


def read_json(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a JSON file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    dict

    Raises
    ------
    InputError
        The file is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            "this is not a JSON file", file=path, remedy="Delete it and run the analysis again."
        ) from error
