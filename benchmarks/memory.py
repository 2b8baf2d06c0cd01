"""Peak memory of the two largest cases: a big complex, and a long stack.

    python benchmarks/memory.py complex [--residues 13000] [--batch 32]
    python benchmarks/memory.py stack [--particles 10000 100000 1000000]

`complex` simulates images of a generated model of many chains and trains a few steps on them. `stack` trains
from stacks of growing length; each is a sparse file in which a few thousand images are spread over the whole
length, so that a million-particle stack needs little disk. Memory is read from /proc (Linux) while a child
process works: all of it, and without the pages of mapped files, which the kernel takes back when it needs to.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
from measuring import machine, one_thread, script_parser, table, write_json
from numpy.typing import NDArray

# Spacing of residues along and across strands: 3.8 A and the density of protein, 137 cubic A a residue.
ALONG, ACROSS = 3.8, 6.0
CHAIN = 500


def strands(n: int) -> NDArray[np.float64]:
    """A chain of n residues laid to and fro in a block of strands: (n, 3), A."""
    per_strand = max(2, round((n * ACROSS**2 / ALONG**2) ** (1 / 3)))
    per_sheet = max(1, round(per_strand * ALONG / ACROSS))
    number = np.arange(n)
    strand, along = number // per_strand, number % per_strand
    sheet, across = strand // per_sheet, strand % per_sheet
    along = np.where(strand % 2, per_strand - 1 - along, along)
    across = np.where(sheet % 2, per_sheet - 1 - across, across)
    return np.stack([along * ALONG, across * ACROSS, sheet * ACROSS], axis=1)


def complex_coordinates(residues: int) -> NDArray[np.float64]:
    """Chains of 500 residues stacked side by side into a block, centred: (residues, 3), A."""
    chains = -(-residues // CHAIN)
    side = int(np.ceil(chains ** (1 / 3)))
    one = strands(CHAIN)
    cell = one.max(0) + ACROSS
    places = np.array([[i % side, i // side % side, i // side**2] for i in range(chains)]) * cell
    coords = (one[None] + places[:, None]).reshape(-1, 3)[:residues]
    return coords - coords.mean(0)


def write_model(path: Path, coords: NDArray[np.float64]) -> None:
    """Write alanine CA atoms as mmCIF, a chain every 500 residues."""
    structure, model = gemmi.Structure(), gemmi.Model(1)
    for c, start in enumerate(range(0, len(coords), CHAIN)):
        chain = gemmi.Chain(f"A{c}")
        for number, place in enumerate(coords[start : start + CHAIN], start=1):
            residue = gemmi.Residue()
            residue.name, residue.seqid, residue.entity_type = (
                "ALA",
                gemmi.SeqId(number, " "),
                gemmi.EntityType.Polymer,
            )
            atom = gemmi.Atom()
            atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*place)
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(path))


def bent(coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same complex with its upper half turned by 10 degrees."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_euler("x", 10, degrees=True).as_matrix()
    return np.where(coords[:, 2:] > 0, coords @ turn.T, coords)


def simulate_complex(folder: Path, residues: int, particles: int) -> Path:
    """Two states of a generated complex; return the folder of the set."""
    from cryoscape.simulate.dataset import simulate

    data = folder / f"complex-{residues}-{particles}"
    if not (data / "truth.npz").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        coords = complex_coordinates(residues)
        models = [folder / "straight.cif", folder / "bent.cif"]
        write_model(models[0], coords)
        write_model(models[1], bent(coords))
        box = 2 * int(np.ceil((np.linalg.norm(coords, axis=1).max() + 30) / 3.0))
        simulate("states", data, models=models, particles=particles, box=box, pixel=3.0, snr=0.05, force=True)
    return data


def simulate_stack(folder: Path, particles: int, distinct: int = 4000) -> Path:
    """A stack of many particles, sparse on disk; return the folder of the set.

    `distinct` real images lie at even distances along the file; the rows of the table name them in turn.
    Every row is a particle of its own to the program, which maps the whole length.
    """
    from cryoscape.data.particles import Particles
    from cryoscape.data.star import write_particles_star
    from cryoscape.simulate.dataset import simulate

    seed_set, data = folder / "hinge", folder / f"stack-{particles}"
    if not (seed_set / "truth.npz").is_file():
        simulate("hinge", seed_set, particles=distinct, box=96, pixel=1.5, snr=0.1, force=True)
    if (data / "particles.star").is_file():
        return data
    data.mkdir(parents=True, exist_ok=True)
    known = Particles.read(seed_set / "particles.star")
    distinct = min(distinct, len(known), particles)
    place = np.linspace(0, particles - 1, distinct).astype(np.int64)
    stack = sparse_stack(data / "particles.mrcs", seed_set / "particles.mrcs", particles, known.box)
    for rows in np.array_split(np.arange(distinct), 20):
        stack[place[rows]] = known.images(rows)
    del stack
    source = np.arange(particles) % distinct
    columns = star_columns(known, source)
    names = [f"{i + 1}@particles.mrcs" for i in place[source]]
    group = known.optics[0]
    optics = {
        "rlnVoltage": group.voltage,
        "rlnSphericalAberration": group.cs,
        "rlnAmplitudeContrast": group.amplitude_contrast,
        "rlnImagePixelSize": group.pixel_size,
        "rlnImageSize": group.box,
        "rlnImageDimensionality": 2,
    }
    write_particles_star(data / "particles.star", image_names=names, optics=[optics], columns=columns)
    (data / "reference.cif").write_bytes((seed_set / "reference.cif").read_bytes())
    return data


def sparse_stack(path: Path, like: Path, n: int, box: int) -> NDArray[np.float32]:
    """Open a new stack of n images with the header of another; only what is written takes disk."""
    with like.open("rb") as other, path.open("wb") as new:
        header = bytearray(other.read(1024))
        # Words 3 and 10 (nz, mz).
        header[8:12] = header[36:40] = np.int32(n).tobytes()
        new.write(header)
        new.truncate(1024 + 4 * n * box * box)
    return np.memmap(path, np.float32, "r+", offset=1024, shape=(n, box, box))


def star_columns(known: Any, rows: NDArray[np.int64]) -> dict[str, NDArray]:
    """Poses and defoci of some particles, as RELION's columns."""
    from cryoscape.conventions import rotation_to_relion, shift_to_relion

    rot, tilt, psi = rotation_to_relion(known.rotations)
    x, y = np.asarray(shift_to_relion(known.shifts)).reshape(-1, 2).T
    columns = {
        "rlnAngleRot": rot,
        "rlnAngleTilt": tilt,
        "rlnAnglePsi": psi,
        "rlnOriginXAngst": x,
        "rlnOriginYAngst": y,
        "rlnDefocusU": known.defocus_u,
        "rlnDefocusV": known.defocus_v,
        "rlnDefocusAngle": known.defocus_angle,
    }
    return {name: np.asarray(values)[rows] for name, values in columns.items()}


