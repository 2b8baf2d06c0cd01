"""Chains that come and go, against models without them."""

import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.models import features
from cryoscape.models.decoders.atomic import NEARLY_PRESENT, AtomicDecoder
from cryoscape.models.decoders.base import AtomicScene
from cryoscape.models.density import structure_maps
from cryoscape.models.likelihoods import GaussianLikelihood
from cryoscape.models.occupancy import Chains
from cryoscape.models.posteriors import Bernoulli
from cryoscape.models.relaxations import Power
from cryoscape.models.scattering import BeadScatterers, Scatterers
from cryoscape.physics import gaussians
from cryoscape.physics.rotations import random_rotations
from tests.models.scenes import BOX, CUTOFF, PIXEL, batch_of, chain

SIZES = (7, 14, 9)
"""Residues of chains 0, 1 (the core) and 2."""

N = sum(SIZES)
CHAIN = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))
COORDS = chain(N)
ELECTRONS = torch.linspace(1.0, 2.0, N)


def beads():
    return BeadScatterers(ELECTRONS)


def carried():
    """Two points a residue, held in the frame of the chain, in shuffled order."""
    g = torch.Generator().manual_seed(3)
    points = (COORDS + torch.randn(2, N, 3, generator=g)).reshape(-1, 3)
    order = torch.randperm(2 * N, generator=g)
    bonded = CHAIN[1:] == CHAIN[:-1]
    residue = torch.arange(N).repeat(2)
    return Scatterers(COORDS, points[order], ELECTRONS.repeat(2)[order], residue[order], bonded)


SCATTERERS = {"beads": beads, "carried": carried}


def build(occupancy="tied", scatterers=beads, z_dim=3, **options):
    torch.manual_seed(1)
    options.setdefault("hidden", (8, 16))
    return AtomicDecoder(z_dim, COORDS, scatterers(), occupancy=occupancy, chain=CHAIN, **options)


def poses(n, seed=0):
    return random_rotations(n, torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize("kind", SCATTERERS)
def test_a_chain_that_is_absent_is_not_there(kind):
    """The projection of the points of the other chains alone, with their weights in the whole model."""
    decoder = build(scatterers=SCATTERERS[kind])
    z = torch.tensor([[1.0, 1.0, 0.3], [0.0, 1.0, 0.3], [1.0, 0.0, 0.3], [0.0, 0.0, 0.3]])
    got = decoder(z).project(poses(4), BOX, PIXEL).detach()
    scatterers = decoder.scatterers
    points, owner = scatterers(decoder.coordinates(z)), CHAIN
    if kind == "carried":
        owner = CHAIN[scatterers.residue]
    for i, gone in enumerate([(), (0,), (2,), (0, 2)]):
        stays = ~torch.isin(owner, torch.tensor(gone, dtype=torch.long))
        weights = scatterers.weights[stays]
        want = gaussians.project_fourier(points[i : i + 1, stays], weights, poses(4)[i : i + 1], BOX, PIXEL)
        torch.testing.assert_close(got[i], want[0], rtol=0, atol=2e-6)
        assert float(got[i, 0, 0].real) == pytest.approx(float(weights.sum()), abs=1e-5)


def test_an_assembly_with_a_chain_half_there_is_the_mean_of_both():
    decoder = build(displace=False)
    z = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.5, 1.0, 0.0]])
    whole, without, half = decoder(z).project(poses(1).expand(3, -1, -1), BOX, PIXEL)
    torch.testing.assert_close(half, (whole + without) / 2, rtol=0, atol=1e-6)


def test_bits_are_the_chains_in_order_without_the_largest():
    z = torch.tensor([[0.0, 1.0, 0.5], [0.25, 0.75, 0.0]])
    assert build().occupancy(z).tolist() == [[0.0, 1.0, 1.0], [0.25, 1.0, 0.75]]
    chains = build().chains
    assert chains.core == 1
    assert chains.optional == (0, 2)
    assert len(chains) == 3


def test_of_equal_chains_the_first_is_the_core():
    chains = Chains(torch.tensor([0, 0, 1, 1, 3, 3, 3, 4, 4, 4]), BeadScatterers(torch.ones(10)))
    assert chains.core == 3
    # Nobody has the number 2.
    assert chains.optional == (0, 1, 4)


def test_weights_keep_the_scale_of_the_whole_reference():
    decoder = build()
    scene = decoder(torch.ones(2, 3))
    torch.testing.assert_close(scene.weights, decoder.scatterers.weights.expand(2, -1))
    share = ELECTRONS[CHAIN != 0].sum() / ELECTRONS.sum()
    scene = decoder(torch.tensor([[0.0, 1.0, 1.0]]))
    assert float(scene.weights.sum()) == pytest.approx(float(share))


