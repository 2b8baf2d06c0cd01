"""Settings given as --section.option value, and their precedence."""

import pytest

from cryoscape.cli.overrides import gather_section_options, nested, option_names
from cryoscape.cli.train import resolve
from cryoscape.errors import InputError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["p.star", "--a.b", "3"], ["p.star", "--set", "a.b=3"]),
        (["--a.b=x=y", "p.star"], ["--set", "a.b=x=y", "p.star"]),
        (["--a.b", "-1.5"], ["--set", "a.b=-1.5"]),
        (["--a.b", "--steps", "3"], ["--set", "a.b=true", "--steps", "3"]),
        (["--a.b-c", "x"], ["--set", "a.b_c=x"]),
        (["--a.b"], ["--set", "a.b=true"]),
        (["-o", "run.1", "--model", "a.pdb"], ["-o", "run.1", "--model", "a.pdb"]),
    ],
)
def test_dotted_options_are_gathered(given, expected):
    assert gather_section_options(given) == expected


def test_values_are_text_but_for_lists_and_null():
    assert nested(["a.b=3", "a.c=[1, 2]", "d=null"]) == {"a": {"b": "3", "c": [1, 2]}, "d": None}
    with pytest.raises(InputError, match="cannot be read"):
        nested(["a.b=[1"])


def test_flags_over_file_over_preset(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("preset: cryostar\ntraining:\n  lr: 0.5\n  batch: 7\n")
    config = resolve({"batch": 9}, ("training.weight_decay=0.25",), file=file)
    assert config.preset == "cryostar"
    assert config.likelihood.kind == "correlation"  # from the preset
    assert config.training.lr == 0.5  # from the file
    assert config.training.batch == 9  # the flag over the file
    assert config.training.weight_decay == 0.25
    assert resolve({}, preset="nma", file=file).decoder.kind == "modes"


def test_a_setting_of_the_default_kind_needs_no_kind():
    assert resolve({}, ("decoder.hidden=[16]",)).decoder.hidden == (16,)


def test_another_kind_drops_the_settings_of_the_first():
    assert resolve({"decoder": "modes"}, preset="cryostar").decoder.kind == "modes"


def test_resumed_run_starts_from_its_own_settings(tmp_path):
    saved = tmp_path / "config.yaml"
    saved.write_text("preset: cryoscape\nz_dim: 3\n")
    assert resolve({"threads": 2}, earlier=saved).z_dim == 3
    assert resolve({}, earlier=tmp_path / "none.yaml").z_dim == resolve({}).z_dim


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("prior.kid=normal", ["unknown setting prior.kid", "prior.kind"]),
        ("decoder.n_mods=3", ["unknown setting decoder.n_mods", "decoder.n_modes"]),
        ("trainng.lr=1", ["unknown setting trainng", "training"]),
        ("lr=1", ["unknown setting lr", "training.lr"]),
        ("training.lr=fast", ["training.lr", "'fast'"]),
        ("training.lr=-1", ["training.lr", "greater than 0"]),
        ("decoder.kind=foo", ["decoder.kind is 'foo'", "'modes'"]),
    ],
)
def test_wrong_settings_are_named_by_path(setting, expected):
    with pytest.raises(InputError) as caught:
        resolve({}, (setting,))
    assert [text for text in expected if text not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("text", "row", "message"),
    [
        ("training:\n  lrr: 1\n", None, "unknown setting training.lrr"),
        ("training: {\n", 2, "not valid YAML"),
        ("- 1\n", None, "holds no settings"),
    ],
)
def test_wrong_file_is_named(tmp_path, text, row, message):
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        resolve({}, file=file)
    assert caught.value.file == file
    assert row is None or caught.value.row == row


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        resolve({}, file=tmp_path / "none.yaml")


def test_a_flag_at_fault_is_not_blamed_on_the_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("training:\n  lr: 1\n")
    with pytest.raises(InputError) as caught:
        resolve({}, ("training.batch=0",), file=file)
    assert caught.value.file is None


def test_steps_and_epochs_exclude_each_other():
    with pytest.raises(InputError, match="both"):
        resolve({"steps": 3, "epochs": 1.0})


def test_every_kind_of_a_choice_is_listed():
    from cryoscape.training.config import Config

    names = set(option_names(Config))
    assert {"z_dim", "training.lr", "decoder.hidden", "decoder.n_modes", "decoder.n_segments"} <= names
