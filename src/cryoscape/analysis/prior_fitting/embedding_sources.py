"""Readers of embeddings: our runs, arrays, and the files of cryoDRGN and RECOVAR.

What is relied on of the others' files:

cryoDRGN (4.3.0) dumps two arrays one after the other into `z.N.pkl`: the posterior means and the logarithms
of the variances, both (N, d). Its auto-decoder and ab initio modes dump one table of points without errors.
Its prior is N(0, I), but its loss weighs a nat of the KL term with 0.05 to 0.1 of a nat of the likelihood, so
that the posteriors are tempered.

RECOVAR writes `model/zdim_d/latent_coords.npy` (N, d) with `latent_precision.npy` (N, d, d), and both again
as `..._noreg.npy`; older versions pickle a dictionary with `zs` and `cov_zs` (precisions, too) by dimension,
keys d and "d_noreg". With G = A^T A over the noise and the eigenvalues s, the points are
(G + 1/s)^-1 A^T y, and the precision is (G + 1/s) G^-1 (G + 1/s): that of the estimate, not of a posterior.
Without regularisation 1/s = 0, and N(point, G^-1) is the likelihood: only these can be deconvolved.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.prior_fitting.embeddings import NO_ERRORS, EmbeddingSource, covariance_of
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.run import Run

_KINDS = "one of our runs, .npy, .npz with z, cryoDRGN's z.N.pkl, or RECOVAR's latent_coords.npy"
_TEMPERED = (
    "cryoDRGN's posteriors are tempered: its loss counts the KL term for 0.05 to 0.1, so that they are "
    "narrower than the images allow; what is deconvolved from them is too wide"
)
_ASSUMED = "the posteriors are taken to have been made under N(0, I), as the file does not say"
_NOREG = "Give latent_coords_noreg.npy, with latent_precision_noreg.npy beside it."


def read_embedding(path: Path, entry: str | None = None) -> EmbeddingSource:
    """Read an embedding of any known kind.

    Parameters
    ----------
    path : Path
        A run folder, .npy (N, d), .npz with `z` and perhaps `z_sd`, cryoDRGN's z.N.pkl, RECOVAR's
        latent_coords.npy or embeddings.pkl.
    entry : str, optional
        Which of several embeddings in one file, for example "10_noreg" of RECOVAR's.

    Returns
    -------
    EmbeddingSource

    Raises
    ------
    InputError
        If it is missing, of no known kind, damaged, or holds anything but an array (N, d) of finite numbers.
    """
    path = Path(path)
    if path.name == "embedding.npz" and (path.parent / "run.json").is_file():
        path = path.parent
    if not path.exists():
        raise InputError("no such file or folder", file=path, remedy=f"Give {_KINDS}.")
    if path.is_dir():
        if (path / "run.json").is_file():
            return _of_run(path)
        raise InputError("this folder is not a run (no run.json)", file=path, remedy=f"Give {_KINDS}.")
    readers = {".npy": _of_npy, ".npz": _of_npz}
    if path.suffix in (".pkl", ".pickle"):
        return _of_pickle(path, entry)
    if path.suffix not in readers:
        raise InputError("no known kind of embedding", file=path, remedy=f"Give {_KINDS}.")
    return readers[path.suffix](path)


def read_points(path: Path) -> NDArray[np.float64]:
    """Read points (N, d) from an .npy file.

    Raises
    ------
    InputError
        If it is missing, no .npy file, or holds anything but an array (N, d) of finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("no such file", file=path, remedy="Give points as .npy, an array (N, d).")
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise InputError(
            "cannot be read as an .npy file of numbers", file=path, remedy="Save an array with numpy.save."
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError("holds several arrays", file=path, remedy="Save the points alone with numpy.save.")
    return as_points(array, path)


def as_points(array: Any, path: Path, what: str = "the array") -> NDArray[np.float64]:
    """Check that an array is (N, d) and finite; returns it in double precision.

    Raises
    ------
    InputError
        With the first row that is not finite, counted from 1.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{what} holds {array.dtype}, not real numbers", file=path, remedy="Give an array (N, d)."
        )
    if array.ndim != 2 or 0 in array.shape:
        remedy = "Give an array (N, d)" + (", for example reshape(-1, 1)." if array.ndim == 1 else ".")
        raise InputError(f"{what} has shape {array.shape}", file=path, remedy=remedy)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        others = int((~finite).sum()) - 1
        more = f" and in {others} more" if others else ""
        raise InputError(
            f"{what} is not finite in this row{more}",
            file=path,
            row=int((~finite).argmax()) + 1,
            remedy="Remove such rows.",
        )
    return array.astype(np.float64)


def _of_npy(path: Path) -> EmbeddingSource:
    z = read_points(path)
    if path.name.startswith("latent_coords"):
        precision = path.with_name(path.name.replace("latent_coords", "latent_precision"))
        if precision.is_file():
            try:
                stored = np.load(precision, allow_pickle=False)
            except (ValueError, OSError, EOFError) as error:
                raise InputError(
                    "the precisions cannot be read", file=precision, remedy="Restore it, or move it away."
                ) from error
            return _of_recovar(path, z, stored, path.stem.endswith("_noreg"))
    return _points(path, z, "points")


def _of_npz(path: Path) -> EmbeddingSource:
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in ("z", "z_sd") if name in stored}
            names = list(stored)
    except (ValueError, OSError, EOFError, BadZipFile, AttributeError) as error:
        raise InputError(
            "cannot be read as an .npz file of numbers",
            file=path,
            remedy="Save the arrays with numpy.savez(FILE, z=z).",
        ) from error
    if "z" not in arrays:
        raise InputError(
            f"has no array z (but {', '.join(names) or 'nothing'})",
            file=path,
            remedy="Save the embedding as z.",
        )
    z = as_points(arrays["z"], path, "z")
    if "z_sd" not in arrays:
        return _points(path, z, "points")
    z_sd = _as_errors(arrays["z_sd"], z, path)
    return _posteriors(path, z, z_sd, "means and errors", (_ASSUMED,))


def _of_pickle(path: Path, entry: str | None) -> EmbeddingSource:
    from cryoscape.analysis.prior_fitting.restricted_pickle import load_arrays

    values = load_arrays(path)
    if len(values) == 1 and isinstance(values[0], dict):
        return _of_recovar_table(path, values[0], entry)
    if not 1 <= len(values) <= 2 or not all(isinstance(value, np.ndarray) for value in values):
        found = ", ".join(type(value).__name__ for value in values) or "nothing"
        raise InputError(
            f"is not an embedding of cryoDRGN or RECOVAR (it holds {found})",
            file=path,
            remedy="Give z.N.pkl, which holds one or two arrays, or save the array with numpy.save.",
        )
    z = as_points(values[0], path)
    if len(values) == 1:
        return _points(path, z, "points (cryoDRGN, without errors)")
    log_variance = as_points(values[1], path, "the log-variance")
    if log_variance.shape != z.shape:
        raise InputError(
            f"means {z.shape} and log-variances {log_variance.shape} do not belong together",
            file=path,
            remedy="Give z.N.pkl as cryoDRGN wrote it.",
        )
    with np.errstate(over="ignore"):
        z_sd = _as_errors(np.exp(0.5 * log_variance), z, path)
    return _posteriors(path, z, z_sd, "means and variances (cryoDRGN)", (_TEMPERED,))


def _of_recovar_table(path: Path, table: dict[Any, Any], entry: str | None) -> EmbeddingSource:
    """Read the dictionary of older versions: `zs` and `cov_zs`, or the names of the newer ones."""
    found = {
        **_entries(table, "zs", "cov_zs"),
        **_entries(table, "latent_coords", "latent_precision"),
        **_entries(table, "latent_coords_noreg", "latent_precision_noreg", "_noreg"),
    }
    if not found:
        names = ", ".join(str(key) for key in list(table)[:6]) or "nothing"
        raise InputError(
            f"is not an embedding of RECOVAR (a dictionary of {names})", file=path, remedy=f"Give {_KINDS}."
        )
    if (len(found) > 1) if entry is None else (entry not in found):
        wrong = "holds several embeddings" if entry is None else f"has no entry {entry}"
        raise InputError(wrong, file=path, remedy=f"Give --entry, one of {', '.join(found)}.")
    name = entry if entry is not None else next(iter(found))
    points, precision = found[name]
    return _of_recovar(path, as_points(points, path), precision, name.endswith("_noreg"))


def _entries(
    table: dict[Any, Any], points: str, precisions: str, ending: str = ""
) -> dict[str, tuple[Any, Any]]:
    inner, errors = table.get(points), table.get(precisions)
    if not isinstance(inner, dict):
        return {}
    errors = errors if isinstance(errors, dict) else {}
    return {f"{key}{ending}": (value, errors.get(key)) for key, value in inner.items()}


def _of_recovar(path: Path, z: NDArray[np.float64], precision: Any, unregularised: bool) -> EmbeddingSource:
    if not unregularised or precision is None:
        return _points(path, z, "points (RECOVAR)", no_errors=_NOREG)
    precision = np.asarray(precision)
    n, d = z.shape
    if precision.shape != (n, d, d) or precision.dtype.kind != "f":
        raise InputError(
            f"precisions of shape {precision.shape} do not belong to points of shape {z.shape}",
            file=path,
            remedy="Give the files as RECOVAR wrote them.",
        )
    flat = as_points(precision.reshape(n, d * d), path, "the precision")
    covariance = covariance_of(flat.reshape(n, d, d), z)
    return EmbeddingSource(path, z, covariance=covariance, description="points and precisions (RECOVAR)")


def _of_run(path: Path) -> EmbeddingSource:
    from cryoscape.priors.normal import NormalPrior
    from cryoscape.training.run import Run

    run = Run.open(path)
    embedding, prior = run.embedding, run.prior
    z = as_points(embedding.z, path / "embedding.npz", "z")
    binary = prior.support == "binary"
    # A run that was stopped early still has N(0, I) in place of what it was to learn.
    kind = "normal" if isinstance(prior, NormalPrior) else run.config.prior.kind
    return EmbeddingSource(
        path,
        z,
        None if binary else _as_errors(embedding.z_sd, z, path / "embedding.npz"),
        support="binary" if binary else "real",
        reference=prior,
        own_prior=kind,
        description=f"posteriors of a run with the {kind} prior",
        cautions=_of_calibration(run),
    )


def _of_calibration(run: Run) -> tuple[str, ...]:
    """Say where the settings of a run keep its posteriors from being calibrated."""
    objective, likelihood = run.config.objective, run.config.likelihood.kind
    faults = []
    if likelihood != "gaussian":
        faults.append(f"the {likelihood} likelihood")
    if objective.beta != 1:
        faults.append(f"a KL term of weight {objective.beta:g}")
    if objective.free_bits > 0:
        faults.append(f"{objective.free_bits:g} free nats a dimension")
    if not faults:
        return ()
    return (f"the posteriors of this run are not calibrated: it was trained with {' and '.join(faults)}",)


def _points(
    path: Path, z: NDArray[np.float64], description: str, no_errors: str = NO_ERRORS
) -> EmbeddingSource:
    if np.isin(z, (0.0, 1.0)).all():
        return EmbeddingSource(path, z, support="binary", description="bits")
    return EmbeddingSource(path, z, description=description, no_errors=no_errors)


def _posteriors(
    path: Path,
    z: NDArray[np.float64],
    z_sd: NDArray[np.float64],
    description: str,
    cautions: tuple[str, ...],
) -> EmbeddingSource:
    """Gaussian posteriors made under N(0, I)."""
    from cryoscape.priors.normal import NormalPrior

    return EmbeddingSource(
        path, z, z_sd, reference=NormalPrior(z.shape[1]), description=description, cautions=cautions
    )


def _as_errors(array: Any, z: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    z_sd = as_points(array, path, "z_sd")
    if z_sd.shape != z.shape:
        raise InputError(
            f"z_sd has shape {z_sd.shape} and z {z.shape}",
            file=path,
            remedy="Give one error for every number.",
        )
    negative = (z_sd < 0).any(axis=1)
    if negative.any():
        raise InputError(
            "z_sd is negative", file=path, row=int(negative.argmax()) + 1, remedy="Give standard deviations."
        )
    return z_sd
