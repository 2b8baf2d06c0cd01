import pytest
import yaml
from pydantic import ValidationError

from cryoscape.training.config import AtomicConfig, Config, CorrelationConfig, ModesConfig, SegmentsConfig


def places(values):
    """Dotted paths of all that is wrong, without the names of union members."""
    with pytest.raises(ValidationError) as caught:
        Config.model_validate(values)
    kinds = {"atomic", "modes", "segments", "gaussian", "correlation"}
    return [".".join(str(p) for p in e["loc"] if p not in kinds) for e in caught.value.errors()]


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"trainig": {}}, "trainig"),
        ({"training": {"leraning_rate": 1}}, "training.leraning_rate"),
        ({"decoder": {"kind": "modes", "n_mode": 4}}, "decoder.n_mode"),
        ({"decoder": {"kind": "atomic", "n_modes": 4}}, "decoder.n_modes"),
        ({"likelihood": {"kind": "correlation", "memory": 0.9}}, "likelihood.memory"),
        ({"objective": {"beta": -1}}, "objective.beta"),
        ({"data": {"held_out": 0.7}}, "data.held_out"),
        ({"encoder": {"kind": "images"}}, "encoder.kind"),
        ({"z_dim": 0}, "z_dim"),
        ({"training": {"batch": 2.5}}, "training.batch"),
        ({"training": {"seed": -1}}, "training.seed"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(values, place):
    assert places(values) == [place]


@pytest.mark.parametrize("section", ["decoder", "likelihood"])
def test_an_unknown_kind_is_refused(section):
    assert places({section: {"kind": "magic"}}) == [section]


@pytest.mark.parametrize(
    ("kind", "cls"), [("atomic", AtomicConfig), ("modes", ModesConfig), ("segments", SegmentsConfig)]
)
def test_the_kind_chooses_the_section(kind, cls):
    assert type(Config.model_validate({"decoder": {"kind": kind}}).decoder) is cls


def test_settings_cannot_be_changed_afterwards():
    config = Config()
    with pytest.raises(ValidationError):
        config.z_dim = 3
    with pytest.raises(ValidationError):
        config.training.lr = 3.0


def test_yaml_gives_the_same_settings_back():
    config = Config(
        z_dim=5,
        decoder=SegmentsConfig(hidden=(7, 9), temperature=0.125),
        likelihood=CorrelationConfig(sigma=3.25),
        training={"lr": 1.2345678e-5, "steps": 77},
        encoder={"kind": "image", "hidden": (3,), "refresh": (0.25, 0.5)},
    )
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    assert Config.model_validate(yaml.safe_load(text)) == config
    assert Config() != config


def test_the_defaults_are_the_evidence_bound():
    """The final weight of the KL term is 1 and nothing is given away: a nat is a nat."""
    objective = Config().objective
    assert (objective.beta, objective.free_bits) == (1.0, 0.0)
    assert Config().likelihood.kind == "gaussian"
    assert not Config().restraints.through_latent
