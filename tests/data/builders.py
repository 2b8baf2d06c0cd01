"""Small particle sets, written by hand and by mrcfile, not by the code under test."""

from __future__ import annotations

import mrcfile
import numpy as np

ROWS = 12
BOX = 8
OPTICS = {
    "rlnOpticsGroupName": "opticsGroup1",
    "rlnOpticsGroup": "1",
    "rlnVoltage": "300.000000",
    "rlnSphericalAberration": "2.700000",
    "rlnAmplitudeContrast": "0.100000",
    "rlnImagePixelSize": "1.250000",
    "rlnImageSize": str(BOX),
    "rlnImageDimensionality": "2",
}


def particle_columns(n=ROWS, seed=0, stack="particles.mrcs"):
    """Tokens of a refined table, with some that no reader of numbers would give back as they are."""
    rng = np.random.default_rng(seed)
    return {
        "rlnCoordinateX": [f"{v:12.4f}".strip() for v in rng.uniform(0, 4000, n)],
        "rlnImageName": [f"{i + 1:06d}@{stack}" for i in range(n)],
        "rlnMicrographName": [f"mic_{i // 3:03d}.mrc" for i in range(n)],
        "rlnOpticsGroup": ["1"] * n,
        "rlnDefocusU": [f"{v:.6f}" for v in rng.uniform(10000, 20000, n)],
        "rlnDefocusV": [f"{v:.6f}" for v in rng.uniform(10000, 20000, n)],
        "rlnDefocusAngle": [f"{v:.6f}" for v in rng.uniform(0, 180, n)],
        "rlnAngleRot": [f"{v:.6f}" for v in rng.uniform(-180, 180, n)],
        "rlnAngleTilt": [f"{v:.6f}" for v in rng.uniform(0, 180, n)],
        "rlnAnglePsi": [f"{v:.6f}" for v in rng.uniform(-180, 180, n)],
        "rlnOriginXAngst": [f"{v:.6f}" for v in rng.uniform(-9, 9, n)],
        "rlnOriginYAngst": [f"{v:.6f}" for v in rng.uniform(-9, 9, n)],
        "rlnLogLikeliContribution": [f"{v:.3e}" for v in rng.uniform(1, 9, n) * 1e5],
        "rlnOddNumber": ["+1.50", "1.5e0", "01.5", "1.50000000000000001"] * (n // 4) + ["1"] * (n % 4),
    }


def loop(name, columns):
    lines = ["", "# version 30001", "", f"data_{name}", "", "loop_"]
    lines += [f"_{tag} #{i}" for i, tag in enumerate(columns, start=1)]
    lines += ["  ".join(tokens) for tokens in zip(*columns.values())]
    return "\n".join(lines) + "\n\n"


def write_stack(path, n=ROWS, box=BOX, dtype="f4", seed=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (np.random.default_rng(seed).normal(size=(n, box, box)) * 10).astype(dtype)
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(data)
        mrc.set_image_stack()
    return data


def write_star(path, columns=None, optics=None, stack=True):
    """A RELION 3.1 table beside its stack."""
    columns = particle_columns() if columns is None else columns
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = OPTICS if optics is None else optics
    table = {tag: value if isinstance(value, list) else [value] for tag, value in rows.items()}
    path.write_text(loop("optics", table) + loop("particles", columns))
    if stack:
        write_stack(path.parent / "particles.mrcs", len(columns["rlnImageName"]))
    return path


def cs_table(n=ROWS, seed=2, sign=-1.0):
    """A cryoSPARC refinement: (table with poses, passthrough with images and CTF)."""
    rng = np.random.default_rng(seed)
    main = np.zeros(
        n,
        dtype=[
            ("uid", "<u8"),
            ("alignments3D/split", "<u4"),
            ("alignments3D/shift", "<f4", (2,)),
            ("alignments3D/pose", "<f4", (3,)),
            ("alignments3D/psize_A", "<f4"),
            ("alignments_class_0/pose", "<f4", (3,)),
        ],
    )
    main["uid"] = rng.integers(1, 2**63, n, dtype=np.uint64)
    main["alignments3D/split"] = np.arange(n) % 2
    main["alignments3D/shift"] = rng.uniform(-4, 4, (n, 2))
    main["alignments3D/pose"] = rng.normal(size=(n, 3))
    main["alignments3D/psize_A"] = 2.5
    main["alignments_class_0/pose"] = 9.0
    extra = np.zeros(
        n,
        dtype=[
            ("uid", "<u8"),
            ("blob/path", "S40"),
            ("blob/idx", "<u4"),
            ("blob/shape", "<u4", (2,)),
            ("blob/psize_A", "<f4"),
            ("blob/sign", "<f4"),
            ("ctf/exp_group_id", "<u4"),
            ("ctf/accel_kv", "<f4"),
            ("ctf/cs_mm", "<f4"),
            ("ctf/amp_contrast", "<f4"),
            ("ctf/df1_A", "<f4"),
            ("ctf/df2_A", "<f4"),
            ("ctf/df_angle_rad", "<f4"),
            ("ctf/phase_shift_rad", "<f4"),
            ("ctf/scale", "<f4"),
            ("ctf/bfactor", "<f4"),
            ("ctf/tilt_A", "<f4", (2,)),
            ("location/micrograph_path", "S20"),
        ],
    )
    extra["uid"] = main["uid"]
    extra["blob/path"] = b">J3/extract/particles.mrc"
    extra["blob/idx"] = np.arange(n)
    extra["blob/shape"] = BOX
    extra["blob/psize_A"] = 1.25
    extra["blob/sign"] = sign
    extra["ctf/exp_group_id"] = 7
    extra["ctf/accel_kv"] = 300
    extra["ctf/cs_mm"] = 2.7
    extra["ctf/amp_contrast"] = 0.1
    extra["ctf/df1_A"] = rng.uniform(10000, 20000, n)
    extra["ctf/df2_A"] = rng.uniform(10000, 20000, n)
    extra["ctf/df_angle_rad"] = rng.uniform(0, np.pi, n)
    extra["ctf/phase_shift_rad"] = 0.5
    extra["ctf/scale"] = 1.0
    extra["ctf/tilt_A"] = [2700.0, -1350.0]
    extra["location/micrograph_path"] = [f"mic_{i // 3}".encode() for i in range(n)]
    return main, extra


def save_cs(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as handle:
        np.save(handle, table)
    return path


def write_cryosparc(folder, main=None, extra=None):
    """A project folder with job J42's table and passthrough; returns the table's path."""
    default_main, default_extra = cs_table()
    path = save_cs(folder / "J42" / "J42_004_particles.cs", default_main if main is None else main)
    save_cs(folder / "J42" / "J42_passthrough_particles.cs", default_extra if extra is None else extra)
    write_stack(folder / "J3" / "extract" / "particles.mrc")
    return path
