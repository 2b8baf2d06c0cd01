import pytest
import torch

from cryoscape.errors import InputError
from cryoscape.models.likelihoods import MeanSquaredLikelihood
from cryoscape.training.assemble import Geometry, Start, build_model, build_prior
from cryoscape.training.config import Config
from cryoscape.training.presets import PRESETS, merged, preset
from tests.training.builders import KNOWN


def test_the_presets():
    assert set(PRESETS) == {"cryoscape", "cryostar", "cont", "nma", "cryosphere", "cryodrgn"}
    assert Config.model_validate(preset("cryoscape")) == Config()


@pytest.mark.parametrize("name", sorted(set(PRESETS) - {"cryodrgn"}))
def test_every_preset_with_atoms_builds_and_decodes(name, sample):
    config = Config.model_validate(preset(name))
    assert config.preset == name
    geometry = Geometry(18, 4.0, 8.0, 1, KNOWN.offset, 18)
    model = build_model(config, Start(sample.model), geometry)
    coords = model.decoder.coordinates(torch.randn(2, config.z_dim))
    assert coords.shape == (2, 30, 3)
    assert build_prior(config).sample(3).shape == (3, config.z_dim)


def test_the_preset_of_maps_builds_and_decodes():
    """A map from zero, with the KL weight 1 / z_dim of a squared error."""
    config = Config.model_validate(preset("cryodrgn"))
    assert config.objective.beta == config.objective.beta_start == 1 / config.z_dim
    start = Start(volume=torch.ones(18, 18, 18), amplitude=torch.ones(10))
    model = build_model(config, start, Geometry(18, 4.0, 8.0, 1, KNOWN.offset, 18))
    assert isinstance(model.likelihood, MeanSquaredLikelihood)
    assert model.encoder(torch.randn(2, 18 * 18)).mean.shape == (2, 8)
    maps = model.decoder.volumes(torch.randn(2, 8)).detach()
    assert maps.shape == (2, 18, 18, 18)
    assert float(maps.mean()) < 0.5


def test_a_field_has_layers_of_one_width():
    config = Config.model_validate(merged(preset("cryodrgn"), {"decoder": {"hidden": (8, 16)}}))
    start = Start(volume=torch.ones(18, 18, 18), amplitude=torch.ones(10))
    with pytest.raises(InputError, match="one width, not 8, 16"):
        build_model(config, start, Geometry(18, 4.0, 8.0, 1, KNOWN.offset, 18))


def test_published_values_of_cryostar():
    """Official code b64aa39, atom_configs/1ake.py."""
    c = Config.model_validate(preset("cryostar"))
    assert c.likelihood.kind == "correlation"
    assert c.likelihood.sigma == 2.0
    assert c.encoder.hidden == (512, 256, 128, 64, 32)
    assert c.decoder.kind == "atomic"
    assert c.decoder.hidden == (32, 64, 128, 256, 512)
    assert c.decoder.scatter_from == "bead"
    assert (c.training.lr, c.training.batch, c.training.schedule) == (1e-4, 64, "constant")
    assert c.z_dim == 8
    # 0.5 as a mean over the 8 dimensions, with 3 nats free in each.
    assert c.objective.beta == 0.5 / 8
    assert c.objective.free_bits == 3.0
    assert (c.restraints.bond, c.restraints.network, c.restraints.clash) == (1.0, 1.0, 1.0)
    assert c.restraints.amino_cutoff == 12.0
    assert c.restraints.nucleotide_cutoff == 15.0
    assert c.restraints.through_latent
    assert c.restraints.mean


def test_the_baselines_differ_from_cryostar_only_where_they_say():
    star, cont, nma = (Config.model_validate(preset(n)) for n in ("cryostar", "cont", "nma"))
    assert cont.restraints == star.restraints.model_copy(update={"network": 0.0, "clash": 0.0})
    assert (cont.decoder, cont.encoder, cont.training) == (star.decoder, star.encoder, star.training)
    assert (nma.decoder.kind, nma.decoder.n_modes, nma.decoder.cutoff) == ("modes", 16, 12.0)
    assert nma.restraints.bond == nma.restraints.network == nma.restraints.clash == 0.0
    assert (nma.encoder, nma.likelihood, nma.objective) == (star.encoder, star.likelihood, star.objective)


def test_published_values_of_cryosphere():
    """Official code 66d0bd8, parameters.yaml."""
    c = Config.model_validate(preset("cryosphere"))
    assert (c.decoder.kind, c.decoder.n_segments) == ("segments", 20)
    assert c.encoder.hidden == (512, 256, 64, 64)
    assert (c.training.lr, c.training.batch) == (3e-5, 128)
    assert (c.objective.beta, c.objective.ramp, c.objective.free_bits) == (1.0, 0.5, 0.0)
    assert (c.restraints.bond, c.restraints.network, c.restraints.clash) == (0.1, 0.0, 0.1)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'cryostart'") as caught:
        preset("cryostart")
    assert "cryostar," in caught.value.remedy


def test_merging_reaches_into_sections_and_leaves_its_arguments_alone():
    base = {"a": {"x": 1, "y": 2}, "b": 3, "c": {"d": {"e": 4, "f": 5}}}
    extra = {"a": {"y": 9}, "c": {"d": {"f": 6}}, "g": 7}
    assert merged(base, extra) == {"a": {"x": 1, "y": 9}, "b": 3, "c": {"d": {"e": 4, "f": 6}}, "g": 7}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3, "c": {"d": {"e": 4, "f": 5}}}
    assert merged({"a": 1}, {"a": {"x": 2}}) == {"a": {"x": 2}}


def test_another_kind_replaces_its_section_and_the_same_kind_does_not():
    base = {"decoder": {"kind": "modes", "n_modes": 4}}
    assert merged(base, {"decoder": {"kind": "atomic"}}) == {"decoder": {"kind": "atomic"}}
    assert merged(base, {"decoder": {"kind": "modes", "cutoff": 9}})["decoder"]["n_modes"] == 4
    assert merged(base, {"decoder": {"cutoff": 9}})["decoder"] == {"kind": "modes", "n_modes": 4, "cutoff": 9}


def test_settings_over_a_preset():
    c = Config.model_validate(
        merged(preset("cryostar"), {"training": {"lr": 2e-4}, "decoder": {"kind": "modes"}})
    )
    assert c.training.lr == 2e-4
    assert c.training.schedule == "constant"
    assert c.decoder.kind == "modes"
    assert c.decoder.scatter_from == "atoms"
