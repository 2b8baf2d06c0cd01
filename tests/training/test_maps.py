"""Training of maps: consensus, spectral prior, linear start, density stage, refusals."""

import numpy as np
import pytest
import torch

from cryoscape.data.images import BandImages
from cryoscape.data.mrc import read_map
from cryoscape.errors import InputError
from cryoscape.models.decoders.voxels import VoxelDecoder
from cryoscape.physics.fourier_voxels import SliceSampler
from cryoscape.physics.resolution import fsc
from cryoscape.training.consensus import extended, find_consensus, wiener_weight
from cryoscape.training.density import train_density
from cryoscape.training.linear_start import spiked
from cryoscape.training.run import Run
from cryoscape.training.spectral_prior import SpectralPrior
from cryoscape.training.train import train
from tests.training.builders import BOX, CUTOFF, KNOWN, PIXEL, make_sample, settings

MAPS = {
    "encoder": {"kind": "field", "hidden": (32, 16)},
    "decoder": {"kind": "voxels", "n_volumes": 3, "hidden": (8,)},
}


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return make_sample(tmp_path_factory.mktemp("many"), n=400, snr=1.0)


@pytest.fixture(scope="module")
def volumes(many, tmp_path_factory):
    out = tmp_path_factory.mktemp("maps") / "run"
    config = settings(**MAPS, training={"steps": 120})
    return train(many.particles, None, config, out, interpretation=KNOWN)


def test_the_consensus_is_the_mean_of_the_states(many):
    from cryoscape.physics.gaussians import voxelise

    found = find_consensus(BandImages(many.particles, CUTOFF), torch.arange(400))
    centred = torch.from_numpy(many.states - np.array(KNOWN.offset)).float()
    box = len(found.filtered)
    pixel = BOX * PIXEL / box
    true = sum(voxelise(c, torch.ones(len(c)), 2.5, box, pixel) for c in centred)
    curve = fsc(found.filtered, true)
    assert float(curve[1:6].min()) > 0.9
    assert found.resolution < 15.0
    assert float(found.amplitude.min()) > 0


def test_halves_that_share_nothing_are_refused(tmp_path):
    empty = make_sample(tmp_path / "empty", n=60, snr=0.0)
    with pytest.raises(InputError, match="nothing in common"):
        find_consensus(BandImages(empty.particles, CUTOFF), torch.arange(60))


def test_wiener_weight_ends_where_agreement_does():
    weight = wiener_weight(torch.tensor([1.0, 1.0, 0.5, -0.1, 0.4]))
    assert weight.tolist() == pytest.approx([1.0, 1.0, 2 / 3, 0.0, 0.0])


def test_the_amplitude_goes_on_as_it_fell():
    amplitude = torch.exp(-0.5 * torch.arange(9.0))
    weight = torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0, 0])
    broken = torch.where(weight > 0, amplitude, torch.zeros(9))
    torch.testing.assert_close(extended(broken, weight)[1:], amplitude[1:], rtol=1e-4, atol=1e-6)


def test_the_learned_power_finds_signal_and_drops_noise():
    """A linear problem with a known answer: one difference has power 0.3, one has none."""
    torch.manual_seed(0)
    box = 16
    decoder = VoxelDecoder(
        1, SliceSampler(box), 1.0, 1.0, torch.zeros(box, box, box), torch.ones(box // 2 + 1), n_volumes=2
    )
    truth = torch.zeros_like(decoder.table)
    truth[..., 1] = 0.3**0.5 * torch.randn_like(truth[..., 1])
    noise, batch, n = 2.0, 4, 400
    optimizer = torch.optim.Adam([decoder.table], lr=0.05, betas=(0.9, 0.99))
    prior = SpectralPrior(decoder, n, batch)
    steps = 600
    data = truth + noise / n**0.5 * torch.randn_like(truth)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        jitter = (noise**2 / batch) ** 0.5 * torch.randn_like(truth)
        decoder.table.grad = (decoder.table.detach() - data - jitter) / noise**2
        prior.add_gradient(step)
        optimizer.step()
        if step > 100 and step % 20 == 0:
            prior.update(optimizer)
    inner = decoder.power[2:7]
    assert float(inner[:, 1].mean()) == pytest.approx(0.3, rel=0.25)
    assert float(inner[:, 2].mean()) < 0.03


def test_spikes_are_read_off_their_eigenvalues():
    g = np.random.default_rng(0)
    n, size = 4000, 800
    data = g.standard_normal((n, size))
    data[:, 0] *= 3.0
    top = np.linalg.eigvalsh(data.T @ data / n)[::-1][:2].copy()
    found = spiked(torch.from_numpy(top), size / n)
    assert float(found[0]) == pytest.approx(8.0, rel=0.1)
    assert float(found[1]) < 0.6


def test_maps_tell_the_states_apart(volumes, many):
    e = volumes.embedding
    means = np.stack([e.z[many.state == s].mean(0) for s in (0, 1)])
    spread = np.stack([e.z[many.state == s].std(0) for s in (0, 1)]).mean(0)
    assert float(np.abs((means[0] - means[1]) / spread).max()) > 1.0
    assert float(e.gain.mean()) > 0


def test_a_run_of_maps_opens_again(volumes):
    again = Run.open(volumes.path)
    assert again.model is None
    assert not again.has_structures
    z = volumes.embedding.z[:2]
    maps = again.decode_maps(z)
    box = again.geometry.box
    assert maps.shape == (2, box, box, box)
    np.testing.assert_array_equal(maps, volumes.decode_maps(z))
    assert again.map_origin == (0.0, 0.0, 0.0)
    written = read_map(volumes.path / "maps" / "consensus.mrc")
    assert written.voxel_size == pytest.approx(again.geometry.pixel_size)
    with pytest.raises(InputError, match="makes maps"):
        again.decode(z)
    with pytest.raises(InputError, match="no atomic model"):
        _ = again.structure


def test_a_structure_and_its_density_stage_lie_on_one_another(many, tmp_path):
    run = train(
        many.particles, many.model, settings(training={"steps": 60}), tmp_path / "run", interpretation=KNOWN
    )
    config = settings(decoder=MAPS["decoder"], data={"cutoff": CUTOFF}, training={"steps": 60})
    stage = train_density(run, config)
    assert stage.path == run.path / "density"
    np.testing.assert_array_equal(stage.embedding.z, run.embedding.z)
    assert stage.info["latents_from"] == str(run.path)
    z = run.embedding.z[:1]
    of_model, of_map = torch.from_numpy(run.decode_maps(z)[0]), torch.from_numpy(stage.decode_maps(z)[0])
    assert float(fsc(of_model, of_map)[1:6].min()) > 0.8
    with pytest.raises(InputError, match="is a density stage itself"):
        train_density(stage)
    with pytest.raises(InputError, match="makes structures"):
        train_density(run, settings())


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "needs a reference model"),
        ({"decoder": MAPS["decoder"], "encoder": {"kind": "score"}}, "no atoms"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_nothing_written(many, tmp_path, sections, message):
    out = tmp_path / "run"
    with pytest.raises(InputError, match=message):
        train(many.particles, None, settings(**sections), out, interpretation=KNOWN)
    assert not out.exists()
