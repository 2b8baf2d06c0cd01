"""Graphs of coupled spins: colours, independent sets, and how far from a tree they are."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor


def neighbours_of(n: int, edges: Tensor) -> list[set[int]]:
    """The spins that each of n spins is coupled to, from edges (E, 2)."""
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for u, v in edges.tolist():
        neighbours[u].add(v)
        neighbours[v].add(u)
    return neighbours


def greedy_colours(n: int, edges: Tensor) -> tuple[Tensor, ...]:
    """Sets of spins without edges among them, by greedy colouring in breadth-first order.

    Breadth first, because a bipartite graph then gets two colours in whatever order its spins are numbered.

    Parameters
    ----------
    n : int
    edges : Tensor, shape (E, 2), int64

    Returns
    -------
    tuple of Tensor
        Indices of the spins of every colour, on the device of the edges.
    """
    neighbours = neighbours_of(n, edges)
    colour = [-1] * n
    for root in range(n):
        queue = deque([root] if colour[root] < 0 else [])
        while queue:
            u = queue.popleft()
            if colour[u] >= 0:
                continue
            taken = {colour[v] for v in neighbours[u]}
            colour[u] = next(c for c in range(n) if c not in taken)
            queue.extend(v for v in sorted(neighbours[u]) if colour[v] < 0)
    found = torch.tensor(colour, dtype=torch.long, device=edges.device)
    return tuple((found == c).nonzero()[:, 0] for c in range(max(colour, default=-1) + 1))


def independent_set(n: int, edges: Tensor, colours: tuple[Tensor, ...]) -> Tensor:
    """Spins without edges among them, sorted: the largest colour and whatever fits beside it."""
    chosen = set(max(colours, key=len).tolist()) if colours else set()
    neighbours = neighbours_of(n, edges)
    for u in range(n):
        if not neighbours[u] & chosen:
            chosen.add(u)
    return torch.tensor(sorted(chosen), dtype=torch.long, device=edges.device)


def degeneracy(n: int, edges: Tensor) -> int:
    """Largest smallest degree of any part of the graph, a lower bound of its treewidth."""
    neighbours = neighbours_of(n, edges)
    degree = {u: len(near) for u, near in enumerate(neighbours)}
    found = 0
    while degree:
        u = min(degree, key=lambda v: degree[v])
        found = max(found, degree.pop(u))
        for v in neighbours[u]:
            if v in degree:
                degree[v] -= 1
    return found
