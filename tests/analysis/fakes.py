"""A run whose decoder is a known linear map, and a truth it can be compared with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cryoscape.structures.atomic_model import AtomicModel
from cryoscape.training.config import Config


@dataclass
class FakeEmbedding:
    uid: np.ndarray
    row: np.ndarray
    half: np.ndarray
    held_out: np.ndarray
    z: np.ndarray
    z_sd: np.ndarray
    kl: np.ndarray
    elbo: np.ndarray
    gain: np.ndarray
    log_prior: np.ndarray


@dataclass
class FakeRun:
    path: Path
    model: AtomicModel | None
    embedding: FakeEmbedding | None
    modes: np.ndarray
    metrics: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    config: object = field(default_factory=Config)
    particles: object = None
    largest_chunk: int = 0
    has_structures: bool = True

    @property
    def structure(self):
        return self.model

    def occupancy(self, z):
        return None

    def decode(self, z):
        self.largest_chunk = max(self.largest_chunk, len(z))
        move = np.tensordot(np.asarray(z, dtype=np.float64), self.modes, axes=1)
        return (np.asarray(self.model.coords, dtype=np.float64) + move).astype(np.float32)


@dataclass
class FakeGeometry:
    box: int = 24
    pixel_size: float = 4.0


@dataclass
class FakeMapRun:
    """Decodes a large blob that stays, one that moves along x with z0, and one whose weight is set by z1."""

    path: Path
    embedding: FakeEmbedding
    geometry: FakeGeometry = field(default_factory=FakeGeometry)
    metrics: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)
    config: object = field(default_factory=Config)
    model: AtomicModel | None = None
    map_origin: tuple = (-48.0, -48.0, -48.0)
    largest_chunk: int = 0
    decoded: int = 0
    has_structures: bool = False

    def decode_maps(self, z, chunk=8):
        self.largest_chunk = max(self.largest_chunk, len(z))
        self.decoded += len(z)
        box, step = self.geometry.box, self.geometry.pixel_size
        axis = (np.arange(box) - box // 2) * step
        maps = np.empty((len(z), box, box, box), np.float32)
        for k, code in enumerate(np.asarray(z, float)):
            maps[k] = blob(axis, (0, -10, 0), 9.0) + blob(axis, (12 + 6 * code[0], 14, 0), 7.0)
            maps[k] += 0.1 * code[1] * blob(axis, (0, -24, 10), 6.0)
        return maps


def blob(axis, centre, sigma):
    """A Gaussian of height 1 about (x, y, z), A."""
    x, y, z = (np.exp(-0.5 * ((axis - c) / sigma) ** 2) for c in centre)
    return z[:, None, None] * y[:, None] * x


def chain_model(n=40, chains="AB", shift=(80.0, 80.0, 80.0)):
    """Helices side by side, 3.8 A between neighbours, `n` residues in all."""
    each = n // len(chains)
    turn = np.arange(each) * np.deg2rad(100)
    helix = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(each)], axis=1)
    coords = np.concatenate([helix + np.array([12.0 * k, 0, 0]) for k in range(len(chains))]) + shift
    n = len(coords)
    coords = coords.astype(np.float32)
    return AtomicModel(
        coords=coords,
        weights=np.full(n, 50, np.float32),
        chain_id=np.repeat(list(chains), each),
        residue_number=np.tile(np.arange(1, each + 1), len(chains)),
        insertion_code=np.full(n, ""),
        residue_name=np.full(n, "ALA"),
        kind=np.zeros(n, np.int8),
        atom_name=np.full(n, "CA"),
        heavy_coords=coords,
        heavy_weights=np.full(n, 6, np.float32),
        heavy_residue=np.arange(n),
    )


def swing(model, chain="B", length=1.0):
    """Shift of one chain along x that grows along the chain; rms over its residues is `length`."""
    move = np.zeros((len(model), 3))
    mine = np.flatnonzero(model.chain_id == chain)
    if len(mine):
        ramp = np.linspace(0, 1, len(mine))
        move[mine, 0] = length * ramp / np.sqrt(np.mean(ramp**2))
    return move


def metrics(steps=60):
    """A training record with both splits, as the loop writes it."""
    step = np.arange(1, steps + 1) * 50
    grow = 1 - np.exp(-step / 800)
    rng = np.random.default_rng(5)
    columns = {
        "step": step,
        "images": step * 64,
        "loss": 6000 - 40 * grow,
        "elbo": -6000 + 30 * grow + rng.normal(0, 2, steps),
        "log_likelihood": -5995 + 35 * grow,
        "kl": 4.5 * grow + 0.1 * rng.random(steps),
        "beta": np.minimum(step / 1000, 1.0),
        "bond": 2 * (1 - grow) + 0.2,
        "network": 3 * (1 - grow) + 0.5,
        "clash": 0.1 * (1 - grow),
        "gain_nats": 30 * grow,
        "lr": np.full(steps, 1e-3),
        "seconds": step * 0.1,
    }
    columns = {name: np.concatenate([value, value[9::10]]) for name, value in columns.items()}
    columns["split"] = np.array(["train"] * steps + ["held_out"] * (steps // 10))
    return columns


def fake_run(path, n=400, z=None, z_sd=0.1, amplitude=3.0, seed=0, model=None):
    """A run with d = 3: z0 swings chain B, z1 chain A a little, z2 does nothing."""
    rng = np.random.default_rng(seed)
    model = chain_model() if model is None else model
    if z is None:
        z = rng.standard_normal((n, 3))
    n = len(z)
    modes = np.stack(
        [swing(model, "B", amplitude), swing(model, "A", 0.2 * amplitude), np.zeros((len(model), 3))]
    )
    embedding = fake_embedding(z, z_sd, rng)
    Path(path).mkdir(parents=True, exist_ok=True)
    return FakeRun(Path(path), model, embedding, modes, metrics(), dict(INFO))


INFO = {"version": "0.1.0", "status": "finished", "seed": 0, "hardware": {"device": "cpu", "threads": 1}}


def fake_embedding(z, z_sd, rng):
    n = len(z)
    return FakeEmbedding(
        uid=np.arange(n, dtype=np.uint64),
        row=np.arange(n),
        half=np.where(np.arange(n) % 2, 1, 2).astype(np.int8),
        held_out=np.arange(n) % 20 == 0,
        z=np.asarray(z, np.float32),
        z_sd=np.full(np.shape(z), z_sd, np.float32),
        kl=np.full(n, 4.5, np.float32),
        elbo=(-6000 + rng.normal(0, 3, n)).astype(np.float32),
        gain=(5 + rng.normal(0, 2, n)).astype(np.float32),
        log_prior=rng.normal(-4, 1, n).astype(np.float32),
    )


def fake_map_run(path, n=200, z=None, z_sd=0.1, seed=0):
    """A run of maps with d = 3: z0 moves a blob, z1 changes another a little, z2 spreads but does nothing."""
    rng = np.random.default_rng(seed)
    if z is None:
        z = rng.standard_normal((n, 3)) * [1, 1, 5]
    Path(path).mkdir(parents=True, exist_ok=True)
    return FakeMapRun(
        Path(path),
        fake_embedding(z, z_sd, rng),
        metrics=metrics(),
        info=dict(INFO),
        config=Config(decoder={"kind": "voxels"}),
    )


def write_truth(folder, run, level, state, population=None, scenario="linear1d", **extra):
    """Truth whose state s is the run's own structure at z0 = level[s]."""
    z = np.zeros((len(level), run.modes.shape[0]))
    z[:, 0] = level
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"state": np.asarray(state), "coords": run.decode(z), "cv": np.asarray(level, float)}
    arrays["population"] = (
        np.full(len(level), 1 / len(level)) if population is None else np.asarray(population)
    )
    np.savez(folder / "truth.npz", scenario=scenario, **(arrays | extra))
    return folder / "truth.npz"
