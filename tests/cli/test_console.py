"""Progress in plain lines, tables, durations."""

import io

import pytest

from cryoscape.cli import console
from cryoscape.progress import Silent, reporter_or_silent


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_a_line_every_tenth_with_rate_and_time_left(clock):
    stream = io.StringIO()
    with console.PlainReporter(stream).task("train", 1000, "steps") as task:
        task.status("loss 1.5")
        for _ in range(1000):
            clock.now += 0.02
            task.advance()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[4] == "train: 500/1000 steps, 50/s, 10 s left, loss 1.5"
    assert lines[-1] == "train: 1000/1000 steps, 50/s, took 20 s, loss 1.5"


def test_a_quick_task_is_one_line(clock):
    stream = io.StringIO()
    with console.PlainReporter(stream).task("read", 10, "images") as task:
        for _ in range(10):
            clock.now += 0.02
            task.advance()
    assert stream.getvalue() == "read: 10/10 images, 50/s, took 0 s\n"


def test_slow_steps_are_heard_every_ten_seconds(clock):
    stream = io.StringIO()
    with console.PlainReporter(stream).task("train", 10_000) as task:
        for _ in range(5):
            clock.now += 5
            task.advance()
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "train: 2/10000",
        "train: 4/10000",
        "train: 5/10000",
    ]


def test_a_failed_task_does_not_claim_its_end(clock):
    stream = io.StringIO()
    task = console.PlainReporter(stream).task("train", 100)
    task.__enter__()
    task.advance()
    task.__exit__(RuntimeError, RuntimeError(), None)
    assert stream.getvalue() == ""


def test_bars_on_a_terminal_only(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(console.reporter(), console.PlainReporter)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(console.reporter(), console.BarReporter)


def test_bar_runs():
    with console.BarReporter().task("train", 3, "steps") as task:
        for _ in range(3):
            task.advance()
            task.status("loss 1.0")


def test_silence_is_the_default(capsys):
    assert isinstance(reporter_or_silent(None), Silent)
    with reporter_or_silent(None).task("train", 3) as task:
        task.advance()
        task.status("x")
    reporter_or_silent(None).note("x")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (190, "3 min 10 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds, text):
    assert console.duration(seconds) == text


def test_table_aligns_its_columns():
    text = console.table(("what", "run"), [("mean", "0.51"), ("sd", "10.2")])
    assert text == "what   run\n----  ----\nmean  0.51\nsd    10.2"
