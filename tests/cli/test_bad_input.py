"""Every kind of bad input ends with exit code 2, one message, and nothing half-written."""

import errno
import os

import numpy as np
import pytest

from tests.cli.inputs import COLUMNS, PIXEL, block, chain, pdb_lines, write_stack

pytestmark = pytest.mark.filterwarnings("ignore:Data array contains:RuntimeWarning")


def _without(*names):
    return [column for column in COLUMNS if column not in names]


def missing_stack(inputs):
    inputs.stack.unlink()


def truncated_stack(inputs):
    os.truncate(inputs.stack, inputs.stack.stat().st_size - 1000)


def row_past_the_stack(inputs):
    inputs.rows[6]["rlnImageName"] = "000999@particles.mrcs"
    inputs.write_star()


def pixels_nan(inputs):
    inputs.images[6, 3, 4] = np.nan
    inputs.write_stack()


def pixels_infinite(inputs):
    inputs.images[6, 3, 4] = np.inf
    inputs.write_stack()


def constant_image(inputs):
    inputs.images[6] = 0.5
    inputs.write_stack()


def mixed_boxes(inputs):
    write_stack(inputs.folder / "other.mrcs", inputs.images[:, :24, :24])
    inputs.rows[6]["rlnImageName"] = "000001@other.mrcs"
    inputs.write_star()


def mixed_pixel_sizes(inputs):
    inputs.optics.append({**inputs.optics[0], "rlnOpticsGroup": 2, "rlnImagePixelSize": 1.5 * PIXEL})
    inputs.rows[6]["rlnOpticsGroup"] = 2
    inputs.write_star()


def no_poses(inputs):
    inputs.write_star(_without("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"))


def no_ctf(inputs):
    inputs.write_star(_without("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"))


def zero_defocus(inputs):
    inputs.rows[6]["rlnDefocusU"] = inputs.rows[6]["rlnDefocusV"] = 0.0
    inputs.write_star()


def absurd_defocus(inputs):
    inputs.rows[6]["rlnDefocusU"] = 5e7
    inputs.write_star()


def word_for_number(inputs):
    inputs.rows[6]["rlnAngleRot"] = "left"
    inputs.write_star()


def not_square(inputs):
    inputs.write_stack(inputs.images[:, :, :24])


def odd_box(inputs):
    inputs.optics[0]["rlnImageSize"] = 31
    inputs.write_star()
    inputs.write_stack(inputs.images[:, :31, :31])


def empty_file(inputs):
    inputs.star.write_text("")


def no_rows(inputs):
    inputs.rows.clear()
    inputs.write_star()


def tilt_series(inputs):
    for row in inputs.rows:
        row["rlnTomoName"] = "TS_01"
        row["rlnTomoParticleName"] = "TS_01/1"
    inputs.write_star([*COLUMNS, "rlnTomoName", "rlnTomoParticleName"])


def table_missing(inputs):
    inputs.star.unlink()


def model_missing(inputs):
    inputs.model.unlink()


def model_without_polymer(inputs):
    inputs.write_model(lines=pdb_lines(chain(), "HOH", "O", "HETATM"))


def model_with_a_residue_twice(inputs):
    lines = pdb_lines(chain())
    inputs.write_model(lines=[*lines, lines[10]])


def model_outside_the_box(inputs):
    inputs.write_model(coords=3.0 * chain() + 64.0)


def model_of_another_molecule(inputs):
    inputs.write_model(coords=np.outer(np.arange(40) - 20, [2.0, 1.5, 0.5]) + 64.0)


def poses_of_other_images(inputs):
    names = [row["rlnImageName"] for row in inputs.rows]
    for row, name in zip(inputs.rows, np.roll(names, 17)):
        row["rlnImageName"] = name
    inputs.write_star()


# What is wrong, the file that the message names, its row, words of the message.
FAULTS = [
    (missing_stack, "particles.mrcs", None, ""),
    (truncated_stack, "particles.mrcs", None, ""),
    (row_past_the_stack, "particles.star", 7, "999"),
    (pixels_nan, "particles.star", 7, ""),
    (pixels_infinite, "particles.star", 7, ""),
    (constant_image, "particles.star", 7, ""),
    (mixed_boxes, "other.mrcs", None, "box"),
    (mixed_pixel_sizes, "particles.star", 7, "pixel size"),
    (no_poses, "particles.star", None, "poses"),
    (no_ctf, "particles.star", None, "CTF"),
    (zero_defocus, "particles.star", 7, "defocus"),
    (absurd_defocus, "particles.star", 7, "defocus"),
    (word_for_number, "particles.star", 7, "rlnAngleRot"),
    (not_square, "particles.mrcs", None, "square"),
    (odd_box, "particles.mrcs", None, "even"),
    (empty_file, "particles.star", None, ""),
    (no_rows, "particles.star", None, ""),
    (tilt_series, "particles.star", None, "tilt"),
    (table_missing, "particles.star", None, ""),
    (model_missing, "model.pdb", None, ""),
    (model_without_polymer, "model.pdb", None, "polymer"),
    (model_with_a_residue_twice, "model.pdb", None, "duplicate"),
    (model_outside_the_box, "model.pdb", None, "box"),
    (model_of_another_molecule, "", None, "do not fit"),
    (poses_of_other_images, "", None, "do not fit"),
]


