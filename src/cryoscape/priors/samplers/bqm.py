"""Problems to and from the data model of dimod (binary quadratic models and sample sets).

dimod minimises, and its energy has the same sign as here: p(s) proportional to exp(-beta (h.s + sum J s s)).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cryoscape.errors import InputError
from cryoscape.priors.samplers.annealing_extra import import_extra
from cryoscape.priors.samplers.base import IsingProblem

if TYPE_CHECKING:
    import dimod


def bqm_of(problem: IsingProblem, labels: Sequence[Hashable] | None = None) -> dimod.BinaryQuadraticModel:
    """A problem as a binary quadratic model on spins.

    Parameters
    ----------
    problem : IsingProblem
    labels : sequence, length n, optional
        Names of the variables; 0 to n - 1 by default.

    Raises
    ------
    InputError
        If dimod is not installed.
    """
    dimod = import_extra("dimod")
    h = problem.fields.detach().double().cpu().numpy()
    j = problem.couplings.detach().double().cpu().numpy()
    u, v = problem.edges.cpu().numpy().T
    order = None if labels is None else list(labels)
    return dimod.BinaryQuadraticModel.from_numpy_vectors(
        h, (u, v, j), problem.offset, dimod.SPIN, variable_order=order
    )


def problem_of(bqm: dimod.BinaryQuadraticModel) -> tuple[IsingProblem, list[Hashable]]:
    """A binary quadratic model as a problem in double precision, and the label of every spin."""
    dimod = import_extra("dimod")
    labels = list(bqm.variables)
    spin = bqm if bqm.vartype is dimod.SPIN else bqm.change_vartype(dimod.SPIN, inplace=False)
    vectors = spin.to_numpy_vectors(variable_order=labels)
    u, v, j = vectors.quadratic
    edges = torch.from_numpy(np.stack([u, v], 1).astype(np.int64))
    fields = torch.from_numpy(vectors.linear_biases.astype(float))
    return IsingProblem(fields, edges, torch.from_numpy(j.astype(float)), float(vectors.offset)), labels


def spins_of(sampleset: dimod.SampleSet, labels: Sequence[Hashable]) -> Tensor:
    """Spins (R, n), int8, with the variables in this order and every row as often as it occurred.

    Raises
    ------
    InputError
        If the sample set lacks a variable.
    """
    columns = {label: column for column, label in enumerate(sampleset.variables)}
    missing = [label for label in labels if label not in columns]
    if missing:
        raise InputError(
            f"the sampler returned no value for {len(missing)} of {len(labels)} spins, {missing[0]!r} first",
            remedy="Use a sampler or an embedding that keeps all variables.",
        )
    rows = np.asarray(sampleset.record.sample)[:, [columns[label] for label in labels]]
    rows = np.repeat(rows, np.asarray(sampleset.record.num_occurrences), axis=0)
    # Bits where the sampler answers in bits, +-1 otherwise.
    return torch.from_numpy(np.where(rows > 0, 1, -1).astype(np.int8))
