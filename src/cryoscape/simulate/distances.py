"""How far apart the images of two states are, in nats: what decides whether anything can tell them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from cryoscape.simulate.imaging import Views, clean_images, noise_spectrum, signal_power
from cryoscape.simulate.options import SimulationOptions
from cryoscape.simulate.scenarios import Scenario

LISTED = 8
"""Up to so many states every neighbouring pair is measured; of more, the two ends."""

_VIEWS = 64


def state_pairs(n_states: int) -> NDArray[np.int64]:
    """Pairs of states that are compared, shape (P, 2)."""
    if n_states <= LISTED:
        return np.stack([np.arange(n_states - 1), np.arange(1, n_states)], axis=1)
    return np.array([[0, n_states - 1]])


def nats_between(
    built: Scenario,
    views: Views,
    options: SimulationOptions,
    noise_variance: float,
    box: int,
    pixel: float,
    seed: int,
) -> NDArray[np.float64]:
    """Expected log-likelihood ratio of the true state over the other one, for the pairs of `state_pairs`.

    sum_k |CTF (P[V_a] - P[V_b])|^2 / (2 s2), the mean over up to 64 good particles in their own poses.

    Parameters
    ----------
    built : Scenario
    views : Views
    options : SimulationOptions
    noise_variance : float
        Of a pixel, in the units of the clean images.
    box : int
    pixel : float
        Angstrom.
    seed : int

    Returns
    -------
    ndarray, shape (P,)
        Nats.
    """
    rows = np.flatnonzero(~views.junk)[:_VIEWS]
    spectrum = None if options.noise == "white" else noise_spectrum(options.noise, box, pixel)

    def images(state: int) -> torch.Tensor:
        one = replace(views, state=np.zeros_like(views.state))
        coords = torch.from_numpy(built.coords[state : state + 1].astype(np.float32))
        weights = torch.from_numpy(built.state_weights[state : state + 1].astype(np.float32))
        # A few at a time: all the Gaussians of every image are held at once.
        parts = [
            clean_images(coords, weights, built.atoms.sigma, one, part, options, box, pixel, seed)
            for part in np.array_split(rows, max(1, len(rows) // 8))
        ]
        return torch.cat(parts)

    out, held, last = [], None, -1
    for a, b in state_pairs(len(built.coords)):
        first = held if held is not None and last == a else images(int(a))
        held, last = images(int(b)), int(b)
        # The mean of an image is no measurement; `signal_power` leaves it out.
        out.append(float(signal_power(first - held, spectrum)[1].mean()) / (2 * noise_variance))
    return np.array(out)
