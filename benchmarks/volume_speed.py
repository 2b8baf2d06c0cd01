"""Training images per CPU-second of cryoscape's volume decoders and of cryoDRGN, in turns, one thread each.

    python benchmarks/volume_speed.py --cryodrgn-python VENV/bin/python --set SET [--set SET ...]

VENV is an environment with cryoDRGN 4 (docs/benchmarks.md). SET is a folder written by `cryoscape simulate`.
All decode z of 8 dimensions to the whole band, up to Nyquist; each program has its own default batch. They
train in alternating blocks, each asleep while the others work, so the machine's load falls on all; what
counts is the CPU-seconds from the end of one training step to the end of the next, loading included.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from measuring import SimulatedSet, machine, one_thread, script_parser, table, write_json
from peers import HERE, alternate, summary
from turns import Player

from cryoscape import Particles

PEER = "cryoDRGN"
PEER_BATCH = 16  # its default


def programs(arguments: Any, data: SimulatedSet, out: Path) -> dict[str, tuple[list[str], int]]:
    """Command and batch of each program."""
    particles = Particles.read(data.star)
    band = {"data": {"cutoff": 2 * particles.pixel_size}}
    found: dict[str, tuple[list[str], int]] = {}
    for decoder in arguments.decoder:
        kind, _, extra = decoder.partition(":")
        settings = {**band, "decoder": {"kind": kind, **json.loads(extra or "{}")}}
        command = [sys.executable, str(HERE / "cryoscape_driver.py"), "--batch", str(arguments.batch)]
        command += ["--settings", json.dumps(settings), "--steps", str(arguments.steps), "--speed-only"]
        found[f"cryoscape, {decoder}"] = (command, arguments.batch)
    command = [str(arguments.cryodrgn_python.absolute()), str(HERE / "cryodrgn_driver.py"), "train"]
    # Epochs enough for the steps; it stops when it has made them.
    epochs = 1 + arguments.peer_steps * PEER_BATCH // len(particles)
    command += ["--epochs", str(epochs), "--steps", str(arguments.peer_steps)]
    found[PEER] = (command, PEER_BATCH)
    return found


def measure(arguments: Any, data: SimulatedSet) -> dict[str, Any]:
    """Train everything on one set, by turns."""
    out: Path = arguments.out / data.name
    players, batches = [], {}
    try:
        for number, (name, (command, batch)) in enumerate(programs(arguments, data, out).items()):
            folder = out / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            block = arguments.peer_block if name == PEER else arguments.block
            command += ["--star", str(data.star.resolve()), "--out", str(folder.resolve())]
            command += ["--seed", str(arguments.seed), "--block", str(block)]
            players.append(Player(name, command, folder / "log.txt", one_thread()))
            batches[name] = batch
        alternate(players)
    finally:
        for player in players:
            player.stop()
    facts = {p.name: summary(p, batches[p.name], arguments.warm_up) for p in players}
    base = facts[PEER]["images_per_cpu_second"]
    for name, each in facts.items():
        each.update(batch=batches[name], ratio=each["images_per_cpu_second"] / base)
    box = Particles.read(data.star).box
    return {"set": data.name, "box": box, "machine": machine(), "programs": facts}


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("--cryodrgn-python", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--set", type=Path, required=True, action="append", dest="sets", metavar="SET")
    parser.add_argument("--out", type=Path, default=Path("runs/volume_speed"))
    parser.add_argument(
        "--decoder", action="append", metavar='KIND[:{"OPTION": VALUE}]', help="default: voxels and field"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--peer-steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--block", type=int, default=25, help="steps of one turn")
    parser.add_argument("--peer-block", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=5, help="first steps that are not counted")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.decoder = arguments.decoder or ["voxels", "field"]
    results = []
    for path in arguments.sets:
        results.append(measure(arguments, SimulatedSet(path).check()))
        rows = [
            [
                r["set"],
                f"{r['box']} px",
                name,
                facts["batch"],
                facts["cpu_ms_per_step"]["median"],
                facts["images_per_cpu_second"],
                facts["ratio"],
                facts["setup_cpu_seconds"],
                facts["peak_rss_bytes"] / 2**30,
            ]
            for r in results
            for name, facts in r["programs"].items()
        ]
        header = ["set", "box", "program", "batch", "CPU-ms a step", "images per CPU-s", "ratio"]
        print(table([*header, "set-up CPU-s", "peak GiB"], rows), flush=True)
    write_json(arguments.out / "volume_speed.json", {"results": results})


if __name__ == "__main__":
    main()