def assert_refused(code, err, file="", row=None, words=""):
    assert code == 2, err
    assert "Traceback" not in err
    assert err.count("cryoscape: ") == 1
    message = err[err.index("cryoscape: ") :]
    assert "\n  -> " in message, "no remedy"
    assert file in message
    assert row is None or f"row {row}" in message
    assert words in message


@pytest.mark.parametrize(("spoil", "file", "row", "words"), FAULTS, ids=[f[0].__name__ for f in FAULTS])
@pytest.mark.parametrize("command", ["check", "train"])
def test_bad_input_is_refused(cli, inputs, tmp_path, command, spoil, file, row, words):
    spoil(inputs)
    before = sorted(tmp_path.rglob("*"))
    extra = ["-o", tmp_path / "run", "--steps", "2"] if command == "train" else []
    code, _, err = cli(command, inputs.star, "--model", inputs.model, *extra)
    assert_refused(code, err, file, row, words)
    assert sorted(tmp_path.rglob("*")) == before


def test_good_input_passes_the_check(cli, inputs):
    code, out, err = cli("check", inputs.star, "--model", inputs.model)
    assert code == 0, err
    assert "corner" in out


def test_check_without_a_model_reports_the_map_alone(cli, inputs):
    code, out, err = cli("check", inputs.star)
    assert code == 0, err
    assert "FSC" in out
    assert "no model" in out


def test_check_with_a_map_that_is_not_there(cli, inputs):
    code, _, err = cli("check", inputs.star, "--model", inputs.model, "--map", inputs.folder / "none.mrc")
    assert_refused(code, err, "none.mrc")


def test_cs_without_passthrough(cli, inputs, tmp_path):
    fields = [("uid", "<u8"), ("blob/path", "S20"), ("blob/idx", "<u4"), ("blob/psize_A", "<f4")]
    table = np.zeros(4, dtype=fields)
    path = tmp_path / "particles.cs"
    with open(path, "wb") as stream:
        np.save(stream, table)
    code, _, err = cli("check", path, "--model", inputs.model)
    assert_refused(code, err, "particles.cs", None, "passthrough")


def test_folder_of_another_run(cli, inputs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    code, _, err = cli("train", inputs.star, "--model", inputs.model, "-o", run)
    assert_refused(code, err, str(run), None, "another run")
    assert [p.name for p in run.iterdir()] == ["run.json"]


def test_gpu_demanded_and_missing(cli, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = tmp_path / "run"
    code, _, err = cli(
        "train", inputs.star, "--model", inputs.model, "-o", run, "--device", "cuda", "--steps", "2"
    )
    assert_refused(code, err, "", None, "GPU")
    assert not run.exists()


def test_resume_without_a_run(cli, inputs, tmp_path):
    run = tmp_path / "run"
    code, _, err = cli("train", inputs.star, "--model", inputs.model, "-o", run, "--resume")
    assert_refused(code, err, str(run))
    assert not run.exists()


def test_resume_and_force_contradict(cli, inputs, tmp_path):
    words = ["--model", inputs.model, "-o", tmp_path / "run", "--resume", "--force"]
    assert_refused(*cli("train", inputs.star, *words)[::2], words="contradict")


def test_model_needed(cli, inputs, tmp_path):
    assert_refused(*cli("train", inputs.star, "-o", tmp_path / "run")[::2], words="--model")


def test_simulation_into_a_used_folder(cli, tmp_path):
    (tmp_path / "truth.npz").write_bytes(b"mine")
    code, _, err = cli("simulate", "hinge", "-o", tmp_path, "--particles", "4", "--box", "32", "--pixel", "4")
    assert_refused(code, err, str(tmp_path))
    assert (tmp_path / "truth.npz").read_bytes() == b"mine"


def test_full_disk_in_a_simulation(cli, tmp_path, monkeypatch):
    """The stack fits, the truth does not: nothing is left of either."""

    def full(*_args, **_names):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("numpy.savez", full)
    out = tmp_path / "simulated"
    code, _, err = cli("simulate", "hinge", "-o", out, "--particles", "4", "--box", "32", "--pixel", "4")
    assert_refused(code, err, "", None, "disk is full")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []


def test_two_data_blocks_are_written_as_relion_does(inputs):
    text = block("optics", inputs.optics, ["rlnOpticsGroup", "rlnVoltage"])
    assert text == "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n1 300.0\n\n"