def work(arguments: argparse.Namespace) -> None:
    """The child process: read, train, and say how long each took."""
    import shutil

    from cryoscape import AtomicModel, Config, Particles, train

    start = time.perf_counter()
    particles = Particles.read(arguments.data / "particles.star")
    opened = time.perf_counter() - start
    out = arguments.data / "run"
    shutil.rmtree(out, ignore_errors=True)
    training = {"steps": arguments.steps, "batch": arguments.batch, "device": "cpu", "threads": 1}
    train(particles, AtomicModel.read(arguments.data / "reference.cif"), Config(training=training), out)
    facts = {"seconds_to_open": opened, "seconds": time.perf_counter() - start, "particles": len(particles)}
    print(json.dumps(facts))


def watch(command: list[str], log: Path) -> dict[str, Any]:
    """Run a child and sample its memory five times a second; return the peaks and its last line."""
    peaks = {"VmRSS": 0, "RssAnon": 0, "RssFile": 0}
    with log.open("w") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=one_thread())
        status = Path(f"/proc/{child.pid}/status")
        while child.poll() is None:
            lines = status.read_text().splitlines() if status.exists() else []
            for line in lines:
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) * 1024)
            time.sleep(0.2)
        output = child.communicate()[0]
    if child.returncode:
        raise SystemExit(f"the child failed; the end of {log}:\n" + log.read_text()[-3000:])
    last = json.loads(output.strip().splitlines()[-1])
    return {**last, "peak_bytes": peaks["VmRSS"], "peak_anonymous_bytes": peaks["RssAnon"]}


def measure(data: Path, steps: int, batch: int) -> dict[str, Any]:
    """Train on a set in a child process."""
    command = [
        sys.executable,
        __file__,
        "work",
        "--data",
        str(data),
        "--steps",
        str(steps),
        "--batch",
        str(batch),
    ]
    facts = watch(command, data / "log.txt")
    stack = data / "particles.mrcs"
    return {**facts, "set": data.name, "steps": steps, "batch": batch, "stack_bytes": stack.stat().st_size}


def report(name: str, results: list[dict[str, Any]], out: Path) -> None:
    """Print the table and write the result file."""
    gib = 2**30
    rows = [
        [
            r["set"],
            r["particles"],
            r["stack_bytes"] / gib,
            r["batch"],
            r["seconds_to_open"],
            r["peak_bytes"] / gib,
            r["peak_anonymous_bytes"] / gib,
        ]
        for r in results
    ]
    header = [
        "set",
        "particles",
        "stack, GiB",
        "batch",
        "s to open",
        "peak, GiB",
        "without mapped files, GiB",
    ]
    print(table(header, rows))
    write_json(out / f"memory-{name}.json", {"machine": machine(), "results": results})


def main() -> None:
    parser = script_parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    big = commands.add_parser("complex", help="a large model")
    big.add_argument("--residues", type=int, default=13000)
    big.add_argument("--particles", type=int, default=256)
    big.add_argument("--batch", type=int, default=32)
    big.add_argument("--steps", type=int, default=20)
    long = commands.add_parser("stack", help="a long stack")
    long.add_argument("--particles", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    long.add_argument("--batch", type=int, default=64)
    long.add_argument("--steps", type=int, default=100)
    for command in (big, long):
        command.add_argument("--out", type=Path, default=Path("runs/memory"))
    worker = commands.add_parser("work")
    worker.add_argument("--data", type=Path, required=True)
    worker.add_argument("--batch", type=int, required=True)
    worker.add_argument("--steps", type=int, required=True)
    arguments = parser.parse_args()
    if arguments.command == "work":
        work(arguments)
        return
    if arguments.command == "complex":
        sets = [simulate_complex(arguments.out, arguments.residues, arguments.particles)]
    else:
        sets = [simulate_stack(arguments.out, particles) for particles in arguments.particles]
    report(
        arguments.command, [measure(data, arguments.steps, arguments.batch) for data in sets], arguments.out
    )


if __name__ == "__main__":
    main()
