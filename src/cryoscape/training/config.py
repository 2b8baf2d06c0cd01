"""The whole run as one tree of settings.

Every choice between implementations is a union discriminated by `kind`; a misspelt name is refused. Each
default is stated with its source or the measurement behind it in `docs/defaults.md`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cryoscape.models.relaxations import RelaxationName
from cryoscape.priors.config import NormalConfig, PriorConfig
from cryoscape.settings import Fraction, NonNegative, Positive, Section

Features = Literal["auto", "image", "score", "field", "image+score", "score+field", "image+score+field"]
Network = Literal["mlp", "residual", "cnn"]
Activation = Literal["relu", "silu", "gelu", "leaky_relu"]


class DataConfig(Section):
    """Which part of the images is used."""

    cutoff: Positive | None = None
    """Resolution limit of the likelihood, A; by default where model and consensus stop agreeing."""
    held_out: Annotated[float, Field(ge=0, lt=0.5)] = 0.05
    """Fraction of the particles that are never trained on."""
    invert: bool | None = None
    """Whether protein is negative in the files; by default found by the pre-flight check."""
    frame: Literal["auto", "corner", "centre", "centroid"] = "auto"
    """Where the model file's origin is; by default found by the pre-flight check."""
    cache_memory: NonNegative = 2.0
    """Band-limited images are kept in memory up to this many GiB; beyond it they are read on demand."""


class EncoderConfig(Section):
    """How an image is turned into a posterior."""

    kind: Features = "auto"
    """What the encoder sees (see `cryoscape.models.features`): with atoms score+field, without field."""
    network: Network = "mlp"
    hidden: tuple[int, ...] = (512, 256, 128, 64)
    activation: Activation = "relu"
    start: Literal["auto", "random", "linear"] = "auto"
    """`linear`: begin with the directions in which features vary more than noise does; `auto`: for maps."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the features left out at random in each step, against learning single images by heart."""
    relaxation: RelaxationName | Literal["auto"] = "auto"
    """What the decoder sees of binary latents in training (see `cryoscape.models.relaxations`); `auto`:
    where chains are tied to bits straight-through, then reinmax; exponential smoothing otherwise."""
    sharpness: Positive | None = None
    """Of the relaxation; each has its own default."""
    phase_flip: bool = True
    """Whether `image` features are phase-flipped, whitened and cut to the particle's window."""
    max_beads: Annotated[int, Field(ge=8)] = 512
    """Score features of larger structures are pooled along the chain to this many beads."""
    field_spacing: Positive = 8.0
    """Grid of the `field` features, A."""
    field_margin: Positive = 15.0
    """How far from the structure, or the density, the grid reaches, A."""
    field_points: Annotated[int, Field(ge=8)] = 2000
    """Around a density the grid is widened until it has at most so many points."""
    refresh: tuple[Fraction, ...] = ()
    """Fractions of the run at which score features are recomputed at the current mean structure."""


class StructureDecoderConfig(Section):
    """What all decoders with atoms share."""

    scatter_from: Literal["atoms", "bead"] = "atoms"
    """Groups of atoms carried in the local frame of the chain; or one bead a residue, as in cryoSTAR."""
    atoms_per_point: Annotated[int, Field(ge=1)] = 5
    """Heavy atoms that scatter as one Gaussian; 1 is every atom, at a proportional cost."""


class AtomicConfig(StructureDecoderConfig):
    """Every residue moves (cryoSTAR)."""

    kind: Literal["atomic"] = "atomic"
    hidden: tuple[int, ...] = (32, 64, 128, 256, 512)
    activation: Activation = "relu"
    occupancy: Literal["none", "free", "tied"] = "none"
    """Whether chains but the largest may be absent: as the network says, or chain k as bit k of z says."""
    displace: bool = True
    """Whether residues move; without, only what is present changes."""


