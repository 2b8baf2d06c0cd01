"""`sample --where`, `sample --optimise` and `interpolate` through the command line, on runs that move."""

from itertools import product

import gemmi
import mrcfile
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cryoscape.cli.main import main
from cryoscape.data.mrc import write_map
from cryoscape.training.run import Run

KNOWN = ["--data.frame", "corner", "--data.invert", "false", "--data.cutoff", 10]
SMALL = ["--steps", 8, "--batch", 16, "--encoder.hidden", "[16]", *KNOWN]
# Ends of the two arms of the hinge.
ENDS = "distance A:10 A:157"


def call(*words):
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "states"
    size = ["--particles", 100, "--box", 32, "--pixel", 4, "--snr", 0.5]
    assert call("simulate", "states", "-o", folder, *size) == 0
    return folder


def train(simulated, run, *words):
    inputs = [simulated / "particles.star", "--model", simulated / "reference.cif", "-o", run]
    assert call("train", *inputs, "--decoder.hidden", "[16]", "--z-dim", 3, *words, *SMALL) == 0
    # So short a training moves hardly anything: make its motion that of a molecule.
    path = run / "checkpoints" / "last.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as stored:
        header = stored.metadata()
    tensors["model/decoder.network.2.weight"] *= 60
    save_file(tensors, path, header)
    return run


@pytest.fixture(scope="module")
def mixed(simulated, tmp_path_factory):
    return train(simulated, tmp_path_factory.mktemp("mixed") / "run", "--prior", "mixture")


@pytest.fixture(scope="module")
def plain(simulated, tmp_path_factory):
    return train(simulated, tmp_path_factory.mktemp("plain") / "run")


def distances(run, z):
    coords = Run.open(run).decode(z)
    return np.linalg.norm(coords[:, 9] - coords[:, 156], axis=1)


@pytest.fixture(scope="module")
def population(mixed):
    return distances(mixed, Run.open(mixed).sample(20_000, seed=9))


def test_samples_meet_the_condition_as_often_as_the_population(mixed, population, tmp_path, capsys):
    level = float(np.quantile(population, 0.9).round(2))
    out = tmp_path / "s.npz"
    assert call("sample", mixed, "-n", 400, "-o", out, "--where", f"{ENDS} > {level}", "--seed", 1) == 0
    said = capsys.readouterr().out
    with np.load(out) as found:
        z, coords, log_prior = found["z"], found["coords"], found["log_prior"]
    values = np.linalg.norm(coords[:, 9] - coords[:, 156], axis=1)
    assert len(values) == len(log_prior) == 400
    assert values.min() >= level - 1e-3
    true = population[population > level]
    assert values.mean() == pytest.approx(true.mean(), abs=4 * true.std() / np.sqrt(100))
    share = float(said.split(" +- ")[0])
    assert share == pytest.approx(100 * (population > level).mean(), rel=0.2)
    assert "kT" in said
    assert "effective draws" in said
    assert f"{ENDS} > {level}" in said
    np.testing.assert_allclose(
        log_prior, Run.open(mixed).prior.log_prob(torch.from_numpy(z)).numpy(), rtol=1e-5
    )


def test_several_conditions_and_other_files(mixed, population, tmp_path, capsys):
    low, high = np.quantile(population, [0.3, 0.7]).round(2)
    words = ["--where", f"{ENDS} {low}..{high}", "--where", "rg > 1"]
    assert call("sample", mixed, "-n", 3, "-o", tmp_path / "s.cif", *words) == 0
    assert len(gemmi.read_structure(str(tmp_path / "s.cif"))) == 3
    out = capsys.readouterr().out
    assert "rg > 1" in out
    assert "meets the conditions" in out


