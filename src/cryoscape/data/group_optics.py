"""What the microscope's alignment adds to the CTF: aberrations and magnification of each optics group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cryoscape.data.table import OpticsGroup
from cryoscape.errors import InputError
from cryoscape.physics.aberrations import even_phase, odd_phase
from cryoscape.physics.ctf import aberration_basis


class GroupOptics:
    """CTF phases and corrections of particles by optics group.

    With M the anisotropic magnification of a group, RELION has X(k) = CTF(M k) exp(i odd(M k)) V(A^T M k):
    the frequencies of everything but the shift are those of the undistorted specimen. For a model of
    points that is the same as turning A into M^T A for its first two rows.

    Parameters
    ----------
    groups : sequence of OpticsGroup
    frequencies : Tensor, shape (d, d // 2 + 1, 2)
        Of the box in use, 1/Angstrom.

    Raises
    ------
    InputError
        If a magnification matrix is far from the identity, as a broken table has it.
    """

    def __init__(self, groups: Sequence[OpticsGroup], frequencies: Tensor) -> None:
        self._shape = frequencies.shape[:2]
        self._plain = aberration_basis(frequencies)
        self._basis: dict[int, Tensor] = {}
        self._even: dict[int, Tensor] = {}
        self._odd: dict[int, Tensor] = {}
        self._magnification: dict[int, Tensor] = {}
        for i, group in enumerate(groups):
            matrix = torch.tensor(group.magnification, dtype=torch.float64).view(2, 2)
            k = frequencies
            if not torch.equal(matrix, torch.eye(2, dtype=torch.float64)):
                _check_magnification(group.name, matrix)
                k = frequencies.double() @ matrix.T
                self._basis[i], self._magnification[i] = aberration_basis(k), matrix
            if any(group.even_zernike):
                self._even[i] = even_phase(k, group.even_zernike).flatten()
            if any(group.odd_zernike) or any(group.beam_tilt):
                phase = odd_phase(k, group.odd_zernike, group.beam_tilt, voltage=group.voltage, cs=group.cs)
                self._odd[i] = torch.polar(torch.ones_like(phase), -phase).to(torch.complex64)

    def gamma(self, coefficients: Tensor, group: Tensor) -> Tensor:
        """Phase aberration (B, d, d // 2 + 1) of particles, float64, radians.

        Parameters
        ----------
        coefficients : Tensor, shape (B, 5)
            From `ctf_coefficients`.
        group : Tensor, shape (B,), int64
        """
        if not self._basis and not self._even:
            return (coefficients @ self._plain).view(-1, *self._shape)
        out = torch.empty(len(group), self._plain.shape[1], dtype=torch.float64)
        for i in group.unique().tolist():
            here = group == i
            out[here] = coefficients[here] @ self._basis.get(i, self._plain) + self._even.get(i, 0.0)
        return out.view(-1, *self._shape)

    def demodulate(self, images: Tensor, group: Tensor) -> Tensor:
        """Images (B, d, d // 2 + 1) without the phases of odd aberrations; their noise is as it was."""
        if not self._odd:
            return images
        out = images.clone()
        for i in group.unique().tolist():
            if i in self._odd:
                out[group == i] *= self._odd[i]
        return out

    def view(self, rotations: Tensor, group: Tensor) -> Tensor:
        """Rotations (N, 3, 3) with the magnification of each particle's group in the image plane."""
        if not self._magnification:
            return rotations
        out = rotations.clone()
        for i, matrix in self._magnification.items():
            here = group == i
            out[here, :2] = matrix.T.to(rotations) @ rotations[here, :2]
        return out


def _check_magnification(name: str, matrix: Tensor) -> None:
    difference = float((matrix - torch.eye(2, dtype=matrix.dtype)).abs().max())
    if not difference < 0.2:
        raise InputError(
            f"the magnification matrix of optics group {name!r} is off by {100 * difference:.0f} %",
            remedy="Correct rlnMagMat00 to rlnMagMat11 in data_optics, or take these columns out.",
        )
