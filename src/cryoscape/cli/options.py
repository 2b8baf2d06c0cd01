"""Types of command-line options that several commands share, and how they open their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles
    from cryoscape.structures.atomic_model import AtomicModel

RunFolder = Annotated[Path, Parameter(help="Run folder.")]
OutFolder = Annotated[Path, Parameter(name=["--out", "-o"], help="Output folder.")]
DataDir = Annotated[Path | None, Parameter(help="Folder to look for the stacks in.")]


def one_thread(threads: int = 1) -> None:
    """Limit PyTorch to `threads` CPU threads; 0 leaves its own choice."""
    import torch

    if threads > 0:
        torch.set_num_threads(threads)


def read_particles(path: Path, datadir: Path | None = None) -> Particles:
    """Read a particle table."""
    from cryoscape.data.particles import Particles

    need_file(path, "Give the .star or .cs file of the particles.")
    return Particles.read(path, datadir=datadir)


def read_model(path: Path | None) -> AtomicModel | None:
    """Read a reference model, where one is named."""
    if path is None:
        return None
    from cryoscape.structures.atomic_model import AtomicModel

    need_file(path, "Give a .cif or .pdb file.")
    return AtomicModel.read(path)


def need_file(path: Path, remedy: str) -> None:
    """Raise `InputError` where `path` is no file."""
    if path.is_dir():
        raise InputError("this is a folder", file=path, remedy=remedy)
    if not path.is_file():
        raise InputError("no such file", file=path, remedy=remedy)


def need_empty_folder(path: Path, remedy: str) -> None:
    """Raise `InputError` where `path` is a file or a folder that holds something."""
    if path.exists() and not path.is_dir():
        raise InputError("this is a file, not a folder", file=path, remedy=remedy)
    if path.is_dir() and any(path.iterdir()):
        raise InputError("the folder holds other files", file=path, remedy=remedy)
