"""From an embedding to components, walks, groups and a verdict, with the files that show them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cryoscape.analysis.chimerax import write_motion_attribute, write_session
from cryoscape.analysis.clusters import cluster_particles, fit_mixture, umap_layout
from cryoscape.analysis.collapse import CollapseVerdict, detect_collapse
from cryoscape.analysis.components import (
    Motion,
    decoded_motion,
    decoded_variance,
    latent_components,
    posterior,
)
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.analysis.traversal import traverse
from cryoscape.errors import InputError
from cryoscape.structures.ensemble import write_ensemble

if TYPE_CHECKING:
    from cryoscape.training.run import Embedding, Run

_B_FACTOR = 8 * np.pi**2 / 3
# Components below this many A rms are not walked.
_MOVES = 0.01


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

    Writes `ensemble/pc1.cif`, `pc2.cif`, ... (walks along the components of the decoded structures, from
    the 5th to the 95th percentile of the particles), `ensemble/clusters.cif` (the real particle nearest
    to each group's centre), `analysis/analysis.json`, `analysis/analysis.npz`, `analysis/motion.defattr`
    and `open_in_chimerax.cxc`. B-factor columns hold 8 pi^2/3 times the mean square displacement that the
    posterior's width implies. Without an atomic model only the latent codes are analysed.

    Parameters
    ----------
    run : Run
        A run with an embedding.
    components : int
        Walks to write.
    frames : int
        Structures a walk.
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
        No embedding, codes that are not finite, too few particles, or UMAP asked for and not installed.
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
    latent, motion = latent_components(z), None
    if run.model is not None:
        say("components of the decoded structures")
        motion = decoded_motion(run, z, n_components=max(components, 5), seed=seed)
    scores = latent.scores if motion is None else motion.components.scores
    say("walks along the components")
    # A walk without motion would be one structure many times; the first is always written.
    moving = int(np.count_nonzero(scores.std(axis=0) > (0.0 if motion is None else _MOVES)))
    walks = tuple(
        traverse(z, scores[:, k], z_sd=z_sd, name=f"pc{k + 1}", frames=frames, snap=snap)
        for k in range(max(1, min(components, moving)))
    )
    say("groups of particles")
    groups = cluster_particles(scores, clusters, seed)
    mixed = fit_mixture(latent.scores, mixture, seed)
    verdict = _judge(embedding, motion)
    summary = AnalysisSummary(
        row=np.asarray(embedding.row, dtype=np.int64),
        latent=latent,
        motion=motion,
        traversals=walks,
        clusters=groups,
        mixture=mixed,
        collapse=verdict,
        umap=layout,
        warnings=_warnings(verdict, mixed.sizes, mixed.bic, motion is None),
    )
    if motion is not None:
        say("writing the ensembles")
        summary = replace(summary, files=_write_structures(run, summary, z, z_sd, seed))
    summary.write(run.path)
    return summary


def _judge(embedding: Embedding, motion: Motion | None) -> CollapseVerdict:
    return detect_collapse(
        embedding.z,
        embedding.z_sd,
        kl=float(np.mean(embedding.kl)),
        gain=embedding.gain,
        held_out=embedding.held_out,
        spread=None if motion is None else motion.spread,
    )


def _write_structures(
    run: Run, summary: AnalysisSummary, z: NDArray, z_sd: NDArray, seed: int
) -> tuple[str, ...]:
    folder = Path(run.path)
    (folder / "ensemble").mkdir(parents=True, exist_ok=True)
    files = []
    for walk in summary.traversals:
        files.append(f"ensemble/{walk.name}.cif")
        titles = [f"{walk.name} at {position:+.2f} A" for position in walk.position]
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
    assert summary.motion is not None
    files.append(write_motion_attribute(folder, run.model, summary.motion.rmsf))
    frames = {walk.name: len(walk.position) for walk in summary.traversals}
    files.append(write_session(folder, frames, len(groups.count), summary.motion.rmsf))
    return tuple(files)


def _write_codes(run: Run, path: Path, z: NDArray, z_sd: NDArray, titles: list[str], seed: int) -> None:
    codes = np.asarray(z, dtype=np.float32)
    variance = decoded_variance(run, codes, np.asarray(z_sd), seed=seed)
    write_ensemble(path, run.model, run.decode(codes), b_factors=_B_FACTOR * variance, titles=titles)


def _cluster_titles(summary: AnalysisSummary) -> list[str]:
    groups, n = summary.clusters, len(summary.row)
    return [
        f"cluster {k + 1}: {count} particles ({100 * count / n:.1f} %), row {summary.row[particle]}"
        for k, (count, particle) in enumerate(zip(groups.count, groups.particle))
    ]


def _warnings(verdict: CollapseVerdict, sizes: NDArray, bic: NDArray, volumes: bool) -> tuple[str, ...]:
    notes = []
    if verdict.verdict == "collapsed":
        notes.append(
            "the latent code has collapsed: the structures are one structure, whatever the plots suggest"
        )
    elif verdict.verdict == "weak":
        notes.append("the latent code carries little: take motions and groups with care")
    if len(sizes) > 1 and bic.argmin() == len(sizes) - 1:
        notes.append(
            f"the Gaussian mixture would use more than {sizes[-1]} components: "
            "a continuous motion has no natural number of groups"
        )
    if volumes:
        notes.append("the run has no atomic model: components are those of the latent codes, without a unit")
    return tuple(notes)
