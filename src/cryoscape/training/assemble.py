"""From settings to modules: the one place where a `kind` becomes an implementation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.models.decoders.atomic import AtomicDecoder
from cryoscape.models.decoders.base import Decoder, StructureDecoder, VolumeDecoder
from cryoscape.models.decoders.field import FieldDecoder
from cryoscape.models.decoders.modes import ModesDecoder
from cryoscape.models.decoders.segments import SegmentsDecoder
from cryoscape.models.decoders.voxels import VoxelDecoder
from cryoscape.models.encoders import Encoder, GivenPosterior
from cryoscape.models.features import density_support, field_grid, spread_points
from cryoscape.models.image_model import FeatureMap, FeatureSettings, ImageModel
from cryoscape.models.likelihoods import (
    CorrelationLikelihood,
    GaussianLikelihood,
    Likelihood,
    MeanSquaredLikelihood,
)
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics import fourier
from cryoscape.physics.fourier_voxels import SliceSampler
from cryoscape.physics.resolution import soft_sphere
from cryoscape.priors.base import LatentPrior
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.structures.normal_modes import anisotropic_network_modes
from cryoscape.structures.restraints import find_pairs
from cryoscape.structures.scatterers import scattering_points
from cryoscape.structures.segments import initial_segments
from cryoscape.training.bits import relaxation_at
from cryoscape.training.config import (
    STRUCTURE_KINDS,
    AtomicConfig,
    Config,
    FieldConfig,
    ModesConfig,
    SegmentsConfig,
    VoxelsConfig,
)


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
    image_box : int
        Box of the particles.
    """

    box: int
    pixel_size: float
    cutoff: float
    n_groups: int
    offset: tuple[float, float, float]
    image_box: int

    @property
    def image_pixel_size(self) -> float:
        """Of the particles, Angstrom."""
        return self.pixel_size * self.box / self.image_box

    @property
    def scale(self) -> float:
        """Continuous transform of a map / unitary coefficient of an image: image box times pixel area."""
        return self.image_box * self.image_pixel_size**2

    @property
    def map_origin(self) -> tuple[float, float, float]:
        """Header origin that puts a map of this box in the frame of the model file, (x, y, z), Angstrom."""
        x, y, z = (value - self.box // 2 * self.pixel_size for value in self.offset)
        return (x, y, z)

    @property
    def band(self) -> int:
        """Last shell inside the resolution limit."""
        return int(self.box * self.pixel_size / self.cutoff + 1e-6)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Geometry:
        """Inverse of `to_json`."""
        return cls(**{**values, "offset": tuple(values["offset"])})


@dataclass(frozen=True)
class Start:
    """What a decoder starts from: a structure, a consensus map, or the shapes of one for a checkpoint.

    Attributes
    ----------
    structure : AtomicModel or None
    volume : Tensor or None, shape (box, box, box)
        Filtered consensus map, density per cubic Angstrom in the scale of the images.
    amplitude : Tensor or None, shape (box // 2 + 1,)
        Signal amplitude of each shell.
    """

    structure: AtomicModel | None = None
    volume: Tensor | None = None
    amplitude: Tensor | None = None


def world_coordinates(structure: AtomicModel, geometry: Geometry) -> Tensor:
    """Residue positions in the world frame, shape (N, 3), float32."""
    coords = torch.as_tensor(structure.coords, dtype=torch.float64)
    return (coords - torch.tensor(geometry.offset, dtype=torch.float64)).float()


def build_prior(config: Config) -> LatentPrior:
    """Return the prior of a configuration."""
    return config.prior.build(config.z_dim)


def build_likelihood(config: Config, geometry: Geometry) -> Likelihood:
    """Return the likelihood of a configuration, before calibration."""
    size = (geometry.box, geometry.pixel_size, geometry.cutoff, geometry.n_groups)
    if config.likelihood.kind == "gaussian":
        radial = config.decoder.kind in STRUCTURE_KINDS
        return GaussianLikelihood(*size, memory=config.likelihood.memory, radial_gain=radial)
    if config.likelihood.kind == "mse":
        return MeanSquaredLikelihood(*size)
    likelihood = CorrelationLikelihood(*size, weight=config.likelihood.weight)
    shell = torch.arange(likelihood.n_shells) / (geometry.box * geometry.pixel_size)
    likelihood.gain.copy_(torch.exp(-2 * torch.pi**2 * config.likelihood.sigma**2 * shell**2))
    return likelihood


def build_scatterers(config: Config, structure: AtomicModel) -> Scatterers | BeadScatterers:
    """Return where the residues of a structure scatter from, tied to its beads."""
    assert isinstance(config.decoder, AtomicConfig | ModesConfig | SegmentsConfig)
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


def build_decoder(config: Config, start: Start, geometry: Geometry) -> Decoder:
    """Return the decoder of a configuration.

    Raises
    ------
    InputError
        If a decoder of structures is to start without one.
    """
    d = config.decoder
    if isinstance(d, VoxelsConfig | FieldConfig):
        return _volume_decoder(config, d, start, geometry)
    if start.structure is None:
        raise InputError(
            f"the {d.kind} decoder needs a reference model",
            remedy="Give one with --model, or train maps: --decoder voxels.",
        )
    return _structure_decoder(config, d, start.structure, world_coordinates(start.structure, geometry))


def _volume_decoder(
    config: Config, d: VoxelsConfig | FieldConfig, start: Start, geometry: Geometry
) -> VolumeDecoder:
    assert start.volume is not None
    assert start.amplitude is not None
    sampler = SliceSampler(geometry.box, geometry.band)
    common = (config.z_dim, sampler, geometry.pixel_size, geometry.scale, start.volume, start.amplitude)
    if isinstance(d, FieldConfig):
        if len(set(d.hidden)) != 1:
            raise InputError(
                f"the layers of a field have one width, not {', '.join(map(str, d.hidden))}",
                remedy='Give equal numbers, for example --decoder.hidden "[256, 256, 256]".',
            )
        return FieldDecoder(*common, **d.model_dump(exclude={"kind", "lr"}))
    return VoxelDecoder(
        *common,
        mask=_particle_mask(config, start.volume, geometry),
        n_volumes=d.n_volumes,
        hidden=d.hidden,
        activation=d.activation,
    )


def _particle_mask(config: Config, volume: Tensor, geometry: Geometry) -> Tensor:
    """Soft sphere that holds all the density of a consensus map, and the margin of the encoder's grid."""
    support = density_support(volume, geometry.pixel_size, config.encoder.field_margin)
    radius = float(support.norm(dim=1).max()) if len(support) else geometry.box * geometry.pixel_size
    edge = max(10.0 / geometry.pixel_size, 3.0)
    return soft_sphere(geometry.box, min(radius / geometry.pixel_size, geometry.box / 2 - edge), edge)


def _structure_decoder(
    config: Config, d: AtomicConfig | ModesConfig | SegmentsConfig, structure: AtomicModel, reference: Tensor
) -> StructureDecoder:
    scatterers = build_scatterers(config, structure)
    if isinstance(d, AtomicConfig):
        return AtomicDecoder(
            config.z_dim,
            reference,
            scatterers,
            hidden=d.hidden,
            activation=d.activation,
            occupancy=d.occupancy,
            chain=torch.as_tensor(structure.chain_index),
            displace=d.displace,
        )
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


def starts_linearly(config: Config) -> bool:
    """Whether the encoder begins as a linear one."""
    e = config.encoder
    return e.start == "linear" or (e.start == "auto" and config.decoder.kind not in STRUCTURE_KINDS)


def window_side(radius: float, geometry: Geometry, margin: float = 20.0) -> int:
    """Side of the image window that holds a particle of some radius (A), and `margin` A more, even."""
    side = 2 * math.ceil((radius + margin) / geometry.pixel_size)
    return min(side, geometry.box)


def build_model(config: Config, start: Start, geometry: Geometry, *, given: bool = False) -> ImageModel:
    """Assemble encoder, decoder and likelihood.

    Parameters
    ----------
    config : Config
    start : Start
        Reference structure or consensus map.
    geometry : Geometry
    given : bool
        The posteriors are given, as in the density stage: there is nothing to encode.

    Returns
    -------
    ImageModel
        Its weights come from PyTorch's global generator: seed it first.
    """
    likelihood = build_likelihood(config, geometry)
    decoder = build_decoder(config, start, geometry)
    e = config.encoder
    kind = e.kind
    if kind == "auto":
        kind = "score+field" if isinstance(decoder, StructureDecoder) else "field"
    kinds = () if given else tuple(kind.split("+"))
    if e.network == "cnn" and kinds != ("image",):
        raise InputError(
            f"a convolutional encoder cannot read {e.kind!r} features", remedy="Set --encoder.kind image."
        )
    if isinstance(decoder, StructureDecoder):
        radius = float(decoder.reference.norm(dim=1).max())
        points = field_grid(decoder.reference, e.field_spacing, e.field_margin) if "field" in kinds else None
        spacing = e.field_spacing
    else:
        assert start.volume is not None
        if "score" in kinds:
            raise InputError(
                f"a {config.decoder.kind} decoder has no atoms to take {e.kind!r} features at",
                remedy="Set --encoder.kind field, image or image+field.",
            )
        support = density_support(start.volume, geometry.pixel_size, e.field_margin)
        radius = float(support.norm(dim=1).max()) if len(support) else 0.0
        points, spacing = spread_points(support, geometry.pixel_size, e.field_spacing, e.field_points)
    settings = FeatureSettings(
        kinds=kinds,
        window=window_side(radius, geometry) if e.phase_flip else geometry.box,
        phase_flip=e.phase_flip,
        max_beads=e.max_beads,
        spacing=spacing,
    )
    feature_map = FeatureMap(settings, decoder.reference, likelihood, points)
    lives_in = config.prior.support
    relaxation = relaxation_at(config, 0, 1)
    encoder: Encoder | GivenPosterior = GivenPosterior(config.z_dim, lives_in, relaxation)
    if not given:
        encoder = Encoder(
            feature_map.size,
            config.z_dim,
            network=e.network,
            hidden=e.hidden,
            activation=e.activation,
            dropout=e.dropout,
            linear=starts_linearly(config),
            support=lives_in,
            relaxation=relaxation,
        )
    return ImageModel(feature_map, encoder, decoder, likelihood)


def degrees_of_freedom(geometry: Geometry) -> float:
    """Real degrees of freedom of an image in the band."""
    return float(fourier.band_weights(geometry.box, geometry.pixel_size, geometry.cutoff).sum())
