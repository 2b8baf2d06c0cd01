import pytest
import torch

from cryoscape.training.metrics import COLUMNS, MetricsLog
from cryoscape.training.objective import Terms
from cryoscape.training.run import read_metrics


def terms(value):
    return Terms(*(torch.tensor(value * k) for k in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.csv"


def fill(log, steps):
    for step in steps:
        log.add(terms(float(step)), beta=0.5, lr=1e-3, images=10)
        log.flush(step)


def test_a_line_holds_the_means_since_the_last(path):
    log = MetricsLog(path)
    for value in (1.0, 2.0, 6.0):
        log.add(terms(value), beta=value, lr=1e-3, images=10)
    row = log.flush(3)
    assert row["log_likelihood"] == pytest.approx(3.0)
    assert row["elbo"] == pytest.approx(-3.0)
    assert row["loss"] == pytest.approx(3.0 * (-1 + 3 + 4 + 5 + 6 + 7))
    log.add(terms(7.0), beta=1.0, lr=1e-3, images=10)
    log.flush(4)
    found = read_metrics(path)
    assert found["step"].tolist() == [3, 4]
    assert found["images"].tolist() == [30, 40]
    assert found["beta"].tolist() == [3.0, 1.0]
    assert found["clash"].tolist() == [18.0, 42.0]
    assert path.read_text().splitlines()[0] == ",".join(COLUMNS)


def test_held_out_lines_leave_blanks(path):
    log = MetricsLog(path)
    log.held_out(5, elbo=2.5, kl=1.0)
    fill(log, [6])
    found = read_metrics(path)
    assert found["split"].tolist() == ["held_out", "train"]
    assert found["elbo"][0] == 2.5
    assert found["loss"][0] != found["loss"][0]


def test_going_back_drops_later_lines_and_goes_on_counting(path):
    log = MetricsLog(path)
    fill(log, range(1, 6))
    log.add(terms(3.0), beta=0.5, lr=1e-3, images=10)
    state = log.state()
    fill(log, range(6, 30))
    again = MetricsLog(path)
    again.restore(state, 5)
    assert read_metrics(path)["step"].tolist() == [1, 2, 3, 4, 5]
    again.add(terms(5.0), beta=0.5, lr=1e-3, images=10)
    again.flush(7)
    found = read_metrics(path)
    assert found["log_likelihood"][-1] == 4.0
    assert found["images"][-1] == 70
    assert found["seconds"][-1] >= 0.999 * state["seconds"] > 0.0


@pytest.mark.parametrize("torn", ["1", "12", "120,1200,train,0.5", "120,1200,train" + ",1" * 11, ""])
def test_a_torn_last_line_is_dropped(path, torn):
    """Cut after any character: the stump of step 120 must not be taken for step 1 or 12."""
    log = MetricsLog(path)
    fill(log, [50, 100])
    state = log.state()
    with open(path, "a") as stream:
        stream.write(torn)
    again = MetricsLog(path)
    again.restore(state, 100)
    fill(again, [150])
    assert read_metrics(path)["step"].tolist() == [50, 100, 150]
    assert len(path.read_text().splitlines()) == 4


def test_a_torn_heading_is_written_anew(path):
    path.write_text("step,ima")
    log = MetricsLog(path)
    log.restore({"sums": {}, "count": 0, "whole": True, "images": 0, "seconds": 0.0}, 0)
    fill(log, [1])
    assert read_metrics(path)["step"].tolist() == [1]


def test_a_lost_file_is_begun_again(path):
    log = MetricsLog(path)
    log.restore({"sums": {}, "count": 0, "whole": True, "images": 70, "seconds": 9.0}, 7)
    fill(log, [8])
    assert read_metrics(path)["images"].tolist() == [80]
