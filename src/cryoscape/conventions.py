"""Frames, signs and units of other programs, translated to the one used here.

Inside the program a pose is a matrix A (3, 3) with ``view = A @ x`` (model coordinates to the
view frame, the projection drops z) and a shift t (2,) in Angstrom by which the image shows the
projection moved. Every half-pixel and sign rule of RELION and cryoSPARC lives in this file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def rotation_from_relion(rot: ArrayLike, tilt: ArrayLike, psi: ArrayLike) -> Array:
    """Rotation matrices from RELION's Euler angles.

    A is the transpose of Rz(rot) Ry(tilt) Rz(psi), the intrinsic ZYZ rotation.

    Parameters
    ----------
    rot, tilt, psi : array_like, shape (n,)
        `rlnAngleRot`, `rlnAngleTilt`, `rlnAnglePsi` in degrees.

    Returns
    -------
    ndarray, shape (n, 3, 3), float64
        From model coordinates to the view frame.

    Notes
    -----
    Source: Heymann, Chagoyen and Belnap, J. Struct. Biol. 151 (2005), 196-207.
    """
    a, b, c = (np.deg2rad(np.atleast_1d(np.asarray(x, dtype=np.float64))) for x in (rot, tilt, psi))
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    out = np.empty((*np.broadcast_shapes(a.shape, b.shape, c.shape), 3, 3))
    out[..., 0, 0], out[..., 0, 1], out[..., 0, 2] = ca * cb * cc - sa * sc, sa * cb * cc + ca * sc, -sb * cc
    out[..., 1, 0], out[..., 1, 1], out[..., 1, 2] = -ca * cb * sc - sa * cc, -sa * cb * sc + ca * cc, sb * sc
    out[..., 2, 0], out[..., 2, 1], out[..., 2, 2] = ca * sb, sa * sb, cb
    return out


def rotation_to_relion(rotations: ArrayLike) -> tuple[Array, Array, Array]:
    """RELION's Euler angles of rotation matrices: the inverse of `rotation_from_relion`.

    Parameters
    ----------
    rotations : array_like, shape (n, 3, 3)
        From model coordinates to the view frame.

    Returns
    -------
    rot, tilt, psi : ndarray, shape (n,)
        Degrees, tilt in [0, 180]. At tilt 0 and 180 only a sum of rot and psi is determined; any
        triple that gives the same matrix is returned.
    """
    a = np.asarray(rotations, dtype=np.float64).reshape(-1, 3, 3)
    rot = np.arctan2(a[:, 2, 1], a[:, 2, 0])
    tilt = np.arctan2(np.hypot(a[:, 2, 0], a[:, 2, 1]), a[:, 2, 2])
    # psi comes from what is left after undoing rot, so that a poorly determined rot near the pole
    # is made good by psi and the matrix is exact there too.
    cos, sin = np.cos(rot), np.sin(rot)
    psi = np.arctan2(cos * a[:, 0, 1] - sin * a[:, 0, 0], cos * a[:, 1, 1] - sin * a[:, 1, 0])
    return np.rad2deg(rot), np.rad2deg(tilt), np.rad2deg(psi)


def rotation_from_cryosparc(rotvec: ArrayLike) -> Array:
    """Rotation matrices from cryoSPARC's `alignments3D/pose`.

    Parameters
    ----------
    rotvec : array_like, shape (n, 3)
        Rotation vectors (axis times angle in radians).

    Returns
    -------
    ndarray, shape (n, 3, 3), float64
        From model coordinates to the view frame: the transpose of the vector's rotation.
    """
    from scipy.spatial.transform import Rotation

    vectors = np.asarray(rotvec, dtype=np.float64).reshape(-1, 3)
    return np.ascontiguousarray(Rotation.from_rotvec(vectors).as_matrix().transpose(0, 2, 1))


def rotation_to_cryosparc(rotations: ArrayLike) -> Array:
    """CryoSPARC's rotation vectors of rotation matrices: the inverse of `rotation_from_cryosparc`.

    Parameters
    ----------
    rotations : array_like, shape (n, 3, 3)
        From model coordinates to the view frame.

    Returns
    -------
    ndarray, shape (n, 3)
        Radians, length at most pi.
    """
    from scipy.spatial.transform import Rotation

    matrices = np.asarray(rotations, dtype=np.float64).reshape(-1, 3, 3)
    return Rotation.from_matrix(matrices.transpose(0, 2, 1)).as_rotvec()


def shift_from_relion(origin_x: ArrayLike, origin_y: ArrayLike) -> Array:
    """Shift of the projection from RELION's origins.

    RELION's origin is the move that would *centre* the particle, so the image shows the
    projection moved the other way. cryoSPARC's `alignments3D/shift` has the same sign.

    Parameters
    ----------
    origin_x, origin_y : array_like, shape (n,)
        `rlnOriginXAngst`, `rlnOriginYAngst` in Angstrom.

    Returns
    -------
    ndarray, shape (n, 2)
        t = (x, y) in Angstrom.
    """
    x, y = (np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (origin_x, origin_y))
    # Subtracting from zero, not negating, keeps an absent shift at +0.
    return 0.0 - np.stack(np.broadcast_arrays(x, y), axis=-1)


def shift_to_relion(shifts: ArrayLike) -> tuple[Array, Array]:
    """RELION's origins of shifts: the inverse of `shift_from_relion`.

    Parameters
    ----------
    shifts : array_like, shape (n, 2)
        t = (x, y) in Angstrom.

    Returns
    -------
    origin_x, origin_y : ndarray, shape (n,)
        Angstrom.
    """
    t = 0.0 - np.asarray(shifts, dtype=np.float64).reshape(-1, 2)
    return t[:, 0], t[:, 1]


def corner_to_centre(box: int, pixel_size: float) -> float:
    """Distance from voxel 0 to the world's origin, the centre voxel ``box // 2``.

    Parameters
    ----------
    box : int
        Side of the box in pixels, even or odd.
    pixel_size : float
        Angstrom per pixel.

    Returns
    -------
    float
        d in Angstrom, with ``world = corner_coordinates - d`` on each axis.
    """
    return (box // 2) * float(pixel_size)
