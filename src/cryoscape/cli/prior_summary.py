"""What ``cryoscape prior fit`` says of the prior that it fitted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cryoscape.cli.console import table

if TYPE_CHECKING:
    from cryoscape.priors.folder import StoredPrior

_SHOWN = 16


def describe_fit(stored: StoredPrior, particles: int) -> str:
    """Lay out a fit: how well, the states with their populations, the couplings, the warnings."""
    report, prior = stored.report, stored.prior
    assert report is not None
    deconvolved = report.objective == "deconvolved"
    what = "evidence, over that under the prior of the embedding" if deconvolved else "log p"
    lines = [
        f"embedding: {particles} {stored.source['description']}, {prior.z_dim} dimensions",
        f"{stored.settings.kind} prior, {report.objective}: fitted to {report.particles} particles "
        f"in {report.seconds:.1f} s",
        f"held-out {what}: {report.log_prob:.4f} +- {report.log_prob_error:.4f} nats "
        f"({report.held_out} particles)",
    ]
    if report.ess is not None:
        lines.append(f"effective share of the posterior samples: {100 * report.ess:.1f} %")
    partition = prior.log_partition()
    if partition.std_err > 0:
        lines.append(
            f"log Z: {partition.value:.3f} +- {partition.std_err:.2g} nats ({partition.method}, "
            f"{partition.ess:.0f} effective samples)"
        )
    lines += [*_states(stored), *_couplings(stored)]
    return "\n".join([*lines, *(f"warning: {text}" for text in report.warnings)])


def _states(stored: StoredPrior) -> list[str]:
    states = stored.prior.states()
    if states is None:
        return []
    order = states.weight.argsort()[::-1]
    rows = [(states.names[k], f"{100 * states.weight[k]:.2f}") for k in order[:_SHOWN]]
    lines = [table(("state", "population, %"), rows)]
    if len(order) > _SHOWN:
        rest = 100 * states.weight[order[_SHOWN:]].sum()
        lines.append(f"and {len(order) - _SHOWN} more with {rest:.2f} % together")
    return lines


def _couplings(stored: StoredPrior) -> list[str]:
    """Fields of few switches or bits, and the strongest couplings, where the prior has any."""
    prior = stored.prior
    couplings, fields = (getattr(prior, name, None) for name in ("couplings_kt", "fields_kt"))
    if couplings is None or fields is None:
        return []
    of_bits = prior.support == "binary"
    lines = []
    field = fields().double().cpu().numpy()
    if len(field) <= _SHOWN:
        rows = [(str(k + 1), f"{x:+.2f}") for k, x in enumerate(field)]
        lines.append(table(("bit" if of_bits else "switch", "field, kT"), rows))
    coupling = np.triu(couplings().double().cpu().numpy(), 1)
    first, second = np.nonzero(coupling)
    if not len(first):
        return lines
    value = coupling[first, second]
    order = np.abs(value).argsort()[::-1]
    rows = [(f"{first[k] + 1} and {second[k] + 1}", f"{value[k]:+.2f}") for k in order[:_SHOWN]]
    lines.append(table(("bits" if of_bits else "switches", "coupling, kT"), rows))
    if len(order) > _SHOWN:
        lines.append(f"and {len(order) - _SHOWN} weaker ones")
    return [*lines, f"positive: the two favour {'being 1 together' if of_bits else 'equal signs'}"]
