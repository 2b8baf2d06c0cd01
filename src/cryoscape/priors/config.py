"""Settings of the priors: every choice is a kind, with `build()`. Sources are in `docs/defaults.md`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

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
    | BoltzmannConfig
    | GaussianRbmConfig
    | BernoulliConfig
    | CompleteMachineConfig
    | RbmConfig
    | DbmConfig,
    Field(discriminator="kind"),
]
