"""The result of an analysis, in memory and as files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.clusters import Clusters, Mixture
from cryoscape.analysis.collapse import CollapseVerdict
from cryoscape.analysis.components import Motion, PrincipalComponents
from cryoscape.analysis.map_variation import MapVariation
from cryoscape.analysis.prior_fitting.states import PriorFindings
from cryoscape.analysis.records import read_json, write_arrays, write_json
from cryoscape.analysis.traversal import Traversal
from cryoscape.errors import InputError

_JSON, _ARRAYS = "analysis/analysis.json", "analysis/analysis.npz"
_COMPONENTS = tuple(entry.name for entry in fields(PrincipalComponents))
_PRIOR = ("weights", "share", "particle")
_WALK = ("position", "z", "z_sd", "particle")


@dataclass(frozen=True)
class AnalysisSummary:
    """What the analysis of an embedding found.

    Parameters
    ----------
    row : ndarray, shape (n,), int
        Row of each particle in the particle file.
    latent : PrincipalComponents
        Of the latent codes.
    motion : Motion or None
        Of the decoded structures, A; None where the run decodes maps.
    traversals : tuple of Traversal
        Walks along the components: `ensemble/<name>.cif`, or the series `maps/<name>_000.mrc`, ...
    clusters : Clusters
        Groups by k-means, their representatives in `ensemble/clusters.cif` or `maps/cluster_01.mrc`, ...
    mixture : Mixture
        Gaussian mixture of the latent codes.
    collapse : CollapseVerdict
        Whether the latent code is used.
    umap : ndarray, shape (n, 2), or None
        Optional layout.
    files : tuple of str
        Files written, relative to the run.
    warnings : tuple of str
        What the reader should know.
    density : MapVariation or None
        Of the decoded maps; None where the run decodes structures.
    walk_unit : {"A", "density", "code"}
        Of the positions along the walks: A rms, rms difference as a share of the density, or that of the
        latent codes where chains come and go.
    prior : PriorFindings or None
        States of the run's own prior; None where it was not learned or has none.
    walks_of : str or None
        The run whose walks and groups these are, where they are not this one's own.
    """

    row: NDArray[np.int64]
    latent: PrincipalComponents
    motion: Motion | None
    traversals: tuple[Traversal, ...]
    clusters: Clusters
    mixture: Mixture
    collapse: CollapseVerdict
    umap: NDArray[np.float32] | None = None
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    density: MapVariation | None = None
    walk_unit: str = "A"
    walks_of: str | None = None
    prior: PriorFindings | None = None

    @property
    def decoded(self) -> PrincipalComponents:
        """Components of what the codes decode to, structures or maps."""
        if self.motion is not None and self.walk_unit != "code":
            return self.motion.components
        return self.latent if self.density is None else self.density.components

    def to_dict(self) -> dict[str, Any]:
        """Return the short results as plain values, for JSON (arrays a particle are in analysis.npz)."""
        content: dict[str, Any] = {
            "n_particles": len(self.row),
            "z_dim": len(self.latent.mean),
            "collapse": asdict(self.collapse),
            "latent": {"variance": self.latent.variance, "explained": self.latent.explained},
            "motion": None,
            "density": None,
            "walk_unit": self.walk_unit,
            "walks_of": self.walks_of,
            "traversals": [
                {
                    "name": walk.name,
                    "position": walk.position,
                    "nearest_row": self.row[walk.particle],
                    "snapped": walk.snapped,
                }
                for walk in self.traversals
            ],
            "clusters": [
                {
                    "cluster": k + 1,
                    "particles": int(self.clusters.count[k]),
                    "share": self.clusters.count[k] / len(self.row),
                    "radius": self.clusters.radius[k],
                    "representative_row": self.row[self.clusters.particle[k]],
                }
                for k in range(len(self.clusters.count))
            ],
            "mixture": {
                "sizes": self.mixture.sizes,
                "bic": self.mixture.bic,
                "components": len(self.mixture.weight),
                "weight": self.mixture.weight,
                "mean": self.mixture.mean,
            },
            "prior": None if self.prior is None else self.prior.to_dict(self.row),
            "files": self.files,
            "warnings": self.warnings,
        }
        if self.motion is not None:
            content["motion"] = {
                "unit": "A",
                "spread": self.motion.spread,
                "rms_amplitude": np.sqrt(self.motion.components.variance),
                "explained": self.motion.components.explained,
                "rmsf": self.motion.rmsf,
            }
        if self.density is not None:
            content["density"] = {
                "unit": "rms difference / rms density",
                "spread": self.density.spread,
                "rms_amplitude": np.sqrt(self.density.components.variance),
                "explained": self.density.components.explained,
                "voxel_size": self.density.voxel_size,
                "contour_level": self.density.level,
                "decoded": self.density.decoded,
                "predicted": self.density.predicted,
            }
        return content

    def write(self, folder: str | PathLike[str]) -> None:
        """Write `analysis/analysis.json` and `analysis/analysis.npz` into a run folder.

        Parameters
        ----------
        folder : path
            The run.
        """
        arrays: dict[str, np.ndarray] = {"row": self.row}
        arrays |= _flatten("latent", self.latent)
        if self.motion is not None:
            arrays |= _flatten("motion", self.motion.components)
            arrays |= {"mean_structure": self.motion.mean_structure, "rmsf": self.motion.rmsf}
        if self.density is not None:
            arrays |= _flatten("density", self.density.components) | {"density_mask": self.density.mask}
        for walk in self.traversals:
            arrays |= {f"walk_{walk.name}_{key}": getattr(walk, key) for key in _WALK}
        arrays |= {f"cluster_{key}": value for key, value in vars(self.clusters).items()}
        arrays |= {f"mixture_{key}": value for key, value in vars(self.mixture).items()}
        if self.prior is not None:
            arrays |= {f"prior_{key}": getattr(self.prior, key) for key in _PRIOR}
        if self.umap is not None:
            arrays["umap"] = self.umap
        write_arrays(Path(folder) / _ARRAYS, arrays)
        write_json(Path(folder) / _JSON, self.to_dict())

    @classmethod
    def read(cls, folder: str | PathLike[str]) -> AnalysisSummary | None:
        """Read what `write` left in a run folder.

        Parameters
        ----------
        folder : path
            The run.

        Returns
        -------
        AnalysisSummary or None
            None where nothing was analysed yet.

        Raises
        ------
        InputError
            The files are not an analysis.
        """
        folder = Path(folder)
        if not (folder / _JSON).is_file() or not (folder / _ARRAYS).is_file():
            return None
        content = read_json(folder / _JSON)
        try:
            with np.load(folder / _ARRAYS, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            verdict = dict(content["collapse"])
            verdict |= {"reasons": tuple(verdict["reasons"]), "active": tuple(verdict["active"])}
            return cls(
                row=arrays["row"],
                latent=_unflatten("latent", arrays),
                motion=Motion(_unflatten("motion", arrays), arrays["mean_structure"], arrays["rmsf"])
                if "rmsf" in arrays
                else None,
                traversals=tuple(
                    Traversal(
                        name=walk["name"],
                        snapped=walk["snapped"],
                        **{key: arrays[f"walk_{walk['name']}_{key}"] for key in _WALK},
                    )
                    for walk in content["traversals"]
                ),
                clusters=Clusters(**_prefixed("cluster_", arrays)),
                mixture=Mixture(**_prefixed("mixture_", arrays)),
                collapse=CollapseVerdict(**verdict),
                umap=arrays.get("umap"),
                files=tuple(content["files"]),
                warnings=tuple(content["warnings"]),
                density=_density(content["density"], arrays) if content.get("density") else None,
                walk_unit=content.get("walk_unit", "A"),
                walks_of=content.get("walks_of"),
                prior=_prior(content["prior"], arrays) if content.get("prior") else None,
            )
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise InputError(
                "this is not a complete analysis", file=folder / _JSON, remedy="Run analyze again."
            ) from error


def _density(stored: dict[str, Any], arrays: dict[str, np.ndarray]) -> MapVariation:
    return MapVariation(
        components=_unflatten("density", arrays),
        mask=arrays["density_mask"],
        voxel_size=stored["voxel_size"],
        level=stored["contour_level"],
        decoded=stored["decoded"],
        predicted=stored["predicted"],
    )


def _prior(stored: dict[str, Any], arrays: dict[str, np.ndarray]) -> PriorFindings:
    fields, couplings = stored["fields_kt"], stored["couplings_kt"]
    return PriorFindings(
        members=tuple(tuple(state["parts"]) for state in stored["states"]),
        fields=None if fields is None else np.array(fields),
        couplings=None if couplings is None else np.array(couplings),
        **_prefixed("prior_", arrays),
    )


def _flatten(name: str, components: PrincipalComponents) -> dict[str, np.ndarray]:
    return {f"{name}_{key}": np.asarray(value) for key, value in vars(components).items()}


def _unflatten(name: str, arrays: dict[str, np.ndarray]) -> PrincipalComponents:
    parts: dict[str, Any] = {key: arrays[f"{name}_{key}"] for key in _COMPONENTS}
    return PrincipalComponents(**(parts | {"total_variance": float(parts["total_variance"])}))


def _prefixed(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