class ModesConfig(StructureDecoderConfig):
    """Normal-mode amplitudes and a rigid-body correction (NMA baseline)."""

    kind: Literal["modes"] = "modes"
    n_modes: Annotated[int, Field(ge=1)] = 16
    cutoff: Positive = 12.0
    """Contact distance of the elastic network, A."""
    hidden: tuple[int, ...] = (32, 64, 128, 256, 512)
    activation: Activation = "relu"
    rigid: bool = True


class SegmentsConfig(StructureDecoderConfig):
    """Rigid segments with soft borders along the chains (cryoSPHERE)."""

    kind: Literal["segments"] = "segments"
    n_segments: Annotated[int, Field(ge=1)] = 20
    hidden: tuple[int, ...] = (512, 512)
    activation: Activation = "leaky_relu"
    temperature: Positive = 0.05
    """Of the softmax that assigns residues to segments."""


class VoxelsConfig(Section):
    """Fourier-voxel volumes mixed by a network of z."""

    kind: Literal["voxels"] = "voxels"
    n_volumes: Annotated[int, Field(ge=1)] = 16
    """Rank of the differences from the consensus."""
    hidden: tuple[int, ...] = (64, 64)
    activation: Activation = "relu"
    lr: Positive = 0.02
    """Learning rate of the voxels, in units of the signal's amplitude."""
    smoothness: NonNegative = 1.0
    """Strength of the spectral prior, whose power is learned; 1 is Bayes' rule."""


class FieldConfig(Section):
    """A neural field in Fourier space (cryoDRGN)."""

    kind: Literal["field"] = "field"
    hidden: tuple[int, ...] = (256, 256, 256)
    """Widths, all the same: an entry is a residual layer."""
    activation: Literal["relu", "leaky_relu"] = "relu"
    encoding: Literal["gaussian", "geometric"] = "gaussian"
    n_frequencies: Annotated[int, Field(ge=3)] | None = None
    """Plane waves of the encoding; by default 3 box / 2."""
    sigma: Positive = 0.05
    """Spread of the gaussian positions, or farthest of the geometric ones, in sides of the box."""
    domain: Literal["fourier", "hartley"] = "fourier"
    consensus: bool = True
    """Learn the difference from the consensus map, in units of its amplitude; otherwise the whole map."""
    subset: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the coefficients that are evaluated for a batch in training, a new random one each time."""
    lr: Positive = 4e-3
    """Learning rate of the field."""
    window: Annotated[float, Field(gt=0.1, le=1)] = 0.85
    """Radius beyond which decoded maps are zero, in half sides of the box."""


DecoderConfig = Annotated[
    AtomicConfig | ModesConfig | SegmentsConfig | FieldConfig | VoxelsConfig, Field(discriminator="kind")
]
STRUCTURE_KINDS = ("atomic", "modes", "segments")


class GaussianConfig(Section):
    """Nats, with fitted radial gain and noise spectrum."""

    kind: Literal["gaussian"] = "gaussian"
    memory: Annotated[float, Field(gt=0, lt=1)] = 0.98
    """Weight of the past in the running estimates of gain and noise."""
    calibration: Annotated[int, Field(ge=100)] = 2000
    """Particles behind the first estimate."""


class CorrelationConfig(Section):
    """The correlation objective of cryoSTAR; not calibrated."""

    kind: Literal["correlation"] = "correlation"
    sigma: Positive = 2.0
    """Width of the residue Gaussians, A."""
    weight: Positive = 1.0
    """Factor of the correlation."""


class MeanSquaredConfig(Section):
    """The squared error of images of unit variance (cryoDRGN); not calibrated."""

    kind: Literal["mse"] = "mse"
    calibration: Annotated[int, Field(ge=100)] = 2000
    """Particles behind the estimate of the images' variance."""


LikelihoodConfig = Annotated[
    GaussianConfig | CorrelationConfig | MeanSquaredConfig, Field(discriminator="kind")
]


