"""What the pre-flight check found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cryoscape.errors import InputError
from cryoscape.preflight.interpretations import HANDS, Candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cryoscape.data.particles import Particles

AS_READ = "as read"
TRANSPOSED = "transposed rotations"
OTHER_SIGN = "shifts of the other sign"
TOO_SMALL = "shifts in pixels, read as Angstrom"
TOO_LARGE = "shifts in Angstrom, read as pixels"

FITS, DOUBTFUL, MISFIT, NO_MODEL = "fits", "doubtful", "does not fit", "no model"

POSE_REMEDIES = {
    TRANSPOSED: "Convert the poses again: each rotation should be the inverse of what the table holds.",
    OTHER_SIGN: "Change the sign of the shifts in the table.",
    TOO_SMALL: "Multiply the shifts by the pixel size, or name their columns rlnOriginX and rlnOriginY.",
    TOO_LARGE: "Divide the shifts by the pixel size, or name their columns rlnOriginXAngst, rlnOriginYAngst.",
}


@dataclass(frozen=True)
class PreflightReport:
    """Facts of the input, its interpretation and the band, with a verdict.

    Attributes
    ----------
    verdict : str
        "fits", "doubtful", "does not fit" or "no model".
    frame : str
        "corner", "centre", "centroid", "map" or "moved"; "none" without a model.
    offset : tuple of float
        world = coordinates of the model file - offset, Angstrom.
    hand : str
        A key of `interpretations.HANDS`.
    poses : str
        "as read", or the reading of the poses that explains the images better.
    data_sign : int
        What stored pixels must be multiplied by for protein to be positive.
    sign_changed : bool
        That is not how the particles were read.
    sign_source : str
        "model", "map" (given), "density" (skewness of the back-projection) or "unknown".
    score, z : float or None
        Correlation with the model over the shells with signal, relative to a perfect model's; standard
        deviations above random turns.
    candidates : tuple of Candidate
        Every reading tried.
    band : float
        Suggested resolution limit, Angstrom.
    band_reason : str
        Why.
    agreement : float or None
        Resolution where model and noise-free map fall below a correlation of 0.5, Angstrom.
    map_resolution : float
        Where the half maps of the sample fall below 0.143, Angstrom.
    half_fsc, model_fsc : tuple of float
        By shell; shell s is at s / (working_box * working_pixel). `model_fsc` is empty without a model.
    working_box, working_pixel
        Of the back-projection, pixels and Angstrom.
    n_particles, n_used, box, n_groups : int
    pixel_size : float
        Angstrom.
    halves : tuple of int
        Particles in each.
    half_source : str
        "file" or "seeded".
    repeated : int
        Rows that repeat an image.
    defocus : tuple of float
        Smallest and largest mean defocus, Angstrom.
    noise_sd : float
        Of the background pixels, in the units of the images.
    noise_spread : float
        Relative standard deviation of that between images.
    snr : float
        Variance of the consensus signal over all pixels, over that of the noise.
    nats_per_image : float
        Signal energy over twice the noise variance: what one image says about the consensus.
    orientation_efficiency : float
        0 to 1, see `coverage.orientation_efficiency`.
    cache_bytes : int
        Memory of all images cropped to the band.
    reading_seconds : float
        Estimated time to read and crop all images.
    seconds : float
        What the check took.
    notes : tuple of str
        Things to know, one sentence each.
    """

    verdict: str
    frame: str
    offset: tuple[float, float, float]
    hand: str
    poses: str
    data_sign: int
    sign_changed: bool
    sign_source: str
    score: float | None
    z: float | None
    candidates: tuple[Candidate, ...]
    band: float
    band_reason: str
    agreement: float | None
    map_resolution: float
    half_fsc: tuple[float, ...]
    model_fsc: tuple[float, ...]
    working_box: int
    working_pixel: float
    n_particles: int
    n_used: int
    box: int
    pixel_size: float
    n_groups: int
    halves: tuple[int, int]
    half_source: str
    repeated: int
    defocus: tuple[float, float]
    noise_sd: float
    noise_spread: float
    snr: float
    nats_per_image: float
    orientation_efficiency: float
    cache_bytes: int
    reading_seconds: float
    seconds: float
    notes: tuple[str, ...]

    def require(self) -> None:
        """Refuse input whose poses, CTF or model do not fit the images as they stand.

        Raises
        ------
        InputError
            If nothing correlates, the poses would have to be read in another way, or they belong to the
            mirror image.
        """
        if self.poses != AS_READ:
            raise InputError(f"the poses look wrong: {self.poses}", remedy=POSE_REMEDIES[self.poses])
        if self.verdict == MISFIT:
            raise InputError(
                "poses, CTF or model do not fit these images",
                remedy="Check that the model is docked in the map of these particles and that the table "
                "comes from their last refinement; go on with --force.",
            )
        if self.hand != AS_READ:
            raise InputError(
                "the poses belong to the mirror image of the model",
                remedy="Flip the hand of the map, dock the model in it and refine the poses again; "
                "go on with --force.",
            )

    def apply(self, particles: Particles) -> Particles:
        """The particles read as the check found them: sign, hand and poses.

        A mirrored structure M x seen in pose A projects like x seen in S A M, with S the mirror of the
        viewing axis, so the model stays as it is and the poses change.

        Parameters
        ----------
        particles : Particles
            As read from the file (the same that were checked, or a part of them).

        Returns
        -------
        Particles
        """
        rotations, shifts = reread(
            self.poses, np.asarray(particles.rotations), particles.shifts, particles.pixel_size
        )
        if self.hand != AS_READ:
            rotations = np.diag([1.0, 1.0, -1.0]) @ rotations @ np.diag(HANDS[self.hand])
        return replace(particles, rotations=rotations, shifts=shifts, data_sign=self.data_sign)

    def to_world(self, coords: NDArray[np.floating]) -> NDArray[np.floating]:
        """Coordinates of the model file, shape (..., 3), moved to the world frame."""
        return coords - np.asarray(self.offset, dtype=coords.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, and the text of `describe` under "text"."""
        values = asdict(self)
        values["map_resolution"] = self.map_resolution if np.isfinite(self.map_resolution) else None
        if self.agreement is not None and not np.isfinite(self.agreement):
            values["agreement"] = None
        return {"text": "\n".join(self.describe()), **values}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        return "\n".join(self.describe())

    def describe(self) -> list[str]:
        """Plain sentences, one a line.

        Returns
        -------
        list of str
        """
        return [*self._input_lines(), *self._map_lines(), *self._model_lines(), *self.notes]

    def _input_lines(self) -> list[str]:
        groups = "1 optics group" if self.n_groups == 1 else f"{self.n_groups} optics groups"
        halves = f"{self.halves[0]} and {self.halves[1]}"
        source = "from the file" if self.half_source == "file" else "split here, by micrograph"
        lines = [
            f"particles: {self.n_particles}, {self.box} px at {self.pixel_size:.3f} A, {groups}",
            f"halves: {halves} particles, {source}",
            f"defocus: {self.defocus[0] / 1e4:.2f} to {self.defocus[1] / 1e4:.2f} micrometres",
            f"views: {100 * self.orientation_efficiency:.0f} % of the efficiency of uniform ones",
        ]
        if self.repeated:
            lines.append(f"repeated images: {self.repeated} rows show an image of an earlier row")
        return lines

    def _map_lines(self) -> list[str]:
        finest = 2 * self.working_pixel
        resolution = f"agree to {self.map_resolution:.1f} A (FSC 0.143)"
        if not np.isfinite(self.map_resolution):
            resolution = "do not agree at any resolution"
        elif self.map_resolution <= finest * 1.001:
            resolution = f"agree to {finest:.1f} A at least, the limit of this quick look"
        sign = "positive" if self.data_sign > 0 else "negative"
        how = {
            "model": "by the model",
            "map": "by the map",
            "density": "by the shape of the density",
            "unknown": "as read; the images do not tell",
        }[self.sign_source]
        changed = ", which the files do not say" if self.sign_changed else ""
        return [
            f"back-projection of {self.n_used} particles: half maps {resolution}",
            f"signal: SNR {self.snr:.2g} over all pixels, {self.nats_per_image:.3g} nats per image; "
            f"noise sd {self.noise_sd:.3g} (varies by {100 * self.noise_spread:.0f} % between images)",
            f"protein is {sign} in the stored images ({how}{changed})",
        ]

    def _model_lines(self) -> list[str]:
        poses = [] if self.poses == AS_READ else [f"poses: the images are explained better by {self.poses}"]
        memory = (
            f"images in this band: {self.cache_bytes / 2**20:.0f} MiB, read in {self.reading_seconds:.0f} s"
        )
        band = f"band: {self.band:.1f} A ({self.band_reason})"
        if self.verdict == NO_MODEL:
            return [*poses, band, memory, "no model was given: frame and hand cannot be told"]
        text = {
            FITS: f"the model fits: correlation {self.score:.2f}, {self.z:.0f} sd above random turns of it",
            DOUBTFUL: f"the model fits doubtfully: {self.z:.1f} sd above random turns of it",
            MISFIT: f"nothing correlates: the best reading is {self.z:.1f} sd above random turns",
        }[self.verdict]
        where = ", ".join(f"{v:.2f}" for v in self.offset)
        names = {
            "corner": "the corner of the box (voxel 0)",
            "centre": "the centre of the box",
            "centroid": "elsewhere: its centre of mass belongs at the centre of the box",
            "map": "where the map's header puts it",
            "moved": "elsewhere: the model had to be moved",
        }
        frame = f"origin of the model: {names[self.frame]}; world = file - ({where}) A"
        hand = "hand: as read" if self.hand == AS_READ else f"hand: the poses belong to the model {self.hand}"
        agreement = []
        if self.agreement is not None and np.isfinite(self.agreement):
            agreement = [
                f"model and map agree to {self.agreement:.1f} A (correlation 0.5, noise allowed for)"
            ]
        if self.verdict == MISFIT:
            return [*poses, text]
        return [*poses, text, frame, hand, *agreement, band, memory]


def reread(
    poses: str, rotations: NDArray[Any], shifts: NDArray[Any], pixel_size: float
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rotations and shifts under another reading of the poses.

    Parameters
    ----------
    poses : str
        "as read" or a key of `POSE_REMEDIES`.
    rotations : ndarray, shape (N, 3, 3)
    shifts : ndarray, shape (N, 2)
        Angstrom.
    pixel_size : float
        Of the images, Angstrom.

    Returns
    -------
    rotations, shifts : ndarray
    """
    if poses == TRANSPOSED:
        return np.swapaxes(rotations, 1, 2), shifts
    factor = {OTHER_SIGN: -1.0, TOO_SMALL: pixel_size, TOO_LARGE: 1 / pixel_size}.get(poses, 1.0)
    return rotations, shifts * factor
