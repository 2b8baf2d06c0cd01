from __future__ import annotations

import numpy as np
import pytest
import starfile
from hypothesis import given
from hypothesis import strategies as st

from cryoscape.data.star import flatten_columns, read_star, to_tokens, write_blocks, write_particles_star
from cryoscape.errors import InputError
from tests.data.builders import OPTICS, loop, particle_columns, write_star


def test_tokens_are_kept_and_numbers_are_read(tmp_path):
    path = write_star(tmp_path / "p.star", stack=False)
    optics, particles = read_star(path)
    assert (optics.name, optics.n, particles.name, particles.n) == ("optics", 1, "particles", 12)
    columns = particle_columns()
    assert {tag: particles.tokens(tag) for tag in particles.tags} == columns
    np.testing.assert_array_equal(particles.floats("rlnOddNumber"), [1.5] * 12)
    assert particles.integers("rlnOpticsGroup").tolist() == [1] * 12
    assert particles.floats("rlnAbsent", 2.5).tolist() == [2.5] * 12


def test_single_values_quotes_and_line_ends(tmp_path):
    path = tmp_path / "p.star"
    path.write_bytes(b"data_\r\n\r\n_rlnImageName  '1@my stack.mrcs'\r\n_rlnDefocusU 1.0\r\n")
    (block,) = read_star(path)
    assert (block.n, block.is_loop, block.name) == (1, False, "")
    assert block.strings("rlnImageName") == ["1@my stack.mrcs"]
    assert block.tokens("rlnImageName") == ["'1@my stack.mrcs'"]


@pytest.mark.parametrize("token", ["nan", "inf", "x", "."])
def test_bad_number_names_its_row(tmp_path, token):
    path = tmp_path / "p.star"
    path.write_text(loop("particles", {"rlnA": ["1", token, "3"]}))
    with pytest.raises(InputError) as caught:
        read_star(path)[0].floats("rlnA")
    assert (caught.value.file, caught.value.row) == (path, 2)
    assert token in caught.value.message


@pytest.mark.parametrize("text", ["not a star file", "data_x\nloop_\n_a\n_b\n1 2 3\n", "loop_ _a 1"])
def test_broken_file_is_bad_input(tmp_path, text):
    path = tmp_path / "p.star"
    path.write_text(text)
    with pytest.raises(InputError, match="not a whole STAR file") as caught:
        read_star(path)
    assert caught.value.file == path
    assert caught.value.remedy


def test_missing_file_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_star(tmp_path / "absent.star")


def test_written_table_reads_the_same_elsewhere(tmp_path):
    path = tmp_path / "p.star"
    write_blocks(path, [("optics", {k: [v] for k, v in OPTICS.items()}), ("particles", particle_columns())])
    text = path.read_text()
    assert text.count("# version 50001\n") == 2
    # RELION ends a loop at the blank line.
    assert text.endswith("\n\n")
    tables = starfile.read(path, always_dict=True)
    assert list(tables) == ["optics", "particles"]
    frame = tables["particles"]
    for tag, tokens in particle_columns().items():
        if frame[tag].dtype.kind == "f":
            np.testing.assert_allclose(frame[tag], [float(t) for t in tokens], rtol=1e-14)


def test_simulated_table(tmp_path):
    path = tmp_path / "p.star"
    write_particles_star(
        path,
        image_names=["000001@a.mrcs", "000002@a.mrcs"],
        optics=[{"rlnVoltage": 300.0}, {"rlnVoltage": 200.0}],
        columns={"rlnOpticsGroup": np.array([2, 1]), "cryoscapeZ": np.array([[0.5, -1.5], [2.0, 1e-12]])},
    )
    tables = starfile.read(path, always_dict=True)
    assert tables["optics"]["rlnOpticsGroup"].tolist() == [1, 2]
    assert tables["optics"]["rlnVoltage"].tolist() == [300.0, 200.0]
    assert tables["particles"]["rlnOpticsGroup"].tolist() == [2, 1]
    assert tables["particles"]["cryoscapeZ1"].tolist() == [0.5, 2.0]
    np.testing.assert_allclose(tables["particles"]["cryoscapeZ2"], [-1.5, 1e-12])


def test_unequal_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rlnA"):
        write_particles_star(
            tmp_path / "p.star", image_names=["1@a"], optics=[{"rlnVoltage": 1}], columns={"rlnA": [1, 2]}
        )
    assert not (tmp_path / "p.star").exists()


@given(st.floats(-1e12, 1e12))
def test_float_tokens_keep_a_millionth_or_nine_digits(value):
    (token,) = to_tokens([value])
    assert abs(float(token) - value) <= max(5e-9 * abs(value), 5.1e-7 if abs(value) >= 1e-3 else 0)


def test_tokens_of_other_kinds():
    assert to_tokens(np.array([True, False])) == ["1", "0"]
    assert to_tokens(np.array([2**63], dtype=np.uint64)) == ["9223372036854775808"]
    assert to_tokens(["plain", "two words"]) == ["plain", "'two words'"]
    assert list(flatten_columns({"_a": [[1, 2]], "b": ["x"]})) == ["a1", "a2", "b"]
