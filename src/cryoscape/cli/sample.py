"""``cryoscape sample``: conformations drawn from the population that a run has learnt."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import say
from cryoscape.cli.decoded_files import DecodedFile
from cryoscape.cli.options import DecodedOut, Lowpass, RunFolder, one_thread
from cryoscape.errors import InputError


def sample(
    run: RunFolder,
    /,
    *,
    number: Annotated[int, Parameter(name=["--number", "-n"], help="How many.")],
    out: DecodedOut,
    lowpass: Lowpass = None,
    seed: int = 0,
) -> None:
    """Draw conformations from the prior of a run and decode them.

    Their frequencies are those of the learned population; with the normal prior they are those of N(0, I),
    which nothing in the images has shaped. Files are as those of `decode`; .npz also has `log_prior` (n,),
    nats.
    """
    import numpy as np
    import torch

    from cryoscape.training.run import Run

    if number < 1:
        raise InputError(f"{number} samples cannot be drawn", remedy="Give -n 1 or more.")
    file = DecodedFile(out, lowpass)
    one_thread()
    opened = Run.open(run)
    file.check(opened)
    if not opened.config.prior.learned:
        say(
            "the prior of this run is N(0, I): the samples follow it, not a population learnt from the images"
        )
    z = opened.sample(number, seed)
    with torch.no_grad():
        log_prior = opened.prior.log_prob(torch.from_numpy(z)).numpy().astype(np.float32)
    file.write(opened, {"z": z, "log_prior": log_prior})
