"""Conditions in plain words: "distance A:55 A:169 < 20", "rg = 25 +- 1", "cluster 3", "my.py:contacts"."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryoscape.analysis.guidance.latent_labels import LOW_ACCURACY, cluster_probability, state_probability
from cryoscape.analysis.variables.collective_variables import CollectiveVariable
from cryoscape.analysis.variables.conditions import (
    Condition,
    FitCondition,
    FunctionCondition,
    IntervalCondition,
    LabelCondition,
    MeasurementCondition,
)
from cryoscape.analysis.variables.variable_syntax import USAGE, cv_of_run, split_words
from cryoscape.errors import InputError

if TYPE_CHECKING:
    from cryoscape.training.run import Run

FIT_TEMPERATURE = 0.01
"""Correlation with a map that is worth one nat."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# What follows a collective variable; the numbers are the groups.
_FORMS = (
    ("below", re.compile(rf"<=?\s*({_NUMBER})")),
    ("above", re.compile(rf">=?\s*({_NUMBER})")),
    ("between", re.compile(rf"between\s+({_NUMBER})\s+(?:and\s+)?({_NUMBER})")),
    ("between", re.compile(rf"(?:in\s+)?({_NUMBER})\s*\.\.\s*({_NUMBER})")),
    ("about", re.compile(rf"=\s*({_NUMBER})\s*(?:\+-|\+/-|±)\s*({_NUMBER})")),
)
_SPLIT = re.compile(r"\s*(?=<|>|=|\bbetween\s|\bin\s)")
_RANGE = re.compile(rf"\s+(?={_NUMBER}\s*\.\.\s*{_NUMBER}\s*$)")
_FUNCTION = re.compile(r"(.+\.py):(\w+)")
_LABEL = re.compile(r"(cluster|state)\s+(\d+)")
_TEMPERATURE = re.compile(rf"(fit\s.+?)(?:\s+temperature\s+({_NUMBER}))?")

_REMEDY = (
    'Write `CV < 20`, `CV > 20`, `CV 10..20` or `CV = 20 +- 1`, with a CV such as "distance A:55 A:169"; '
    "`fit MAP.mrc`; `cluster 3`; `state 2`; or `file.py:function`."
)


def parse_condition(run: Run, text: str, say: Callable[[str], None] | None = None) -> Condition:
    """Read a condition on what a run decodes.

    Parameters
    ----------
    run : Run
    text : str
        A collective variable (`variable_syntax.USAGE`) with `< x`, `> x`, `x..y`, `between x y` or
        `= x +- s`; `fit MAP.mrc [RESOLUTION] [temperature T]`; `cluster N`; `state N`; `file.py:function`.
    say : callable, optional
        Told in one line what the user should know.

    Returns
    -------
    Condition

    Raises
    ------
    InputError
        It cannot be read, or asks for what is not there.
    """
    text = text.strip()
    if match := _FUNCTION.fullmatch(text):
        return FunctionCondition(text, _load_function(Path(match[1]), match[2]))
    if match := _LABEL.fullmatch(text):
        return _label(run, text, match[1], int(match[2]), say)
    variable, form, numbers = _divide(text)
    if form is None:
        return _bare_fit(run, text)
    return _with_limits(text, cv_of_run(run, variable), form, numbers)


def _divide(text: str) -> tuple[str, str | None, list[float]]:
    """Variable, form of the limits, and their numbers; no form where there are no limits."""
    for pattern in (_SPLIT, _RANGE):
        if place := pattern.search(text):
            variable, rest = text[: place.start()], text[place.end() :].strip()
            for form, expected in _FORMS:
                if match := expected.fullmatch(rest):
                    return variable, form, [float(number) for number in match.groups()]
            split_words(variable)
            raise InputError(f"`{text}`: the limits `{rest}` cannot be read", remedy=_REMEDY)
    return text, None, []


def _with_limits(text: str, variable: CollectiveVariable, form: str, numbers: list[float]) -> Condition:
    if form == "below":
        return _interval(text, variable, -math.inf, numbers[0])
    if form == "above":
        return _interval(text, variable, numbers[0], math.inf)
    if form == "between":
        return _interval(text, variable, *numbers)
    if not numbers[1] > 0:
        raise InputError(f"`{text}`: the error must be positive", remedy="Write for example `= 20 +- 1`.")
    return MeasurementCondition(text, variable, *numbers)


def _interval(text: str, variable: CollectiveVariable, low: float, high: float) -> Condition:
    if low >= high and variable.period is None:
        raise InputError(
            f"`{text}`: nothing lies between {low:g} and {high:g}", remedy="Give the smaller number first."
        )
    return IntervalCondition(text, variable, low, high)


def _bare_fit(run: Run, text: str) -> Condition:
    match = _TEMPERATURE.fullmatch(text)
    if match is None:
        kind = text.split()[0] if text.split() else ""
        raise InputError(
            f"`{text}` says no limits" if kind in USAGE else f"`{text}` is no condition", remedy=_REMEDY
        )
    temperature = FIT_TEMPERATURE if match[2] is None else float(match[2])
    if not temperature > 0:
        raise InputError(f"`{text}`: the temperature must be positive", remedy="Leave it out for 0.01.")
    return FitCondition(text, cv_of_run(run, match[1]), temperature)


def _label(run: Run, text: str, kind: str, number: int, say: Callable[[str], None] | None) -> LabelCondition:
    if kind == "state":
        return LabelCondition(text, state_probability(run.prior, number))
    probability, accuracy = cluster_probability(run, number)
    if accuracy < LOW_ACCURACY and say is not None:
        say(
            f"{text}: z tells the groups of the analysis apart for {100 * accuracy:.0f} % of held-out "
            "particles only; conformations on their borders will be among the samples"
        )
    return LabelCondition(text, probability)


def _load_function(path: Path, name: str) -> Callable[..., Any]:
    """A function of the user's own file, which is run."""
    from importlib.util import module_from_spec, spec_from_file_location

    if not path.is_file():
        raise InputError("there is no such file", file=path, remedy="Check the path.")
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"this file cannot be run: {type(error).__name__}: {error}", file=path, remedy="Mend it."
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(
            f"there is no function {name!r} in this file",
            file=path,
            remedy=f"It has {', '.join(names)}." if names else "Define it there.",
        )
    return function