def test_states_and_functions_weigh(mixed, tmp_path, capsys):
    assert call("sample", mixed, "-n", 20, "-o", tmp_path / "s.npz", "--where", "state 1") == 0
    assert "mean weight of the conditions" in capsys.readouterr().out
    script = tmp_path / "own.py"
    script.write_text("def far(x):\n    return (x[:, 9] - x[:, 156]).norm(dim=1) - 40\n")
    assert call("sample", mixed, "-n", 300, "-o", tmp_path / "t.npz", "--where", f"{script}:far") == 0
    with np.load(tmp_path / "t.npz") as found:
        tilted = found["z"]
    # exp(distance) moves the mean by about the variance.
    before = distances(mixed, Run.open(mixed).sample(5000, seed=2))
    expected = np.average(before, weights=np.exp(before - before.max()))
    assert distances(mixed, tilted).mean() == pytest.approx(expected, abs=4 * before.std() / np.sqrt(100))


def test_fit_to_a_map(mixed, tmp_path, capsys):
    run = Run.open(mixed)
    z = run.sample(200, seed=5)
    far = z[distances(mixed, z).argmax()][None]
    np.save(tmp_path / "z.npy", far)
    assert call("decode", mixed, "--z", tmp_path / "z.npy", "-o", tmp_path / "far.mrc") == 0
    where = f"fit {tmp_path}/far.mrc 20 temperature 0.0005"
    words = ["--where", where, "--optimise"]
    assert call("sample", mixed, "-n", 1, "-o", tmp_path / "s.npz", *words) == 0
    assert where in capsys.readouterr().out
    with np.load(tmp_path / "s.npz") as found:
        best = found["coords"][0]
    assert np.sqrt(((best - run.decode(far)[0]) ** 2).sum(-1).mean()) < 0.5


def test_climbing_meets_a_wall_where_the_prior_is_highest(mixed, population, tmp_path, capsys):
    level = float(np.quantile(population, 0.99).round(2))
    words = ["--where", f"{ENDS} > {level}", "--optimise"]
    assert call("sample", mixed, "-n", 4, "-o", tmp_path / "s.npz", *words) == 0
    said = capsys.readouterr().out
    assert "yes" in said
    with np.load(tmp_path / "s.npz") as found:
        z, log_prior = found["z"], found["log_prior"]
    np.testing.assert_allclose(distances(mixed, z), level, atol=0.05)
    many = Run.open(mixed).sample(20_000, seed=3)
    passed = many[distances(mixed, many) > level]
    highest = Run.open(mixed).prior.log_prob(torch.from_numpy(passed)).max()
    assert log_prior[0] > float(highest) - 0.05


def test_bits_under_a_mask_about_their_subunit(tmp_path, capsys):
    size = ["--particles", 100, "--box", 32, "--pixel", 6, "--snr", 0.5, "--fields", 0.2, -0.4, 0.1]
    data, run = tmp_path / "data", tmp_path / "run"
    assert call("simulate", "composition", "-o", data, *size) == 0
    inputs = [data / "particles.star", "--model", data / "reference.cif", "-o", run, "--z-dim", 3]
    tied = ["--decoder.occupancy", "tied", "--decoder.displace", "false", "--prior", "bm"]
    known = [*SMALL[:-1], 13, "--prior.sampler.sweeps", 2]
    assert call("train", *inputs, *tied, *known) == 0
    opened = Run.open(run)
    model = opened.structure
    places = model.coords[model.chain_id == "B"]
    low = places.min(0) - 3
    shape = np.ceil((places.max(0) + 3 - low) / 3).astype(int) + 1
    write_map(tmp_path / "b.mrc", np.ones(shape[::-1], np.float32), 3.0, origin=tuple(map(float, low)))
    # Without chain B, less of what is there lies in this box; its edge is one voxel wide.
    outside = np.maximum(low - model.coords, model.coords - low - 3.0 * (shape - 1)).clip(0, 3) / 3
    inside = (1 - outside).prod(1)
    patterns = torch.tensor(list(product([0.0, 1.0], repeat=3)))
    present = opened.occupancy(patterns.numpy())
    share = (present * model.weights * inside).sum(1) / (present * model.weights).sum(1)
    level = round(0.5 * (share[patterns[:, 0] == 1].min() + share[patterns[:, 0] == 0].max()), 3)
    assert share[patterns[:, 0] == 0].max() < level < share[patterns[:, 0] == 1].min()
    capsys.readouterr()
    where = ["--where", f"occupancy {tmp_path}/b.mrc > {level}"]
    assert call("sample", run, "-n", 1000, "-o", tmp_path / "s.npz", *where) == 0
    p = opened.prior.log_prob(patterns).exp().numpy()
    found = float(capsys.readouterr().out.split(" +- ")[0])
    assert found == pytest.approx(100 * p[patterns[:, 0] == 1].sum(), rel=0.1)
    with np.load(tmp_path / "s.npz") as stored:
        z = stored["z"]
    assert (z[:, 0] == 1).all()
    expected = (p[:, None] * patterns.numpy())[4:].sum(0) / p[4:].sum()
    np.testing.assert_allclose(z.mean(0), expected, atol=0.08)


