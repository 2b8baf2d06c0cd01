"""The posteriors of the particles of a run, as they are stored."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.errors import InputError
from cryoscape.files import atomic_path
from cryoscape.priors.config import Support


@dataclass(frozen=True, eq=False)
class Embedding:
    """Posterior of every particle.

    Attributes
    ----------
    uid : ndarray, shape (N,), uint64
        The particle.
    row : ndarray, shape (N,), int64
        Its row in the input table, from 0.
    half : ndarray, shape (N,), int8
        Half-set, 1 or 2.
    held_out : ndarray, shape (N,), bool
        Never trained on.
    z, z_sd : ndarray, shape (N, d), float32
        Posterior mean and standard deviation.
    log_likelihood : ndarray, shape (N,), float32
        E_q log p(x|z) over pure noise, nats.
    kl : ndarray, shape (N,), float32
        KL(q || p), nats.
    elbo : ndarray, shape (N,), float32
        Their difference.
    log_prior : ndarray, shape (N,), float32
        E_q log p(z), nats: low where a particle lies where the population model expects none.
    gain : ndarray, shape (N,), float32
        elbo less log p(x | the best single structure): evidence for heterogeneity, nats.
    """

    uid: NDArray[np.uint64]
    row: NDArray[np.int64]
    half: NDArray[np.int8]
    held_out: NDArray[np.bool_]
    z: NDArray[np.float32]
    z_sd: NDArray[np.float32]
    log_likelihood: NDArray[np.float32]
    kl: NDArray[np.float32]
    elbo: NDArray[np.float32]
    log_prior: NDArray[np.float32]
    gain: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.z)

    def write(self, path: Path) -> None:
        """Save as .npz, whole or not at all."""
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def read(cls, path: Path) -> Embedding:
        """Load what `write` saved.

        Raises
        ------
        InputError
            If the file is missing, damaged or lacks a column.
        """
        if not path.is_file():
            raise InputError("there is no embedding yet", file=path, remedy="Run: cryoscape embed RUN")
        names = [f.name for f in fields(cls)]
        try:
            with np.load(path, allow_pickle=False) as stored:
                columns = {name: stored[name] for name in names if name in stored}
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise InputError(
                "the embedding cannot be read", file=path, remedy="Run: cryoscape embed RUN"
            ) from error
        missing = [name for name in names if name not in columns]
        if missing:
            raise InputError(
                f"the embedding lacks {', '.join(missing)}", file=path, remedy="Run: cryoscape embed RUN"
            )
        return cls(**columns)


def posterior_table(latents: Embedding, support: Support) -> torch.Tensor:
    """Means and log-variances of given posteriors, shape (N, 2 d); of bits their logits, shape (N, d)."""
    if support == "binary":
        return torch.logit(torch.from_numpy(latents.z).double(), eps=1e-6).float()
    mean, sd = torch.from_numpy(latents.z), torch.from_numpy(latents.z_sd)
    return torch.cat([mean, 2 * sd.clamp_min(1e-6).log()], dim=1).float()
