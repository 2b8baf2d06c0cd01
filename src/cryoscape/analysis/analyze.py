"""From an embedding to components, walks, groups and a verdict, with the files that show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis import density_stage
from cryoscape.analysis.chimerax import MapSeries, write_map_session, write_motion_attribute, write_session
from cryoscape.analysis.clusters import cluster_particles, fit_mixture, umap_layout
from cryoscape.analysis.collapse import CollapseVerdict, detect_collapse
from cryoscape.analysis.components import (
    Motion,
    decoded_motion,
    latent_components,
    posterior,
)
from cryoscape.analysis.coordinate_uncertainty import b_factors, posterior_displacement, state_displacement
from cryoscape.analysis.map_files import FOLDER, write_analysis_maps
from cryoscape.analysis.map_variation import MapMoments, MapVariation, decoded_variation
from cryoscape.analysis.prior_fitting.states import prior_findings
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.analysis.traversal import Traversal, traverse
from cryoscape.errors import InputError
from cryoscape.structures.ensemble import write_ensemble

if TYPE_CHECKING:
    from cryoscape.training.embedding import Embedding
    from cryoscape.training.run import Run

# Components below this many A rms, or below this share of the density, are not walked.
_MOVES, _CHANGES, _VARIES = 0.01, 0.002, 1e-3
# Less than this share of the scores predicted from the codes is said.
_PREDICTED = 0.9


def analyze(
    run: Run,
    *,
    components: int = 3,
    frames: int = 15,
    clusters: int = 6,
    mixture: int = 8,
    snap: bool = False,
    umap: bool = False,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> AnalysisSummary:
    """Analyse the embedding of a run and write what it shows.

    Walks go along the components of what the codes decode to, from the 5th to the 95th percentile of the
    particles; groups are shown by the real particle nearest to their centre, and so are the states of a
    learned prior. A run that decodes structures gets `ensemble/pc1.cif`, `pc2.cif`, ...,
    `ensemble/clusters.cif`, `ensemble/states.cif` and `analysis/motion.defattr`, with B-factors of 8 pi^2/3
    times the mean square displacement: that which the posterior's width implies, and for states that of
    their particles. A run that decodes maps gets
    `maps/pc1_000.mrc`, ..., `maps/cluster_01.mrc`, ..., `maps/state_01.mrc`, ..., `maps/mean.mrc` and
    `maps/variation.mrc` (standard deviation over the particles). A density stage takes walks and groups
    from the run whose codes it decodes. All get `analysis/analysis.json`, `analysis/analysis.npz` and
    `open_in_chimerax.cxc`.

    Parameters
    ----------
    run : Run
        A run with an embedding.
    components : int
        Walks to write.
    frames : int
        Structures or maps a walk.
    clusters : int
        Groups for k-means.
    mixture : int
        The largest Gaussian mixture to try.
    snap : bool
        Take every frame of a walk from the nearest real particle.
    umap : bool
        Add a UMAP map (an optional extra).
    seed : int
        Of samples and starts.
    say : callable, optional
        Told in one line what is being done.

    Returns
    -------
    AnalysisSummary

    Raises
    ------
    InputError
        No embedding, codes that are not finite, too few particles, a full disk, or UMAP asked for and not
        installed.
    """
    say = say or (lambda line: None)
    embedding = run.embedding
    z, z_sd = posterior(embedding, run.path)
    if len(z) < 2:
        raise InputError(
            f"an analysis of {len(z)} particles says nothing", file=run.path, remedy="Embed more particles."
        )
    layout = umap_layout(z, seed) if umap else None
    say("components of the latent codes")
    latent = latent_components(z)
    motion: Motion | None = None
    density: MapVariation | None = None
    moments: MapMoments | None = None
    if run.has_structures:
        say("components of the decoded structures")
        motion = decoded_motion(run, z, n_components=max(components, 5), seed=seed)
        decoded, least, unit = motion.components, _MOVES, "A"
        if run.occupancy(z[:1]) is not None:
            # What comes and goes shows in the codes, not in where the residues are.
            decoded, least, unit = latent, _VARIES, "code"
    else:
        say("components of the decoded maps")
        density, moments = decoded_variation(run, z, n_components=max(components, 5), seed=seed)
        decoded, least, unit = density.components, _CHANGES, "density"
    parent = density_stage.parent_analysis(run)
    if parent is not None:
        walks, groups, unit = parent.traversals, parent.clusters, parent.walk_unit
    else:
        say("walks along the components")
        scores = decoded.scores
        # A walk without motion would be one structure many times; the first is always written.
        moving = int(np.count_nonzero(scores.std(axis=0) > least))
        walks = tuple(
            traverse(z, scores[:, k], z_sd=z_sd, name=f"pc{k + 1}", frames=frames, snap=snap)
            for k in range(max(1, min(components, moving)))
        )
        say("groups of particles")
        groups = cluster_particles(scores, clusters, seed)
    prior = None
    if run.config.prior.learned:
        say("states of the prior")
        prior = prior_findings(run, seed)
    mixed = fit_mixture(latent.scores, mixture, seed)
    verdict = _judge(embedding, motion if unit == "A" else None, density)
    summary = AnalysisSummary(
        row=np.asarray(embedding.row, dtype=np.int64),
        latent=latent,
        motion=motion,
        density=density,
        traversals=walks,
        clusters=groups,
        mixture=mixed,
        collapse=verdict,
        umap=layout,
        warnings=_warnings(run, verdict, mixed.sizes, mixed.bic, density, parent),
        walk_unit=unit,
        walks_of=None if parent is None else str(run.info["latents_from"]),
        prior=prior,
    )
    if moments is not None:
        say("writing the maps")
        summary = replace(summary, files=_write_maps(run, summary, z, moments))
    else:
        say("writing the ensembles")
        summary = replace(summary, files=_write_structures(run, summary, z, z_sd, seed))
    summary.write(run.path)
    if parent is not None:
        density_stage.open_together(density_stage.parent_folder(run), parent)
    return summary


def _judge(embedding: Embedding, motion: Motion | None, density: MapVariation | None) -> CollapseVerdict:
    return detect_collapse(
        embedding.z,
        embedding.z_sd,
        kl=float(np.mean(embedding.kl)),
        gain=embedding.gain,
        held_out=embedding.held_out,
        spread=None if motion is None else motion.spread,
        density_spread=None if density is None else density.spread,
    )


def _write_maps(run: Run, summary: AnalysisSummary, z: NDArray, moments: MapMoments) -> tuple[str, ...]:
    walks, groups = summary.traversals, summary.clusters
    states = None if summary.prior is None else z[summary.prior.particle]
    files = write_analysis_maps(run, walks, z[groups.particle], moments, states)
    assert summary.density is not None
    series = MapSeries(
        FOLDER, _frames(walks), len(groups.count), summary.density.level, float(moments.deviation.max())
    )
    return (*files, write_map_session(Path(run.path), series))


def _frames(walks: tuple[Traversal, ...]) -> dict[str, int]:
    return {walk.name: len(walk.position) for walk in walks}


def _write_structures(
    run: Run, summary: AnalysisSummary, z: NDArray, z_sd: NDArray, seed: int
) -> tuple[str, ...]:
    folder = Path(run.path)
    (folder / "ensemble").mkdir(parents=True, exist_ok=True)
    files = []
    for walk in summary.traversals:
        files.append(f"ensemble/{walk.name}.cif")
        unit = summary.walk_unit if summary.walk_unit == "A" else "units of the code"
        titles = [f"{walk.name} at {position:+.2f} {unit}" for position in walk.position]
        _write_codes(run, folder / files[-1], walk.z, walk.z_sd, titles, seed)
    for path in (folder / "ensemble").glob("pc*.cif"):
        # An earlier analysis with more walks must not be taken for this one.
        if f"ensemble/{path.name}" not in files:
            path.unlink()
    groups = summary.clusters
    files.append("ensemble/clusters.cif")
    _write_codes(
        run, folder / files[-1], z[groups.particle], z_sd[groups.particle], _cluster_titles(summary), seed
    )
    (folder / "ensemble/states.cif").unlink(missing_ok=True)
    if summary.prior is not None and len(summary.prior.share):
        files.append("ensemble/states.cif")
        shown = summary.prior.particle
        spread = state_displacement(run, z, z_sd, summary.prior.weights, seed=seed)
        _write_models(run, folder / files[-1], z[shown], spread, _state_titles(summary))
    assert summary.motion is not None
    files.append(write_motion_attribute(folder, run.structure, summary.motion.rmsf))
    files.append(
        write_session(
            folder,
            _frames(summary.traversals),
            len(groups.count),
            summary.motion.rmsf,
            density_stage.maps_beside(folder, summary),
        )
    )
    return tuple(files)


def _write_codes(run: Run, path: Path, z: NDArray, z_sd: NDArray, titles: list[str], seed: int) -> None:
    _write_models(run, path, z, posterior_displacement(run, z, np.asarray(z_sd), seed=seed), titles)


def _write_models(run: Run, path: Path, z: NDArray, displacement: NDArray, titles: list[str]) -> None:
    codes = np.asarray(z, dtype=np.float32)
    write_ensemble(
        path,
        run.structure,
        run.decode(codes),
        b_factors=b_factors(displacement),
        titles=titles,
        occupancy=run.occupancy(codes),
    )


def _cluster_titles(summary: AnalysisSummary) -> list[str]:
    groups, n = summary.clusters, len(summary.row)
    return [
        f"cluster {k + 1}: {count} particles ({100 * count / n:.1f} %), row {summary.row[particle]}"
        for k, (count, particle) in enumerate(zip(groups.count, groups.particle))
    ]


def _state_titles(summary: AnalysisSummary) -> list[str]:
    prior = summary.prior
    assert prior is not None
    return [
        f"state {k + 1} of the prior: population {100 * share:.1f} %, row {summary.row[particle]}"
        for k, (share, particle) in enumerate(zip(prior.share, prior.particle))
    ]


def _warnings(
    run: Run,
    verdict: CollapseVerdict,
    sizes: NDArray,
    bic: NDArray,
    density: MapVariation | None,
    parent: AnalysisSummary | None,
) -> tuple[str, ...]:
    what = "structure" if density is None else "map"
    notes = []
    if verdict.verdict == "collapsed":
        notes.append(f"the latent code has collapsed: the {what}s are one {what}, whatever the plots suggest")
    elif verdict.verdict == "weak":
        notes.append("the latent code carries little: take motions and groups with care")
    if len(sizes) > 1 and bic.argmin() == len(sizes) - 1:
        notes.append(
            f"the Gaussian mixture would use more than {sizes[-1]} components: "
            "a continuous motion has no natural number of groups"
        )
    if density is not None and density.predicted < _PREDICTED:
        notes.append(
            f"the maps of {density.decoded} particles were decoded; from their codes, "
            f"{100 * density.predicted:.0f} % of the variance of the other particles' components is predicted"
        )
    if parent is None and density_stage.parent_folder(run) is not None:
        notes.append(
            "the run whose codes these maps belong to has not been analysed, so their walks are not those "
            "of its structures: analyse that run first, then this one"
        )
    return tuple(notes)
