"""What the pages say exists: links, modules, commands, options and settings."""

import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from cryoscape.analysis.prior_fitting.fit import prior_kinds
from cryoscape.cli import prior, prior_compare, train
from cryoscape.cli.main import app
from cryoscape.cli.overrides import gather_section_options, option_names
from cryoscape.priors.config import (
    BernoulliConfig,
    BoltzmannConfig,
    CompleteMachineConfig,
    DbmConfig,
    DiffusionConfig,
    EnergyConfig,
    FlowConfig,
    GaussianRbmConfig,
    HierarchyConfig,
    LearnedPriorConfig,
    MachineConfig,
    MixtureConfig,
    NormalConfig,
    RbmConfig,
    RecoveryConfig,
    VampConfig,
)
from cryoscape.priors.samplers.config import (
    ExactConfig,
    GibbsConfig,
    PathIntegralConfig,
    PopulationConfig,
    SimulatedAnnealingConfig,
    TemperingConfig,
    TreeConfig,
)
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
# By section, the words above a table of defaults; a class that others derive from stands for them all.
KINDS = {
    "decoder": {
        "atomic": AtomicConfig,
        "modes": ModesConfig,
        "segments": SegmentsConfig,
        "voxels": VoxelsConfig,
        "field": FieldConfig,
    },
    "prior": {
        "all learned priors": LearnedPriorConfig,
        "normal": NormalConfig,
        "mixture": MixtureConfig,
        "vamp": VampConfig,
        "flow": FlowConfig,
        "diffusion": DiffusionConfig,
        "hierarchy": HierarchyConfig,
        "energy": EnergyConfig,
        "recovery": RecoveryConfig,
        "boltzmann": BoltzmannConfig,
        "grbm": GaussianRbmConfig,
        "bm, rbm and dbm": MachineConfig,
        "bernoulli": BernoulliConfig,
        "bm": CompleteMachineConfig,
        "rbm": RbmConfig,
        "dbm": DbmConfig,
    },
    "prior.sampler": {
        "gibbs": GibbsConfig,
        "tempering": TemperingConfig,
        "population": PopulationConfig,
        "exact": ExactConfig,
        "tree": TreeConfig,
        "simulated-annealing": SimulatedAnnealingConfig,
        "path-integral": PathIntegralConfig,
    },
    "likelihood": {
        "gaussian": GaussianConfig,
        "correlation": CorrelationConfig,
        "mse": MeanSquaredConfig,
    },
}
SECTION_OF = {kind: section for section, models in KINDS.items() for kind in models}
# `prior compare` has the settings of each prior under its kind.
KIND_SETTINGS = {name for kind, model in KINDS["prior"].items() for name in option_names(model, f"{kind}.")}
NOT_SETTINGS = {"py", "md", "yaml", "json", "safetensors"}
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


def parsed(words):
    """The arguments of a command line by name."""
    return app.parse_args(gather_section_options(words), exit_on_error=False, print_error=False)[1].arguments


def subcommands_of(command):
    """Names of the commands of a group; none of a command."""
    if app[command].default_command is not None:
        return set()
    return {name for name in app[command] if not name.startswith("-")}


@cache
def flags_of(command):
    parts = [app[command][name] for name in subcommands_of(command)] or [app[command]]
    collections = [part.assemble_argument_collection(parse_docstring=False) for part in parts]
    return {name for found in collections for argument in found for name in argument.names} | {"--help"}


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
        parsed(words)
        known = SETTINGS | (KIND_SETTINGS if words[:2] == ["prior", "compare"] else set())
        for word in words:
            if re.fullmatch(r"--\w+\.[\w.-]+", word):
                assert word[2:].replace("-", "_") in known, word


@every_page
def test_settings_of_command_lines_go_together(page):
    for words in command_lines(page):
        given = parsed(words)
        settings = given.get("settings", ())
        if words[0] == "train":
            flags = {name: given.get(name) for name in ("decoder", "prior", "likelihood", "z_dim")}
            train.resolve(flags, settings, preset=given.get("preset"))
        elif words[:2] == ["prior", "fit"]:
            prior.resolve(given["kind"], settings)
        elif words[:2] == ["prior", "compare"]:
            prior_compare.resolve_all(given.get("kinds", ()), settings)


