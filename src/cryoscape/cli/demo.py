"""``cryoscape demo``: everything once, on particles whose truth is known."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cryoscape.cli.console import duration, reporter, say
from cryoscape.cli.fetch import local_model
from cryoscape.cli.options import need_empty_folder, one_thread
from cryoscape.errors import InputError

_OFFLINE = ("hinge", "linear1d", "circular1d", "linker", "states", "double-well", "composition")

# Nothing is drawn all the way round by its own gradient; subunits that come and go need settings of their
# own as bits, and none as maps.
_MAPS = ("circular1d", "linker", "composition")
# A step of the maps is cheap, and they start from the consensus where a model starts from the structure.
_MAP_STEPS = 3


@dataclass(frozen=True)
class _Size:
    """How large a demo is."""

    particles: int
    box: int
    pixel: float
    steps: int


_QUICK = _Size(particles=1500, box=32, pixel=4.0, steps=500)
_FULL = _Size(particles=4000, box=64, pixel=2.0, steps=1500)


def demo(
    scenario: Annotated[
        str, Parameter(help=f"{', '.join(_OFFLINE)} (these need no file), adk or models.")
    ] = "hinge",
    /,
    *,
    out: Annotated[
        Path | None,
        Parameter(name=["--out", "-o"], help="Output folder [demo-SCENARIO]."),
    ] = None,
    models: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, show_default=False, help="Files or PDB ids."),
    ] = (),
    pixel: Annotated[float | None, Parameter(help="Pixel size, A, where a model is too large.")] = None,
    quick: Annotated[bool, Parameter(show_default=False, help="Small and rough.")] = False,
    snr: float = 0.1,
    seed: int = 0,
) -> None:
    """Simulate, check, train, analyse and report; print recovered against true."""
    if scenario not in _OFFLINE and not models:
        raise InputError(f"the {scenario} demo needs structures", remedy="Give --models, files or PDB ids.")
    from cryoscape.analysis.evaluation.evaluate import evaluate
    from cryoscape.cli.evaluate import describe
    from cryoscape.cli.train import resolve, run_training
    from cryoscape.report.page import write_report
    from cryoscape.simulate.dataset import simulate
    from cryoscape.training.run import Run

    one_thread()
    start = time.monotonic()
    folder = _free_folder(scenario) if out is None else out
    need_empty_folder(folder, "Name a new folder with -o.")
    size = _QUICK if quick else _FULL
    data, run = folder / "data", folder / "run"
    _heading(1, "simulate particles with known truth")
    structures = tuple(local_model(name, folder / "models") for name in models)
    made = simulate(
        scenario,
        data,
        models=structures,
        particles=size.particles,
        box=size.box,
        pixel=size.pixel if pixel is None else pixel,
        snr=snr,
        seed=seed,
        progress=reporter(),
    )
    say("\n".join(made.lines()))
    _heading(2, "check, train, embed, analyse")
    maps = scenario in _MAPS
    steps = size.steps * (_MAP_STEPS if maps else 1)
    config = resolve({"steps": steps, "seed": seed, "decoder": "voxels" if maps else None})
    run_training(data / "particles.star", None if maps else data / "reference.cif", config, run)
    _heading(3, "compare with the truth")
    opened = Run.open(run)
    found = evaluate(opened, data / "truth.npz")
    page = write_report(opened)
    say(describe(found))
    say()
    say(f"took {duration(time.monotonic() - start)}; where to look:")
    for path, what in (
        (page, "the report; opens in any browser, offline"),
        (run / "maps" / "pc1_*.mrc", "the first change, a series of maps")
        if maps
        else (run / "ensemble" / "pc1.cif", "the first motion, a multi-model file"),
        (run / "open_in_chimerax.cxc", "opens them in ChimeraX"),
        (data / "particles.star", "the simulated particles"),
    ):
        say(f"  {path}  {what}")


def _heading(number: int, text: str) -> None:
    say(f"\n[{number}/3] {text}")


def _free_folder(scenario: str) -> Path:
    """Return demo-hinge, or demo-hinge-2 and so on where an earlier demo lies; nothing is overwritten."""
    folder, number = Path(f"demo-{scenario}"), 1
    while folder.exists():
        number += 1
        folder = Path(f"demo-{scenario}-{number}")
    return folder