class RestraintsConfig(Section):
    """Structural restraints; energies in nats per image, stiffness in A^-2."""

    bond: NonNegative = 2.0
    network: NonNegative = 0.1
    clash: NonNegative = 5.0
    keep: Annotated[float, Field(gt=0, le=100)] = 80.0
    """Percentile of the adaptive relaxation: edges that vary more over the batch are released."""
    relax_on: Literal["distance", "squared_error"] = "distance"
    """Whose variance ranks the edges: the paper's distance, or the squared error of cryoSTAR's code."""
    amino_cutoff: NonNegative = 12.0
    nucleotide_cutoff: NonNegative = 15.0
    inter_chain: bool = False
    clash_cutoff: Positive = 4.0
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each batch on which the energies are evaluated: less costs less, and was worse at low SNR."""
    mean: bool = False
    """Average over terms and scale by the correlation objective's degrees of freedom (cryoSTAR)."""
    through_latent: bool = False
    """Let restraint gradients reach the encoder. They then teach it that strained states are rare."""
    balance: NonNegative = 0.0
    """If positive, restraints are rescaled so that their gradient is this fraction of the likelihood's."""


class ObjectiveConfig(Section):
    """The weight of the KL term over the run."""

    beta: NonNegative = 1.0
    """Final weight; 1 makes the objective the evidence bound."""
    beta_start: NonNegative = 0.1
    hold: Fraction = 0.5
    """Fraction of the run at `beta_start`."""
    ramp: Fraction = 0.75
    """Fraction of the run at which `beta` is reached."""
    free_bits: NonNegative = 0.0
    """Nats per dimension below which the KL has no gradient (cryoSTAR: 3)."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Posterior samples per image and step."""
    bound: Literal["elbo", "importance"] = "elbo"
    """The evidence bound, or the tighter one that weights `samples` by their importance (IWAE)."""
    gradient: Literal["relaxed", "leave-one-out"] = "relaxed"
    """Of binary latents: through `encoder.relaxation`, or unbiased, from two samples or more."""


class PosesConfig(Section):
    """Corrections of the poses, learnt with the model."""

    refine: bool = False
    """Learn a small rotation and shift for every particle."""
    rotation_sd: Positive = 3.0
    """Standard deviation of their Gaussian prior per axis, degrees."""
    shift_sd: Positive = 2.0
    """The same of the shift, A."""
    lr: Positive = 0.05
    """Learning rate, in standard deviations of the prior."""
    start: Fraction = 0.2
    """Fraction of the run after which poses begin to move: first there must be something to fit them to."""


class TrainingConfig(Section):
    """The optimisation."""

    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Positive | None = None
    """Used where `steps` is not given; the default is 2,000 steps or 30 epochs, whichever is more."""
    batch: Annotated[int, Field(ge=1)] = 64
    lr: Positive = 5e-4
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    weight_decay: NonNegative = 0.01
    clip: NonNegative = 0.0
    """Norm at which gradients are clipped; 0 for never."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of the exponential moving average of the weights; 0 for none."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 1
    """CPU threads; one is faster than two on a busy machine. 0 leaves PyTorch's own choice."""
    precision: Literal["auto", "32", "bf16", "16"] = "auto"
    """Of encoder and projection products; `auto` is bf16 on processors that compute in it, else 32."""
    checkpoint_minutes: Positive = 5.0
    log_every: Annotated[int, Field(ge=1)] = 50
    tensorboard: bool = False


class Config(Section):
    """All settings of a run."""

    preset: str = "cryoscape"
    z_dim: Annotated[int, Field(ge=1)] = 8
    data: DataConfig = DataConfig()
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = AtomicConfig()
    prior: PriorConfig = NormalConfig()
    likelihood: LikelihoodConfig = GaussianConfig()
    restraints: RestraintsConfig = RestraintsConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    poses: PosesConfig = PosesConfig()
    training: TrainingConfig = TrainingConfig()
