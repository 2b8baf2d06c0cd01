"""All checks that train again, from end to end on runs of a few steps."""

from dataclasses import replace

import numpy as np
import pytest

from cryoscape.analysis.records import plain
from cryoscape.analysis.validation.reference_swap import swap_check
from cryoscape.analysis.validation.results import Level, ReportCard, Status
from cryoscape.analysis.validation.retrained_calibration import calibration_check, summarise
from cryoscape.analysis.validation.retrained_checks import retrained_checks
from cryoscape.analysis.validation.retraining import Retraining
from cryoscape.analysis.validation.two_states import Population, main_motion
from cryoscape.errors import InputError
from cryoscape.training.run import Run
from cryoscape.training.run_folder import describe_particles
from tests.analysis.validation.small_runs import (
    atoms_run,
    copied,
    few_candidates,
    forbid_training,
    maps_run,
)


@pytest.fixture(scope="module", autouse=True)
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        few_candidates(patch)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return atoms_run(tmp_path_factory.mktemp("atoms"), n=240)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return maps_run(tmp_path_factory.mktemp("maps"), n=240)


@pytest.fixture(scope="module")
def full(run):
    """All checks, with the run's own reference as the independent model and an axis of the user's."""
    axis = np.zeros((30, 3))
    axis[18:, 0] = 1.0
    reference = run.path / run.info["reference"]
    return retrained_checks(run, Level.FULL, motion_axis=axis, reference=reference, steps=4)


def test_all_checks_are_there_in_order(full):
    assert [check.number for check in full] == [1, 2, 3, 6, 7, 11]
    for check in full:
        assert check.status is not Status.NOT_RUN or check.number == 11
        assert check.text.endswith(".")
        assert "nan" not in check.text


def test_everything_lies_below_the_run(run, full):
    names = {path.name for path in (run.path / "validation").iterdir()}
    trained = {"half_a", "half_b", "noise", "homogeneous", "far_end", "turned", "reference"}
    assert trained <= names
    assert "split.npz" in names
    assert not list(run.path.glob("validation/**/*.mrcs"))
    assert all(Run.open(run.path / "validation" / name).info["total_steps"] == 4 for name in trained)


def test_it_can_be_written(full, tmp_path):
    card = ReportCard(Level.FULL, "cryoscape", (), tuple(full))
    card.write(tmp_path)
    back = ReportCard.read(tmp_path)
    assert [check.text for check in back.checks] == [check.text for check in full]


def test_the_reference_itself_is_no_other_start(full):
    swap = next(check for check in full if check.number == 6).values
    assert swap["reference"]["start_rmsd"] < 1e-2
    assert swap["turned"]["start_rmsd"] > 0.1
    assert swap["limit"] == pytest.approx(1.5 * swap["half_set_rmsd"])


def test_a_second_call_finds_all_and_says_the_same(run, full, monkeypatch):
    forbid_training(monkeypatch)
    again = retrained_checks(Run.open(run.path), Level.STANDARD, steps=4, motion_axis=_axis())
    assert [check.number for check in again] == [1, 2, 3, 7]
    before = {check.number: check for check in full}
    for check in again:
        assert check.text == before[check.number].text
        assert plain(check.values) == plain(before[check.number].values)


def _axis():
    axis = np.zeros((30, 3))
    axis[18:, 0] = 1.0
    return axis


def test_quick_trains_nothing(run, monkeypatch):
    forbid_training(monkeypatch)
    assert retrained_checks(run, Level.QUICK) == []


def test_maps(volumes):
    found = {check.number: check for check in retrained_checks(volumes, Level.STANDARD, steps=4)}
    assert sorted(found) == [1, 2, 3, 7]
    assert "particle_correlation" in found[7].values
    assert found[3].status in (Status.PASSED, Status.FAILED)


@pytest.mark.parametrize("kind", ["atoms", "maps"])
def test_known_populations_are_found_where_training_is_perfect(kind, tmp_path, monkeypatch):
    """With the run itself in the place of its retraining, all that is left is what images leave open."""
    long = {"training": {"steps": 150}, "n": 500}
    run = atoms_run(tmp_path, **long) if kind == "atoms" else maps_run(tmp_path, **long)
    tables = []

    def same_model(self, name, particles, **more):
        twin = copied(run, tmp_path / name)
        twin.info["particles"] = describe_particles(particles, twin.path)
        tables.append((particles.box, particles.pixel_size))
        return twin

    monkeypatch.setattr(Retraining, "train", same_model)
    motion = replace(main_motion(run), moves=True)
    values = calibration_check(Retraining(run), motion, trainings=2).values
    assert tables == [(run.geometry.box, pytest.approx(run.geometry.pixel_size, rel=1e-6))] * 2
    assert values["covered"]["95 %"] == 2
    # An answer, and not the whole range from none to all.
    assert all(one["interval"][1] - one["interval"][0] < 0.5 for one in values["found"])


def test_populations_are_found_again_by_trainings(volumes):
    check = calibration_check(Retraining(volumes), main_motion(volumes), trainings=1)
    assert check.values["trainings"] == 1
    assert 0 < check.values["true"] < 1
    assert not list(volumes.path.glob("validation/**/*.mrcs"))


def test_maps_have_no_reference_to_swap(volumes):
    check = swap_check(Retraining(volumes), None, main_motion(volumes), None)
    assert check.status is Status.NOT_RUN


def test_what_is_not_in_nats_has_no_nulls(tmp_path):
    mine = atoms_run(tmp_path, likelihood={"kind": "correlation"}, n=200)
    found = {check.number: check for check in retrained_checks(mine, Level.STANDARD, steps=2)}
    assert [found[n].status for n in (2, 3)] == [Status.NOT_RUN] * 2
    assert "correlation likelihood" in found[2].text
    assert "populations" not in found[7].values


def test_a_density_stage_is_left_alone(run, tmp_path):
    mine = copied(run, tmp_path / "run")
    mine.embedding.write(mine.path / "latents.npz")
    found = retrained_checks(mine, Level.FULL)
    assert {check.status for check in found} == {Status.NOT_RUN}
    assert not (mine.path / "validation").exists()


def test_a_reference_that_does_not_match_is_refused_before_training(run, tmp_path):
    mine = copied(run, tmp_path / "run")
    lines = (mine.path / mine.info["reference"]).read_text().splitlines()
    other = tmp_path / "other.pdb"
    other.write_text("\n".join([*lines[:20], "END", ""]))
    with pytest.raises(InputError, match="10 of 30 residues"):
        retrained_checks(mine, Level.FULL, reference=other, steps=2)
    assert not (mine.path / "validation").exists()


def test_coverage_and_bias_of_known_populations():
    def around(p):
        return Population(p, p + np.linspace(-0.05, 0.05, 1001))

    check = summarise(0.4, [around(0.41), around(0.43), around(0.46)])
    v = check.values
    assert v["covered"] == {"50 %": 1, "90 %": 2, "95 %": 2}
    assert v["bias"] == pytest.approx(0.1 / 3)
    assert v["bias_error"] == pytest.approx(np.std([0.41, 0.43, 0.46], ddof=1) / np.sqrt(3))
    assert check.status is Status.PASSED
    assert summarise(0.4, [around(0.41), around(0.47), around(0.46)]).status is Status.FAILED
