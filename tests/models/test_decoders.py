"""The parts that decoders share; what each of them promises is in tests/contracts."""

import numpy as np
import torch

from cryoscape.models.decoders.atomic import AtomicDecoder
from cryoscape.models.decoders.base import AtomicScene
from cryoscape.models.scattering import BeadScatterers
from cryoscape.physics import fourier
from cryoscape.physics.rotations import random_rotations
from tests.models.scenes import BOX, PIXEL, chain


def test_a_scene_projects_as_a_sum_of_waves():
    """Against the structure factor written out in numpy, bead by bead."""
    coords = torch.stack([chain(6, seed) for seed in (0, 1)])
    weights = torch.tensor([1.0, 2.0, 3.0, 1.0, 5.0, 4.0])
    rotations = random_rotations(2, torch.Generator().manual_seed(0)).float()
    got = AtomicScene(coords, BeadScatterers(weights)).project(rotations, BOX, PIXEL).numpy()
    k = fourier.frequency_grid(BOX, PIXEL).numpy()
    for b in range(2):
        view = coords[b].numpy() @ rotations[b].numpy().T
        waves = np.exp(-2j * np.pi * (k[..., None, :] * view[:, :2]).sum(-1))
        want = (waves * (weights / 16).numpy()).sum(-1)
        # The Nyquist row and column belong to no band.
        inside = np.ix_(np.delete(np.arange(BOX), BOX // 2), np.arange(BOX // 2))
        np.testing.assert_allclose(got[b][inside], want[inside], atol=2e-5)


def test_the_scale_of_the_atomic_decoder_is_in_angstrom():
    reference = chain(6)
    torch.manual_seed(1)
    one = AtomicDecoder(2, reference, BeadScatterers(torch.ones(6)), hidden=(4,))
    torch.manual_seed(1)
    five = AtomicDecoder(2, reference, BeadScatterers(torch.ones(6)), hidden=(4,), scale=5.0)
    z = torch.randn(3, 2)
    torch.testing.assert_close(five.coordinates(z) - reference, 5 * (one.coordinates(z) - reference))


def test_a_silent_network_decodes_the_reference_exactly():
    reference = chain(6)
    decoder = AtomicDecoder(2, reference, BeadScatterers(torch.ones(6)), hidden=(4,), initial=0.0)
    assert torch.equal(decoder.coordinates(torch.randn(3, 2)), reference.expand(3, -1, -1))
