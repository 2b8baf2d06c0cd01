"""``cryoscape interpolate``: the conformations between two particles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from cryoscape.cli.console import say, table
from cryoscape.cli.decoded_files import DecodedFile
from cryoscape.cli.options import DecodedOut, Lowpass, RunFolder, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.paths.interpolated import LatentPath

_LISTED = 21
_NAMES = {
    "linear": "a straight line in z",
    "slerp": "a great circle in the base of the prior",
    "flow": "a straight line in the base of the prior",
}


def interpolate(
    run: RunFolder,
    /,
    *,
    start: Annotated[
        int, Parameter(name="--from", help="Row of a particle in its table, from 0, as of `decode`.")
    ],
    end: Annotated[int, Parameter(name="--to", help="Row of another one.")],
    out: DecodedOut,
    number: Annotated[int, Parameter(name=["--number", "-n"], help="How many, with both ends.")] = 20,
    kind: Annotated[
        Literal["auto", "linear", "slerp", "flow"],
        Parameter(help="Straight in z; a great circle, or straight, in the base of the prior."),
    ] = "auto",
    lowpass: Lowpass = None,
) -> None:
    """Decode a path between the latents of two particles, and show how probable it is.

    The base is that of a flow or diffusion prior, or N(0, I); with other priors a path is straight in z,
    which `auto` then takes. Files are as those of `decode`; .npz also has `log_prior` (n,), nats, `travelled`
    (n,), A, and `row` (2,), the two particles.
    """
    import numpy as np
    import torch

    from cryoscape.analysis.paths.ends import latent_of_row
    from cryoscape.analysis.paths.interpolated import latent_path
    from cryoscape.training.run import Run

    file = DecodedFile(out, lowpass)
    one_thread()
    opened = Run.open(run)
    file.check(opened)
    if start == end:
        raise InputError("both ends of the path are the same particle", remedy="Name two different ones.")
    ends = [torch.from_numpy(latent_of_row(opened, row)) for row in (start, end)]
    decode = opened.decode if opened.has_structures else None
    path = latent_path(opened.prior, ends[0], ends[1], number, kind, decode)
    _tell(path, start, end)
    log_prior = path.log_prob.astype(np.float32)
    arrays = {"z": path.z.numpy(), "log_prior": log_prior, "row": np.array([start, end])}
    if path.travelled is not None:
        arrays["travelled"] = path.travelled.astype(np.float32)
    file.write(opened, arrays)


def _tell(path: LatentPath, start: int, end: int) -> None:
    import numpy as np

    n = len(path.z)
    shown = np.unique(np.linspace(0, n - 1, min(n, _LISTED)).round().astype(int))
    header = ["way", "log p, nats"] + ([] if path.travelled is None else ["A"])
    rows = []
    for k in shown:
        row = [f"{100 * k / (n - 1):.0f} %", f"{path.log_prob[k]:.2f}"]
        rows.append(row if path.travelled is None else [*row, f"{path.travelled[k]:.2f}"])
    say(table(header, rows))
    forth, back = path.barrier
    say(f"from particle {start} to {end} along {_NAMES[path.kind]}")
    say(
        f"lowest log p {path.lowest:.2f} nats at {100 * path.lowest_at:.0f} % of the way: a barrier of "
        f"{forth:.2f} nats from the start, {back:.2f} from the end"
    )
    if path.travelled is not None:
        say(f"length {path.travelled[-1]:.2f} A rms of the decoded structures")