@pytest.mark.parametrize("kind", SCATTERERS)
@pytest.mark.parametrize("occupancy", ["tied", "free"])
@pytest.mark.parametrize("displace", [True, False])
def test_gradients_in_z_are_slopes(kind, occupancy, displace):
    """By central differences in double precision, at occupancies of exactly 0 and 1 as well."""
    decoder = build(occupancy, SCATTERERS[kind], displace=displace).double()
    z = torch.tensor([[0.0, 1.0, 0.2], [1.0, 0.0, -0.7]], dtype=torch.float64, requires_grad=True)

    def distance(z):
        y = torch.view_as_real(decoder(z).project(poses(2).double(), 12, 6.0))
        return (10 * y - 1.0).square().sum((1, 2, 3))

    assert torch.autograd.gradcheck(distance, (z,), rtol=1e-5, atol=1e-6)
    grad = torch.autograd.grad(distance(z).sum(), z)[0]
    alive = 2 if occupancy == "tied" and not displace else 3
    assert float(grad[:, :alive].abs().min()) > 1e-4
    assert float(grad[:, alive:].abs().sum()) == 0


def test_the_gradient_in_weights_is_exact_in_double_precision():
    """Also where weights are zero, and together with that in the positions."""
    g = torch.Generator().manual_seed(2)
    coords = torch.randn(2, 4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 4, generator=g, dtype=torch.float64)
    weights[0, 1] = weights[1, 3] = 0.0
    rotations = random_rotations(2, g)

    def real_view(x, w):
        return torch.view_as_real(gaussians.project_fourier(x, w, rotations, 8, 2.0))

    assert torch.autograd.gradcheck(real_view, (coords, weights.requires_grad_()))
    assert torch.autograd.gradcheck(lambda w: real_view(coords.detach(), w), (weights,))
    assert torch.autograd.gradcheck(lambda x: real_view(x, weights.detach()), (coords,))
    one = torch.rand(1, 4, generator=g, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: real_view(coords.detach(), w), (one,))


def test_free_occupancies_start_near_present_and_can_leave():
    decoder = build("free", hidden=(32, 64))
    z = torch.randn(200, 3)
    start = decoder.occupancy(z).detach()
    assert torch.equal(start[:, 1], torch.ones(200))
    at = torch.sigmoid(torch.tensor(NEARLY_PRESENT))
    assert float((start[:, [0, 2]] - at).abs().max()) < 0.05
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    wanted = (z[:, :1] > 0).float()
    for _ in range(300):
        optimizer.zero_grad()
        (decoder.occupancy(z)[:, [0]] - wanted).square().mean().backward()
        optimizer.step()
    found = decoder.occupancy(z)[:, 0]
    assert float(((found > 0.5).float() == wanted[:, 0]).float().mean()) > 0.97


@pytest.mark.parametrize("displace", [True, False])
def test_a_free_scene_is_made_of_positions_and_occupancies(displace):
    """What forward makes in one pass is what the two ask for one by one."""
    decoder = build("free", carried, displace=displace)
    with torch.no_grad():
        decoder.network[-1].weight.mul_(30.0)
    z = torch.randn(4, 3)
    coords = decoder.coordinates(z)
    assert coords.shape == (4, N, 3)
    one, two = decoder(z), decoder.scene(coords, decoder.occupancy(z))
    assert float(decoder.occupancy(z)[:, 0].std()) > 1e-3
    pictures = [scene.project(poses(4), BOX, PIXEL) for scene in (one, two)]
    torch.testing.assert_close(*pictures, rtol=0, atol=1e-6)
    moved = float((coords - COORDS).norm(dim=-1).max())
    assert moved > 0.5 if displace else moved == 0.0


def test_restraints_do_not_see_occupancies():
    """Positions of a tied decoder that does not move are the reference, whatever is absent."""
    decoder = build(displace=False)
    z = torch.rand(5, 3, requires_grad=True)
    assert torch.equal(decoder.objects(z), COORDS.expand(5, -1, -1))
    assert list(decoder.parameters()) == []
    assert not decoder.mean_object(z).requires_grad


def test_one_structure_in_many_poses():
    """A scene of one object with occupancies, in pieces and whole."""
    decoder = build(displace=False)
    z = torch.tensor([[0.2, 1.0, 0.0]])
    many = decoder(z).project(poses(6), BOX, PIXEL)
    each = torch.cat([decoder(z).project(poses(6)[i : i + 1], BOX, PIXEL) for i in range(6)])
    torch.testing.assert_close(many, each, rtol=0, atol=1e-6)


