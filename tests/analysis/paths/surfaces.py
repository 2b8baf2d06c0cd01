"""Free energies with a known form, as functions of codes and of what an analytic decoder makes of them."""

import torch

from cryoscape.analysis.paths.free_energy import FreeEnergy
from cryoscape.analysis.paths.metric import DecoderMetric


def mueller_brown(x):
    """The potential of Mueller and Brown (1979) over 20, so that its barriers are some kT; (n, 2) -> (n,)."""
    amplitude = (-200.0, -100.0, -170.0, 15.0)
    a, b, c = (-1.0, -1.0, -6.5, 0.7), (0.0, 0.0, 11.0, 0.6), (-10.0, -10.0, -6.5, 0.7)
    centres = ((1.0, 0.0), (0.0, 0.5), (-0.5, 1.5), (-1.0, 1.0))
    total = 0.0
    for k, (x0, y0) in enumerate(centres):
        dx, dy = x[:, 0] - x0, x[:, 1] - y0
        total = total + amplitude[k] * torch.exp(a[k] * dx**2 + b[k] * dx * dy + c[k] * dy**2)
    return total / 20


def surface(energy, places, codes=None, floor=0.0):
    """F of an energy over z and a decoder; the score is the energy's own."""

    def score(z):
        leaf = z.detach().requires_grad_()
        return -torch.autograd.grad(energy(leaf).sum(), leaf)[0]

    if codes is None:
        codes = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)).double()
    return FreeEnergy(energy, score, DecoderMetric(places, codes, floor))


def line(start, end, n):
    """Points (n, d) from one to another."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    start, end = (torch.as_tensor(p, dtype=torch.float64) for p in (start, end))
    return start + t * (end - start)
