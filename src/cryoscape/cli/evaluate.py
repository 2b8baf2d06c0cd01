"""``cryoscape evaluate``: recovered against true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from cryoscape.cli.console import reporter, say, table
from cryoscape.cli.options import RunFolder, need_file, one_thread
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.analysis.evaluation.composition import CompositionEvaluation
    from cryoscape.analysis.evaluation.evaluation import Evaluation, VolumeEvaluation
    from cryoscape.analysis.evaluation.junk import JunkEvaluation
    from cryoscape.analysis.evaluation.latents import LatentEvaluation
    from cryoscape.analysis.evaluation.maps import MapEvaluation
    from cryoscape.analysis.evaluation.populations import PopulationEvaluation

_ROWS = 12  # states that fit on a screen


def evaluate(
    run: RunFolder,
    /,
    *,
    truth: Annotated[Path, Parameter(help="truth.npz of the simulation.")],
    json: Annotated[Path | None, Parameter(help="Also write the numbers here.")] = None,
    images: Annotated[int, Parameter(help="Single particles whose maps are compared; 0: none.")] = 100,
    mask: Annotated[
        Path | None, Parameter(help="Map that multiplies decoded and true maps before the FSC.")
    ] = None,
) -> None:
    """Compare a run with known truth: structures without superposition, maps by FSC, codes by neighbours."""
    from cryoscape.analysis.evaluation.evaluate import evaluate as evaluate_run
    from cryoscape.training.run import Run

    one_thread()
    if not truth.is_dir():
        need_file(truth, "Give the truth.npz that the simulation wrote.")
    if mask is not None:
        need_file(mask, "Give a map with the box of the particles.")
    if images < 0:
        raise InputError(f"{images} images cannot be compared", remedy="Give 0 or more.")
    opened = Run.open(run)
    found = evaluate_run(opened, truth, json_path=json, images=images, mask_path=mask, progress=reporter())
    say(describe(found))


def describe(found: Evaluation | VolumeEvaluation) -> str:
    """Lay out recovered against true."""
    from cryoscape.analysis.evaluation.evaluation import Evaluation

    parts = [_structures(found)] if isinstance(found, Evaluation) else [f"{found.n_particles} particles"]
    if found.maps is not None:
        parts.append(_maps(found.maps))
    if found.codes is not None:
        parts.append(_codes(found.codes))
    if isinstance(found, Evaluation):
        parts.append(_states(found))
        if found.populations is not None:
            parts.append(_populations(found.populations))
        if found.composition is not None:
            parts.append(_composition(found.composition))
    if found.junk is not None:
        parts.append(_junk(found.junk))
    return "\n".join(["\n\n".join(parts), *(f"warning: {text}" for text in found.warnings)])


def _structures(found: Evaluation) -> str:
    rows = [
        ("mean CA-RMSD, A", f"{found.rmsd:.2f}", f"{found.trivial:.2f}", f"{found.constant:.2f}"),
        ("median CA-RMSD, A", f"{found.rmsd_median:.2f}", "", ""),
        ("mean over states, A", f"{found.rmsd_states:.2f}", "", ""),
    ]
    if found.held_out:
        rows.append(("mean CA-RMSD of particles held out, A", f"{found.held_out['rmsd']:.2f}", "", ""))
    rows.append(("nearest state right, %", f"{100 * found.accuracy:.1f}", f"{100 * found.majority:.1f}", ""))
    return "\n".join(
        [
            f"{found.n_particles} particles, {found.n_residues} residues, no superposition",
            table(("recovered against true", "run", "trivial", "one structure"), rows),
        ]
    )


def _maps(found: MapEvaluation) -> str:
    each, one = found.per_conformation, found.one_map
    ceiling = f"{found.ceiling:.3f}"
    rows = [("FSC AUC, one map a state", _spread(each.auc, each.auc_sd), f"{one.auc:.3f}", ceiling)]
    if found.per_image is not None:
        image = found.per_image
        rows.append((f"FSC AUC, {image.maps} images", _spread(image.auc, image.auc_sd), "", ceiling))
    band = 2 * found.run_pixel_size
    rows.append((f"mean FSC down to {band:.1f} A", f"{each.in_band:.3f}", f"{one.in_band:.3f}", "1"))
    rows.append(
        ("FSC above 0.5 down to, A", f"{each.resolution:.1f}", f"{one.resolution:.1f}", f"{band:.1f}")
    )
    if found.accuracy is not None and found.majority is not None:
        right, chance = 100 * found.accuracy, 100 * found.majority
        rows.append(("nearest true map right, % of images", f"{right:.0f}", f"{chance:.0f}", "100"))
    return "\n".join(
        [
            f"{each.maps} true maps, box {found.box} of {found.pixel_size:.2f} A; "
            f"the run's box of {found.run_box} allows an AUC of {found.run_ceiling:.3f}",
            table(("decoded against true maps", "run", "one map", "ceiling"), rows),
        ]
    )


def _codes(found: LatentEvaluation) -> str:
    rows = [
        (
            f"shared of {row.k} neighbours, %",
            f"{100 * row.fraction:.1f}",
            f"{100 * row.floor:.1f}",
            f"{100 * row.best:.1f}",
        )
        for row in found.neighbourhood
    ]
    for other in found.imbalance:
        chance = f"{other.floor:.2f}"
        of_truth = other.name == "truth"
        best = f"{other.best:.2f}" if of_truth else ""
        rows.append((f"imbalance, codes to {other.name}", f"{other.from_codes:.2f}", chance, best))
        if of_truth:
            rows.append(("imbalance, truth to codes", f"{other.to_codes:.2f}", chance, best))
    return "\n".join(
        [
            f"{found.particles} particles, truth by {found.truth}",
            table(("neighbours in the codes", "run", "chance", "best"), rows),
        ]
    )


def _populations(found: PopulationEvaluation) -> str:
    lines = [
        f"populations of the {found.source}: total variation distance {found.distance:.3f} from the truth "
        f"(sampling alone {found.floor:.3f}), largest error {100 * found.largest_error:.1f} %"
    ]
    if found.profile_error is not None:
        lines.append(f"free energy along the path: error {found.profile_error:.2f} kT")
    return "\n".join(lines)


def _composition(found: CompositionEvaluation) -> str:
    rows = [
        (name, f"{100 * right:.1f}", f"{100 * chance:.1f}", f"{100 * share:.1f}", f"{100 * true:.1f}")
        for name, right, chance, share, true in zip(
            found.subunits, found.accuracy, found.majority, found.present, found.true_present
        )
    ]
    lines = [
        table(("subunit", "right %", "commoner %", "prior has %", "true %"), rows),
        f"sets of subunits under the prior: total variation distance {found.distance:.3f} from the truth "
        f"(sampling alone {found.floor:.3f}), mean log p {found.log_probability:.3f} nats of at most "
        f"{-found.entropy:.3f}",
    ]
    if found.correlation is not None:
        lines.append(f"couplings of the subunits: correlation {found.correlation:.2f} with the true ones")
    return "\n".join(lines)


def _junk(found: JunkEvaluation) -> str:
    posterior = "" if found.posterior is None else f", by `cryoscape junk` {found.posterior:.3f}"
    return (
        f"{found.junk} junk images beside {found.particles} particles; the chance that junk scores lower: "
        f"by evidence {found.evidence:.3f}, by gain over one structure {found.gain:.3f}, "
        f"by the prior {found.log_prior:.3f}{posterior}"
    )


def _spread(mean: float, sd: float) -> str:
    return f"{mean:.3f} ± {sd:.3f}"


def _states(found: Evaluation) -> str:
    step = max(1, -(-len(found.states) // _ROWS))
    learned = () if found.populations is None else found.populations.share
    rows = [
        (
            str(row.state),
            f"{100 * row.population:.1f}",
            f"{100 * row.nearest:.1f}",
            *([f"{100 * learned[row.state]:.1f}"] if learned else []),
            "-" if row.rmsd is None else f"{row.rmsd:.2f}",
            f"{row.trivial:.2f}",
        )
        for row in found.states[::step]
    ]
    every = "" if step == 1 else f" (every {step}th)"
    prior = ["prior %"] if learned else []
    return table((f"state{every}", "true %", "nearest %", *prior, "RMSD, A", "trivial, A"), rows)
