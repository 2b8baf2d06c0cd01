"""Maps and codes of a run against a truth whose atoms are the run's own blobs."""

import json
from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

from cryoscape.analysis.evaluation.evaluate import CURVES, EVALUATION, evaluate
from cryoscape.analysis.evaluation.evaluation import Evaluation, VolumeEvaluation, read_evaluation
from cryoscape.analysis.evaluation.latents import evaluate_latents, truth_description
from cryoscape.analysis.evaluation.map_metrics import auc_ceiling
from cryoscape.analysis.evaluation.true_imaging import TrueImaging
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.cli.evaluate import describe
from cryoscape.errors import InputError
from tests.analysis.fakes import fake_map_run, fake_run

LEVEL = np.array([-2.0, -1.0, 0.0, 1.0])
GEOMETRY = SimpleNamespace(box=24, pixel_size=4.0, image_box=36, image_pixel_size=4.0 * 24 / 36)


def map_run(folder, level):
    """Particle i has the code (level[i], 0, 0)."""
    z = np.zeros((len(level), 3))
    z[:, 0] = level
    run = fake_map_run(folder, z=z)
    run.geometry = GEOMETRY
    return run


def write_map_truth(folder, state, **extra):
    """The two blobs of the fake run at z = (LEVEL[s], 0, 0), as atoms; poses and optics at random."""
    n, rng = len(state), np.random.default_rng(9)
    centre = np.zeros((4, 2, 3))
    centre[:, 0, 1] = -10
    centre[:, 1, 0], centre[:, 1, 1] = 12 + 6 * LEVEL, 14
    sigma = np.array([9.0, 7.0])
    q, _ = np.linalg.qr(rng.standard_normal((n, 3, 3)))
    arrays = {
        "state": state,
        "population": np.full(4, 0.25),
        "coords": centre.astype(np.float32),
        "cv": LEVEL,
        "scenario": "linear1d",
        "atom_coords": (centre + 48).astype(np.float32),
        "atom_weights": ((2 * np.pi) ** 1.5 * sigma**3).astype(np.float32),
        "atom_sigma": sigma,
        "origin": 48.0,
        "box": 36,
        "pixel_size": GEOMETRY.image_pixel_size,
        "gain": 1.0,
        "rotations": q,
        "defocus_u": rng.uniform(1e4, 2e4, n),
        "defocus_v": rng.uniform(1e4, 2e4, n),
        "defocus_angle": rng.uniform(0, 180, n),
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "truth.npz", **(arrays | extra))
    return folder / "truth.npz"


STATE = np.arange(200) % 4


def test_perfect_maps(tmp_path):
    run = map_run(tmp_path / "run", LEVEL[STATE])
    found = evaluate(run, write_map_truth(tmp_path / "data", STATE), images=28)
    assert isinstance(found, VolumeEvaluation)
    maps = found.maps
    assert (maps.box, maps.run_box) == (36, 24)
    assert maps.ceiling == auc_ceiling(36)
    # Perfect up to 11 shells, a slope to 0 at the twelfth, nothing beyond.
    assert maps.run_ceiling == pytest.approx((0.5 + 11) / 36)
    # The blobs hold nothing beyond the tenth shell.
    assert maps.per_conformation.in_band > 0.999
    assert maps.per_conformation.auc <= maps.run_ceiling
    assert maps.per_conformation.auc == pytest.approx(maps.per_conformation.auc_run * 24 / 36, abs=0.5 / 36)
    assert maps.per_image.maps == 29
    assert maps.per_image.auc == pytest.approx(maps.per_conformation.auc, abs=1e-3)
    assert maps.accuracy == 1
    assert maps.majority == pytest.approx(8 / 29)
    assert maps.one_map.auc < maps.per_conformation.auc - 0.02
    assert maps.one_map.resolution > maps.per_conformation.resolution
    assert found.warnings == ()


def test_maps_that_never_move(tmp_path):
    run = map_run(tmp_path / "run", np.full(200, -0.5))
    found = evaluate(run, write_map_truth(tmp_path / "data", STATE), images=12).maps
    # The middle of the path is about as good as the mean map, for all states.
    assert found.per_conformation.auc == pytest.approx(found.one_map.auc, abs=0.05)
    assert found.per_conformation.auc_sd > 1e-4
    assert found.accuracy <= 0.5


