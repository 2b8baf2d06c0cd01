"""Which residues may clash: a neighbour list for batches of structures.

A pair that starts far apart in the reference can still collide, so the candidates are found in the
decoded structures themselves, by a k-d tree of each, at a cost linear in the number of residues. The
list is the union over the structures, since one list serves the whole batch.

Two ways to keep it fresh:

- **rotation** (default), for training, where every batch holds other particles and so nothing moves
  from call to call that could be followed. Each call examines `batch / every` of the structures with
  the radius cutoff + skin, and a pair stays listed for `4 * every` calls after it was last seen. A
  clash in a structure that is examined in this call is never missed; one that persists in any place
  of the batch is found within `every` calls. The first call examines all.
- **exact** (Verlet), for a batch of structures that move little by little, as in refinement or
  dynamics. All are examined again when any residue of any structure has moved more than half the
  skin since the last time, so that no clash is ever missed.

Measured on one core: 64 structures of 214 residues, 7.5 ms for all and 0.7 ms a call in rotation;
32 structures of 13,000 residues, 0.43 s for all.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor


class NeighbourList:
    """Candidates for clashes in a batch of structures.

    Parameters
    ----------
    excluded : Tensor, shape (E, 2), int64
        Pairs that never count, i < j (`RestraintPairs.excluded`).
    cutoff : float
        Distance of a clash, Angstrom.
    skin : float
        Added to the cut-off when candidates are collected, Angstrom.
    every : int
        Calls within which every place of the batch is examined once.
    exact : bool
        Follow the same structures from call to call and miss nothing (see the module).
    """

    def __init__(
        self, excluded: Tensor, cutoff: float = 4.0, skin: float = 2.0, every: int = 16, exact: bool = False
    ) -> None:
        if cutoff <= 0 or skin < 0 or every < 1:
            raise ValueError("a neighbour list needs cutoff > 0, skin >= 0 and every >= 1")
        self.cutoff = cutoff
        self.skin = skin
        self.every = every
        self.exact = exact
        self.n_examined = 0
        self._excluded = excluded.detach().cpu().numpy().astype(np.int64)
        self._memory = 4 * every
        self._clear(0)

    def _clear(self, n_residues: int) -> None:
        self._n = n_residues
        self._call = 0
        self._cursor = 0
        self._built: Tensor | None = None
        self._keys = np.zeros(0, dtype=np.int64)
        self._seen = np.zeros(0, dtype=np.int64)
        self._table: Tensor | None = None
        self._excluded_keys = np.unique(self._encode(np.sort(self._excluded, axis=1)))

    def _encode(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        return pairs[:, 0] * self._n + pairs[:, 1]

    def state(self) -> dict[str, Tensor]:
        """Everything that the next `pairs` of a rotating list depends on, as tensors for a checkpoint."""
        return {
            "counters": torch.tensor([self._n, self._call, self._cursor]),
            "keys": torch.from_numpy(self._keys.copy()),
            "seen": torch.from_numpy(self._seen.copy()),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go back to a `state`; an empty dict leaves the list new."""
        if not state:
            return
        n, call, cursor = state["counters"].tolist()
        self._clear(n)
        self._call, self._cursor = call, cursor
        self._keys, self._seen = state["keys"].numpy().copy(), state["seen"].numpy().copy()

    def pairs(self, coords: Tensor) -> Tensor:
        """Candidates for the structures given, fresh enough by the rule of the list.

        Parameters
        ----------
        coords : Tensor, shape (B, N, 3)
            Angstrom. No gradient is recorded.

        Returns
        -------
        Tensor, shape (E, 2), int64
            i < j, without the excluded pairs, on the device of `coords`.
        """
        coords = coords.detach()
        if coords.shape[1] != self._n:
            self._clear(coords.shape[1])
        if self.exact:
            self._follow(coords)
        else:
            self._rotate(coords)
        if self._table is None:
            self._table = torch.from_numpy(np.stack(np.divmod(self._keys, max(self._n, 1)), axis=1))
        self._table = self._table.to(coords.device)
        return self._table

    def _follow(self, coords: Tensor) -> None:
        built = self._built
        if built is not None and built.shape == coords.shape and built.device == coords.device:
            moved = (coords - built).square_().sum(-1).max()
            if moved <= (0.5 * self.skin) ** 2:
                return
        self._built = coords.clone()
        self._keys = self._examine(coords)
        self._table = None

    def _rotate(self, coords: Tensor) -> None:
        batch = coords.shape[0]
        share = batch if self._call == 0 else -(-batch // self.every)
        places = (self._cursor + torch.arange(share, device=coords.device)) % max(batch, 1)
        self._cursor = (self._cursor + share) % max(batch, 1)
        found = self._examine(coords[places])
        self._call += 1
        keys, place = np.unique(np.concatenate([self._keys, found]), return_inverse=True)
        seen = np.zeros(len(keys), dtype=np.int64)
        # In this order a fresh sighting overwrites the old one.
        seen[place[: len(self._keys)]] = self._seen
        seen[place[len(self._keys) :]] = self._call
        alive = seen > self._call - self._memory
        keys, seen = keys[alive], seen[alive]
        if not np.array_equal(keys, self._keys):
            self._table = None
        self._keys, self._seen = keys, seen

    def _examine(self, coords: Tensor) -> NDArray[np.int64]:
        """Sorted keys of all pairs within cutoff + skin in any of the structures."""
        self.n_examined += len(coords)
        reach = self.cutoff + self.skin
        found = [np.zeros((0, 2), dtype=np.int64)]
        for structure in coords.cpu().double().numpy():
            if not np.isfinite(structure).all():
                # Diverged: it has no neighbours, and whoever asks will see that in its energy.
                continue
            # An unbalanced tree of large leaves: it is searched once, so the building counts.
            tree = cKDTree(structure, leafsize=32, balanced_tree=False, compact_nodes=False)
            found.append(tree.query_pairs(reach, output_type="ndarray"))
        keys = np.unique(self._encode(np.concatenate(found)))
        return keys[~np.isin(keys, self._excluded_keys, assume_unique=True)]
