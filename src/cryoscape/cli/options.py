"""Types of command-line options that several commands share, and how they open their inputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.data.particles import Particles
    from cryoscape.structures.atomic_model import AtomicModel

RunFolder = Annotated[Path, Parameter(help="Run folder.")]
OutFolder = Annotated[Path, Parameter(name=["--out", "-o"], help="Output folder.")]
DecodedOut = Annotated[
    Path, Parameter(name=["--out", "-o"], help="OUT.npz, OUT.cif, OUT.bcif, OUT.pdb or OUT.mrc.")
]
PRIOR_KINDS = (
    "normal, mixture, vamp, flow, diffusion, hierarchy, energy, recovery, boltzmann, grbm; "
    "of bits bernoulli, bm, rbm or dbm."
)
Lowpass = Annotated[float | None, Parameter(help="Filter maps to this resolution, A.")]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, ...")]
DataDir = Annotated[Path | None, Parameter(help="Folder to look for the stacks in.")]

Passthrough = Annotated[
    tuple[Path, ...],
    Parameter(consume_multiple=True, show_default=False, help="Passthrough .cs files, where not beside."),
]


def one_thread(threads: int = 1) -> None:
    """Limit PyTorch to `threads` CPU threads; 0 leaves its own choice."""
    import torch

    if threads > 0:
        torch.set_num_threads(threads)


def read_particles(path: Path, datadir: Path | None = None, passthrough: tuple[Path, ...] = ()) -> Particles:
    """Read a particle table."""
    from cryoscape.data.particles import Particles

    return Particles.read(path, datadir=datadir, passthrough=passthrough)


def scan_images(particles: Particles, limit: int | None = None) -> None:
    """Read images and raise `InputError` for the first that is not finite or constant.

    Parameters
    ----------
    particles : Particles
    limit : int, optional
        Look at so many at most, spread over the table.
    """
    import numpy as np

    from cryoscape.data.particles import check_pixels

    n = len(particles)
    rows = np.arange(n) if limit is None or n <= limit else np.linspace(0, n - 1, limit).astype(int)
    with reporter().task("scan images", len(rows), "images") as bar:
        for part in np.array_split(rows, max(1, len(rows) // 512)):
            check_pixels(particles, part)
            bar.advance(len(part))


def read_model(path: Path) -> AtomicModel:
    """Read a reference model, and say what of it is left out."""
    from cryoscape.structures.atomic_model import AtomicModel

    model = AtomicModel.read(path)
    for note in model.notes:
        say(f"{path.name}: {note}")
    return model


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
