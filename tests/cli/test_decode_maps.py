"""Decoding to maps, of a run whose maps are known."""

from types import SimpleNamespace

import numpy as np
import pytest

from cryoscape.data.mrc import read_map
from tests.analysis.fakes import fake_map_run, fake_run


@pytest.fixture
def of_maps(tmp_path, monkeypatch):
    """The run that every command will open, and three latent points in a file."""
    run = fake_map_run(tmp_path / "run", n=12)
    run.config = SimpleNamespace(z_dim=3, decoder=SimpleNamespace(kind="voxels"))
    monkeypatch.setattr("cryoscape.training.run.Run.open", lambda path: run)
    np.save(tmp_path / "z.npy", run.embedding.z[:3])
    return run


def test_one_map_each(of_maps, tmp_path, cli):
    code, out, err = cli("decode", "run", "--z", tmp_path / "z.npy", "-o", tmp_path / "new" / "walk.mrc")
    assert code == 0, err
    assert "3 maps" in out
    written = sorted((tmp_path / "new").iterdir())
    assert [path.name for path in written] == ["walk_000.mrc", "walk_001.mrc", "walk_002.mrc"]
    for path, expected in zip(written, of_maps.decode_maps(of_maps.embedding.z[:3])):
        found = read_map(path)
        np.testing.assert_array_equal(found.data, expected)
        assert found.voxel_size == 4.0
        np.testing.assert_array_equal(found.origin, [-48, -48, -48])


def test_a_single_map_keeps_its_name(of_maps, tmp_path, cli):
    np.savetxt(tmp_path / "rows.txt", [7], fmt="%d")
    words = ["--particles", tmp_path / "rows.txt", "-o", tmp_path / "one.mrc", "--lowpass", 44]
    assert cli("decode", "run", *words)[0] == 0
    plain = of_maps.decode_maps(of_maps.embedding.z[7:8])[0]
    smooth = read_map(tmp_path / "one.mrc").data
    assert smooth.std() < 0.9 * plain.std()
    assert np.corrcoef(smooth.ravel(), plain.ravel())[0, 1] > 0.8


def test_all_maps_in_one_archive(of_maps, tmp_path, cli):
    assert cli("decode", "run", "--particles", "all", "-o", tmp_path / "all.npz")[0] == 0
    with np.load(tmp_path / "all.npz") as found:
        np.testing.assert_array_equal(found["maps"], of_maps.decode_maps(of_maps.embedding.z))
        assert found["maps"].dtype == np.float32
        assert (float(found["voxel_size"]), found["origin"].tolist()) == (4.0, [-48, -48, -48])
        np.testing.assert_array_equal(found["row"], np.arange(12))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "x.cif"], "End the name in .mrc or .npz"),
        (["-o", "x.pdb.gz"], "makes maps, not structures"),
        (["-o", "x.tif"], "or .mrc"),
        (["-o", "x.mrc", "--lowpass", 5], "between 8 and 48"),
        (["-o", "x.mrc", "--lowpass", 90], "between 8 and 48"),
    ],
)
def test_what_a_run_of_maps_cannot_do(of_maps, tmp_path, cli, words, message):
    code, _, err = cli("decode", "run", "--z", tmp_path / "z.npy", *words)
    assert code == 2
    assert message in " ".join(err.split())


def test_too_much_is_refused_before_it_is_made(of_maps, tmp_path, cli, monkeypatch):
    monkeypatch.setattr("cryoscape.cli.decoded_files._ARRAY_LIMIT", 1000)
    words = ["decode", "run", "--z", tmp_path / "z.npy", "-o"]
    code, _, err = cli(*words, tmp_path / "big.npz")
    assert code == 2
    assert "one map each" in err
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    code, _, err = cli(*words, tmp_path / "big.mrc")
    assert code == 2
    assert "the disk has" in err
    assert not list(tmp_path.glob("big*"))


def test_filters_are_for_maps(tmp_path, cli, monkeypatch):
    run = fake_run(tmp_path / "run", n=8)
    run.config = SimpleNamespace(z_dim=3, decoder=SimpleNamespace(kind="atomic"))
    monkeypatch.setattr("cryoscape.training.run.Run.open", lambda path: run)
    code, _, err = cli("decode", "run", "--particles", "all", "-o", tmp_path / "x.npz", "--lowpass", 20)
    assert code == 2
    assert "filters maps" in err
