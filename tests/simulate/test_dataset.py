"""Whole data sets, read back without our code."""

from __future__ import annotations

import errno
import warnings

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cryoscape.data.particles import Particles
from cryoscape.errors import InputError
from cryoscape.simulate import dataset
from cryoscape.simulate.dataset import FILES, simulate
from cryoscape.simulate.options import SimulationOptions
from cryoscape.structures.atomic_model import AtomicModel

SMALL = {"particles": 60, "box": 48, "pixel": 2.0}


def table(folder):
    """Particle rows of a star file as a dict of lists of text."""
    lines = (folder / "particles.star").read_text().split("data_particles")[1].splitlines()
    names = [line.split()[0][4:] for line in lines if line.startswith("_rln")]
    rows = [line.split() for line in lines if "@" in line]
    return dict(zip(names, zip(*rows)))


def stack(folder):
    with mrcfile.open(folder / "particles.mrcs") as mrc:
        return mrc.data.astype(np.float64)


@pytest.fixture(scope="module")
def hinge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "hinge"
    report = simulate("hinge", folder, snr=0.1, seed=4, **SMALL)
    return folder, report, dict(np.load(folder / "truth.npz"))


def test_files_and_truth_have_the_agreed_shapes(hinge):
    folder, report, truth = hinge
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    assert truth["coords"].shape == (50, 166, 3)
    assert truth["coords"].dtype == np.float32
    assert truth["state"].shape == truth["nats_per_image"].shape == truth["junk"].shape == (60,)
    assert truth["rotations"].shape == (60, 3, 3)
    assert truth["shifts"].shape == (60, 2)
    assert truth["population"].sum() == pytest.approx(1)
    assert str(truth["scenario"]) == "hinge"
    assert float(truth["snr"]) == 0.1
    assert report.trivial_rmsd > 4
    assert any("nats per image" in line for line in report.lines())


def test_reference_is_the_first_state_in_the_corner_frame(hinge):
    folder, _, truth = hinge
    model = AtomicModel.read(folder / "reference.cif")
    np.testing.assert_allclose(model.coords, truth["coords"][0], atol=2e-3)
    heavy = model.heavy_weights @ model.heavy_coords / model.heavy_weights.sum()
    np.testing.assert_allclose(heavy, 24 * 2.0, atol=2e-3)


def test_the_particle_reader_reads_it(hinge):
    folder, _, truth = hinge
    particles = Particles.read(folder / "particles.star")
    np.testing.assert_allclose(particles.rotations, truth["rotations"], atol=1e-7)
    np.testing.assert_array_equal(particles.half, truth["half"])
    assert particles.box == 48
    assert particles.pixel_size == 2.0


def test_the_state_does_not_leak_into_the_table(hinge):
    rows = table(hinge[0])
    assert set(rows["ClassNumber"]) == {"1"}
    order = np.corrcoef(hinge[2]["state"], np.arange(60))[0, 1]
    assert abs(order) < 0.5
    assert set(rows["RandomSubset"]) == {"1", "2"}


def test_snr_and_nats_measured_from_two_stacks_of_one_seed(hinge, tmp_path):
    """Stacks that differ in SNR alone share signal and noise, so two equations give both."""
    folder, report, truth = hinge
    simulate("hinge", tmp_path / "b", snr=1.0, seed=4, **SMALL)
    low, high = stack(folder), stack(tmp_path / "b")
    # Pixel variance 1: low = (s + n / sqrt(0.1)) c1, high = (s + n) c2, with var s = var n.
    c1, c2 = 1 / np.sqrt(11), 1 / np.sqrt(2)
    noise = (low / c1 - high / c2) / (np.sqrt(10) - 1)
    signal = high / c2 - noise
    assert np.abs(np.corrcoef(noise.ravel(), signal.ravel())[0, 1]) < 0.02
    power = signal.var(axis=(1, 2)).mean()
    assert power / (noise.var() * 10) == pytest.approx(0.1, rel=0.02)
    nats = ((signal - signal.mean((1, 2), keepdims=True)) ** 2).sum((1, 2)) / (2 * noise.var() * 10)
    np.testing.assert_allclose(truth["nats_per_image"], nats, rtol=0.02)
    assert report.nats_per_image == pytest.approx(0.1 * 48**2 / 2, rel=1e-6)
    assert low.var() == pytest.approx(1, rel=0.02)


def one_atom(tmp_path, options, **size):
    """A far atom and seven at the origin's other side, imaged almost without noise."""
    frames = np.zeros((2, 8, 3))
    frames[:, 0] = [[21.0, -13.0, 8.0], [-5.0, 17.0, 20.0]]
    np.savez(tmp_path / "t.npz", ca=frames, sequence="WGGGGGGG")
    simulate("models", tmp_path / "out", models=[tmp_path / "t.npz"], snr=1e6, options=options, **size)
    return tmp_path / "out"


