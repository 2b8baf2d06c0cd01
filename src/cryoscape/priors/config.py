"""Settings of the priors: every choice is a kind, with `build()`. Sources are in `docs/defaults.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cryoscape.priors.samplers.config import GibbsConfig, SamplerConfig
from cryoscape.settings import Count, Fraction, NonNegative, Positive, Section

if TYPE_CHECKING:
    from cryoscape.priors.base import LatentPrior

Support = Literal["real", "binary"]


class NormalConfig(Section):
    """N(0, I)."""

    kind: Literal["normal"] = "normal"
    learned: ClassVar[bool] = False
    support: ClassVar[Support] = "real"
    lr: ClassVar[float] = 0.0
    start: ClassVar[float] = 0.0

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.normal import NormalPrior

        return NormalPrior(z_dim)


class LearnedPriorConfig(Section):
    """What all priors with parameters share."""

    learned: ClassVar[bool] = True
    support: ClassVar[Support] = "real"

    lr: Positive = 3e-3
    """Learning rate in joint training, with an Adam of its own."""
    start: Fraction = 0.5
    """Fraction of the run at which it takes over from N(0, I), or fair coins, started from the posteriors."""


class MixtureConfig(LearnedPriorConfig):
    """Full-covariance Gaussian mixture."""

    kind: Literal["mixture"] = "mixture"
    components: Count = 16
    floor: Positive = 0.01
    """Smallest standard deviation of a component, in whitened units."""

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.mixture import MixturePrior

        return MixturePrior(z_dim, self.components, floor=self.floor)


class VampConfig(LearnedPriorConfig):
    """Mixture of the posteriors of exemplar particles."""

    kind: Literal["vamp"] = "vamp"
    exemplars: Count = 128

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.vamp import VampPrior

        return VampPrior(z_dim, self.exemplars)


class FlowConfig(LearnedPriorConfig):
    """Neural spline flow."""

    kind: Literal["flow"] = "flow"
    transforms: Count = 3
    hidden: tuple[Count, ...] = (64, 64)
    bins: Annotated[int, Field(ge=2)] = 8

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.flow import FlowPrior

        return FlowPrior(z_dim, transforms=self.transforms, hidden=self.hidden, bins=self.bins)


class DiffusionConfig(LearnedPriorConfig):
    """Latent diffusion: a network that corrects the denoiser of a Gaussian, or of a mixture."""

    kind: Literal["diffusion"] = "diffusion"
    base: Literal["normal", "mixture"] = "normal"
    """What the network corrects; a mixture is fitted first, and can be deconvolved."""
    components: Count = 16
    """Of the mixture."""
    layers: Count = 5
    width: Count = 128
    noise_mean: float = 0.0
    """Of ln sigma in training, whitened."""
    noise_std: Positive = 1.2
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the moving average of the weights."""
    sampling: Literal["heun", "stochastic"] = "heun"
    sampling_steps: Count = 40
    """About 40 for heun, 1,000 for stochastic."""
    tolerance: Positive = 1e-5
    """Local error of the flow behind densities and codes."""

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.diffusion.prior import DiffusionPrior

        settings = self.model_dump(exclude={"kind", "lr", "start"})
        return DiffusionPrior(z_dim, **settings)


class HierarchyConfig(LearnedPriorConfig):
    """Clusters, and a diffusion within each."""

    kind: Literal["hierarchy"] = "hierarchy"
    clusters: Count = 4
    components: Count = 4
    """Of the mixture that the network of each cluster corrects."""
    layers: Count = 3
    width: Count = 128

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.diffusion.hierarchy import HierarchyPrior

        return HierarchyPrior(
            z_dim, self.clusters, components=self.components, layers=self.layers, width=self.width
        )


class BoltzmannConfig(LearnedPriorConfig):
    """Gaussian mixture whose components are the configurations of coupled switches."""

    kind: Literal["boltzmann"] = "boltzmann"
    spins: Count = 6
    emission: Literal["auto", "table", "additive"] = "auto"
    """A Gaussian of its own for every configuration, or means that add up over the switches."""
    origin: Literal["embeddings", "modes", "domains"] = "embeddings"
    """What the switches start as: parts of the cloud of codes, normal modes or domains of the model."""
    floor: Positive = 0.01
    """Smallest standard deviation of a component, in whitened units."""

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.boltzmann import BoltzmannPrior

        return BoltzmannPrior(z_dim, self.spins, emission=self.emission, floor=self.floor)


class GaussianRbmConfig(LearnedPriorConfig):
    """Gaussian-Bernoulli restricted Boltzmann machine."""

    kind: Literal["grbm"] = "grbm"
    hidden: Count = 10

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.grbm import GaussianRbmPrior

        return GaussianRbmPrior(z_dim, self.hidden)


