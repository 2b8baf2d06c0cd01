"""``cryoscape decode``: the structures or maps that belong to particles or latent points."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
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
_ARRAY_LIMIT = 4_000_000_000  # bytes of maps in one array that programs still open
_SAID = 1_000_000_000  # bytes of maps from which on the size is announced
_MODELS, _MAPS = (".cif", ".bcif", ".pdb"), (".mrc", ".map")


def decode(
    run: RunFolder,
    /,
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="OUT.npz, OUT.cif, OUT.bcif, OUT.pdb or OUT.mrc.")
    ],
    particles: Annotated[
        str | None,
        Parameter(help="`all`, a .star or .cs with some of them, or row numbers (.npy, .txt)."),
    ] = None,
    z: Annotated[Path | None, Parameter(help="Latent points, .npy (n, d).")] = None,
    lowpass: Annotated[float | None, Parameter(help="Filter maps to this resolution, A.")] = None,
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
    _need_known_ending(out)
    one_thread()
    opened = Run.open(run)
    maps = _makes_maps(opened, out)
    _check_lowpass(opened, lowpass, maps)
    arrays = _of_points(opened, z) if z is not None else _of_particles(opened, str(particles), datadir)
    if maps:
        written = _write_maps(opened, arrays, out, lowpass)
    elif out.suffix == ".npz":
        written = _write_npz(opened, arrays, out)
    else:
        written = _write_models(opened, arrays["z"], out)
    say(f"written: {written} ({len(arrays['z'])} {'maps' if maps else 'structures'})")


def _need_known_ending(out: Path) -> None:
    name = out.name.removesuffix(".gz")
    if out.suffix not in (".npz", *_MAPS) and not name.endswith(_MODELS):
        raise InputError(
            "unknown kind of file", file=out, remedy="End the name in .npz, .cif, .bcif, .pdb or .mrc."
        )


def _makes_maps(run: Run, out: Path) -> bool:
    """Tell whether the file is to hold maps; refuse structures from a run without."""
    if out.suffix in _MAPS:
        return True
    if out.suffix != ".npz" and not run.has_structures:
        raise InputError(
            f"the {run.config.decoder.kind} decoder of this run makes maps, not structures",
            file=out,
            remedy="End the name in .mrc or .npz.",
        )
    return not run.has_structures


def _check_lowpass(run: Run, lowpass: float | None, maps: bool) -> None:
    if lowpass is None:
        return
    if not maps:
        raise InputError("--lowpass filters maps, not structures", remedy="Leave it out, or write .mrc.")
    finest, coarsest = 2 * run.geometry.pixel_size, run.geometry.box * run.geometry.pixel_size / 2
    if not finest <= lowpass <= coarsest:
        raise InputError(
            f"a filter at {lowpass:g} A does not fit maps that hold {finest:.3g} to {coarsest:.3g} A",
            remedy=f"Give --lowpass between {finest:.3g} and {coarsest:.3g}, or leave it out.",
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


def _write_npz(run: Run, arrays: dict[str, np.ndarray], out: Path) -> Path:
    z = arrays["z"]

    def coords() -> Iterator[np.ndarray]:
        for start in range(0, len(z), _CHUNK):
            yield run.decode(z[start : start + _CHUNK])

    _write_archive(out, "coords", (len(z), len(run.structure), 3), coords(), arrays, "structures")
    return out


def _write_archive(
    out: Path,
    name: str,
    shape: tuple[int, ...],
    chunks: Iterator[np.ndarray],
    arrays: dict[str, np.ndarray],
    unit: str,
) -> None:
    """Decode in chunks straight into the archive, so that memory does not grow with the particles."""
    import numpy as np

    from cryoscape.files import atomic_path

    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        with (
            archive.open(f"{name}.npy", "w", force_zip64=True) as member,
            reporter().task("decode", shape[0], unit) as bar,
        ):
            np.lib.format.write_array_header_2_0(member, header)
            for chunk in chunks:
                member.write(np.ascontiguousarray(chunk, dtype="<f4").data)
                bar.advance(len(chunk))
        for key, array in arrays.items():
            with archive.open(f"{key}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def _write_maps(run: Run, arrays: dict[str, np.ndarray], out: Path, lowpass: float | None) -> Path:
    import numpy as np

    from cryoscape.analysis.map_files import map_bytes
    from cryoscape.analysis.map_variation import decode_maps_in_chunks
    from cryoscape.data.mrc import write_map
    from cryoscape.files import need_space

    z, geometry = arrays["z"], run.geometry
    size = len(z) * map_bytes(run)
    need_space(out.parent, size, f"{len(z)} maps of {geometry.box} voxels a side")
    if size >= _SAID:
        reporter().note(f"{len(z)} maps of {geometry.box} voxels a side: {size / 1e9:.1f} GB")
    decoded = decode_maps_in_chunks(run, z, lowpass)
    if out.suffix == ".npz":
        if size > _ARRAY_LIMIT:
            raise InputError(
                f"{len(z)} maps of {geometry.box} voxels a side make too large a file ({size / 1e9:.1f} GB)",
                file=out,
                remedy="Write .mrc, one map each, or name fewer particles.",
            )
        arrays = arrays | {"voxel_size": np.array(geometry.pixel_size), "origin": np.array(run.map_origin)}
        shape = (len(z), *(geometry.box,) * 3)
        _write_archive(out, "maps", shape, (maps for _, maps in decoded), arrays, "maps")
        return out
    digits = max(3, len(str(len(z) - 1)))
    paths = [out.with_stem(f"{out.stem}_{k:0{digits}d}") for k in range(len(z))] if len(z) > 1 else [out]
    with reporter().task("decode", len(z), "maps") as bar:
        for rows, maps in decoded:
            for path, data in zip(paths[rows], maps):
                write_map(path, data, geometry.pixel_size, origin=run.map_origin)
            bar.advance(len(maps))
    return out if len(paths) == 1 else out.with_stem(f"{out.stem}_*")


def _write_models(run: Run, z: np.ndarray, out: Path) -> Path:
    from cryoscape.structures.ensemble import write_ensemble

    if len(z) * len(run.structure) > _TEXT_LIMIT:
        raise InputError(
            f"{len(z)} structures of {len(run.structure)} residues make too large a file",
            file=out,
            remedy="Write .npz, or name fewer particles.",
        )
    write_ensemble(out, run.structure, run.decode(z))
    return out
