"""Small structures and files made for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cryoscape.structures.atomic_model import AtomicModel


def pdb_line(
    serial: int,
    name: str,
    residue: str,
    chain: str,
    number: int,
    xyz: tuple[float, float, float],
    *,
    element: str = "C",
    altloc: str = " ",
    insertion: str = " ",
    occupancy: float = 1.0,
    hetero: bool = False,
) -> str:
    record = "HETATM" if hetero else "ATOM  "
    padded = f" {name:<3}" if len(element) == 1 and len(name) < 4 else f"{name:<4}"
    x, y, z = xyz
    return (
        f"{record}{serial:5d} {padded}{altloc}{residue:>3} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{20.0:6.2f}          {element:>2}"
    )


def write_pdb(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([*lines, "END", ""]))
    return path


def walk(n: int, seed: int = 0, step: float = 3.8) -> np.ndarray:
    """Compact self-avoiding walk with CA-like steps, (n, 3)."""
    rng = np.random.default_rng(seed)
    points = [np.zeros(3)]
    failures = 0
    while len(points) < n:
        direction = rng.normal(size=3) - 0.02 * points[-1]
        candidate = points[-1] + step * direction / np.linalg.norm(direction)
        if len(points) < 2 or np.linalg.norm(np.array(points[:-1]) - candidate, axis=1).min() > 4.5:
            points.append(candidate)
            failures = 0
            continue
        failures += 1
        if failures > 30:
            # A dead end: go back some steps.
            del points[max(1, len(points) - 8) :]
            failures = 0
    return np.array(points)


def make_model(
    coords: np.ndarray,
    chains: list[str] | str = "A",
    numbers: np.ndarray | None = None,
    insertions: list[str] | None = None,
    kind: np.ndarray | None = None,
) -> AtomicModel:
    n = len(coords)
    kind = np.zeros(n, dtype=np.int8) if kind is None else np.asarray(kind, dtype=np.int8)
    return AtomicModel(
        coords=np.asarray(coords, dtype=np.float32),
        weights=np.full(n, 40.0, dtype=np.float32),
        chain_id=np.array([chains] * n if isinstance(chains, str) else chains),
        residue_number=np.arange(1, n + 1) if numbers is None else np.asarray(numbers),
        insertion_code=np.array(insertions if insertions is not None else [""] * n),
        residue_name=np.array(["GLY" if k == 0 else "A" for k in kind]),
        kind=kind,
        atom_name=np.array(["CA" if k == 0 else "P" for k in kind]),
        heavy_coords=np.asarray(coords, dtype=np.float32),
        heavy_weights=np.full(n, 6.0, dtype=np.float32),
        heavy_residue=np.arange(n),
    )
