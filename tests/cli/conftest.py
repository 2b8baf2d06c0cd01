"""Fixtures of the command-line tests."""

import pytest

from tests.cli.inputs import make_inputs


@pytest.fixture
def inputs(tmp_path):
    """Good inputs in a folder of their own, free to be spoilt."""
    folder = tmp_path / "data"
    folder.mkdir()
    return make_inputs(folder)


@pytest.fixture
def cli(capsys):
    """Run one command in this process; returns exit code, stdout and stderr."""
    from cryoscape.cli.main import main

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run
