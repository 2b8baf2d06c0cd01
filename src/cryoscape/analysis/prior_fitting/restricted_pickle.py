"""Arrays from pickles of other programs, read without running anything that they hold.

A pickle is a program: it may name any function and call it. Here it may name what NumPy needs to write down
an array or a number, and the bytes of old protocols; it gets stand-ins of ours for them, and arrays are put
together from their bytes. Whatever else a pickle names is refused before it is looked up.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from cryoscape.errors import InputError

_CODE = re.compile(r"[biuf](1|2|4|8|16)")


def load_arrays(path: Path) -> list[Any]:
    """Read the values that were pickled into a file, one after the other.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list
        Arrays of numbers, numbers and text, and lists, tuples and dictionaries of them.

    Raises
    ------
    InputError
        If it is no pickle, is cut short, or names anything but arrays of numbers.
    """
    values: list[Any] = []
    try:
        with open(path, "rb") as stream:
            while stream.peek(1):
                values.append(_plain(_ArrayUnpickler(stream).load()))
    except _RefusedError as error:
        raise InputError(
            f"holds {error}, not numbers alone; it is not read, because a pickle can run programs",
            file=path,
            remedy="Open it where you trust it, and save the array with numpy.save.",
        ) from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(
            "cannot be read as a pickle of arrays",
            file=path,
            remedy="Restore the file, or save the array with numpy.save.",
        ) from error
    return values


class _RefusedError(Exception):
    """What a pickle holds besides numbers."""


class _StandIn:
    """Base of what a pickle gets for a name; it can neither be altered nor called into."""

    def __setstate__(self, _state: Any) -> None:
        raise _RefusedError("changes to a function")


class _Dtype(_StandIn):
    """A type of plain numbers, for `numpy.dtype`."""

    def __init__(self, code: str, _align: Any = False, _copy: Any = True) -> None:
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise _RefusedError(f"an array of {code!r}")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise _RefusedError(f"the byte order {state[1]!r}")
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array(_StandIn):
    """An array of numbers, for `numpy.ndarray` and for the function that makes an empty one."""

    value: NDArray[Any]

    def __init__(self, *_empty: Any) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        self.value = _from_bytes(data, dtype, shape, "F" if fortran else "C")


class _Buffer(_StandIn):
    """An array of numbers as protocol 5 writes it, for `numpy._core.numeric._frombuffer`."""

    def __init__(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        self.value = _from_bytes(data, dtype, shape, order)


class _Scalar(_StandIn):
    """One NumPy number."""

    def __init__(self, dtype: Any, data: Any) -> None:
        self.value = _from_bytes(data, dtype, (), "C")[()]


class _Latin(_StandIn, bytes):
    """Bytes that an old protocol wrote as text, for `_codecs.encode`; none at all, for `bytes`."""

    def __new__(cls, text: str = "", coding: str = "latin1") -> _Latin:
        if not isinstance(text, str) or coding != "latin1":
            raise _RefusedError("a call of a codec")
        return super().__new__(cls, text.encode("latin1"))


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise _RefusedError("an array of something else than numbers")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise _RefusedError("an array without a shape")
    if math.prod(shape) * dtype.numpy.itemsize != len(data):
        raise ValueError("an array that is cut short")
    return np.frombuffer(bytes(data), dtype.numpy).reshape(shape, order=order)


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the names that arrays need, in the old and the new layout of NumPy."""

    _KNOWN: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Latin,
        ("__builtin__", "bytes"): _Latin,
        **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
        **{(f"numpy.{core}.multiarray", "scalar"): _Scalar for core in ("core", "_core")},
        **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
    }

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(stream)

    def find_class(self, module: str, name: str) -> type:
        """Return the stand-in for a name, or refuse it without importing anything."""
        try:
            return self._KNOWN[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None

    def persistent_load(self, _pid: Any) -> Any:
        """Refuse references to what lies outside the pickle."""
        raise _RefusedError("a reference to something outside")


def _plain(value: Any) -> Any:
    """Replace stand-ins by what they hold."""
    if isinstance(value, _Array | _Buffer | _Scalar):
        return value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain(entry) for entry in value)
    if isinstance(value, _StandIn | type):
        raise _RefusedError("a function")
    return value