def test_pieces_of_a_batch_have_their_own_weights(monkeypatch):
    decoder, z = build(scatterers=carried), torch.rand(5, 3, requires_grad=True)

    def run():
        y = decoder(z).project(poses(5), BOX, PIXEL)
        return y.detach(), torch.autograd.grad(torch.view_as_real(y).square().sum(), z)[0]

    whole = run()
    monkeypatch.setattr(gaussians, "TABLE_MEMORY", 2 * 2 * BOX * 2 * N * 4)
    for a, b in zip(run(), whole):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_maps_show_only_what_is_there():
    """The map of an incomplete structure is the difference of the whole one's and the chain's."""
    decoder, likelihood = build(displace=False), GaussianLikelihood(BOX, PIXEL, CUTOFF)
    z = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.25, 1.0, 0.0]])
    whole, without, quarter = structure_maps(decoder, likelihood, z, 1.0)
    volume = PIXEL**3
    share = float(ELECTRONS[CHAIN == 0].sum() / ELECTRONS.sum())
    assert float((whole - without).sum()) * volume == pytest.approx(share, rel=1e-3)
    torch.testing.assert_close(quarter, 0.25 * whole + 0.75 * without, rtol=0, atol=1e-7)
    whole_again = structure_maps(build("none"), likelihood, torch.zeros(1, 3), 1.0)[0]
    assert float((whole_again - whole).abs().max()) < 0.2 * float(whole.abs().max())


def test_score_features_respect_what_is_absent():
    """The gradient at the points of an absent chain is zero, and others see the incomplete model."""
    coords, weights = COORDS, ELECTRONS / ELECTRONS.sum()
    stays = CHAIN != 0
    batch = batch_of(coords[stays], weights[stays], gain=40.0, n=6)
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.gain.fill_(40.0)
    scene = build(displace=False).scene(coords[None], torch.tensor([[0.0, 1.0, 1.0]]))
    data = (likelihood, batch.images, batch.ctf, batch.group, batch.rotations)
    got = features.score_features(*data, scene.scatterers(scene.coords)[0], scene.point_weights)
    want = features.score_features(*data, coords[stays], weights[stays])
    assert torch.equal(got[:, ~stays], torch.zeros(6, SIZES[0], 3))
    torch.testing.assert_close(got[:, stays], want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


def test_relaxed_bits_find_which_chains_are_there():
    """Logits of single images by their likelihood alone, through relaxed bits and projections."""
    decoder = build(displace=False, z_dim=2)
    present = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]).repeat(4, 1)
    weights = decoder(present).weights
    batch = batch_of(COORDS, weights, gain=60.0, n=16)
    likelihood = GaussianLikelihood(BOX, PIXEL, CUTOFF)
    likelihood.gain.fill_(60.0)
    logits = torch.zeros(16, 2, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for step in range(60):
        zeta = Bernoulli(logits, Power()).rsample(1, torch.Generator().manual_seed(step))[0]
        y = decoder(zeta).project(batch.rotations, BOX, PIXEL)
        optimizer.zero_grad()
        (-likelihood.log_prob(batch.images, y, batch.ctf, batch.group).sum()).backward()
        optimizer.step()
    assert torch.equal((logits > 0).float(), present)


def test_mixed_precision_leaves_occupancies_alone():
    decoder, z = build(displace=False), torch.full((2, 3), 1 / 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scene = decoder(z)
        y = scene.project(poses(2), BOX, PIXEL)
    assert scene.weights.dtype == torch.float32
    assert float(scene.weights[0, 0]) == pytest.approx(float(decoder.scatterers.weights[0]) / 3, rel=1e-6)
    exact = decoder(z).project(poses(2), BOX, PIXEL)
    assert float((y - exact).abs().max()) < 0.02


def test_without_occupancies_nothing_is_different():
    """Same random numbers, same parameters, same images; a scene without weights."""
    plain = build("none")
    torch.manual_seed(1)
    older = AtomicDecoder(3, COORDS, beads(), hidden=(8, 16))
    z = torch.randn(2, 3)
    assert plain.occupancy(z) is None
    assert plain(z).weights is None
    assert plain.state_dict().keys() == older.state_dict().keys()
    assert torch.equal(plain.coordinates(z), older.coordinates(z))
    scene = AtomicScene(plain.coordinates(z), plain.scatterers)
    assert torch.equal(plain(z).project(poses(2), BOX, PIXEL), scene.project(poses(2), BOX, PIXEL))


def test_what_cannot_be_built():
    with pytest.raises(InputError, match="one chain only"):
        AtomicDecoder(3, COORDS, beads(), occupancy="free", chain=torch.zeros(N, dtype=torch.long))
    with pytest.raises(InputError, match="2 chains may be absent") as caught:
        build(z_dim=1)
    assert "--z-dim 2" in str(caught.value)
    with pytest.raises(InputError, match="depend on z"):
        build("none", displace=False)
    with pytest.raises(ValueError, match="chain of each residue"):
        AtomicDecoder(3, COORDS, beads(), occupancy="tied")
