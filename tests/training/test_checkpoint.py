import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from cryoscape.errors import InputError
from cryoscape.training import checkpoint

# What the library says on a full file system.
REAL = "Error while serializing: I/O error: No space left on device (os error 28)"


def stepped(model, optimizer, n=3):
    for i in range(n):
        optimizer.zero_grad()
        model(torch.full((2, 3), float(i + 1))).square().sum().backward()
        optimizer.step()


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)


def test_round_trip_of_tensors_and_header(tmp_path):
    path = tmp_path / "c.safetensors"
    groups = {
        "model": {
            "a.weight": torch.randn(3, 4).T,
            "b": torch.tensor([1, 2]),
            "half": torch.ones(2).bfloat16(),
        },
        "empty": {},
        "state": {"a/b": torch.tensor(7.0, dtype=torch.float64)},
    }
    header = {"step": 3, "best": -float("inf"), "log": {"sums": {"elbo": 0.1 + 0.2}}}
    checkpoint.save(path, groups, header)
    read, read_header = checkpoint.load(path)
    assert read_header == header
    assert set(read) == {"model", "state"}
    for group, tensors in read.items():
        assert set(tensors) == set(groups[group])
        for name, tensor in tensors.items():
            assert torch.equal(tensor, groups[group][name])
            assert tensor.dtype == groups[group][name].dtype


def test_an_optimiser_goes_on_as_if_never_stopped():
    torch.manual_seed(0)
    whole = nn.Linear(3, 2)
    torch.manual_seed(0)
    first = nn.Linear(3, 2)
    optimizer, other = adam(whole), adam(first)
    stepped(whole, optimizer, 6)
    stepped(first, other, 3)
    second = nn.Linear(3, 2)
    second.load_state_dict(first.state_dict())
    resumed = adam(second)
    checkpoint.restore_optimizer(resumed, checkpoint.optimizer_tensors(other))
    for i in range(3, 6):
        resumed.zero_grad()
        second(torch.full((2, 3), float(i + 1))).square().sum().backward()
        resumed.step()
    assert torch.equal(whole.weight, second.weight)
    a, b = checkpoint.optimizer_tensors(optimizer), checkpoint.optimizer_tensors(resumed)
    assert set(a) == set(b)
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_new_optimiser_can_be_restored_from_nothing():
    model = nn.Linear(3, 2)
    optimizer = adam(model)
    checkpoint.restore_optimizer(optimizer, checkpoint.optimizer_tensors(optimizer))
    stepped(model, optimizer, 1)


def damage(path, how):
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": data[: len(data) // 2],
            "cut header": data[:20],
            "text": b"not a checkpoint",
            "header": data[:40] + b"\0\0\0\0" + data[44:],
        }[how]
    )


@pytest.mark.parametrize("how", ["empty", "cut", "cut header", "text", "header"])
def test_a_damaged_file_is_refused(tmp_path, how):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"model": nn.Linear(30, 20).state_dict()}, {"step": 1})
    damage(path, how)
    with pytest.raises(InputError, match="cannot be read") as caught:
        checkpoint.load(path)
    assert caught.value.file == path


def test_tensors_of_another_program_are_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "c.safetensors"
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(InputError, match="cannot be read"):
        checkpoint.load(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint.load(tmp_path / "c.safetensors")


@pytest.mark.parametrize(
    "other", [nn.Linear(3, 3), nn.Linear(3, 2, bias=False), nn.Sequential(nn.Linear(3, 2))]
)
def test_another_configuration_is_refused(tmp_path, other):
    with pytest.raises(InputError, match="another configuration") as caught:
        checkpoint.load_module(other, nn.Linear(3, 2).state_dict(), tmp_path / "c")
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (SafetensorError(REAL), InputError, "disk is full"),
        (OSError(28, "No space left on device"), InputError, "disk is full"),
        (SafetensorError("something else"), SafetensorError, "something else"),
    ],
)
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, error, raised, message):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, {"model": {"a": torch.ones(2)}}, {"step": 1})

    def fail(tensors, target, metadata):
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(raised, match=message):
        checkpoint.save(path, {"model": {"a": torch.zeros(2)}}, {"step": 2})
    assert checkpoint.load(path)[1] == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
