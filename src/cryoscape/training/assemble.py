"""From settings to modules: the one place where a `kind` becomes an implementation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.models.decoders.atomic import AtomicDecoder
from cryoscape.models.decoders.base import StructureDecoder
from cryoscape.models.decoders.modes import ModesDecoder
from cryoscape.models.decoders.segments import SegmentsDecoder
from cryoscape.models.encoders import Encoder
from cryoscape.models.image_model import FeatureMap, FeatureSettings, ImageModel
from cryoscape.models.likelihoods import CorrelationLikelihood, GaussianLikelihood, Likelihood
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics import fourier
from cryoscape.priors.base import LatentPrior
from cryoscape.priors.normal import NormalPrior
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.normal_modes import anisotropic_network_modes
from cryoscape.structures.restraints import find_pairs
from cryoscape.structures.scatterers import scattering_points
from cryoscape.structures.segments import initial_segments
from cryoscape.training.config import AtomicConfig, Config, ModesConfig


@dataclass(frozen=True)
class Geometry:
    """What a model needs to know of the images, fixed before training and stored with the run.

    Attributes
    ----------
    box : int
        Band-limited box.
    pixel_size : float
        Of that box, Angstrom.
    cutoff : float
        Resolution limit, Angstrom.
    n_groups : int
        Optics groups.
    offset : tuple of float
        World = model file - offset, Angstrom (x, y, z).
    """

    box: int
    pixel_size: float
    cutoff: float
    n_groups: int
    offset: tuple[float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Geometry:
        """Inverse of `to_json`."""
        return cls(**{**values, "offset": tuple(values["offset"])})


def world_coordinates(structure: AtomicModel, geometry: Geometry) -> Tensor:
    """Residue positions in the world frame, shape (N, 3), float32."""
    coords = torch.as_tensor(structure.coords, dtype=torch.float64)
    return (coords - torch.tensor(geometry.offset, dtype=torch.float64)).float()


def build_prior(config: Config) -> LatentPrior:
    """Return the prior of a configuration."""
    return NormalPrior(config.z_dim)


def build_likelihood(config: Config, geometry: Geometry) -> Likelihood:
    """Return the likelihood of a configuration, before calibration."""
    size = (geometry.box, geometry.pixel_size, geometry.cutoff, geometry.n_groups)
    if config.likelihood.kind == "gaussian":
        return GaussianLikelihood(*size, memory=config.likelihood.memory)
    likelihood = CorrelationLikelihood(*size, weight=config.likelihood.weight)
    shell = torch.arange(likelihood.n_shells) / (geometry.box * geometry.pixel_size)
    likelihood.gain.copy_(torch.exp(-2 * torch.pi**2 * config.likelihood.sigma**2 * shell**2))
    return likelihood


def build_scatterers(config: Config, structure: AtomicModel) -> Scatterers | BeadScatterers:
    """Return where the residues of a structure scatter from, tied to its beads."""
    if config.decoder.scatter_from == "bead":
        return BeadScatterers(torch.as_tensor(structure.weights))
    points = scattering_points(structure, config.decoder.atoms_per_point)
    bonded = torch.zeros(max(len(structure) - 1, 0), dtype=torch.bool)
    bonded[find_pairs(structure, 0.0, 0.0).bonds[:, 0]] = True
    return Scatterers(
        torch.as_tensor(structure.coords, dtype=torch.float64),
        torch.as_tensor(points.positions),
        torch.as_tensor(points.weights),
        torch.as_tensor(points.residue),
        bonded,
    )


def build_decoder(config: Config, structure: AtomicModel, reference: Tensor) -> StructureDecoder:
    """Return the decoder of a configuration on a reference in the world frame."""
    scatterers = build_scatterers(config, structure)
    d = config.decoder
    if isinstance(d, AtomicConfig):
        return AtomicDecoder(config.z_dim, reference, scatterers, hidden=d.hidden, activation=d.activation)
    if isinstance(d, ModesConfig):
        n_modes = min(d.n_modes, 3 * len(structure) - 6)
        if n_modes < 1:
            raise InputError(
                f"a model of {len(structure)} residues has no normal modes", remedy="Use --decoder atomic."
            )
        _, modes = anisotropic_network_modes(structure.coords, n_modes, d.cutoff)
        return ModesDecoder(
            config.z_dim,
            reference,
            scatterers,
            torch.as_tensor(modes),
            hidden=d.hidden,
            activation=d.activation,
            rigid=d.rigid,
        )
    return SegmentsDecoder(
        config.z_dim,
        reference,
        scatterers,
        initial_segments(structure, min(max(d.n_segments, len(structure.chains)), len(structure))),
        hidden=d.hidden,
        activation=d.activation,
        temperature=d.temperature,
    )


def window_side(reference: Tensor, geometry: Geometry, margin: float = 20.0) -> int:
    """Side of the image window that holds the particle in any pose, and `margin` A more, even."""
    radius = float(reference.norm(dim=1).max()) + margin
    side = 2 * int(torch.tensor(radius / geometry.pixel_size).ceil())
    return min(side, geometry.box)


def build_model(config: Config, structure: AtomicModel, geometry: Geometry) -> ImageModel:
    """Assemble encoder, decoder and likelihood.

    Parameters
    ----------
    config : Config
    structure : AtomicModel
        The reference.
    geometry : Geometry

    Returns
    -------
    ImageModel
        Its weights come from PyTorch's global generator: seed it first.
    """
    reference = world_coordinates(structure, geometry)
    likelihood = build_likelihood(config, geometry)
    decoder = build_decoder(config, structure, reference)
    e = config.encoder
    settings = FeatureSettings(
        kinds=tuple(e.kind.split("+")),
        window=window_side(reference, geometry) if e.phase_flip else geometry.box,
        phase_flip=e.phase_flip,
        max_beads=e.max_beads,
        spacing=e.field_spacing,
        margin=e.field_margin,
    )
    if e.network == "cnn" and e.kind != "image":
        raise InputError(
            f"a convolutional encoder cannot read {e.kind!r} features", remedy="Set --encoder.kind image."
        )
    feature_map = FeatureMap(settings, reference, decoder.scatterers, likelihood)
    encoder = Encoder(
        feature_map.size, config.z_dim, network=e.network, hidden=e.hidden, activation=e.activation
    )
    return ImageModel(feature_map, encoder, decoder, likelihood)


def degrees_of_freedom(geometry: Geometry) -> float:
    """Real degrees of freedom of an image in the band."""
    return float(fourier.band_weights(geometry.box, geometry.pixel_size, geometry.cutoff).sum())