def test_codes_against_truth_and_imaging(tmp_path):
    rng = np.random.default_rng(0)
    run = map_run(tmp_path / "run", LEVEL[STATE] + 0.05 * rng.standard_normal(200))
    codes = evaluate(run, write_map_truth(tmp_path / "data", STATE), images=0).codes
    assert codes.truth == "cv"
    assert [row.k for row in codes.neighbourhood] == [2, 10, 20, 40]
    assert codes.neighbourhood[-1].fraction == pytest.approx(codes.neighbourhood[-1].best, abs=0.03)
    rows = {row.name: row for row in codes.imbalance}
    assert list(rows) == ["truth", "pose", "view", "ctf"]
    assert rows["truth"].from_codes == pytest.approx(rows["truth"].best, abs=0.02)
    for name in ("pose", "view", "ctf"):
        assert rows[name].from_codes == pytest.approx(1, abs=6 * rows[name].floor_sd)
    assert codes.leaks == ()


def test_codes_that_tell_the_view_are_named(tmp_path):
    path = write_map_truth(tmp_path / "data", STATE)
    with np.load(path) as stored:
        view = stored["rotations"][:, 2]
    run = map_run(tmp_path / "run", LEVEL[STATE])
    run.embedding.z[:] = view
    found = evaluate(run, path, images=0)
    assert [row.name for row in found.codes.leaks] == ["pose", "view"]
    assert sum("codes tell the view" in text for text in found.warnings) == 1
    assert found.maps.per_image is None


def test_files_and_table(tmp_path):
    run = map_run(tmp_path / "run", LEVEL[STATE])
    rows = np.arange(200)[::-1].copy()
    run.embedding.row = rows
    path = write_map_truth(tmp_path / "data", STATE[rows])
    found = evaluate(run, path, json_path=tmp_path / "copy.json", images=10)
    assert read_evaluation(run.path / EVALUATION) == found
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads((run.path / EVALUATION).read_text())
    with np.load(run.path / CURVES) as arrays:
        np.testing.assert_array_equal(arrays["state"], np.arange(4))
        np.testing.assert_array_equal(STATE[rows][arrays["row"]], np.arange(4))
        np.testing.assert_array_equal(arrays["image_row"], rows[::20])
        assert arrays["auc"].mean() == pytest.approx(found.maps.per_conformation.auc)
        assert arrays["curves"].shape == (4, 12)
        assert arrays["frequency"][-1] == pytest.approx(11 / 96)
    text = describe(found)
    assert f"{found.maps.per_conformation.auc:.3f} ± {found.maps.per_conformation.auc_sd:.3f}" in text
    assert "imbalance, codes to pose" in text
    with pytest.raises(InputError, match="maps alone"):
        Evaluation.read(run.path / EVALUATION)


