"""Which part may know which, and what the house does not allow."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "cryoscape"

GROUND = {"errors", "files", "progress", "settings"}
BELOW_MODELS = GROUND | {"conventions", "physics", "data", "structures"}
BELOW_TRAINING = BELOW_MODELS | {"models", "priors"}
BELOW_REPORT = BELOW_TRAINING | {"preflight", "simulate", "training", "analysis"}
# What each part may import besides itself. Models and priors are strangers, as are physics and structures.
MAY_IMPORT = {
    "errors": set(),
    "progress": set(),
    "settings": set(),
    "files": {"errors"},
    "conventions": GROUND,
    "physics": GROUND | {"conventions"},
    "data": GROUND | {"conventions", "physics"},
    "structures": GROUND,
    "models": BELOW_MODELS,
    "priors": GROUND,
    "preflight": BELOW_MODELS,
    "simulate": BELOW_TRAINING,
    "training": BELOW_TRAINING | {"preflight"},
    "analysis": BELOW_TRAINING | {"preflight", "simulate", "training"},
    "poses": BELOW_REPORT,
    "report": BELOW_REPORT | {"poses"},
    "app": BELOW_REPORT | {"report", "poses"},
    "integrations": BELOW_REPORT | {"report", "poses"},
    "cli": BELOW_REPORT | {"report", "poses", "app", "integrations"},
}
MODULES = sorted(p for p in PACKAGE.rglob("*.py"))
PYTHON_FILES = sorted(p for d in ("src", "tests", "benchmarks") for p in (ROOT / d).rglob("*.py"))
HEAVY = ("torch", "sklearn", "biotite", "scipy", "numpy", "matplotlib", "lightning_fabric", "gemmi", "zuko")


def name_of(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Yield (line, absolute dotted name) of everything a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            if node.module == "cryoscape":
                yield from ((node.lineno, f"cryoscape.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


def part_of(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def arrows_against(modules):
    """List the imports that MAY_IMPORT does not allow."""
    wrong = []
    for path in modules:
        part = part_of(path)
        if part == "__init__":
            continue
        for line, name in imports(path):
            words = name.split(".")
            if words[0] != "cryoscape" or len(words) < 2:
                continue
            known = words[1] in MAY_IMPORT
            if known and words[1] != part and words[1] not in MAY_IMPORT[part]:
                wrong.append(f"{name_of(path)}:{line}: {part} must not know {words[1]}")
    return wrong


def test_every_part_has_a_level():
    assert {part_of(path) for path in MODULES} - {"__init__"} <= set(MAY_IMPORT)


def test_levels_have_no_circle():
    order, left = [], {part: set(below) for part, below in MAY_IMPORT.items()}
    while left:
        free = [part for part, below in left.items() if below <= set(order)]
        assert free, f"a circle among {sorted(left)}"
        order += free
        left = {part: below for part, below in left.items() if part not in free}


def test_imports_point_one_way():
    assert arrows_against(MODULES) == []


def test_a_wrong_arrow_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    module = tmp_path / "priors" / "flow.py"
    module.parent.mkdir()
    module.write_text("def f():\n    from cryoscape.models.encoders import Encoder\n    return Encoder\n")
    assert arrows_against([module]) == ["priors/flow.py:2: priors must not know models"]


def test_no_vague_names():
    vague = re.compile(r"(^|_)(utils?|helpers?|misc|common|old|new|tmp|backup)$")
    assert [name_of(p) for p in PYTHON_FILES if vague.search(p.stem)] == []


def test_files_are_read_in_one_sitting():
    assert [name_of(p) for p in PYTHON_FILES if len(p.read_text(encoding="utf-8").splitlines()) > 400] == []


# Reads arrays of other programs, with an unpickler that calls nothing a pickle names.
RESTRICTED_UNPICKLER = PACKAGE / "analysis" / "prior_fitting" / "restricted_pickle.py"


def test_no_pickles():
    picklers = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = [
        f"{name_of(path)}:{line}"
        for path in MODULES
        for line, name in imports(path)
        if name.split(".")[0] in picklers and not (path == RESTRICTED_UNPICKLER and name == "pickle")
    ]
    found += [
        f"{name_of(path)}:{node.value.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword)
        and node.arg == "allow_pickle"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert found == []


def test_no_paths_of_one_machine():
    machine = re.compile(r"(?<![\w./~$}<>-])/(?:work|home|root|Users|opt)/\w")
    texts = [*PYTHON_FILES, ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt"]
    texts += [ROOT / ".ci" / "run", *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found = [
        f"{name_of(path)}:{number}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if machine.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import cryoscape",
        "import cryoscape; cryoscape.InputError",
        "from cryoscape.cli.main import main; main(['--help'])",
        "from cryoscape.cli.main import main; main(['train', '--help'])",
        "from cryoscape.cli.main import main; main(['train', 'a.star', '--stpes', '3'])",
    ],
)
def test_start_is_lean(code):
    show = (
        f"import sys; {code}; print('loaded:', *sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines()[-1].strip() == "loaded:"