@every_page
def test_commands_and_options_in_the_text_exist(page):
    known = set(app) | {"demo"}
    options = {flag for command in known if not command.startswith("-") for flag in flags_of(command)}
    options |= {"--debug", "--version", "--set"}
    settings = SETTINGS | KIND_SETTINGS | {"section.option"}
    # Bare flags on the page of the benchmarks are those of their scripts.
    begins = ("cryoscape ",) if page.name == "benchmarks.md" else ("cryoscape ", "--")
    for code in re.findall(r"`([^`\n]+)`", prose_of(page)):
        if match := re.match(r"cryoscape ([a-z][\w-]*)(?: ([a-z][\w-]*))?", code):
            command, below = match.groups()
            assert command in known, code
            if below and subcommands_of(command):
                assert below in subcommands_of(command), code
        if code.startswith(begins):
            for flag in re.findall(r"(?<!\S)--[a-z][\w.-]*", code):
                name = flag[2:].replace("-", "_")
                assert name in settings if "." in flag else flag in options, code


@every_page
def test_settings_in_the_text_exist(page):
    for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:: [^`]*)?`", prose_of(page)):
        section, _, option = name.rpartition(".")
        if section.split(".")[0] in SECTIONS and option not in NOT_SETTINGS:
            assert name in SETTINGS | {f"{s}.kind" for s in SECTIONS}, name


def default_rows():
    """Rows of docs/defaults.md as (kind in force, setting, default)."""
    kind = None
    for line in text_of(ROOT / "docs" / "defaults.md").splitlines():
        if line.startswith("#"):
            kind = None
        elif line.rstrip(":") in SECTION_OF:
            kind = line.rstrip(":")
        elif match := re.match(r"\| `([\w.]+)` \| `([^`]+)` \|", line):
            yield kind, match.group(1), yaml.safe_load(match.group(2))


def default_of(model, path):
    """Default of a setting by its dotted name below a model."""
    value = model().model_dump(mode="json")
    for part in path.split("."):
        value = value[part]
    return value


def holder_of(kind, name):
    """The class that has a setting of the page, and the setting's name below it."""
    if kind is None:
        return Config, name
    section = SECTION_OF[kind]
    return KINDS[section][kind], name.removeprefix(f"{section}.")


def test_defaults_page_is_true():
    for kind, name, value in default_rows():
        true = default_of(*holder_of(kind, name))
        assert value == true, f"{name} is {true}"


def test_defaults_page_is_complete():
    said = {(kind, name): value for kind, name, value in default_rows()}
    for name in SETTINGS - {"preset", "z_dim"}:
        assert name in {n for _, n in said}, name
    for section, models in KINDS.items():
        for kind, model in models.items():
            for option in set(model.model_fields) - {"kind"}:
                # Of a choice inside a choice, the kind; its own settings have tables of their own.
                path = f"{option}.kind" if hasattr(model.model_fields[option].default, "kind") else option
                above = [None, *(k for k, base in models.items() if issubclass(model, base))]
                found = [said[k, f"{section}.{path}"] for k in above if (k, f"{section}.{path}") in said]
                assert default_of(model, path) in found, f"{kind}: {option}"


def test_constants_page_is_true():
    rows = re.findall(r"\| `([^`]+)` \| `([\w.]+):([A-Z_]+)` \|", text_of(ROOT / "docs" / "defaults.md"))
    assert rows
    for value, module, name in rows:
        true = getattr(import_module(module), name)
        assert yaml.safe_load(value) == (list(true) if isinstance(true, tuple) else true), name


def test_presets_page_has_every_preset():
    head = next(line for line in text_of(ROOT / "docs" / "presets.md").splitlines() if line.startswith("| |"))
    assert set(re.findall(r"`(\w+)`", head)) == set(PRESETS)


@pytest.mark.parametrize("kind", prior_kinds())
def test_every_kind_of_prior_has_a_page_and_defaults(kind):
    assert KINDS["prior"][kind] is prior_kinds()[kind]
    pages = [page for page in PAGES if page.parent.name == "priors" and f"`--prior {kind}`" in text_of(page)]
    assert len(pages) == 1


def test_every_page_is_in_the_navigation():
    # The tags of MkDocs' own extensions are not needed here.
    nav = re.findall(r": ([\w/-]+\.md)$", text_of(ROOT / "mkdocs.yml"), flags=re.MULTILINE)
    assert sorted(nav) == sorted(str(p.relative_to(ROOT / "docs")) for p in PAGES if p.name != "README.md")
