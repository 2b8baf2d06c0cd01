"""``cryoscape decode``: the structures or maps that belong to particles or latent points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.decoded_files import DecodedFile
from cryoscape.cli.options import (
    DataDir,
    DecodedOut,
    Lowpass,
    RunFolder,
    need_file,
    one_thread,
    read_particles,
)
from cryoscape.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cryoscape.training.run import Run


def decode(
    run: RunFolder,
    /,
    *,
    out: DecodedOut,
    particles: Annotated[
        str | None,
        Parameter(help="`all`, a .star or .cs with some of them, or row numbers (.npy, .txt)."),
    ] = None,
    z: Annotated[Path | None, Parameter(help="Latent points, .npy (n, d).")] = None,
    lowpass: Lowpass = None,
    datadir: DataDir = None,
) -> None:
    """Write one structure or one map a particle or latent point, in the frame of the model file as given.

    .mrc: OUT.mrc for one, OUT_000.mrc, OUT_001.mrc, ... for several. .npz: `coords` (n, residues, 3)
    float32 in A, or `maps` (n, box, box, box) where the run decodes maps; `z`, and for particles `row`
    and `uid`. .cif, .bcif and .pdb: one model each.
    """
    from cryoscape.training.run import Run

    if (particles is None) == (z is None):
        raise InputError("what to decode is not clear", remedy="Give either --particles or --z.")
    file = DecodedFile(out, lowpass)
    one_thread()
    opened = Run.open(run)
    file.check(opened)
    arrays = _of_points(opened, z) if z is not None else _of_particles(opened, str(particles), datadir)
    file.write(opened, arrays)


def _of_points(run: Run, path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    need_file(path, "Give latent points as .npy.")
    try:
        z = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise InputError("not an .npy file", file=path, remedy="Save it with numpy.save.") from error
    d = run.config.z_dim
    if not isinstance(z, np.ndarray) or z.ndim != 2 or z.shape[1] != d or not len(z):
        shape = getattr(z, "shape", "several arrays")
        raise InputError(f"latent points have shape {shape}", file=path, remedy=f"Give an array (n, {d}).")
    if z.dtype.kind not in "fiu" or not np.isfinite(z).all():
        raise InputError("latent points are not all finite numbers", file=path, remedy="Remove these rows.")
    return {"z": z.astype(np.float32)}


def _of_particles(run: Run, which: str, datadir: Path | None) -> dict[str, np.ndarray]:
    import numpy as np

    embedding = run.embedding
    if embedding is None:
        raise InputError(
            "this run has no embedding yet", file=run.path, remedy="Run `cryoscape embed` first."
        )
    if which == "all":
        chosen = np.arange(len(embedding.z))
    elif Path(which).suffix in (".npy", ".txt"):
        chosen = _places(embedding.row, _read_rows(Path(which)), Path(which), "row")
    else:
        path = Path(which)
        chosen = _places(embedding.uid, read_particles(path, datadir).uid, path, "particle")
    return {
        "z": np.asarray(embedding.z[chosen], dtype=np.float32),
        "row": embedding.row[chosen],
        "uid": embedding.uid[chosen],
    }


def _read_rows(path: Path) -> np.ndarray:
    import numpy as np

    need_file(path, "Give row numbers, counted from 0, as .npy or .txt.")
    try:
        rows = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
        rows = np.asarray(rows)
        whole = rows.astype(np.int64)
    except (ValueError, OSError) as error:
        raise InputError("not a list of rows", file=path, remedy="Give whole numbers, one a line.") from error
    if rows.ndim != 1 or not len(rows) or (whole != rows).any():
        raise InputError("not a list of rows", file=path, remedy="Give whole numbers, one a line.")
    return whole


def _places(known: np.ndarray, wanted: np.ndarray, path: Path, what: str) -> np.ndarray:
    """Return where each of `wanted` stands in `known`."""
    import numpy as np

    order = np.argsort(known, kind="stable")
    found = np.searchsorted(known[order], wanted)
    place = order[np.minimum(found, len(order) - 1)]
    missing = np.flatnonzero(known[place] != wanted)
    if len(missing):
        raise InputError(
            f"{len(missing)} of {len(wanted)} entries are no {what} of this run",
            file=path,
            row=int(missing[0]) + 1,
            remedy="Name particles of the run, or embed the new ones first.",
        )
    return place
