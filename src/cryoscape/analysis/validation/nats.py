"""What has no noise cannot be judged."""

from __future__ import annotations

from os import PathLike

from cryoscape.errors import InputError
from cryoscape.models.likelihoods import Likelihood


def need_nats(likelihood: Likelihood, file: str | PathLike[str] | None = None) -> None:
    """Refuse a likelihood that is not in nats: without a noise spectrum sums of it are no evidence.

    Parameters
    ----------
    likelihood : Likelihood
    file : path, optional
        The run, for the message.

    Raises
    ------
    InputError
        If it is a correlation or a squared error.
    """
    if not likelihood.in_nats:
        raise InputError(
            "this run's likelihood is not in nats, so nothing can be said of what its images support",
            file=file,
            remedy="Train with --likelihood gaussian.",
        )
