"""The two commands of the README, and the versions they install."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement(text):
    return canonical(re.match(r"[\w.-]+", text).group())


def installed_by_make():
    recipe = (ROOT / "Makefile").read_text()
    extras = re.search(r"-e '\.\[([\w,]+)\]'", recipe).group(1).split(",")
    wanted = [*PROJECT["dependencies"]]
    for extra in extras:
        wanted += PROJECT["optional-dependencies"][extra]
    return sorted({requirement(text) for text in wanted})


def closure(names):
    """Everything that installing `names` pulls in, by the metadata of what is installed."""
    found, queue = set(), list(names)
    while queue:
        name = canonical(queue.pop())
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                queue.append(needed.name)
    return found


def test_everything_installed_is_pinned():
    pinned = {canonical(name) for name in PINS}
    # pip and setuptools belong to the environment, not to us.
    assert closure(installed_by_make()) - {"pip", "setuptools"} <= pinned


def test_environment_has_the_pinned_versions():
    here = {name: importlib.metadata.version(name).split("+")[0] for name in installed_by_make()}
    pins = {canonical(name): version for name, version in PINS.items()}
    assert here == {name: pins[name] for name in here}


def test_torch_is_one_exact_version_and_comes_first():
    assert PINS["torch"] == "2.13.0"
    steps = [line for line in (ROOT / "Makefile").read_text().splitlines() if "pip install" in line]
    assert "torch==" in steps[0]
    assert "-c constraints.txt" in steps[1]


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml", "Makefile", ".ci/run"])
def test_no_package_index_is_named(name):
    text = (ROOT / name).read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host|file://", text)


def plan(target, *words, folder=ROOT):
    """What make would do."""
    command = ["make", "--dry-run", target, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_both_commands_create_the_environment():
    for target, last in (("demo", "cryoscape demo hinge"), ("test", "-m pytest")):
        steps = plan(target, "VENV=does-not-exist")
        assert steps.index("-m venv does-not-exist") < steps.index("torch==") < steps.index(last)
    assert "ruff check" in plan("test")
    assert "mypy" in plan("test")


def test_second_time_installs_nothing_unless_versions_changed(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (1_000_000, 1_000_000))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    assert "pip install" not in plan("test", folder=tmp_path)
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert "pip install" in plan("test", folder=tmp_path)


def test_ci_runs_the_readme_command():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[-1] == "make test"
    assert "set -euo pipefail" in lines
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