def test_rare_samples_are_called_so(plain, tmp_path, capsys):
    ends = distances(plain, Run.open(plain).sample(5000, seed=1))
    level = ends.mean() - 4.5 * ends.std()
    assert call("sample", plain, "-n", 10, "-o", tmp_path / "s.npz", "--where", f"{ENDS} < {level:.2f}") == 0
    said = capsys.readouterr().out
    assert "N(0, I)" in said
    assert "what the prior extrapolates" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "distance A:10 B:5 < 3"], "no chain 'B'"),
        (["--where", "distance A:10 A:157"], "says no limits"),
        (["--where", f"{ENDS} > 5000"], "the nearest found has"),
        (["--where", "cluster 99"], "no cluster 99"),
        (["--where", "nothere.py:f"], "no such file"),
        (["--optimise"], "nothing to optimise"),
    ],
)
def test_senseless_conditions_are_refused(mixed, tmp_path, capsys, words, message):
    assert call("sample", mixed, "-n", 4, "-o", tmp_path / "s.npz", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.npz").exists()


def test_a_path_between_two_particles(mixed, tmp_path, capsys):
    out = tmp_path / "p.npz"
    assert call("interpolate", mixed, "--from", 3, "--to", 41, "-n", 6, "-o", out) == 0
    said = capsys.readouterr().out
    run = Run.open(mixed)
    with np.load(out) as found:
        z, log_prior, travelled, row = (found[k] for k in ("z", "log_prior", "travelled", "row"))
    place = [int(np.flatnonzero(run.embedding.row == r)[0]) for r in (3, 41)]
    np.testing.assert_array_equal(z[[0, -1]], run.embedding.z[place])
    np.testing.assert_array_equal(row, [3, 41])
    np.testing.assert_allclose(z, np.linspace(z[0], z[-1], 6), atol=1e-5)
    np.testing.assert_allclose(log_prior, run.prior.log_prob(torch.from_numpy(z)).numpy(), rtol=1e-4)
    coords = run.decode(z)
    direct = np.sqrt(((coords[0] - coords[-1]) ** 2).sum(-1).mean())
    assert travelled[-1] >= direct - 1e-3
    assert "a straight line in z" in said
    assert f"length {travelled[-1]:.2f} A" in said
    assert "barrier" in said


def test_a_path_as_models_and_as_maps(plain, tmp_path, capsys):
    words = ["interpolate", plain, "--from", 0, "--to", 9, "-n", 3]
    assert call(*words, "-o", tmp_path / "p.cif") == 0
    assert "a great circle in the base" in capsys.readouterr().out
    assert len(gemmi.read_structure(str(tmp_path / "p.cif"))) == 3
    assert call(*words, "-o", tmp_path / "p.mrc", "--kind", "linear") == 0
    with mrcfile.open(tmp_path / "p_002.mrc") as volume:
        assert volume.data.ndim == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", 3, "--to", 3], "same particle"),
        (["--from", 3, "--to", 1000], "particle 1000 is not in the embedding"),
        (["--from", 3, "--to", 4, "-n", 1], "too few"),
        (["--from", 3, "--to", 4, "--kind", "slerp"], "no base"),
        (["--from", 3, "--to", "x"], "nvalid"),
        (["--from", 3], "--to"),
    ],
)
def test_senseless_paths_are_refused(mixed, tmp_path, capsys, words, message):
    assert call("interpolate", mixed, "-o", tmp_path / "p.npz", *words) == 2
    assert message in capsys.readouterr().err
