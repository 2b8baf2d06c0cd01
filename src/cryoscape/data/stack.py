"""Particle images in many `.mrcs` files, memory-mapped and read when asked for."""

from __future__ import annotations

import math
import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoscape.errors import InputError

# MRC2014 data modes of real images. Mode 0 is signed since 2014; mode 12 is half precision (CCP-EM).
_MODES: dict[int, str] = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_HEADER_BYTES = 1024
_OPEN_FILES = 32
_MAPPED_BYTES = 2**26  # read before mapped pages are given back


@dataclass(frozen=True)
class StackHeader:
    """What the header of one `.mrcs` file says.

    Attributes
    ----------
    n : int
        Number of images.
    box : int
        Side of the square images, pixels, even.
    dtype : str
        numpy type of the stored pixels, with byte order.
    offset : int
        Bytes before the first pixel.
    """

    n: int
    box: int
    dtype: str
    offset: int


def read_stack_header(path: str | PathLike[str]) -> StackHeader:
    """Read and check the header of a stack.

    Parameters
    ----------
    path : path
        An `.mrcs` or `.mrc` file.

    Returns
    -------
    StackHeader

    Raises
    ------
    InputError
        If the file is no MRC file, holds no real numbers, is shorter than its header says, or its
        images are not square or have an odd side.
    """
    again = "Copy or extract the file again."
    try:
        with open(path, "rb") as handle:
            raw = handle.read(_HEADER_BYTES)
            size = handle.seek(0, 2)
    except OSError as error:
        raise InputError(
            f"the image stack cannot be read ({error.strerror})", file=path, remedy=again
        ) from error
    if len(raw) < _HEADER_BYTES:
        raise InputError("the image stack is truncated (no full header)", file=path, remedy=again)
    order = ">" if raw[212] == 0x11 else "<"
    nx, ny, nz, mode = (int(v) for v in np.frombuffer(raw, order + "i4", 4))
    extended = int(np.frombuffer(raw, order + "i4", 1, offset=92)[0])
    if not (0 < nx < 65536 and 0 < ny < 65536 and nz > 0 and extended >= 0):
        raise InputError("this is not an MRC image stack", file=path, remedy=again)
    if mode not in _MODES:
        raise InputError(
            f"MRC mode {mode} is not one of {sorted(_MODES)}",
            file=path,
            remedy="Convert the stack to 32-bit or 16-bit floating point.",
        )
    if nx != ny or nx % 2:
        raise InputError(
            f"the images are {nx} x {ny} pixels, not square with an even side",
            file=path,
            remedy="Extract the particles again in a square box with an even number of pixels.",
        )
    dtype = np.dtype(order + _MODES[mode])
    needed = _HEADER_BYTES + extended + nx * ny * nz * dtype.itemsize
    if size < needed:
        raise InputError(
            f"the image stack is truncated: {size} bytes, where {nz} images need {needed}",
            file=path,
            remedy=again,
        )
    return StackHeader(n=nz, box=nx, dtype=dtype.str, offset=_HEADER_BYTES + extended)


