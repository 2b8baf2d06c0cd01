"""Exit codes, messages, and the help."""

import errno
import os
import signal

import pytest

from cryoscape.cli import main as entry
from cryoscape.errors import InputError


@pytest.fixture
def failing(monkeypatch):
    """Make `cryoscape report RUN` raise what a test wants."""

    def install(error):
        import cryoscape.training.run as runs

        def fail(_path):
            raise error

        monkeypatch.setattr(runs.Run, "open", fail)

    return install


def test_help_names_every_command_of_the_interface(cli):
    code, out, _ = cli("--help")
    assert code == 0
    commands = "demo simulate check train embed decode evaluate density analyze states pose-search report"
    for name in [*commands.split(), "prior", "sample", "interpolate", "landscape"]:
        assert f" {name} " in out


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("demo", "--out -o --quick --models"),
        ("simulate", "--out -o --models --particles --box --pixel --snr --seed --shift --states"),
        ("check", "--model --map"),
        (
            "train",
            "--model --out -o --decoder --prior --preset --likelihood --config --z-dim --steps --epochs "
            "--batch --device --threads --seed --resume --force",
        ),
        ("embed", "--refine-steps"),
        ("decode", "--particles --z --out -o"),
        ("evaluate", "--truth --json"),
        ("analyze", "--clusters"),
        ("report", "RUN"),
    ],
)
def test_help_of_a_command_names_its_options(cli, command, options):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert [name for name in options.split() if name not in out] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "train"),
        (["train", "a.star", "-o", "run", "--model", "m.pdb", "--stpes", "3"], "--steps"),
        (["train", "a.star"], "--out"),
        (["train", "a.star", "-o", "run", "--steps", "many"], "steps"),
        (["decode", "run", "-o", "x.npz", "--particles"], "--particles"),
        (["simulate", "hinge", "-o", "x", "--noise", "loud"], "coloured"),
    ],
)
def test_usage_errors_are_one_message(cli, tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*words)
    assert code == 2
    assert expected in err
    assert "--help" in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_input_error_says_where_and_what_to_do(cli, failing):
    failing(InputError("this is wrong", file="a.star", row=3, remedy="Mend it."))
    code, _, err = cli("report", "run")
    assert code == 2
    assert err == "cryoscape: a.star, row 3: this is wrong\n  -> Mend it.\n"


def test_interrupt(cli, failing):
    failing(KeyboardInterrupt())
    code, _, err = cli("report", "run")
    assert (code, err) == (130, "cryoscape: interrupted\n")


def test_termination_is_an_interrupt(cli, monkeypatch):
    import cryoscape.training.run as runs

    monkeypatch.setattr(runs.Run, "open", lambda _path: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    code, _, err = cli("report", "run")
    assert code == 130
    assert "Traceback" not in err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_full_gpu_is_the_users_to_relieve(cli, failing):
    import torch

    failing(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    code, _, err = cli("report", "RUN")
    assert code == 2
    assert err == "cryoscape: the GPU ran out of memory\n  -> Give --device cpu, or free the GPU.\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_full_disk_is_bad_input(cli, failing, number):
    failing(OSError(number, "no room", "big.npz"))
    code, _, err = cli("report", "run")
    assert code == 2
    assert "big.npz: the disk is full" in err


def test_missing_file_is_ours_unless_the_user_named_it(cli, failing):
    failing(FileNotFoundError(errno.ENOENT, "No such file or directory", "run"))
    assert cli("report", "run")[0] == 2
    failing(FileNotFoundError(errno.ENOENT, "No such file or directory", "template.html"))
    assert cli("report", "run")[0] == 1


def test_fault_is_short_and_names_the_place(cli, failing):
    failing(RuntimeError("boom"))
    code, _, err = cli("report", "run")
    assert code == 1
    assert "boom" in err
    assert "report.py:" in err
    assert "--debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("how", ["flag", "variable"])
def test_debug_shows_the_traceback(cli, failing, monkeypatch, how):
    failing(RuntimeError("boom"))
    if how == "variable":
        monkeypatch.setenv("CRYOSCAPE_DEBUG", "1")
    code, _, err = cli("report", "run", *(["--debug"] if how == "flag" else []))
    assert code == 1
    assert "Traceback" in err


def test_version(cli):
    code, out, _ = cli("--version")
    assert (code, out.strip()) == (0, entry.cryoscape.__version__)


@pytest.mark.parametrize("command", ["report", "analyze", "embed"])
def test_no_run_folder(cli, tmp_path, command):
    code, _, err = cli(command, tmp_path / "nothing")
    assert code == 2
    assert str(tmp_path / "nothing") in err
    assert not (tmp_path / "nothing").exists()
