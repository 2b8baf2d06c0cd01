"""Settings of the configuration given as ``--section.option value``, and configuration files.

`main` rewrites each such pair to ``--set section.option=value`` before the commands are
parsed; here the pairs become a nested dictionary, which pydantic checks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from cryoscape.errors import InputError

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_DOTTED = re.compile(r"^--([A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)+)(?:=(.*))?$", re.DOTALL)


def gather_section_options(arguments: Sequence[str]) -> list[str]:
    """Rewrite ``--a.b value``, ``--a.b=value`` and the bare switch ``--a.b`` to ``--set a.b=value``."""
    out: list[str] = []
    words = iter(range(len(arguments)))
    for i in words:
        match = _DOTTED.match(arguments[i])
        if not match:
            out.append(arguments[i])
            continue
        name, value = match.group(1).replace("-", "_"), match.group(2)
        if value is None:
            following = arguments[i + 1] if i + 1 < len(arguments) else None
            if following is None or (following.startswith("-") and not _is_number(following)):
                value = "true"
            else:
                value = following
                next(words)
        out += ["--set", f"{name}={value}"]
    return out


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def nested(pairs: Iterable[str]) -> dict[str, Any]:
    """Turn ``["prior.kind=flow", "prior.bins=8"]`` into ``{"prior": {"kind": "flow", "bins": "8"}}``.

    Values stay text (pydantic converts them to the type of the field), but for lists, mappings and null,
    which are read as YAML.

    Raises
    ------
    InputError
        For a pair without ``=`` and for a value that is no YAML.
    """
    tree: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InputError(f"--set {pair} has no value", remedy="Write --set section.option=value.")
        value: Any = text
        if text.startswith(("[", "{")) or text in ("null", "none", "None", "~"):
            value = _yaml_value(name, text)
        put(tree, name, value)
    return tree


def _yaml_value(name: str, text: str) -> Any:
    import yaml

    try:
        return None if text in ("none", "None") else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(
            f"--{name} {text} cannot be read", remedy="Write lists as [1, 2] and mappings as {a: 1}."
        ) from error


def put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set ``tree["a"]["b"] = value`` for ``dotted = "a.b"``, creating what is missing."""
    *parents, last = dotted.split(".")
    for parent in parents:
        below = tree.get(parent)
        if not isinstance(below, dict):
            below = tree[parent] = {}
        tree = below
    tree[last] = value


def default_kinds(config: type[BaseModel]) -> dict[str, Any]:
    """Name the kind that each section of choices has by default.

    With these as the lowest layer, one setting of the default kind can be changed without naming the kind.
    """
    kinds: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        kind = getattr(field.default, "kind", None)
        if kind is not None:
            kinds[name] = {"kind": kind}
    return kinds


def read_config_file(path: Path) -> dict[str, Any]:
    """Read a YAML file of settings.

    Raises
    ------
    InputError
        Where the file is missing, is no YAML, or is not a mapping.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file", file=path, remedy="Check the name given to --config.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("cannot be read", file=path, remedy="Give a YAML text file.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        row = None if mark is None else mark.line + 1
        raise InputError("not valid YAML", file=path, row=row, remedy="Mend this line.") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise InputError("holds no settings", file=path, remedy="Write `section:` lines with options below.")
    return tree


def build(
    config: type[BaseModel],
    tree: Mapping[str, Any],
    file: Path | None = None,
    from_file: Mapping[str, Any] | None = None,
) -> Any:
    """Validate a nested mapping, naming what is wrong by its dotted path.

    Parameters
    ----------
    config : type of pydantic model
    tree : mapping
    file : Path, optional
        A file that some of the settings came from.
    from_file : mapping, optional
        Those settings; an error in one of them names the file.

    Raises
    ------
    InputError
        With the nearest valid name for a typo.
    """
    from pydantic import ValidationError

    try:
        return config.model_validate(tree)
    except ValidationError as error:
        raise _input_error(config, error, file, from_file or {}) from error


def _input_error(
    config: type[BaseModel], error: ValidationError, file: Path | None, from_file: Mapping[str, Any]
) -> InputError:
    problem = error.errors()[0]
    valid = list(option_names(config))
    name = _dotted([str(part) for part in problem["loc"]], valid)
    if problem["type"] == "union_tag_invalid":
        name += ".kind"
    source = file if _holds(from_file, name) else None
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        if name in valid:
            kind = str(problem["loc"][-2])
            return InputError(
                f"{name} is not a setting of {kind}",
                file=source,
                remedy="It belongs to another kind; leave it out.",
            )
        near = _nearest(name, valid)
        remedy = f"Did you mean {near}?" if near else f"Valid names: {', '.join(_siblings(name, valid))}."
        return InputError(f"unknown setting {name}", file=source, remedy=remedy)
    if problem["type"] == "union_tag_invalid":
        remedy = f"Choose one of {context['expected_tags']}."
        return InputError(f"{name} is {context['tag']!r}", file=source, remedy=remedy)
    reason = str(problem["msg"]).removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return InputError(f"{name or 'the settings'}: {reason}{shown}", file=source, remedy="Change it.")


def _holds(tree: Mapping[str, Any], dotted: str) -> bool:
    node: Any = tree
    for part in dotted.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True


def _dotted(path: Sequence[str], valid: Sequence[str]) -> str:
    """Join a location; pydantic puts the tag of a union (``prior.flow.bins``) that users never write."""
    sections = {name.rsplit(".", 1)[0] for name in valid if "." in name}
    parts: list[str] = []
    for i, part in enumerate(path):
        inside = i + 1 < len(path) and bool(parts)
        if inside and ".".join([*parts, part]) not in sections and ".".join(parts) in sections:
            continue
        parts.append(part)
    return ".".join(parts)


def _nearest(name: str, valid: Sequence[str]) -> str | None:
    """Return the valid names most like a mistyped one: in its section, then the same word elsewhere."""
    section, _, word = name.rpartition(".")
    siblings = _siblings(name, valid)
    close = difflib.get_close_matches(word, [s.rpartition(".")[2] for s in siblings], n=1, cutoff=0.6)
    if close:
        return f"{section}.{close[0]}" if section else close[0]
    elsewhere = [v for v in valid if v.rpartition(".")[2] == word]
    if elsewhere:
        return " or ".join(elsewhere)
    return next(iter(difflib.get_close_matches(name, valid, n=1, cutoff=0.6)), None)


def _siblings(name: str, valid: Sequence[str]) -> list[str]:
    section = name.rpartition(".")[0]
    known = [v for v in valid if v.rpartition(".")[0] == section]
    return known or sorted({v.split(".")[0] for v in valid})


def option_names(config: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """List the dotted name of every setting, those of all kinds of a union included."""
    seen: set[str] = set()
    for name, field in config.model_fields.items():
        below = list(_models(field.annotation))
        names = [f"{prefix}{name}"] if not below else []
        for model in below:
            names += option_names(model, f"{prefix}{name}.")
        for full in names:
            if full not in seen:
                seen.add(full)
                yield full


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    from types import UnionType

    from pydantic import BaseModel

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType) or hasattr(annotation, "__metadata__"):
        for inner in get_args(annotation):
            yield from _models(inner)
