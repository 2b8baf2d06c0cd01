import json

import numpy as np
import pytest

from cryoscape.analysis.evaluation.evaluate import evaluate
from cryoscape.analysis.evaluation.evaluation import Evaluation
from cryoscape.analysis.evaluation.structures import path_position
from cryoscape.analysis.evaluation.truth import Truth
from cryoscape.errors import InputError
from cryoscape.structures.ensemble import write_ensemble
from tests.analysis.fakes import chain_model, fake_run, swing, write_truth

LEVEL = np.array([0.0, 1.0, 2.0, 3.0])


def run_at(folder, level_of, seed=0, **options):
    """A run whose particle i has the code (level_of[i], 0, 0)."""
    z = np.zeros((len(level_of), 3))
    z[:, 0] = level_of
    return fake_run(folder, z=z, seed=seed, **options)


def test_perfect_structures(tmp_path):
    state = np.random.default_rng(0).choice(4, 200, p=[0.4, 0.3, 0.2, 0.1])
    run = run_at(tmp_path / "run", LEVEL[state])
    found = evaluate(run, write_truth(tmp_path / "data", run, LEVEL, state, np.bincount(state) / 200))
    assert found.rmsd < 1e-5
    assert found.accuracy == 1
    assert found.majority == pytest.approx(np.bincount(state).max() / 200)
    assert found.population_distance == pytest.approx(0)
    assert found.far_state == 3
    assert found.far_recovered == pytest.approx(1, abs=1e-5)
    # Chain B is half of the residues, and its swing has rms 3 A a unit of the code.
    np.testing.assert_allclose([row.trivial for row in found.states], 3 * LEVEL / np.sqrt(2), rtol=1e-5)
    best = np.mean(LEVEL[state])
    np.testing.assert_allclose(
        [row.constant for row in found.states], 3 * np.abs(LEVEL - best) / np.sqrt(2), rtol=1e-4
    )
    assert found.warnings == ()


def test_half_of_the_motion(tmp_path):
    state = np.arange(400) % 4
    run = run_at(tmp_path / "run", 0.5 * LEVEL[state])
    found = evaluate(run, write_truth(tmp_path / "data", run, LEVEL, state))
    np.testing.assert_allclose(
        [row.rmsd for row in found.states], 1.5 * LEVEL / np.sqrt(2), rtol=1e-4, atol=1e-5
    )
    assert found.rmsd == pytest.approx(found.trivial / 2, rel=1e-4)
    assert found.far_recovered == pytest.approx(0.5, abs=1e-5)
    assert found.states[3].bias == pytest.approx(found.states[3].rmsd, rel=1e-4)


def test_noise_is_not_bias(tmp_path):
    rng = np.random.default_rng(3)
    state = np.full(2000, 2)
    run = run_at(tmp_path / "run", LEVEL[state] + 0.3 * rng.standard_normal(2000))
    row = evaluate(run, write_truth(tmp_path / "data", run, LEVEL, state)).states[2]
    assert row.rmsd > 0.4
    assert row.bias < 0.05


def test_structures_that_never_move(tmp_path):
    state = np.arange(100) % 4
    run = run_at(tmp_path / "run", np.zeros(100))
    found = evaluate(run, write_truth(tmp_path / "data", run, LEVEL, state))
    assert found.rmsd == pytest.approx(found.trivial)
    assert found.far_recovered == 0
    assert found.accuracy == pytest.approx(0.25)


def test_held_out_particles_are_counted_apart(tmp_path):
    state = np.arange(200) % 4
    level = LEVEL[state].copy()
    level[::20] += 1.0  # these are the held-out ones
    run = run_at(tmp_path / "run", level)
    found = evaluate(run, write_truth(tmp_path / "data", run, LEVEL, state))
    assert found.held_out["particles"] == 10
    assert found.held_out["rmsd"] == pytest.approx(3 / np.sqrt(2), rel=1e-4)
    assert found.rmsd == pytest.approx(found.held_out["rmsd"] / 20, rel=1e-3)


def test_rows_choose_the_true_state(tmp_path):
    """A run on a subset of the particles finds their own states."""
    state = np.random.default_rng(5).integers(0, 4, 300)
    rows = np.arange(299, 0, -3)
    run = run_at(tmp_path / "run", LEVEL[state[rows]])
    run.embedding.row = rows
    assert evaluate(run, write_truth(tmp_path / "data", run, LEVEL, state)).rmsd < 1e-5


def test_files_are_written_and_read_back(tmp_path):
    state = np.arange(40) % 4
    run = run_at(tmp_path / "run", LEVEL[state])
    truth = write_truth(tmp_path / "data", run, LEVEL, state)
    found = evaluate(run, truth.parent, json_path=tmp_path / "copy.json")
    stored = run.path / "analysis" / "evaluation.json"
    assert Evaluation.read(stored) == found
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads(stored.read_text())
    with np.load(stored.with_suffix(".npz")) as arrays:
        np.testing.assert_array_equal(arrays["state"], state)
        np.testing.assert_array_equal(arrays["nearest"], state)


