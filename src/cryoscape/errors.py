"""The one exception for faults of the user's input.

Everything that a user can put right is raised as `InputError`; the command line turns it
into one message and exit code 2. Any other exception is a fault of the program (exit code 1).
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path


class InputError(ValueError):
    """Bad input, with what a user needs to mend it.

    Parameters
    ----------
    message : str
        What is wrong, in one sentence without a full stop.
    file : path, optional
        The file at fault.
    row : int, optional
        The row of the table at fault, counted from 1 (the first data row).
    remedy : str, optional
        What to do about it, as an imperative sentence.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | PathLike[str] | None = None,
        row: int | None = None,
        remedy: str | None = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else Path(file)
        self.row = row
        self.remedy = remedy
        super().__init__(self._text())

    def _text(self) -> str:
        where = "" if self.file is None else str(self.file)
        if self.row is not None:
            where += f", row {self.row}" if where else f"row {self.row}"
        text = f"{where}: {self.message}" if where else self.message
        if self.remedy:
            text += f"\n  -> {self.remedy}"
        return text
