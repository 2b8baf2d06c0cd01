"""What residues are made of, for models that hold one bead a residue."""

from __future__ import annotations

import numpy as np

# Numbers of (C, N, O, S, P) atoms of a residue inside a chain, for models of one bead a residue.
_COMPOSITION = {
    "ALA": (3, 1, 1, 0, 0), "ARG": (6, 4, 1, 0, 0), "ASN": (4, 2, 2, 0, 0), "ASP": (4, 1, 3, 0, 0),
    "CYS": (3, 1, 1, 1, 0), "GLN": (5, 2, 2, 0, 0), "GLU": (5, 1, 3, 0, 0), "GLY": (2, 1, 1, 0, 0),
    "HIS": (6, 3, 1, 0, 0), "ILE": (6, 1, 1, 0, 0), "LEU": (6, 1, 1, 0, 0), "LYS": (6, 2, 1, 0, 0),
    "MET": (5, 1, 1, 1, 0), "PHE": (9, 1, 1, 0, 0), "PRO": (5, 1, 1, 0, 0), "SER": (3, 1, 2, 0, 0),
    "THR": (4, 1, 2, 0, 0), "TRP": (11, 2, 1, 0, 0), "TYR": (9, 1, 2, 0, 0), "VAL": (5, 1, 1, 0, 0),
    "A": (10, 5, 6, 0, 1), "C": (9, 3, 7, 0, 1), "G": (10, 5, 7, 0, 1), "U": (9, 2, 8, 0, 1),
    "DA": (10, 5, 5, 0, 1), "DC": (9, 3, 6, 0, 1), "DG": (10, 5, 6, 0, 1), "DT": (10, 2, 7, 0, 1),
}  # fmt: skip


def residue_electrons(name: str) -> float:
    """Electrons of the heavy atoms of a residue inside a chain.

    Parameters
    ----------
    name : str
        Three-letter code of an amino acid or code of a nucleotide; others count as alanine.

    Returns
    -------
    float
    """
    counts = _COMPOSITION.get(name, _COMPOSITION["ALA"])
    return float(np.dot(counts, (6, 7, 8, 16, 15)))
