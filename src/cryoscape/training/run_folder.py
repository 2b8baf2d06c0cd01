"""What a run folder says of its input: particles, reference and consensus, written once at the start."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from cryoscape.data.particles import Particles
from cryoscape.data.poses import write_with_poses
from cryoscape.errors import InputError
from cryoscape.files import atomic_path
from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training.assemble import Geometry
from cryoscape.training.consensus import Consensus
from cryoscape.training.pose_table import PoseCorrections


def update_info(folder: Path, **more: Any) -> None:
    """Put entries into run.json."""
    info = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", {**info, **more})


def record_consensus(folder: Path, consensus: Consensus, geometry: Geometry) -> None:
    """Write the consensus maps of a run, and what is known of their signal into run.json."""
    (folder / "maps").mkdir(exist_ok=True)
    consensus.write(folder / "maps", geometry.map_origin)
    facts = {
        "resolution": consensus.resolution,
        "half_fsc": consensus.half_fsc.tolist(),
        "amplitude": consensus.amplitude.tolist(),
    }
    update_info(folder, consensus=facts)


def write_refined_poses(folder: Path, given: Particles, corrections: PoseCorrections) -> Path:
    """Write the user's own rows with the poses that were learnt, as particles/refined_poses.star or .cs."""
    assert given.source.path is not None
    target = folder / "particles" / f"refined_poses{Path(given.source.path).suffix}"
    moved = corrections.moved(given)
    target.parent.mkdir(exist_ok=True)
    assert moved.rotations is not None
    write_with_poses(given, target, moved.rotations, moved.shifts)
    return target


def fingerprint(particles: Particles) -> str:
    """Hash of the identities of particles in their order."""
    return hashlib.blake2b(particles.uid.tobytes(), digest_size=16).hexdigest()


def describe_particles(particles: Particles, folder: Path) -> dict[str, Any]:
    """Write down how to find particles again: an entry of run.json, and the rows of a selection."""
    if not np.array_equal(particles.row, np.arange(len(particles))):
        path = folder / "particles" / "training_rows.npy"
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            np.save(stream, particles.row)
    passthrough = getattr(particles.source, "passthrough", ())
    return {
        "path": str(particles.source.path),
        "datadir": None if particles.datadir is None else str(particles.datadir),
        "passthrough": [str(path) for path in passthrough],
        "n": len(particles),
        "fingerprint": fingerprint(particles),
        "box": particles.box,
        "pixel_size": particles.pixel_size,
        "data_sign": particles.data_sign,
    }


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def copy_reference(structure: AtomicModel, folder: Path) -> str:
    """Put the model file into the run folder, so that the run stands alone; return its name there."""
    if structure.path is None:
        raise InputError(
            "the reference model was not read from a file",
            remedy="Write it to a file and read it from there.",
        )
    name = "reference" + "".join(s for s in structure.path.suffixes[-2:] if s.lower() in _SUFFIXES)
    with atomic_path(folder / name) as temporary:
        shutil.copyfile(structure.path, temporary)
    return name


_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".gz")