class _MappedFile:
    """One stack in memory-mapped form."""

    def __init__(self, path: Path, header: StackHeader) -> None:
        with open(path, "rb") as handle:
            self._mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(self._mapped, "madvise"):
            # The kernel's read-ahead around single images costs up to forty times the image itself.
            self._mapped.madvise(mmap.MADV_RANDOM)
        shape = (header.n, header.box, header.box)
        self._offset = header.offset
        self._touched = 0
        self._pixels = np.frombuffer(
            self._mapped, dtype=header.dtype, count=math.prod(shape), offset=header.offset
        ).reshape(shape)

    def read(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Copies of images, whose numbers are in ascending order."""
        if hasattr(self._mapped, "madvise"):
            for run in np.split(index, np.flatnonzero(np.diff(index) > 1) + 1):
                self._announce(int(run[0]), int(run[-1]) + 1)
        images = self._pixels[index]
        self._release(images.nbytes)
        return images

    def _release(self, touched: int) -> None:
        """Give pages back to the file cache now and then: mapped, they count as the program's own memory."""
        self._touched += touched
        if self._touched > _MAPPED_BYTES and hasattr(self._mapped, "madvise"):
            self._mapped.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def _announce(self, first: int, stop: int) -> None:
        """Let the kernel fetch a run of images in large requests."""
        start = self._offset + first * self._pixels[0].nbytes
        length = (stop - first) * self._pixels[0].nbytes
        aligned = start - start % mmap.PAGESIZE
        self._mapped.madvise(mmap.MADV_WILLNEED, aligned, start + length - aligned)


class ImageStack:
    """The images of a particle table, wherever they are stored.

    Headers are checked at once, pixels are read when asked for; at most 32 files are open.

    Parameters
    ----------
    paths : sequence of path
        The distinct files, F of them.
    file : array_like, shape (N,)
        Which of them holds particle i.
    index : array_like, shape (N,)
        Where in that file it is, from 0.
    table : path, optional
        The particle table, for messages.

    Attributes
    ----------
    paths : tuple of Path
    file : ndarray, shape (N,), int32
    index : ndarray, shape (N,), int64
    headers : tuple of StackHeader
        One a file, in the order of `paths`.

    Raises
    ------
    InputError
        If a file is bad (see `read_stack_header`), the files' boxes differ, or a particle lies
        outside its file.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        file: ArrayLike,
        index: ArrayLike,
        *,
        table: str | PathLike[str] | None = None,
    ) -> None:
        self.paths = tuple(Path(p) for p in paths)
        self.file: NDArray[np.int32] = np.asarray(file, dtype=np.int32)
        self.index: NDArray[np.int64] = np.asarray(index, dtype=np.int64)
        first = np.full(len(self.paths), -1, dtype=np.int64)
        used, where = np.unique(self.file, return_index=True)
        first[used] = where
        self.headers = self._read_headers(first, table)
        self._check_indices(table)
        self._reset()

    def _reset(self) -> None:
        self._maps: OrderedDict[int, _MappedFile] = OrderedDict()
        self._lock = threading.Lock()

    def _read_headers(
        self, first: NDArray[np.int64], table: str | PathLike[str] | None
    ) -> tuple[StackHeader, ...]:
        headers: list[StackHeader] = []
        for path, row in zip(self.paths, first):
            try:
                headers.append(read_stack_header(path))
            except InputError as error:
                if table is None:
                    raise
                message = f"{path}: {error.message}"
                raise InputError(message, file=table, row=int(row) + 1, remedy=error.remedy) from error
            if headers[-1].box != headers[0].box:
                raise InputError(
                    f"mixed box sizes: {headers[-1].box} pixels in {path}, "
                    f"{headers[0].box} in {self.paths[0]}",
                    file=table,
                    row=int(row) + 1,
                    remedy="Extract all particles in one box size, or split the table by box.",
                )
        return tuple(headers)

    def _check_indices(self, table: str | PathLike[str] | None) -> None:
        counts = np.array([h.n for h in self.headers], dtype=np.int64)
        outside = (self.index < 0) | (self.index >= counts[self.file])
        if outside.any():
            i = int(np.argmax(outside))
            f = int(self.file[i])
            raise InputError(
                f"the row asks for image {self.index[i] + 1} of {self.paths[f]}, which holds {counts[f]}",
                file=table,
                row=i + 1,
                remedy="Use the image stack that was written together with this table.",
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def box(self) -> int:
        """Side of the images, pixels."""
        return self.headers[0].box

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes map the files anew.
        return {k: v for k, v in self.__dict__.items() if k not in ("_maps", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def _map(self, f: int) -> _MappedFile:
        with self._lock:
            if f in self._maps:
                self._maps.move_to_end(f)
                return self._maps[f]
            self._maps[f] = _MappedFile(self.paths[f], self.headers[f])
            if len(self._maps) > _OPEN_FILES:
                self._maps.popitem(last=False)
            return self._maps[f]

    def images(self, rows: ArrayLike) -> NDArray[np.float32]:
        """Pixels of the named particles, as stored.

        Parameters
        ----------
        rows : array_like of int, shape (n,)
            Positions in this stack; any order, repeats allowed.

        Returns
        -------
        ndarray, shape (n, D, D), float32
            (particle, y, x).
        """
        rows = np.asarray(rows, dtype=np.int64).reshape(-1)
        file, index = self.file[rows], self.index[rows]
        out = np.empty((len(rows), self.box, self.box), dtype=np.float32)
        # One file at a time and in the order of the disk, whatever order was asked for.
        order = np.lexsort((index, file))
        starts = np.flatnonzero(np.diff(file[order], prepend=-1))
        for start, stop in zip(starts, [*starts[1:], len(order)]):
            here = order[start:stop]
            out[here] = self._map(int(file[here[0]])).read(index[here])
        return out

    def select(self, rows: ArrayLike) -> ImageStack:
        """The stack of some of the particles; headers are not read again.

        Parameters
        ----------
        rows : array_like of int, shape (n,)
            Positions in this stack.

        Returns
        -------
        ImageStack
        """
        chosen = object.__new__(ImageStack)
        chosen.__dict__.update(self.__getstate__())
        positions = np.asarray(rows, dtype=np.int64)
        chosen.file, chosen.index = self.file[positions], self.index[positions]
        chosen._reset()
        return chosen
