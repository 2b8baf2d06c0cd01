"""A prior of a given kind, fitted to an embedding from anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from cryoscape.priors.config import PriorConfig

if TYPE_CHECKING:
    from cryoscape.analysis.prior_fitting.embeddings import EmbeddingSource
    from cryoscape.priors.base import LatentPrior
    from cryoscape.priors.fitting import FitReport, Objective
    from cryoscape.progress import ProgressReporter


def prior_kinds(support: str | None = None) -> dict[str, Any]:
    """Every kind of prior with the class of its settings.

    Parameters
    ----------
    support : {"real", "binary"}, optional
        Those that live there alone.
    """
    classes = get_args(get_args(PriorConfig)[0])
    known = {cls.model_fields["kind"].default: cls for cls in classes}
    return {kind: cls for kind, cls in known.items() if support in (None, cls.support)}


def build_prior(settings: Any, z_dim: int, seed: int = 0) -> LatentPrior:
    """Build a prior whose random start depends on the seed alone."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return settings.build(z_dim)


def fit_to_embedding(
    settings: Any,
    source: EmbeddingSource,
    objective: Objective = "aggregate",
    *,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    progress: ProgressReporter | None = None,
) -> tuple[LatentPrior, FitReport]:
    """Fit a prior to an embedding.

    Parameters
    ----------
    settings : PriorConfig
    source : EmbeddingSource
    objective : {"aggregate", "deconvolved"}
        See `cryoscape.priors.fitting`.
    steps, lr : optional
        Of Adam; by default those of the family.
    seed : int
    progress : ProgressReporter, optional

    Returns
    -------
    prior : LatentPrior
    report : FitReport
        With what keeps the embedding from being deconvolved among the warnings, where that was asked for.

    Raises
    ------
    InputError
        If the kind does not suit the embedding, or the fit fails.
    """
    source.need_support(settings.support, settings.kind)
    samples = source.posterior_samples(objective, settings.support, seed)
    prior = build_prior(settings, source.z_dim, seed)
    report = prior.fit(samples, objective, steps=steps, lr=lr, seed=seed, progress=progress)
    if objective == "deconvolved":
        report = replace(report, warnings=report.warnings + source.cautions)
    return prior, report
