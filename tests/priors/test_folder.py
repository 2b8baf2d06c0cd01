import json
import os

import numpy as np
import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.priors import folder as storage
from cryoscape.priors.config import MixtureConfig, NormalConfig
from cryoscape.priors.fitting import FitReport
from cryoscape.priors.folder import StoredPrior, load_prior, need_place, save_prior

POINTS = np.random.default_rng(0).normal(size=(300, 2)) * [2.0, 0.5] + 3.0


@pytest.fixture(scope="module")
def stored():
    settings = MixtureConfig(components=2)
    prior = settings.build(2)
    report = prior.fit(POINTS, steps=3)
    return StoredPrior(prior, settings, report, {"path": "z.npy"})


def normal(z_dim=2):
    return StoredPrior(NormalConfig().build(z_dim), NormalConfig())


def test_what_was_saved_comes_back(stored, tmp_path):
    folder = save_prior(tmp_path / "a" / "prior", stored)
    assert sorted(path.name for path in folder.iterdir()) == ["prior.json", "prior.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["prior"]
    found = load_prior(folder)
    z = torch.randn(50, 2)
    assert torch.equal(found.prior.log_prob(z), stored.prior.log_prob(z))
    assert torch.equal(
        found.prior.sample(5, torch.Generator().manual_seed(1)),
        stored.prior.sample(5, torch.Generator().manual_seed(1)),
    )
    assert (found.settings, found.report, found.source) == (stored.settings, stored.report, stored.source)
    assert not any(p.requires_grad for p in found.prior.parameters())
    assert not found.prior.training


def test_the_description_is_plain_json(stored, tmp_path):
    text = (save_prior(tmp_path / "p", stored) / "prior.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert (found["settings"]["kind"], found["z_dim"], found["support"]) == ("mixture", 2, "real")
    assert found["log_partition"]["ess"] is None  # infinite
    assert found["report"]["particles"] == 270


def test_a_report_with_warnings_comes_back(tmp_path):
    report = FitReport("deconvolved", 9, 1, 0, 0.1, -1.0, 0.2, 0.5, ("this", "that"))
    old = StoredPrior(NormalConfig().build(1), NormalConfig(), report)
    assert load_prior(save_prior(tmp_path / "p", old)).report == report


def test_only_a_prior_is_replaced_and_only_when_asked(stored, tmp_path):
    folder = save_prior(tmp_path / "p", normal())
    with pytest.raises(InputError, match="another prior"):
        save_prior(folder, stored)
    assert load_prior(folder).settings.kind == "normal"
    save_prior(folder, stored, replace=True)
    assert load_prior(folder).settings.kind == "mixture"
    (folder / "thesis.txt").write_text("mine")
    for replace in (False, True):
        with pytest.raises(InputError, match=r"thesis\.txt"):
            save_prior(folder, stored, replace=replace)
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_link_stays_a_link(stored, tmp_path):
    save_prior(tmp_path / "real", normal())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert save_prior(tmp_path / "link", stored, replace=True) == tmp_path / "link"
    assert (tmp_path / "link").is_symlink()
    assert load_prior(tmp_path / "real").settings.kind == "mixture"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_an_empty_folder_is_taken_and_a_file_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    save_prior(tmp_path / "empty", normal())
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        need_place(tmp_path / "file", replace=True)


@pytest.mark.parametrize("fail_at", [1, 2, "rename"])
def test_a_failure_leaves_the_old_prior_and_no_litter(stored, tmp_path, monkeypatch, fail_at):
    folder = save_prior(tmp_path / "p", normal())
    calls = []

    def write(path, content):
        calls.append(path)
        if len(calls) == fail_at:
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    def rename(old, new):
        if fail_at == "rename" and new == folder and not calls[2:]:
            calls.append(new)
            raise OSError(28, "No space left on device")
        return real(old, new)

    real = os.rename
    monkeypatch.setattr(storage, "_write", write)
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(InputError, match="disk is full"):
        save_prior(folder, stored, replace=True)
    assert load_prior(folder).settings.kind == "normal"
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def no_description(folder):
    (folder / "prior.json").unlink()


def broken_description(folder):
    (folder / "prior.json").write_text("{")


def of_the_future(folder):
    text = (folder / "prior.json").read_text()
    (folder / "prior.json").write_text(text.replace("cryoscape prior 1", "cryoscape prior 2"))


def unknown_kind(folder):
    text = (folder / "prior.json").read_text()
    (folder / "prior.json").write_text(text.replace('"mixture"', '"soup"'))


def other_size(folder):
    text = (folder / "prior.json").read_text()
    (folder / "prior.json").write_text(text.replace('"components": 2', '"components": 3'))


def no_numbers(folder):
    (folder / "prior.safetensors").unlink()


def cut_numbers(folder):
    path = folder / "prior.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("spoil", "file"),
    [
        (no_description, "p"),
        (broken_description, "prior.json"),
        (of_the_future, "prior.json"),
        (unknown_kind, "prior.json"),
        (other_size, "prior.safetensors"),
        (no_numbers, "prior.safetensors"),
        (cut_numbers, "prior.safetensors"),
    ],
)
def test_a_spoilt_folder_is_refused(stored, tmp_path, spoil, file):
    folder = save_prior(tmp_path / "p", stored)
    spoil(folder)
    with pytest.raises(InputError) as found:
        load_prior(folder)
    assert found.value.file.name == file
    assert found.value.remedy
