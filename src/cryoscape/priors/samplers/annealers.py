"""Any `dimod.Sampler` as a sampler of Boltzmann machines, and the other way round.

dimod minimises, with the sign of the energy that it has here: p(s) ~ exp(-beta (h.s + sum J s s)).
What is handed over is beta times the problem, so that schedules are relative: they end at 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.samplers.annealing_extra import import_extra
from cryoscape.priors.samplers.base import IsingProblem, IsingSampler, IsingSamples, chain_starts, seeded
from cryoscape.priors.samplers.bennett import log_mean_exp
from cryoscape.priors.samplers.bqm import bqm_of, spins_of
from cryoscape.priors.samplers.gibbs import BlockGibbs
from cryoscape.priors.samplers.hardware import DeviceAnswer, DeviceRanges
from cryoscape.priors.samplers.schedules import check_schedule, control_of

if TYPE_CHECKING:
    import dimod

Correction = Literal["none", "gibbs", "weights"]

_PILOT_READS = 5000
_PILOTS = 4
_CLOSE = 0.03


@dataclass
class _Answers:
    """What the submissions of one problem returned."""

    spins: list[Tensor] = field(default_factory=list)
    log_weight: list[Tensor] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)

    def samples(self, device: torch.device) -> IsingSamples:
        """All of them, with what the sampler knows of log Z."""
        log_z = self.info.get("log_partition_function", self.info.get("log_z"))
        told = {} if log_z is None else {"log_z": float(log_z)}
        told |= {name: float(self.info[name]) for name in ("log_z_err", "ess") if name in self.info}
        weight = torch.cat(self.log_weight).to(device) if self.log_weight else None
        return IsingSamples(torch.cat(self.spins).to(device), weight, told)


class DimodSampler(IsingSampler):
    """Samples of any `dimod.Sampler`.

    An annealer needs an explicit schedule, relative to the temperature that is asked for: it ends at 1, a
    transverse field at 0. `simulated_annealing` and `path_integral` come with one. A sampler with a parameter
    `beta` needs nothing.

    Anything else is taken for hardware, whose temperature is not known. A quantum annealer is handed over as
    it is, and needs nothing but the user's own token, which `dwave-system` finds by itself:

        from dwave.system import DWaveSampler, EmbeddingComposite
        sampler = DimodSampler(EmbeddingComposite(DWaveSampler()), correction="gibbs")

    Its ranges are read from its properties, its own rescaling (`auto_scale`) is switched off, and the
    prefactor of the problem is found in a few short submissions and then follows the answers from call to
    call. Chains of qubits have to be in range, too: give `chain_strength` where the embedding's own is not.

    Parameters
    ----------
    sampler : dimod.Sampler
    labels : sequence, optional
        Names of the spins, such as the qubits of a device without an embedding; 0 to n - 1 by default.
    prefactor : float, optional
        Of hardware: what problems are multiplied with, 1 / effective inverse temperature; found by itself
        where none is given.
    ranges : DeviceRanges, optional
        Of hardware, in place of what it says of itself.
    correction : {"none", "gibbs", "weights"}
        Of hardware: sweeps at the temperature that is asked for, or importance weights, which mend the rest
        of the temperature and what was clipped.
    sweeps : int
        Of that correction.
    **options
        For every call of `sampler.sample`.

    Raises
    ------
    InputError
        If the sampler only optimises, or its schedule is the default or ends elsewhere.
    """

    def __init__(
        self,
        sampler: dimod.Sampler,
        *,
        labels: Sequence[Hashable] | None = None,
        prefactor: float | None = None,
        ranges: DeviceRanges | None = None,
        correction: Correction = "none",
        sweeps: int = 5,
        **options: Any,
    ) -> None:
        self.sampler = sampler
        self.labels = labels
        self.control = control_of(sampler, options)
        self.options = options
        # Chains can go on only where the schedule does not heat them up first.
        stays = self.control == "beta" or (self.control == "schedule" and check_schedule(sampler, options))
        self.supports_initial_states = stays and "initial_states" in sampler.parameters
        self.ranges = ranges or DeviceRanges.of(sampler)
        self.correction = correction
        self.sweeps = sweeps
        self.prefactor = prefactor
        self._follows = prefactor is None
        if self.control == "none" and "auto_scale" in sampler.parameters:
            self.options = {"auto_scale": False, **options}

    @torch.no_grad()
    def sample_ising(
        self,
        problem: IsingProblem,
        *,
        num_reads: int,
        beta: float = 1.0,
        initial_states: Tensor | None = None,
        seed: int | None = None,
    ) -> IsingSamples:
        """Draw spins.

        `info` has what the sampler reports of the law (`log_z`), and of hardware `beta_eff`, `prefactor`,
        `clipped` and `faults`.

        Raises
        ------
        InputError
            If chains are handed to a sampler without, or the answer lacks spins or reads.
        """
        generator = seeded(seed)
        if not self.supports_initial_states:
            self.refuse_initial_states(initial_states)
        wanted = problem.scaled(beta)
        if self.control == "none":
            return self._sample_device(wanted, num_reads, beta, generator)
        return self._submit(wanted, num_reads, generator, initial_states)

    def _submit(
        self, problem: IsingProblem, num_reads: int, generator: torch.Generator, states: Tensor | None = None
    ) -> IsingSamples:
        """Samples of one problem, in as many calls as the largest number of reads asks for."""
        labels = range(len(problem)) if self.labels is None else self.labels
        bqm, options, answers = bqm_of(problem, self.labels), dict(self.options), _Answers()
        if states is not None:
            states = chain_starts(problem, num_reads, states, generator).cpu()
        for start in range(0, num_reads, self.ranges.reads):
            reads = min(self.ranges.reads, num_reads - start)
            if "seed" in self.sampler.parameters:
                options["seed"] = int(torch.randint(2**31 - 1, (), generator=generator))
            if states is not None:
                options["initial_states"] = (states[start : start + reads].numpy(), list(labels))
            answer = self.sampler.sample(bqm, num_reads=reads, **options)
            answers.spins.append(spins_of(answer, labels))
            answers.info = answer.info
            if "log_weight" in answer.record.dtype.names:
                answers.log_weight.append(torch.from_numpy(answer.record["log_weight"].astype(float)))
        samples = answers.samples(problem.fields.device)
        if len(samples.spins) != num_reads:
            raise InputError(
                f"{type(self.sampler).__name__} returned {len(samples.spins)} of {num_reads} reads",
                remedy="Use a sampler that returns as many as it is asked for.",
            )
        return samples

    def _sample_device(
        self, wanted: IsingProblem, num_reads: int, beta: float, generator: torch.Generator
    ) -> IsingSamples:
        """Samples of hardware, mended as asked."""
        if self.prefactor is None:
            self.prefactor = self._found_prefactor(wanted, min(num_reads, _PILOT_READS), generator)
        answer = self._ask(wanted, self.prefactor, num_reads, generator)
        if self._follows:
            self.prefactor = answer.next_prefactor
        info = {
            "beta_eff": beta * answer.ratio,
            "prefactor": answer.prefactor,
            "clipped": answer.clipped,
            "faults": answer.faults(),
        }
        if self.correction == "weights":
            weight = answer.log_weight(wanted)
            return IsingSamples(answer.spins, weight, {**info, "ess": float(log_mean_exp(weight)[2])})
        if self.correction == "gibbs":
            number = int(torch.randint(2**31 - 1, (), generator=generator))
            mended = BlockGibbs(self.sweeps).sample_ising(
                wanted, num_reads=num_reads, initial_states=answer.spins, seed=number
            )
            return IsingSamples(mended.spins, info=info)
        return IsingSamples(answer.spins, info=info)

    def _ask(
        self, wanted: IsingProblem, prefactor: float, num_reads: int, generator: torch.Generator
    ) -> DeviceAnswer:
        """One answer of hardware, in random order: devices list theirs by energy."""
        handed, clipped = self.ranges.clip(wanted.scaled(prefactor))
        spins = self._submit(handed, num_reads, generator).spins
        order = torch.randperm(len(spins), generator=generator)
        return DeviceAnswer.of(spins[order.to(spins.device)], handed, clipped, prefactor)

    def _found_prefactor(self, wanted: IsingProblem, num_reads: int, generator: torch.Generator) -> float:
        prefactor = 1.0
        for _ in range(_PILOTS):
            answer = self._ask(wanted, prefactor, num_reads, generator)
            prefactor = answer.next_prefactor
            if abs(answer.ratio - 1) < _CLOSE:
                break
        return prefactor


def simulated_annealing(sweeps: int = 100) -> DimodSampler:
    """Simulated annealing of dwave-samplers as a sampler: 0.1 to 1 times beta, linearly, by Metropolis.

    Raises
    ------
    InputError
        If dwave-samplers is not installed.
    """
    sampler = import_extra("dwave.samplers").SimulatedAnnealingSampler()
    return DimodSampler(sampler, beta_range=(0.1, 1.0), beta_schedule_type="linear", num_sweeps=sweeps)


def path_integral(sweeps: int = 200) -> DimodSampler:
    """Path-integral annealing of dwave-samplers as a sampler: problem 0 to 1, transverse field 1 to 0.

    Raises
    ------
    InputError
        If dwave-samplers is not installed.
    """
    sampler = import_extra("dwave.samplers").PathIntegralAnnealingSampler()
    rising = torch.linspace(0, 1, sweeps, dtype=torch.float64).numpy()
    return DimodSampler(sampler, beta_schedule_type="custom", Hp_field=rising, Hd_field=1 - rising)


def as_dimod_sampler(sampler: IsingSampler) -> dimod.Sampler:
    """A sampler of Boltzmann machines as a `dimod.Sampler`, for programs that expect one.

    Its parameters are `num_reads`, `beta`, `initial_states` and `seed`; log weights become a field of the
    sample set, and what the sampler knows (`log_z` and the like) its `info`.

    Raises
    ------
    InputError
        If dimod is not installed.
    """
    import_extra("dimod")
    from cryoscape.priors.samplers.dimod_sampler import IsingDimodSampler

    return IsingDimodSampler(sampler)
