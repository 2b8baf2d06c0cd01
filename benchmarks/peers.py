"""cryoscape beside official cryoSTAR: same images, same batch, one thread each, in turns, in one run.

    python benchmarks/peers.py --cryostar CHECKOUT --cryostar-python VENV/bin/python --set SET --steps 2000

CHECKOUT is a clone of github.com/bytedance/cryostar; VENV an environment with what it imports
(docs/benchmarks.md lists it). SET is a folder written by `cryoscape simulate`. The two programs train in
alternating blocks, each asleep while the other works, so the machine's load falls on both; what counts is
the CPU-seconds of each training step, from the end of one to the end of the next (loading included).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from measuring import SimulatedSet, machine, one_thread, score, script_parser, table, write_json
from turns import Player

from cryoscape.structures.atomic_model import AtomicModel

HERE = Path(__file__).resolve().parent


def write_centred_pdb(model: Path, star_box: float, out: Path) -> None:
    """Write the reference as cryoSTAR wants it: a PDB file with its origin at the centre of the box."""
    structure = gemmi.read_structure(str(model))
    structure.remove_waters()
    structure.remove_empty_chains()
    offset = gemmi.Vec3(star_box, star_box, star_box)
    structure[0].transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(), -offset))
    structure.write_pdb(str(out))


def half_box(particles: Path) -> float:
    """Position of the box centre in the corner frame, A."""
    from cryoscape.conventions import corner_to_centre
    from cryoscape.data.particles import Particles

    read = Particles.read(particles)
    return corner_to_centre(read.box, read.pixel_size)


def alternate(players: list[Player]) -> None:
    """Let everyone get ready, then take turns until all are done."""
    for player in players:
        player.get_ready()
        print(f"{player.name}: ready after {player.setup_seconds:.1f} CPU-s", flush=True)
    while any(player.facts is None for player in players):
        for player in players:
            if player.facts is None:
                player.turn()
        print(
            "   ".join(
                f"{p.name} {len(p.steps)} steps {1e3 * float(np.median(p.steps[-100:] or [0])):.1f} ms"
                for p in players
            ),
            flush=True,
        )


def summary(player: Player, batch: int, warm_up: int) -> dict[str, Any]:
    """Rates of one program; the first steps of each, where memory is first touched, do not count."""
    steps = np.array(player.steps[warm_up:] or player.steps)
    low, middle, high = np.percentile(steps, [25, 50, 75])
    return {
        "steps": len(player.steps),
        "cpu_ms_per_step": {"median": 1e3 * middle, "quartiles": [1e3 * low, 1e3 * high]},
        "images_per_cpu_second": batch / middle,
        # With whatever either program does now and then between two steps.
        "images_per_cpu_second_overall": batch * len(player.steps) / float(np.sum(player.steps)),
        "setup_cpu_seconds": player.setup_seconds,
        "training_cpu_seconds": float(np.sum(player.steps)),
        **(player.facts or {}),
    }


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--cryostar", type=Path, required=True, metavar="CHECKOUT")
    parser.add_argument("--cryostar-python", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--set", type=Path, required=True, dest="data", metavar="SET")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=20, help="steps of one turn")
    parser.add_argument("--warm-up", type=int, default=5, help="first steps that are not counted")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--preset", action="append", help="cryoscape preset; may be repeated")
    parser.add_argument("--no-accuracy", action="store_true", help="speed alone")
    arguments = parser.parse_args()
    data = SimulatedSet(arguments.data).check()
    if not (arguments.cryostar / "projects/star/train_atom.py").is_file():
        sys.exit(f"{arguments.cryostar} is no checkout of cryoSTAR")

    out: Path = arguments.out / f"{data.name}-{arguments.steps}"
    centre = half_box(data.star)
    common = ["--star", str(data.star), "--steps", str(arguments.steps), "--batch", str(arguments.batch)]
    common += ["--block", str(arguments.block), "--seed", str(arguments.seed)]
    commands: dict[str, list[str]] = {}
    for name in arguments.preset or ["cryoscape"]:
        label = name if name == "cryoscape" else f"cryoscape --preset {name}"
        commands[label] = [sys.executable, str(HERE / "cryoscape_driver.py"), "--preset", name]
        commands[label] += ["--model", str(data.model)]
    official = [str(arguments.cryostar_python.absolute()), str(HERE / "cryostar_driver.py")]
    official += ["--checkout", str(arguments.cryostar), "--model", str(out / "reference_centred.pdb")]
    # Without decoded structures the fit of zero displacement before training is only lost time.
    official += ["--no-ref-init"] if arguments.no_accuracy else []
    commands["official cryoSTAR"] = official

    out.mkdir(parents=True, exist_ok=True)
    write_centred_pdb(data.model, centre, out / "reference_centred.pdb")
    players, coords = [], {}
    try:
        for name, command in commands.items():
            folder = out / name.replace(" --preset ", "-").replace(" ", "-")
            folder.mkdir(exist_ok=True)
            coords[name] = folder / "coords.npy"
            command += [*common, "--out", str(folder)]
            command += [] if arguments.no_accuracy else ["--coords", str(coords[name])]
            players.append(Player(name, command, folder / "log.txt", one_thread()))
        alternate(players)
    finally:
        for player in players:
            player.stop()

    result: dict[str, Any] = {
        "set": data.name,
        "residues": len(AtomicModel.read(data.model)),
        "batch": arguments.batch,
        "machine": machine(),
        "programs": {},
    }
    for player in players:
        facts = summary(player, arguments.batch, arguments.warm_up)
        if not arguments.no_accuracy:
            # cryoSTAR works with the origin at the box centre; truth counts from the corner.
            shift = centre if player.name == "official cryoSTAR" else 0.0
            facts["rmsd"] = score(np.load(coords[player.name]) + np.float32(shift), data.truth)
        result["programs"][player.name] = facts
    base = result["programs"]["official cryoSTAR"]["images_per_cpu_second"]
    rows = []
    for name, facts in result["programs"].items():
        facts["ratio"] = facts["images_per_cpu_second"] / base
        rmsd = facts["rmsd"].mean if "rmsd" in facts else None
        rows.append(
            [
                name,
                facts["steps"],
                facts["cpu_ms_per_step"]["median"],
                facts["images_per_cpu_second"],
                facts["ratio"],
                facts["setup_cpu_seconds"],
                facts["peak_rss_bytes"] / 2**30,
                rmsd,
            ]
        )
    header = [
        "program",
        "steps",
        "CPU-ms a step",
        "images per CPU-s",
        "ratio",
        "set-up CPU-s",
        "peak GiB",
        "CA-RMSD, A",
    ]
    print(table(header, rows))
    write_json(out / "peers.json", result)


if __name__ == "__main__":
    main()