def test_unvisited_states_have_no_rmsd(tmp_path):
    state = np.zeros(30, dtype=int)
    run = run_at(tmp_path / "run", LEVEL[state])
    found = evaluate(run, write_truth(tmp_path / "data", run, LEVEL, state))
    assert found.states[2].rmsd is None
    assert found.order is None
    assert found.far_recovered is None
    assert Evaluation.read(run.path / "analysis" / "evaluation.json") == found


@pytest.mark.parametrize(
    ("slope", "expected"), [(1.0, 1.0), (0.3, 1.0), (0.0, 0.0)], ids=["true", "shrunk", "still"]
)
def test_order_along_the_path(tmp_path, slope, expected):
    level, state = np.arange(6.0), np.arange(120) % 6
    run = run_at(tmp_path / "run", slope * level[state])
    found = evaluate(run, write_truth(tmp_path / "data", run, level, state))
    assert found.order == pytest.approx(expected)


def test_circles_and_few_states_have_no_order(tmp_path):
    level, state = np.arange(6.0), np.arange(120) % 6
    run = run_at(tmp_path / "run", level[state])
    truth = write_truth(tmp_path / "data", run, level, state, scenario="circular1d")
    assert evaluate(run, truth).order is None
    assert evaluate(run, write_truth(tmp_path / "few", run, LEVEL, state % 4)).order is None


def test_another_model_is_matched_by_residue_numbers(tmp_path):
    """Reference swap: the run starts from the other end and lacks the first three residues of A."""
    state = np.arange(80) % 4
    original = run_at(tmp_path / "original", LEVEL[state])
    truth = write_truth(tmp_path / "data", original, LEVEL, state)
    write_ensemble(truth.with_name("reference.cif"), original.model, original.model.coords[None])
    open_model = original.model.with_coords(original.model.coords + swing(original.model, "B", 9.0))
    swapped = run_at(tmp_path / "run", LEVEL[state] - 3.0, model=open_model.subset(np.arange(3, 40)))
    swapped.modes = original.modes[:, 3:]
    found = evaluate(swapped, truth)
    assert found.n_residues == 37
    assert found.rmsd < 1e-2
    assert found.far_state == 0
    assert any("37 residues" in text for text in found.warnings)


def test_another_frame_is_noticed(tmp_path):
    state = np.arange(80) % 4
    run = run_at(tmp_path / "run", LEVEL[state])
    truth = write_truth(tmp_path / "data", run, LEVEL, state)
    moved = run_at(tmp_path / "moved", LEVEL[state], model=run.model.translated([-60, -60, -60]))
    assert any("104 A apart" in text for text in evaluate(moved, truth).warnings)


def test_a_truth_of_another_molecule_is_refused(tmp_path):
    state = np.arange(20) % 4
    run = run_at(tmp_path / "run", LEVEL[state])
    truth = write_truth(tmp_path / "data", run, LEVEL, state)
    other = run_at(tmp_path / "other", LEVEL[state], model=chain_model(30))
    with pytest.raises(InputError, match="40 residues and the run's model 30"):
        evaluate(other, truth)
    write_ensemble(truth.with_name("reference.cif"), run.model, run.model.coords[None])
    renamed = run_at(tmp_path / "renamed", LEVEL[state], model=chain_model(40, chains="XY"))
    with pytest.raises(InputError, match="only 0 of the truth's 40"):
        evaluate(renamed, truth)
    assert not (other.path / "analysis").exists()


def test_a_single_chain_may_be_renamed(tmp_path):
    state = np.arange(20) % 4
    model = chain_model(20, chains="B")
    run = run_at(tmp_path / "run", LEVEL[state], model=model)
    truth = write_truth(tmp_path / "data", run, LEVEL, state)
    write_ensemble(truth.with_name("reference.cif"), chain_model(20, chains="Q"), model.coords[None])
    assert evaluate(run, truth).n_residues == 20


def test_bad_truths(tmp_path):
    run = run_at(tmp_path / "run", np.zeros(10))
    with pytest.raises(InputError, match="no such file"):
        evaluate(run, tmp_path / "truth.npz")
    (tmp_path / "truth.npz").write_text("nonsense")
    with pytest.raises(InputError, match=r"not an \.npz"):
        evaluate(run, tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", state=np.zeros(10, int))
    with pytest.raises(InputError, match="no coords"):
        evaluate(run, tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", state=np.full(10, 7), coords=np.zeros((2, 40, 3)))
    with pytest.raises(InputError, match="do not fit together"):
        Truth.read(tmp_path / "truth.npz")
    np.savez(tmp_path / "truth.npz", state=np.zeros(5, int), coords=np.zeros((2, 40, 3)))
    with pytest.raises(InputError, match="5 particles and the run uses row 10"):
        evaluate(run, tmp_path / "truth.npz")


def test_path_position_is_the_nearest_point_of_the_polyline():
    corner = np.array([[0.0, 0], [2, 0], [2, 4]])
    points = np.array([[0.5, 0.1], [2.3, 3.0], [-1, 0], [1.9, -0.2]])
    squared = ((points[:, None] - corner) ** 2).sum(-1)
    np.testing.assert_allclose(path_position(squared, corner), [0.25, 1.75, 0, 0.95], atol=1e-12)
