"""``cryoscape decode``: the structures that belong to particles or latent points."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say
from cryoscape.cli.options import DataDir, RunFolder, need_file, one_thread, read_particles
from cryoscape.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cryoscape.training.run import Run

_CHUNK = 256
_TEXT_LIMIT = 20_000_000  # atoms in a multi-model text file that programs still open


def decode(
    run: RunFolder,
    /,
    *,
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="OUT.npz, OUT.cif, OUT.bcif or OUT.pdb.")],
    particles: Annotated[
        str | None,
        Parameter(help="`all`, a .star or .cs with some of them, or row numbers (.npy, .txt)."),
    ] = None,
    z: Annotated[Path | None, Parameter(help="Latent points, .npy (n, d).")] = None,
    datadir: DataDir = None,
) -> None:
    """Write one structure a particle or latent point, in the frame of the model file as given.

    .npz holds `coords` (n, residues, 3) float32 in A, `z`, and for particles `row` and `uid`;
    .cif, .bcif and .pdb hold one model each.
    """
    from cryoscape.training.run import Run

    if (particles is None) == (z is None):
        raise InputError("what to decode is not clear", remedy="Give either --particles or --z.")
    _need_known_ending(out)
    one_thread()
    opened = Run.open(run)
    if opened.model is None:
        raise InputError(
            "this run has no atomic model", file=run, remedy="Decode a run trained with --model."
        )
    arrays = _of_points(opened, z) if z is not None else _of_particles(opened, str(particles), datadir)
    if out.suffix == ".npz":
        _write_npz(opened, arrays, out)
    else:
        _write_models(opened, arrays["z"], out)
    say(f"written: {out} ({len(arrays['z'])} structures)")


def _need_known_ending(out: Path) -> None:
    name = out.name.removesuffix(".gz")
    if out.suffix != ".npz" and not name.endswith((".cif", ".bcif", ".pdb")):
        raise InputError(
            "unknown kind of file", file=out, remedy="End the name in .npz, .cif, .bcif or .pdb."
        )


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


def _write_npz(run: Run, arrays: dict[str, np.ndarray], out: Path) -> None:
    """Decode in chunks straight into the archive, so that memory does not grow with the particles."""
    import numpy as np

    from cryoscape.files import atomic_path

    z = arrays["z"]
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(z), len(run.model), 3)}
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        with (
            archive.open("coords.npy", "w", force_zip64=True) as member,
            reporter().task("decode", len(z), "structures") as bar,
        ):
            np.lib.format.write_array_header_2_0(member, header)
            for start in range(0, len(z), _CHUNK):
                coords = run.decode(z[start : start + _CHUNK])
                member.write(np.ascontiguousarray(coords, dtype="<f4").data)
                bar.advance(len(coords))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _write_models(run: Run, z: np.ndarray, out: Path) -> None:
    from cryoscape.structures.ensemble import write_ensemble

    if len(z) * len(run.model) > _TEXT_LIMIT:
        raise InputError(
            f"{len(z)} structures of {len(run.model)} residues make too large a file",
            file=out,
            remedy="Write .npz, or name fewer particles.",
        )
    write_ensemble(out, run.model, run.decode(z))
