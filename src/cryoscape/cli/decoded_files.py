"""Files of decoded structures and maps: one format by the ending of the name, written in bounded memory."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryoscape.cli.console import reporter, say
from cryoscape.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from cryoscape.training.run import Run

_CHUNK = 256
_TEXT_LIMIT = 20_000_000  # atoms in a multi-model text file that programs still open
_ARRAY_LIMIT = 4_000_000_000  # bytes of maps in one array that programs still open
_SAID = 1_000_000_000  # bytes of maps from which on the size is announced
_MODELS, _MAPS = (".cif", ".bcif", ".pdb"), (".mrc", ".map")


@dataclass(frozen=True)
class DecodedFile:
    """Where decoded structures or maps go.

    Parameters
    ----------
    out : Path
        OUT.npz, OUT.cif, OUT.bcif, OUT.pdb or OUT.mrc; another ending is refused.
    lowpass : float, optional
        Resolution to which maps are filtered, Angstrom.
    """

    out: Path
    lowpass: float | None = None

    def __post_init__(self) -> None:
        _need_known_ending(self.out)

    def check(self, run: Run) -> None:
        """Raise `InputError` where the run cannot make what is asked for."""
        _check_lowpass(run, self.lowpass, _makes_maps(run, self.out))

    def write(self, run: Run, arrays: dict[str, np.ndarray]) -> None:
        """Decode `arrays["z"]` (n, d) into the file; of .npz the other arrays go with it."""
        maps = _makes_maps(run, self.out)
        if maps:
            written = _write_maps(run, arrays, self.out, self.lowpass)
        elif self.out.suffix == ".npz":
            written = _write_npz(run, arrays, self.out)
        else:
            written = _write_models(run, arrays, self.out)
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


def _write_npz(run: Run, arrays: dict[str, np.ndarray], out: Path) -> Path:
    z = arrays["z"]

    def coords() -> Iterator[np.ndarray]:
        for start in range(0, len(z), _CHUNK):
            yield run.decode(z[start : start + _CHUNK])

    present = run.occupancy(z)
    if present is not None:
        arrays = arrays | {"occupancy": present}
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


def _write_models(run: Run, arrays: dict[str, np.ndarray], out: Path) -> Path:
    from cryoscape.analysis.coordinate_uncertainty import b_factors, posterior_displacement
    from cryoscape.structures.ensemble import write_ensemble

    z = arrays["z"]
    if len(z) * len(run.structure) > _TEXT_LIMIT:
        raise InputError(
            f"{len(z)} structures of {len(run.structure)} residues make too large a file",
            file=out,
            remedy="Write .npz, or name fewer particles.",
        )
    widths = _posterior_widths(run, arrays)
    b = None if widths is None else b_factors(posterior_displacement(run, z, widths))
    write_ensemble(out, run.structure, run.decode(z), b_factors=b, occupancy=run.occupancy(z))
    return out


def _posterior_widths(run: Run, arrays: dict[str, np.ndarray]) -> np.ndarray | None:
    """Widths (n, d) of the posteriors of particles, or of the particles nearest to other codes."""
    import numpy as np

    from cryoscape.analysis.coordinate_uncertainty import widths_of_codes

    if "row" not in arrays:
        return widths_of_codes(run, arrays["z"])
    embedding = run.embedding
    order = np.argsort(embedding.row, kind="stable")
    return embedding.z_sd[order[np.searchsorted(embedding.row[order], arrays["row"])]]