class EnergyConfig(LearnedPriorConfig):
    """A fitted base, tilted by a network."""

    kind: Literal["energy"] = "energy"
    lr: Positive = 1e-3
    """Learning rate in joint training, with an Adam of its own; 1e-4 where it learns from short chains."""
    base: Literal["mixture", "flow", "normal"] = "mixture"
    """What is tilted: fitted when the prior takes over, then left alone. N(0, I) where it learns from short
    chains."""
    components: Count = 16
    """Of a mixture as base."""
    hidden: tuple[Count, ...] = (128, 128)
    learning: Literal["nce", "short-run", "persistent", "sampler"] = "nce"
    """Noise contrast, short chains (Pang et al. 2020), persistent chains, or a sampler network."""
    penalty: NonNegative = 1e-4
    """Weight of the mean square of the tilt in the loss."""
    chain_steps: Count = 60
    """Steps of the short chains."""
    step_size: Positive = 0.4
    """Noise of a step of the short chains, in whitened units."""
    buffer: Count = 10_000
    """Persistent chains."""
    refresh: Fraction = 0.05
    """Share of the persistent chains that is started again before they are moved."""
    sampling: Literal["resampling", "mala", "short-run"] = "resampling"
    """Points of the base drawn again, chains with a Metropolis correction, or short chains without."""
    proposals: Count = 200_000
    """Points of the base behind log Z and resampling; 50,000 of a flow."""

    @model_validator(mode="before")
    @classmethod
    def _settings_that_go_together(cls, given: Any) -> Any:
        """Short chains of large steps need N(0, I) as base and a slow network; points of a flow are dear."""
        if isinstance(given, dict) and given.get("learning") == "short-run":
            given = {"base": "normal", "lr": 1e-4, **given}
        if isinstance(given, dict) and given.get("base") == "flow":
            given = {"proposals": 50_000, **given}
        return given

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.energies.choices import energy_prior

        return energy_prior(z_dim, self)


class RecoveryConfig(LearnedPriorConfig):
    """Energies on a ladder of noise levels, learned by recovery likelihood (LSD-EBM)."""

    kind: Literal["recovery"] = "recovery"
    lr: Positive = 1e-3
    """Learning rate in joint training, with an Adam of its own."""
    levels: Annotated[int, Field(ge=2)] = 6
    hidden: tuple[Count, ...] = (128, 128)
    chain_steps: Count = 10
    """Langevin steps over one blur."""
    base: Literal["mixture", "normal"] = "mixture"
    """What the network corrects: a fitted mixture, blurred to every level, or N(0, I)."""
    components: Count = 16
    """Of the mixture, which is also what log Z is estimated from."""
    sampling: Literal["ladder", "resampling"] = "ladder"
    """Down the ladder, or from the density of the lowest level."""
    penalty: NonNegative = 1e-4
    """Weight of the mean square of the network in the loss."""
    proposals: Count = 200_000
    """Points of the mixture behind log Z and resampling."""

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.energies.recovery import RecoveryPrior

        return RecoveryPrior(
            z_dim,
            levels=self.levels,
            hidden=self.hidden,
            steps=self.chain_steps,
            base=self.base,
            components=self.components,
            sampling=self.sampling,
            penalty=self.penalty,
            proposals=self.proposals,
        )


class BinaryConfig(LearnedPriorConfig):
    """What all priors of bits share."""

    support: ClassVar[Support] = "binary"


class BernoulliConfig(BinaryConfig):
    """Independent bits."""

    kind: Literal["bernoulli"] = "bernoulli"

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.machines.kinds import independent_bits

        return independent_bits(z_dim)


class MachineConfig(BinaryConfig):
    """What the Boltzmann machines on bits share."""

    chains: Count = 512
    """Persistent chains of the negative phase."""
    sampler: SamplerConfig = GibbsConfig()
    decay: NonNegative = 1e-4
    """L2 penalty on the weights."""

    @field_validator("sampler", mode="before")
    @classmethod
    def _gibbs_by_default(cls, value: Any) -> Any:
        """Let one setting of the default sampler be changed without naming its kind."""
        return {"kind": "gibbs", **value} if isinstance(value, dict) else value


class CompleteMachineConfig(MachineConfig):
    """Boltzmann machine without restriction: every pair of bits is coupled."""

    kind: Literal["bm"] = "bm"

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.machines.kinds import complete_machine

        return complete_machine(z_dim, chains=self.chains, sampler=self.sampler.build(), decay=self.decay)


class RbmConfig(MachineConfig):
    """Restricted Boltzmann machine."""

    kind: Literal["rbm"] = "rbm"
    hidden: Annotated[int, Field(ge=0)] = 0
    """Hidden units that are summed over; with 0 the bits themselves are split into two sides."""

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.machines.kinds import restricted_machine

        return restricted_machine(
            z_dim, self.hidden, chains=self.chains, sampler=self.sampler.build(), decay=self.decay
        )


class DbmConfig(MachineConfig):
    """Deep Boltzmann machine: layers of bits, coupled to the next."""

    kind: Literal["dbm"] = "dbm"
    layers: tuple[Count, ...] = ()
    """Sizes of the layers, which add up to the bits; three about equal ones by default."""
    pretrain: bool = False
    """Start from a stack of restricted machines, each trained on the layer below."""

    def build(self, z_dim: int) -> LatentPrior:
        """Return the prior."""
        from cryoscape.priors.machines.kinds import layered_machine

        return layered_machine(
            z_dim,
            self.layers,
            chains=self.chains,
            sampler=self.sampler.build(),
            decay=self.decay,
            pretrain=self.pretrain,
        )


PriorConfig = Annotated[
    NormalConfig
    | MixtureConfig
    | VampConfig
    | FlowConfig
    | DiffusionConfig
    | HierarchyConfig
    | BoltzmannConfig
    | GaussianRbmConfig
    | EnergyConfig
    | RecoveryConfig
    | BernoulliConfig
    | CompleteMachineConfig
    | RbmConfig
    | DbmConfig,
    Field(discriminator="kind"),
]
