import json

import gemmi
import numpy as np
import pytest

from cryoscape.analysis.analyze import analyze
from cryoscape.analysis.summary import AnalysisSummary
from cryoscape.errors import InputError
from tests.analysis.fakes import fake_run


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    run = fake_run(tmp_path_factory.mktemp("run"))
    return run, analyze(run, frames=9, clusters=4)


def models(path):
    """Coordinates (m, N, 3) and B-factors (m, N) of a multi-model file, read by gemmi."""
    structure = gemmi.read_structure(str(path))
    atoms = [[site.atom for site in model.all()] for model in structure]
    return np.array([[a.pos.tolist() for a in m] for m in atoms]), np.array(
        [[a.b_iso for a in m] for m in atoms]
    )


def test_the_first_walk_shows_the_planted_motion(analysed):
    run, summary = analysed
    coords, b_factor = models(run.path / "ensemble" / "pc1.cif")
    assert coords.shape == (9, 40, 3)
    moved = np.linalg.norm(coords[-1] - coords[0], axis=1)
    planted = np.linalg.norm(run.modes[0], axis=1)
    assert np.corrcoef(moved, planted)[0, 1] > 0.999
    # From the 5th to the 95th percentile of a standard normal code: 3.29 units of 3 A rms on chain B.
    rms = np.sqrt(np.mean(moved[20:] ** 2))
    assert rms == pytest.approx(3.29 * 3, rel=0.1)
    assert moved[:20].max() < 0.5
    np.testing.assert_allclose(coords, run.decode(summary.traversals[0].z), atol=2e-3)
    # B = 8 pi^2 / 3 <|u|^2>, and the posterior of every particle has sd 0.1.
    expected = 8 * np.pi**2 / 3 * 0.01 * (run.modes**2).sum(-1).sum(0)
    np.testing.assert_allclose(b_factor.mean(axis=0)[30:], expected[30:], rtol=0.6)


def test_only_components_that_move_are_walked(analysed):
    run, summary = analysed
    assert [walk.name for walk in summary.traversals] == ["pc1", "pc2"]
    assert not (run.path / "ensemble" / "pc3.cif").exists()


def test_representatives_are_real_particles(analysed):
    run, summary = analysed
    coords, _ = models(run.path / "ensemble" / "clusters.cif")
    np.testing.assert_allclose(coords, run.decode(run.embedding.z[summary.clusters.particle]), atol=2e-3)
    assert summary.clusters.count.sum() == 400
    first = summary.motion.components.scores[summary.clusters.particle, 0]
    assert np.all(np.diff(first) > 0)


def test_results_come_back_from_the_folder(analysed):
    run, summary = analysed
    again = AnalysisSummary.read(run.path)
    assert again.collapse == summary.collapse
    assert again.files == summary.files
    np.testing.assert_array_equal(again.clusters.label, summary.clusters.label)
    np.testing.assert_array_equal(again.traversals[1].z, summary.traversals[1].z)
    np.testing.assert_array_equal(again.motion.rmsf, summary.motion.rmsf)
    assert again.latent.total_variance == summary.latent.total_variance
    assert all((run.path / name).is_file() for name in summary.files)


def test_json_is_plain_and_complete(analysed):
    run, _ = analysed
    content = json.loads((run.path / "analysis" / "analysis.json").read_text())
    assert content["n_particles"] == 400
    assert content["collapse"]["verdict"] == "informative"
    assert sum(group["particles"] for group in content["clusters"]) == 400
    assert len(content["motion"]["rmsf"]) == 40


def test_chimerax_script(analysed):
    run, summary = analysed
    lines = (run.path / "open_in_chimerax.cxc").read_text().splitlines()
    opened = [line.split()[1] for line in lines if line.startswith("open ")]
    assert opened == [
        "ensemble/pc1.cif",
        "ensemble/pc2.cif",
        "ensemble/clusters.cif",
        "analysis/motion.defattr",
    ]
    assert all((run.path / name).is_file() for name in opened)
    assert any(line.startswith("coordset #1 1,9 ") for line in lines)
    attribute = (run.path / "analysis" / "motion.defattr").read_text().splitlines()
    assert attribute[2].split("\t")[1] == "/A:1"
    assert float(attribute[-1].split("\t")[2]) == pytest.approx(summary.motion.rmsf[-1], abs=1e-3)


def test_a_collapsed_run_is_called_collapsed(tmp_path):
    run = fake_run(tmp_path, z=np.full((60, 3), 0.4), z_sd=0.9)
    summary = analyze(run, frames=4)
    assert summary.collapse.verdict == "collapsed"
    assert "collapsed" in summary.warnings[0]
    coords, _ = models(tmp_path / "ensemble" / "pc1.cif")
    assert np.ptp(coords, axis=0).max() < 1e-2


def test_walks_of_an_earlier_analysis_are_removed(tmp_path):
    run = fake_run(tmp_path, n=60)
    analyze(run, frames=3, clusters=2, mixture=1)
    assert (tmp_path / "ensemble" / "pc2.cif").exists()
    analyze(run, frames=3, clusters=2, mixture=1, components=1)
    assert sorted(path.name for path in (tmp_path / "ensemble").iterdir()) == ["clusters.cif", "pc1.cif"]


def test_one_particle_is_too_few(tmp_path):
    with pytest.raises(InputError, match="1 particles"):
        analyze(fake_run(tmp_path, n=1))
    assert not (tmp_path / "analysis").exists()


def test_codes_of_a_diverged_run_are_refused(tmp_path):
    run = fake_run(tmp_path, n=20)
    run.embedding.z[3, 1] = np.nan
    with pytest.raises(InputError, match="1 of 20 particles are not finite"):
        analyze(run)


def test_damaged_files_are_named(tmp_path):
    run = fake_run(tmp_path, n=50)
    analyze(run, frames=3, clusters=2, mixture=2)
    (tmp_path / "analysis" / "analysis.npz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"analysis\.json"):
        AnalysisSummary.read(tmp_path)
