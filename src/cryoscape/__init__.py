"""From cryo-EM particle images to a calibrated ensemble of atomic models and maps."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles
    from cryoscape.errors import InputError
    from cryoscape.structures.atomic_model import AtomicModel
    from cryoscape.training.config import Config
    from cryoscape.training.run import Run
    from cryoscape.training.train import train

__version__ = "0.1.0"
__all__ = ["AtomicModel", "Config", "InputError", "Particles", "Run", "__version__", "train"]

# Resolved on first use, so that `import cryoscape` and `cryoscape --help` stay quick.
_HOME = {
    "AtomicModel": "cryoscape.structures.atomic_model",
    "Config": "cryoscape.training.config",
    "InputError": "cryoscape.errors",
    "Particles": "cryoscape.data.particles",
    "Run": "cryoscape.training.run",
    "train": "cryoscape.training.train",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cryoscape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
