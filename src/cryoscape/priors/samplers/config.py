"""Settings of the samplers: every choice is a kind, with `build()`.

The defaults are those of the negative phase of a training, where chains go on from step to step; samplers
without chains start anew every time and need a schedule that is long enough by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from cryoscape.settings import Count, Section

if TYPE_CHECKING:
    from cryoscape.priors.samplers.base import IsingSampler


class GibbsConfig(Section):
    """Block Gibbs on the coloured graph."""

    kind: Literal["gibbs"] = "gibbs"
    sweeps: Count = 5
    """Sweeps between two updates of the parameters."""

    def build(self) -> IsingSampler:
        """Return the sampler."""
        from cryoscape.priors.samplers.gibbs import BlockGibbs

        return BlockGibbs(self.sweeps)


class TemperingConfig(Section):
    """Parallel tempering over block Gibbs."""

    kind: Literal["tempering"] = "tempering"
    sweeps: Count = 5
    """Sweeps of all replicas between two updates of the parameters."""
    replicas: Annotated[int, Field(ge=2)] = 12
    """Inverse temperatures from 0 to 1."""

    def build(self) -> IsingSampler:
        """Return the sampler."""
        from cryoscape.priors.samplers.tempering import ParallelTempering

        return ParallelTempering(self.sweeps, self.replicas)


class PopulationConfig(Section):
    """Population annealing."""

    kind: Literal["population"] = "population"
    temperatures: Count = 50
    """Steps from independent spins to the law."""
    sweeps: Count = 1
    """Sweeps of every step."""

    def build(self) -> IsingSampler:
        """Return the sampler."""
        from cryoscape.priors.samplers.population import PopulationAnnealing

        return PopulationAnnealing(self.temperatures, self.sweeps)


class ExactConfig(Section):
    """Independent exact samples by enumeration; for machines with a side of up to 20."""

    kind: Literal["exact"] = "exact"

    def build(self) -> IsingSampler:
        """Return the sampler."""
        from cryoscape.priors.samplers.exact import ExactSampler

        return ExactSampler()


class TreeConfig(Section):
    """Independent exact samples by a tree decomposition; for sparse graphs. Needs dwave-samplers."""

    kind: Literal["tree"] = "tree"
    max_width: Annotated[int, Field(ge=1, le=25)] = 25
    """Width of the decomposition; time and memory double with every further one."""

    def build(self) -> IsingSampler:
        """Return the sampler."""
        from cryoscape.priors.samplers.tree import TreeSampler

        return TreeSampler(self.max_width)


class SimulatedAnnealingConfig(Section):
    """Simulated annealing that ends at the temperature of the machine. Needs dwave-samplers."""

    kind: Literal["simulated-annealing"] = "simulated-annealing"
    sweeps: Annotated[int, Field(ge=2)] = 100
    """Length of the schedule, 0.1 to 1 linearly."""

    def build(self) -> IsingSampler:
        """Return the sampler."""
        from cryoscape.priors.samplers.annealers import simulated_annealing

        return simulated_annealing(self.sweeps)


class PathIntegralConfig(Section):
    """Path-integral annealing that ends without a transverse field. Needs dwave-samplers."""

    kind: Literal["path-integral"] = "path-integral"
    sweeps: Annotated[int, Field(ge=2)] = 200
    """Length of the schedule: problem 0 to 1, transverse field 1 to 0."""

    def build(self) -> IsingSampler:
        """Return the sampler."""
        from cryoscape.priors.samplers.annealers import path_integral

        return path_integral(self.sweeps)


SamplerConfig = Annotated[
    GibbsConfig
    | TemperingConfig
    | PopulationConfig
    | ExactConfig
    | TreeConfig
    | SimulatedAnnealingConfig
    | PathIntegralConfig,
    Field(discriminator="kind"),
]
