"""What a run leaves, in a form that can be compared bit for bit, and ways to stop it."""

import csv
import os
import signal

import torch

from cryoscape.training import checkpoint, loop


def outcome(folder):
    """Tensors, header and metrics of a run, without the seconds."""
    groups, header = checkpoint.load(folder / "checkpoints" / "last.safetensors")
    header["log"].pop("seconds")
    with open(folder / "metrics.csv", newline="") as stream:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
    return {f"{g}/{n}": t for g, tensors in groups.items() for n, t in tensors.items()}, header, rows


def assert_same(a, b):
    (tensors, header, rows), (other_tensors, other_header, other_rows) = outcome(a), outcome(b)
    assert set(tensors) == set(other_tensors)
    different = [name for name in tensors if not torch.equal(tensors[name], other_tensors[name])]
    assert different == []
    assert header == other_header
    assert rows == other_rows


def signal_at(monkeypatch, step, number):
    """Send this process a signal while it computes a step."""
    original = loop.Trainer._one_step

    def one_step(self):
        if self.step == step:
            os.kill(os.getpid(), number)
        original(self)

    monkeypatch.setattr(loop.Trainer, "_one_step", one_step)


def in_child(action):
    """Run an action in a forked process; return the signal that ended it (0 if none did)."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def die():
    os.kill(os.getpid(), signal.SIGKILL)
