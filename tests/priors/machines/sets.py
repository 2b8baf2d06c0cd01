"""Data for Boltzmann machines whose likelihood is known or published, and the likelihood by enumeration."""

import itertools

import numpy as np
import torch
from sklearn.datasets import load_digits


def bars_and_stripes(side):
    """All images of full rows or of full columns, each once: (2^(side + 1) - 2, side^2), 0 and 1."""
    lines = (np.arange(2**side)[:, None] >> np.arange(side)) & 1
    rows = np.repeat(lines, side, axis=1)
    columns = np.tile(lines, (1, side))
    return torch.tensor(np.unique(np.concatenate([rows, columns]), axis=0), dtype=torch.float32)


def binary_digits(seed=0):
    """Handwritten digits of 8 x 8 grey values 0 to 16, 1 where above 8: 1,500 to train, 297 to test."""
    bits = torch.tensor(load_digits().data / 16 > 0.5, dtype=torch.float32)
    bits = bits[torch.randperm(len(bits), generator=torch.Generator().manual_seed(seed))]
    return bits[:1500], bits[1500:]


def all_bits(n):
    """All configurations of n bits, shape (2^n, n), double."""
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=n)), dtype=torch.float64)


def plain_energy(bits, fields, couplings):
    """-a.b - sum over pairs of W b b, term by term, of bits (K, n)."""
    energy = torch.zeros(len(bits), dtype=torch.float64)
    for u in range(len(fields)):
        energy -= fields[u] * bits[:, u]
        for v in range(u):
            energy -= couplings[u, v] * bits[:, u] * bits[:, v]
    return energy


def exact_log_prob(machine):
    """Log probability of all configurations of the latents, (2^d,): every unit enumerated, one by one."""
    fields, couplings = machine.fields_kt().double(), machine.couplings_kt().double()
    bits = all_bits(len(fields))
    log_weight = -plain_energy(bits, fields, couplings)
    log_z = torch.logsumexp(log_weight, 0)
    return torch.logsumexp(log_weight.view(2**machine.z_dim, -1), 1) - log_z


def scrambled(machine, sd=1.0, seed=0):
    """The machine in double precision with normal parameters and an offset that is not one half."""
    generator = torch.Generator().manual_seed(seed)
    machine = machine.double()
    with torch.no_grad():
        for parameter in (machine.pairs.weight, machine.pairs.centred_bias):
            parameter.copy_(sd * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        machine.pairs.data_mean.copy_(
            torch.rand(machine.pairs.data_mean.shape, generator=generator, dtype=torch.float64)
        )
    return machine