@pytest.mark.parametrize("sign", [1, -1])
def test_an_off_axis_atom_lands_where_scipy_says(tmp_path, sign):
    # The phase plate of amplitude contrast 0.99 at no defocus makes the transfer function nearly flat.
    options = SimulationOptions(
        shift=4.0, amplitude_contrast=0.999, defocus_median=1.0, cs=0.0, astigmatism=0.0, sign=sign
    )
    folder = one_atom(tmp_path, options, particles=8, box=64, pixel=1.5)
    checked = 0
    truth, rows, images = np.load(folder / "truth.npz"), table(folder), sign * stack(folder)
    for i in range(8):
        angles = [float(rows[f"Angle{name}"][i]) for name in ("Rot", "Tilt", "Psi")]
        view = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix().T
        far = view @ (truth["coords"][truth["state"][i], 0] - 32 * 1.5)
        x, y = (far[:2] - [float(rows["OriginXAngst"][i]), float(rows["OriginYAngst"][i])]) / 1.5 + 32
        if min(x, y) < 6 or max(x, y) > 57:
            continue
        row, column = round(y), round(x)
        patch = images[i, row - 5 : row + 6, column - 5 : column + 6]
        near = (view @ (truth["coords"][truth["state"][i], 1] - 48.0))[:2] / 1.5
        distance = np.hypot(*(far[:2] / 1.5 - near))
        if distance < 12:
            continue
        offsets = np.arange(-5, 6)
        mass = np.clip(patch - np.median(images[i]), 0, None)
        assert (mass.sum(0) @ offsets) / mass.sum() + column == pytest.approx(x, abs=0.05)
        assert (mass.sum(1) @ offsets) / mass.sum() + row == pytest.approx(y, abs=0.05)
        checked += 1
    assert checked >= 4


def test_same_seed_same_bits_whatever_is_in_memory(tmp_path, monkeypatch):
    options = SimulationOptions(noise="coloured", junk=0.2, pose_error=1.0)
    size = {"particles": 20, "box": 32, "pixel": 3.0, "options": options}
    simulate("states", tmp_path / "a", seed=1, **size)
    monkeypatch.setattr("cryoscape.simulate.stack._NOISE_BATCH", 3)
    simulate("states", tmp_path / "b", seed=1, **size)
    simulate("states", tmp_path / "c", seed=2, **size)
    for name in ("particles.mrcs", "particles.star", "reference.cif"):
        a, b, c = ((tmp_path / f / name).read_bytes() for f in "abc")
        assert a == b
        assert (a == c) == (name == "reference.cif")
    a, b = (np.load(tmp_path / f / "truth.npz") for f in "ab")
    assert all(np.array_equal(a[k], b[k]) for k in a)


def test_reference_swap_and_centre_frame(tmp_path):
    options = SimulationOptions(reference="last", frame="centre", angle=60.0, states=4)
    report = simulate("hinge", tmp_path / "s", options=options, **SMALL)
    truth = np.load(tmp_path / "s" / "truth.npz")
    model = AtomicModel.read(tmp_path / "s" / "reference.cif")
    np.testing.assert_allclose(model.coords, truth["coords"][3], atol=2e-3)
    assert np.abs(truth["coords"][0].mean(0)).max() < 1
    rmsd = np.sqrt(((truth["coords"] - truth["coords"][3]) ** 2).sum(-1).mean(-1))
    assert report.trivial_rmsd == pytest.approx(rmsd.mean(), rel=1e-4)


def test_junk_has_the_mass_but_not_the_structure(tmp_path):
    options = SimulationOptions(junk=0.5)
    simulate("hinge", tmp_path / "j", snr=100.0, options=options, **SMALL)
    simulate("hinge", tmp_path / "p", snr=100.0, **SMALL)
    junk = np.load(tmp_path / "j" / "truth.npz")["junk"]
    assert junk.sum() == 30
    a, b = stack(tmp_path / "j"), stack(tmp_path / "p")
    match = np.array([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b)])
    assert match[junk].max() < 0.95
    power = np.load(tmp_path / "j" / "truth.npz")["signal_variance"]
    assert 0.2 < power[junk].mean() / power[~junk].mean() < 1.5


def test_folder_is_not_overwritten_without_force(hinge):
    folder, _, _ = hinge
    before = (folder / "truth.npz").read_bytes()
    with pytest.raises(InputError, match="holds a simulation"):
        simulate("hinge", folder, seed=9, **SMALL)
    assert (folder / "truth.npz").read_bytes() == before


def test_force_replaces_and_keeps_other_files(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    simulate("states", out, particles=4, box=32, pixel=3.0)
    first = (out / "particles.mrcs").read_bytes()
    simulate("states", out, particles=4, box=32, pixel=3.0, seed=1, force=True)
    assert (out / "particles.mrcs").read_bytes() != first
    assert sorted(p.name for p in out.iterdir()) == sorted([*FILES, "notes.txt"])


def test_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dataset, "write_table", full)
    with pytest.raises(InputError, match="disk is full"):
        simulate("states", tmp_path / "out", particles=4, box=32, pixel=3.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": 47}, "box of 47"),
        ({"snr": 0.0}, "signal-to-noise"),
        ({"snr": float("nan")}, "signal-to-noise"),
        ({"particles": 1}, "too few"),
        ({"pixel": -1.0}, "pixel"),
        ({"pixel": 0.5}, "reaches"),
        ({"scenario": "states", "models": ["missing.pdb"]}, "no such model"),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(tmp_path, change, message):
    arguments = {"scenario": "hinge", **SMALL, **change}
    with pytest.raises(InputError, match=message):
        simulate(arguments.pop("scenario"), tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"populations": (0.5, 0.4)},
        {"populations": (1.2, -0.2)},
        {"states": 1},
        {"junk": 1.0},
        {"shift": -1.0},
        {"defocus_range": (3.0, 1.0)},
        {"noise": "pink"},
        {"voltage": 0.0},
        {"sign": 2},
    ],
)
def test_options_refuse_nonsense(options):
    with pytest.raises(InputError):
        SimulationOptions(**options)


def test_header_statistics_are_those_of_the_pixels(hinge):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with mrcfile.open(hinge[0] / "particles.mrcs") as mrc:
            assert float(mrc.header.dmean) == pytest.approx(float(mrc.data.mean()), abs=1e-5)
            assert float(mrc.header.rms) == pytest.approx(float(mrc.data.std()), rel=1e-4)
            assert float(mrc.header.dmax) == float(mrc.data.max())
            assert float(mrc.voxel_size.x) == 2.0
