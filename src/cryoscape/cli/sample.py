"""``cryoscape sample``: conformations drawn from the population that a run has learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.decoded_files import DecodedFile
from cryoscape.cli.options import DecodedOut, Lowpass, RunFolder, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    import torch

    from cryoscape.analysis.guidance.guided_sampling import ConditionalSamples
    from cryoscape.analysis.variables.conditions import Conditions
    from cryoscape.training.run import Run

_LISTED = 10
_RARE_ERROR = 0.5  # standard error of ln P from which on it is called unreliable


def sample(
    run: RunFolder,
    /,
    *,
    number: Annotated[int, Parameter(name=["--number", "-n"], help="How many.")],
    out: DecodedOut,
    where: Annotated[
        tuple[str, ...],
        Parameter(
            help='Condition, several times for several: "distance A:55 A:169 < 20", "rg 20..25", '
            '"distance A:55 A:169 = 20 +- 1", "fit MAP.mrc", "state 2", "cluster 3", file.py:function.',
            show_default=False,
        ),
    ] = (),
    optimise: Annotated[
        bool, Parameter(help="Climb to the most probable conformations under --where, from -n starts.")
    ] = False,
    lowpass: Lowpass = None,
    seed: int = 0,
) -> None:
    """Draw conformations from the prior of a run and decode them.

    Their frequencies are those of the learned population; with the normal prior they are those of N(0, I),
    which nothing in the images has shaped. With --where they are those of the part of the population that
    meets all conditions; how large that part is gets printed, in per cent and as a free energy. Files are as
    those of `decode`; .npz also has `log_prior` (n,), nats.
    """
    import numpy as np
    import torch

    from cryoscape.training.run import Run

    if number < 1:
        raise InputError(f"{number} samples cannot be drawn", remedy="Give -n 1 or more.")
    if optimise and not where:
        raise InputError("there is nothing to optimise", remedy="Say what with --where.")
    file = DecodedFile(out, lowpass)
    one_thread()
    opened = Run.open(run)
    file.check(opened)
    conditions = _conditions(opened, where) if where else None
    if not opened.config.prior.learned:
        say(
            "the prior of this run is N(0, I): the samples follow it, not a population learnt from the images"
        )
    if conditions is None:
        z = opened.sample(number, seed)
    else:
        chosen = _climb if optimise else _draw
        z = chosen(opened, conditions, number, torch.Generator().manual_seed(seed)).float().numpy()
    with torch.no_grad():
        log_prior = opened.prior.log_prob(torch.from_numpy(z)).numpy().astype(np.float32)
    file.write(opened, {"z": z, "log_prior": log_prior})


def _conditions(run: Run, where: tuple[str, ...]) -> Conditions:
    from cryoscape.analysis.variables.condition_syntax import parse_condition
    from cryoscape.analysis.variables.conditions import Conditions
    from cryoscape.analysis.variables.decoded_latents import RunDecoder

    decoder = RunDecoder(run)
    return Conditions([parse_condition(run, text, say) for text in where], decoder, decoder.chunk)


def _draw(run: Run, conditions: Conditions, number: int, generator: torch.Generator) -> torch.Tensor:
    from cryoscape.analysis.guidance.guided_sampling import REPEATS, sample_under_conditions

    with reporter().task("sample", REPEATS + 1, "populations") as bar:
        found = sample_under_conditions(run.prior, conditions, number, generator, progress=bar.advance)
    _tell_share(run, conditions, found)
    _tell_values(conditions, found.z)
    return found.z


def _tell_share(run: Run, conditions: Conditions, found: ConditionalSamples) -> None:
    error = 100 * found.probability * found.std_err
    if conditions.weighs:
        what = "mean weight of the conditions in the population"
    else:
        what = "of the population meets the conditions"
    share = f"{100 * found.probability:.3g} +- {error:.1g} %"
    energy = f"{0.0 - found.log_probability:.2f} +- {found.std_err:.2f} kT"
    say(f"{what}: {share}, {energy}" if conditions.weighs else f"{share} {what}: {energy}")
    say(
        f"{len(found.z)} samples from {found.ess:.0f} effective draws of the prior, conditions turned on in "
        f"{found.stages} steps, {100 * found.acceptance:.0f} % of the last moves accepted"
    )
    particles = run.info["particles"]["n"]
    if not conditions.weighs and found.probability * particles < 1:
        say(
            f"warning: less than one of the run's {particles} particles is expected to be like that: "
            "these samples show what the prior extrapolates, not what was seen"
        )
    if found.std_err > _RARE_ERROR or found.ess < 0.02 * len(found.z):
        say("warning: hardly any of the population meets the conditions; take the share as an order of size")


def _tell_values(conditions: Conditions, z: torch.Tensor) -> None:
    values = conditions.values(z).double()
    rows = [
        [
            condition.text,
            f"{float(column.mean()):.4g}",
            f"{float(column.std(correction=0)):.3g}",
            f"{float(column.min()):.4g}",
            f"{float(column.max()):.4g}",
            condition.unit,
        ]
        for condition, column in zip(conditions.conditions, values.T)
    ]
    say(table(["condition", "mean", "sd", "least", "most", "unit"], rows))


def _climb(run: Run, conditions: Conditions, number: int, generator: torch.Generator) -> torch.Tensor:
    from cryoscape.analysis.guidance.optimisation import STEPS, optimise

    starts = run.prior.sample(number, generator)
    with reporter().task("optimise", STEPS, "steps") as bar:
        found = optimise(run.prior, conditions, starts, generator=generator, progress=bar.advance)
    values = conditions.values(found.z)
    header = ["start", "log p", "log weight", *(condition.text for condition in conditions.conditions), "met"]
    rows = [
        [
            str(k + 1),
            f"{float(found.log_prob[k]):.2f}",
            f"{float(found.log_weight[k]):.2f}",
            *(f"{float(value):.4g}" for value in values[k]),
            "yes" if found.met[k] else "NO",
        ]
        for k in range(min(_LISTED, len(found.z)))
    ]
    say(table(header, rows))
    if not bool(found.met.any()):
        say("warning: no start reached a conformation that meets the conditions")
    return found.z
