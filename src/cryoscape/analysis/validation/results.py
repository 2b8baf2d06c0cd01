"""What a validation says: one result for every check, one verdict for every motion, in a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from cryoscape.analysis.records import read_json, write_json
from cryoscape.errors import InputError

FILE = "validation.json"


class Level(StrEnum):
    """How much is spent: nothing is trained again, a few short trainings, or all of them."""

    QUICK = "quick"
    STANDARD = "standard"
    FULL = "full"


class Status(StrEnum):
    """Of one check."""

    PASSED = "passed"
    FAILED = "failed"
    REPORTED = "reported"
    NOT_RUN = "not run"


class Verdict(StrEnum):
    """Of one motion."""

    SUPPORTED = "supported"
    PRIOR_LIMITED = "prior-limited"
    POSE_ENTANGLED = "pose-entangled"
    NULL = "not distinguishable from null"


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes
    ----------
    number : int
        1 to 12, in the order of the recipe.
    name : str
    status : Status
        `REPORTED` where there is a number but no threshold.
    text : str
        One sentence for people, with the numbers that matter and their units; why, where it was not run.
    values : dict
        All numbers.
    """

    number: int
    name: str
    status: Status
    text: str
    values: dict[str, Any] = field(default_factory=dict)

    def joined(self, again: Check) -> Check:
        """Both in one, under the name of the first: failed where either failed."""
        if Status.NOT_RUN in (self.status, again.status):
            found = again if self.status is Status.NOT_RUN else self
            return replace(found, name=self.name)
        status = max((self.status, again.status), key=_GRAVITY.index)
        values = {**self.values, "trained_again": again.values}
        more = again.text.removeprefix("Trained again ")
        return Check(self.number, self.name, status, f"{self.text}. Trained again: {more}", values)


_GRAVITY = (Status.NOT_RUN, Status.REPORTED, Status.PASSED, Status.FAILED)


@dataclass(frozen=True)
class JudgedMotion:
    """One motion that a run claims, and whether its images support it.

    Attributes
    ----------
    name : str
    where : str
        What moves most, for people.
    verdict : Verdict
    why : str
        One sentence.
    values : dict
        What the verdict rests on.
    """

    name: str
    where: str
    verdict: Verdict
    why: str
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportCard:
    """All checks and verdicts.

    Attributes
    ----------
    level : Level
    source : str
        What was judged: "cryoscape" or the name of another program.
    motions : tuple of JudgedMotion
    checks : tuple of Check
    warnings : tuple of str
    facts : dict
        Sizes, seeds and costs.
    """

    level: Level
    source: str
    motions: tuple[JudgedMotion, ...]
    checks: tuple[Check, ...]
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether every motion is supported and no check failed."""
        supported = all(motion.verdict is Verdict.SUPPORTED for motion in self.motions)
        return supported and all(check.status is not Status.FAILED for check in self.checks)

    def with_checks(self, checks: Iterable[Check]) -> ReportCard:
        """Card with further checks: one of a number that was run already adds to what was found."""
        by_number = {check.number: check for check in self.checks}
        for check in checks:
            earlier = by_number.get(check.number)
            by_number[check.number] = check if earlier is None else earlier.joined(check)
        return replace(self, checks=tuple(by_number[k] for k in sorted(by_number)))

    def write(self, folder: Path) -> Path:
        """Save as `validation.json` in a folder."""
        return write_json(folder / FILE, {**asdict(self), "sound": self.sound})

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Load what `write` saved; None where there is none.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        content = read_json(path)
        try:
            return cls(
                Level(content["level"]),
                content["source"],
                tuple(
                    JudgedMotion(**{**one, "verdict": Verdict(one["verdict"])}) for one in content["motions"]
                ),
                tuple(Check(**{**one, "status": Status(one["status"])}) for one in content["checks"]),
                tuple(content["warnings"]),
                content["facts"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "this is no validation of ours", file=path, remedy="Run: cryoscape validate"
            ) from error
