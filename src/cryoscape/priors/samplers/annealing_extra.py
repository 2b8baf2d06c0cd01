"""The optional packages dimod and dwave-samplers, and a clear word where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from cryoscape.errors import InputError


def has_extra() -> bool:
    """Whether the annealing packages are installed."""
    try:
        return importlib.util.find_spec("dwave.samplers") is not None
    except ModuleNotFoundError:
        return False


def import_extra(module: str) -> ModuleType:
    """Import a module of dimod or dwave-samplers.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{module} is not installed, which this sampler needs",
            remedy="Run: pip install 'cryoscape[annealing]'",
        ) from error
