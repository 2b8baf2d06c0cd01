"""Structures by PDB id, for the demo of a real protein."""

from __future__ import annotations

import re
from pathlib import Path

from cryoscape.errors import InputError

_PDB_ID = re.compile(r"^[0-9][A-Za-z0-9]{3}$")


def local_model(name: str, folder: Path) -> Path:
    """Return the path of a structure: `name` itself where it is a file, else fetched from the PDB.

    Parameters
    ----------
    name : str
        A path, or a PDB id such as ``4ake``.
    folder : Path
        Where a fetched file goes.

    Raises
    ------
    InputError
        Neither a file nor an id, or the PDB cannot be reached.
    """
    path = Path(name)
    if path.is_file():
        return path
    if not _PDB_ID.match(name):
        raise InputError("no such file", file=path, remedy="Give a .cif or .pdb file, or a PDB id.")
    from biotite.database import RequestError, rcsb

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(str(rcsb.fetch(name.lower(), "cif", str(folder))))
    except (RequestError, OSError) as error:
        raise InputError(
            f"{name} cannot be fetched from the PDB ({type(error).__name__})",
            remedy="Download the file where there is a network, and give its path.",
        ) from error
