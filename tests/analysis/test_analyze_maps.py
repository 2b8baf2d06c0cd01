import json

import numpy as np
import pytest

from cryoscape.analysis import density_stage
from cryoscape.analysis.analyze import analyze
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.data.mrc import read_map
from cryoscape.errors import InputError
from tests.analysis.fakes import fake_map_run, fake_run


def series(folder, stem):
    paths = sorted((folder / "maps").glob(f"{stem}_*.mrc"))
    return paths, np.array([read_map(path).data for path in paths])


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    run = fake_map_run(tmp_path_factory.mktemp("run"))
    return run, analyze(run, frames=9, clusters=4)


def test_the_first_walk_shows_the_planted_change(analysed):
    run, summary = analysed
    paths, maps = series(run.path, "pc1")
    assert [path.name for path in paths][::4] == ["pc1_000.mrc", "pc1_004.mrc", "pc1_008.mrc"]
    np.testing.assert_allclose(maps, run.decode_maps(summary.traversals[0].z), atol=1e-5)
    x = (np.arange(24) - 12) * 4.0
    centre = [(volume.sum(axis=(0, 1)) * x).sum() / volume.sum() for volume in maps]
    assert np.all(np.diff(centre) > 0) or np.all(np.diff(centre) < 0)
    assert summary.walk_unit == "density"


def test_maps_lie_where_the_run_says(analysed):
    run, _ = analysed
    for name in ("pc1_000", "cluster_01", "mean", "variation"):
        found = read_map(run.path / "maps" / f"{name}.mrc")
        assert found.voxel_size == 4.0
        np.testing.assert_array_equal(found.origin, [-48, -48, -48])


def test_representatives_are_real_particles(analysed):
    run, summary = analysed
    paths, maps = series(run.path, "cluster")
    assert [path.name for path in paths] == [f"cluster_0{k}.mrc" for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(maps, run.decode_maps(run.embedding.z[summary.clusters.particle]), atol=1e-5)


def test_variation_lies_where_the_density_moves(analysed):
    run, _ = analysed
    deviation = read_map(run.path / "maps" / "variation.mrc").data
    y = np.unravel_index(deviation.argmax(), deviation.shape)[1]
    assert (y - 12) * 4.0 == pytest.approx(14, abs=4)
    assert deviation[12, 12 - 3, 12] < 0.2 * deviation.max()  # the middle of the blob that stays


def test_results_come_back_from_the_folder(analysed):
    run, summary = analysed
    again = AnalysisSummary.read(run.path)
    assert again.motion is None
    assert again.density.spread == summary.density.spread
    assert (again.density.level, again.density.decoded) == (summary.density.level, 200)
    np.testing.assert_array_equal(again.density.mask, summary.density.mask)
    np.testing.assert_array_equal(again.decoded.scores, summary.density.components.scores)
    assert again.walk_unit == "density"
    assert again.collapse == summary.collapse
    assert all((run.path / name).is_file() for name in summary.files)
    content = json.loads((run.path / "analysis" / "analysis.json").read_text())
    assert content["density"]["spread"] == pytest.approx(summary.density.spread)


def test_chimerax_script_plays_the_series(analysed):
    run, summary = analysed
    lines = (run.path / "open_in_chimerax.cxc").read_text().splitlines()
    opened = [line.split()[1] for line in lines if line.startswith("open ")]
    assert opened[0] == "maps/pc1_*.mrc"
    assert all(list(run.path.glob(name)) for name in opened)
    assert f"volume #1 level {summary.density.level:.6g} step 1 color #7fb2c4" in lines
    assert lines[-1] == "vseries play #1 loop true direction oscillate pauseFrames 4 cacheFrames 9"
    numbers = [line for line in lines if line.startswith("color sample")]
    assert numbers[0].startswith(f"color sample #{len(opened) - 1} map #{len(opened)} palette")


def test_maps_of_an_earlier_analysis_are_removed(tmp_path):
    run = fake_map_run(tmp_path, n=60)
    analyze(run, frames=4, clusters=3, mixture=1)
    keep = tmp_path / "maps" / "consensus.mrc"
    keep.write_bytes(b"not ours")
    analyze(run, frames=3, clusters=2, mixture=1, components=1)
    assert sorted(path.stem for path in (tmp_path / "maps").iterdir()) == [
        "cluster_01", "cluster_02", "consensus", "mean", "pc1_000", "pc1_001", "pc1_002", "variation",
    ]  # fmt: skip


def test_a_collapsed_run_is_called_collapsed(tmp_path):
    """The codes spread, the maps do not."""
    z = np.random.default_rng(0).standard_normal((60, 3)) * [0, 0, 1]
    summary = analyze(fake_map_run(tmp_path, z=z), frames=3)
    assert summary.collapse.verdict == "collapsed"
    assert "0.0 % of the density" in summary.collapse.reasons[0]
    assert "the maps are one map" in summary.warnings[0]
    assert len(list((tmp_path / "maps").glob("pc*.mrc"))) == 3


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000}))
    with pytest.raises(InputError, match=r"the disk has 0\.0 GB left"):
        analyze(fake_map_run(tmp_path, n=40), frames=3)
    assert not list(tmp_path.glob("maps/*"))


@pytest.fixture
def staged(tmp_path):
    """A run of structures with a density stage on the same codes."""
    parent = fake_run(tmp_path / "run", n=60)
    (parent.path / "run.json").write_text("{}")
    stage = fake_map_run(parent.path / "density", z=parent.embedding.z)
    stage.info["latents_from"] = "run"
    return parent, stage


def test_a_density_stage_walks_with_its_parent(staged):
    parent, stage = staged
    ours = analyze(parent, frames=5, clusters=3)
    summary = analyze(stage, frames=9, clusters=2)
    assert [walk.name for walk in summary.traversals] == [walk.name for walk in ours.traversals]
    _, maps = series(stage.path, "pc2")
    np.testing.assert_allclose(maps, stage.decode_maps(ours.traversals[1].z), atol=1e-5)
    np.testing.assert_array_equal(summary.clusters.particle, ours.clusters.particle)
    assert summary.walk_unit == "A"
    assert summary.walks_of == "run"
    lines = (parent.path / "open_in_chimerax.cxc").read_text().splitlines()
    opened = [line.split()[1] for line in lines if line.startswith("open ")]
    assert opened[:2] == ["ensemble/pc1.cif", "ensemble/pc2.cif"]
    assert opened[-1] == "density/maps/pc1_*.mrc"
    assert lines[-2:] == [
        "coordset #1 1,5 pauseFrames 4 loop 1000",
        "vseries play #4 loop true pauseFrames 4 cacheFrames 5",
    ]


def test_maps_of_older_walks_are_not_opened_with_the_models(staged):
    parent, stage = staged
    analyze(parent, frames=5, clusters=3)
    analyze(stage)
    analyze(parent, frames=5, clusters=3)
    assert "density/maps" in (parent.path / "open_in_chimerax.cxc").read_text()
    analyze(parent, frames=7, clusters=3)
    assert "density/maps" not in (parent.path / "open_in_chimerax.cxc").read_text()


def test_a_density_stage_of_an_unanalysed_run_says_so(staged):
    _, stage = staged
    summary = analyze(stage, frames=3)
    assert summary.walks_of is None
    assert any("has not been analysed" in text for text in summary.warnings)


def test_the_parent_is_found_after_a_move(staged, tmp_path):
    parent, stage = staged
    stage.info["latents_from"] = "elsewhere/run"
    assert density_stage.parent_folder(stage) == parent.path
    assert density_stage.parent_folder(parent) is None
