"""What the pages say exists: links, modules, commands, options and settings."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from cryoscape.cli.main import app
from cryoscape.cli.overrides import gather_section_options, option_names
from cryoscape.training.config import (
    AtomicConfig,
    Config,
    CorrelationConfig,
    FieldConfig,
    GaussianConfig,
    MeanSquaredConfig,
    ModesConfig,
    SegmentsConfig,
    VoxelsConfig,
)
from cryoscape.training.presets import PRESETS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
SETTINGS = set(option_names(Config))
SECTIONS = {name.split(".")[0] for name in SETTINGS if "." in name}
KINDS = {
    "atomic": AtomicConfig,
    "modes": ModesConfig,
    "segments": SegmentsConfig,
    "voxels": VoxelsConfig,
    "field": FieldConfig,
    "gaussian": GaussianConfig,
    "correlation": CorrelationConfig,
    "mse": MeanSquaredConfig,
}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))


def text_of(page):
    return page.read_text(encoding="utf-8")


def prose_of(page):
    """The page without fenced blocks."""
    return re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)


def anchors_of(page):
    """Anchors of the headings, as GitHub and MkDocs make them."""
    heads = re.findall(r"^#+ (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in heads}


def command_lines(page):
    """Every cryoscape command in a block of code, as words."""
    text = text_of(page)
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    blocks += ["\n".join(re.findall(r"^    (.+)$", prose_of(page), flags=re.MULTILINE))]
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix(".venv/bin/")
        if line.startswith("cryoscape ") and not line.startswith("cryoscape: "):
            yield shlex.split(line, comments=True)[1:]


def flags_of(command):
    collection = app[command].assemble_argument_collection(parse_docstring=False)
    return {name for argument in collection for name in argument.names} | {"--help"}


@every_page
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose_of(page))
    for link in links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        if anchor:
            assert anchor in anchors_of(target), link


@every_page
def test_named_parts_exist(page):
    for module, name in re.findall(r"`(cryoscape[\w.]*):([\w.]+)`", text_of(page)):
        found = import_module(module)
        for part in name.split("."):
            assert hasattr(found, part), f"{module}:{name}"
            found = getattr(found, part)


@every_page
def test_command_lines_are_understood(page):
    for words in command_lines(page):
        app.parse_args(gather_section_options(words), exit_on_error=False, print_error=False)
        for word in words:
            if re.fullmatch(r"--\w+\.[\w.-]+", word):
                assert word[2:].replace("-", "_") in SETTINGS, word


@every_page
def test_commands_and_options_in_the_text_exist(page):
    known = set(app) | {"demo"}
    options = {flag for command in known if not command.startswith("-") for flag in flags_of(command)}
    options |= {"--debug", "--version", "--set"}
    # Bare flags on the page of the benchmarks are those of their scripts.
    begins = ("cryoscape ",) if page.name == "benchmarks.md" else ("cryoscape ", "--")
    for code in re.findall(r"`([^`\n]+)`", prose_of(page)):
        if match := re.match(r"cryoscape ([a-z][\w-]*)", code):
            assert match.group(1) in known, code
        if code.startswith(begins):
            for flag in re.findall(r"(?<!\S)--[a-z][\w.-]*", code):
                name = flag[2:].replace("-", "_")
                assert name in SETTINGS | {"section.option"} if "." in flag else flag in options, code


@every_page
def test_settings_in_the_text_exist(page):
    for name in re.findall(r"`([a-z_]+\.[a-z_]+)(?:: [^`]*)?`", prose_of(page)):
        section, _, option = name.partition(".")
        if section in SECTIONS and option not in {"py", "md", "yaml", "json"}:
            assert name in SETTINGS | {f"{s}.kind" for s in SECTIONS}, name


def default_rows():
    """Rows of docs/defaults.md as (kind in force, setting, default)."""
    kind = None
    for line in text_of(ROOT / "docs" / "defaults.md").splitlines():
        if line.startswith("#"):
            kind = None
        elif line.rstrip(":") in KINDS:
            kind = line.rstrip(":")
        elif match := re.match(r"\| `([\w.]+)` \| `([^`]+)` \|", line):
            yield kind, match.group(1), yaml.safe_load(match.group(2))


def test_defaults_page_is_complete_and_true():
    said = set()
    for kind, name, value in default_rows():
        section, _, option = name.rpartition(".")
        holder = KINDS[kind]() if kind else (getattr(Config(), section) if section else Config())
        true = holder.model_dump(mode="json")[option]
        assert value == true, f"{name} is {true}"
        said.add((kind, name))
    for name in SETTINGS - {"preset", "z_dim"}:
        assert name in {n for _, n in said}, name
    for kind, model in KINDS.items():
        section = "likelihood" if kind in ("gaussian", "correlation", "mse") else "decoder"
        for option in set(model.model_fields) - {"kind"}:
            shared = section == "decoder" and (None, f"decoder.{option}") in said
            assert shared or (kind, f"{section}.{option}") in said, f"{kind}: {option}"


def test_constants_page_is_true():
    rows = re.findall(r"\| `([^`]+)` \| `([\w.]+):([A-Z_]+)` \|", text_of(ROOT / "docs" / "defaults.md"))
    assert rows
    for value, module, name in rows:
        true = getattr(import_module(module), name)
        assert yaml.safe_load(value) == (list(true) if isinstance(true, tuple) else true), name


def test_presets_page_has_every_preset():
    head = next(line for line in text_of(ROOT / "docs" / "presets.md").splitlines() if line.startswith("| |"))
    assert set(re.findall(r"`(\w+)`", head)) == set(PRESETS)


def test_every_page_is_in_the_navigation():
    # The tags of MkDocs' own extensions are not needed here.
    nav = re.findall(r": ([\w/-]+\.md)$", text_of(ROOT / "mkdocs.yml"), flags=re.MULTILINE)
    assert sorted(nav) == sorted(str(p.relative_to(ROOT / "docs")) for p in PAGES if p.name != "README.md")