def test_mask_of_either_box(tmp_path):
    run = map_run(tmp_path / "run", np.full(200, 1.0))
    path = write_map_truth(tmp_path / "data", STATE)

    def ball(box, step):
        axis = (np.arange(box) - box // 2) * step
        radius2 = axis[:, None, None] ** 2 + (axis[:, None] + 10) ** 2 + axis**2
        return (1 / (1 + np.exp((np.sqrt(radius2) - 14) / 2))).astype(np.float32)

    for name, box, step in (("run", 24, 4.0), ("image", 36, GEOMETRY.image_pixel_size), ("other", 20, 4.8)):
        with mrcfile.new(tmp_path / f"{name}.mrc", data=ball(box, step)) as mrc:
            mrc.voxel_size = step
    plain = evaluate(run, path, images=0).maps.per_conformation.in_band
    small, large = (
        evaluate(run, path, images=0, mask_path=tmp_path / f"{name}.mrc").maps.per_conformation.in_band
        for name in ("run", "image")
    )
    # The mask shows the blob that stays.
    assert plain + 0.05 < small
    assert large == pytest.approx(small, abs=0.02)
    with pytest.raises(InputError, match="20 x 20 x 20"):
        evaluate(run, path, images=0, mask_path=tmp_path / "other.mrc")


def test_junk_is_left_out(tmp_path):
    level, junk = LEVEL[STATE].copy(), np.arange(200) % 5 == 0
    level[junk] = -LEVEL[STATE[junk]]
    run = map_run(tmp_path / "run", level)
    clean = evaluate(run, write_map_truth(tmp_path / "data", STATE, junk=junk), images=0)
    assert clean.maps.per_conformation.in_band > 0.999
    assert clean.codes.particles == 160
    assert clean.n_particles == 200


def test_structures_get_maps_and_codes_too(tmp_path):
    run = fake_run(tmp_path / "run", n=60)
    truth = write_map_truth(tmp_path / "data", STATE[:60], coords=run.decode(np.outer(LEVEL, [1, 0, 0])))
    run.geometry, run.decode_maps = GEOMETRY, map_run(tmp_path / "other", np.zeros(60)).decode_maps
    run.embedding.z[:, 0], run.embedding.z[:, 1] = LEVEL[STATE[:60]], 0.0
    found = evaluate(run, truth, images=5)
    assert isinstance(found, Evaluation)
    assert found.rmsd < 1e-4
    assert found.maps.accuracy == 1
    assert read_evaluation(run.path / EVALUATION) == found
    assert (
        describe(found).index("CA-RMSD") < describe(found).index("FSC AUC") < describe(found).index("true %")
    )


def test_maps_need_atoms(tmp_path):
    run = map_run(tmp_path / "run", LEVEL[STATE])
    np.savez(tmp_path / "truth.npz", state=STATE, coords=np.zeros((4, 3, 3)))
    with pytest.raises(InputError, match="does not hold the atoms"):
        evaluate(run, tmp_path / "truth.npz")
    assert not (run.path / EVALUATION).exists()


@pytest.mark.parametrize(
    ("scenario", "name", "expected"),
    [
        ("adk", "cv", [0, 20, 180, 270]),
        ("circular1d", "circle", 2 * np.sin(np.deg2rad([0, 10, 90, 135]))),
        ("states", "coordinates", np.sqrt(3) * np.array([0, 1, 2, 7.0])),
    ],
)
def test_what_describes_the_truth(tmp_path, scenario, name, expected):
    """Distances from the first state."""
    cv, coords = np.array([0.0, 20, 180, 270]), np.zeros((4, 3, 3))
    coords[:] = np.array([0, 1, 2, 7.0])[:, None, None]
    np.savez(tmp_path / "truth.npz", state=STATE, coords=coords, cv=cv, scenario=scenario)
    found, points = truth_description(Truth.read(tmp_path / "truth.npz"))
    assert found == name
    distance = np.linalg.norm(points - points[0], axis=1)
    scale = expected[1] / distance[1]
    np.testing.assert_allclose(scale * distance, expected, atol=1e-5)


def test_subunits_describe_composition(tmp_path):
    present = np.array([[True, True], [True, False], [False, True], [False, False]])
    path = write_map_truth(
        tmp_path, STATE, coords=np.zeros((4, 7, 3)), present=present, subunit=[-1, 0, 0, 0, 0, 1, -1]
    )
    name, points = truth_description(Truth.read(path))
    assert name == "subunits"
    np.testing.assert_allclose(np.linalg.norm(points - points[0], axis=1) ** 2, [0, 1, 4, 5])


def test_imaging_that_is_the_same_for_all_is_no_control(tmp_path):
    path = write_map_truth(tmp_path, STATE, defocus_v=np.full(200, 1e4), defocus_u=np.full(200, 1e4))
    assert list(TrueImaging.read(path, np.arange(200)).controls) == ["pose", "view"]
    path = write_map_truth(tmp_path, STATE, defocus_angle=np.zeros(200))
    optics = TrueImaging.read(path, np.arange(50, 150)).controls["ctf"]
    assert optics.shape == (100, 2)
    np.testing.assert_allclose([optics.mean(axis=0), optics.std(axis=0)], [[0, 0], [1, 1]], atol=1e-12)
    with pytest.raises(InputError, match="cannot be read"):
        TrueImaging.read(path, np.array([500]))


def test_few_particles_or_one_state_have_no_neighbourhood(tmp_path):
    truth = Truth.read(write_map_truth(tmp_path, STATE))
    z = np.random.default_rng(0).standard_normal((200, 2))
    assert evaluate_latents(z[:10], STATE[:10], truth, {}) is None
    assert evaluate_latents(z, np.zeros(200, dtype=int), truth, {}) is None
