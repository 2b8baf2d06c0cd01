import os
import pickle

import numpy as np
import pytest

from cryoscape.analysis.prior_fitting.restricted_pickle import load_arrays
from cryoscape.errors import InputError

ARRAYS = {
    "single": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "by columns": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "every other": np.arange(20.0).reshape(4, 5)[::2, ::2],
    "other byte order": np.arange(5, dtype=">f8"),
    "bits": np.array([[True, False]]),
    "empty": np.zeros((0, 3)),
    "whole": np.arange(-2, 3),
}


def dump(path, *values, protocol=None):
    with open(path, "wb") as stream:
        for value in values:
            pickle.dump(value, stream, protocol=protocol)
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path, protocol):
    found = load_arrays(dump(tmp_path / "a.pkl", *ARRAYS.values(), protocol=protocol))
    for got, want in zip(found, ARRAYS.values(), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("protocol", [2, 3])
def test_arrays_of_older_and_newer_numpy(tmp_path, protocol):
    path = dump(tmp_path / "a.pkl", ARRAYS["single"], protocol=protocol)
    content = path.read_bytes()
    core = b"numpy._core." if b"numpy._core." in content else b"numpy.core."
    for name in (b"numpy.core.", b"numpy._core."):
        path.write_bytes(content.replace(core, name))
        np.testing.assert_array_equal(load_arrays(path)[0], ARRAYS["single"])


def test_dictionaries_of_arrays(tmp_path):
    table = {"zs": {np.int64(4): np.ones((2, 4)), "4_noreg": np.zeros((2, 4))}, "n": [1, (2.5, "text", None)]}
    (found,) = load_arrays(dump(tmp_path / "a.pkl", table))
    assert found["zs"].keys() == table["zs"].keys()
    np.testing.assert_array_equal(found["zs"][4], table["zs"][4])
    assert found["n"] == table["n"]


class Runs:
    """Would make a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HIDING_PLACES = {
    "bare": lambda bad: bad,
    "in a list": lambda bad: [np.ones(2), bad],
    "as a key": lambda bad: {"z": {"a": bad}},
    "in an object array": lambda bad: np.array([bad, 1], dtype=object),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("hide", HIDING_PLACES.values(), ids=HIDING_PLACES)
def test_nothing_is_run(tmp_path, hide, protocol):
    made = tmp_path / "made"
    path = dump(tmp_path / "evil.pkl", hide(Runs(made)), protocol=protocol)
    with pytest.raises(InputError, match="not numbers alone") as found:
        load_arrays(path)
    assert found.value.file == path
    assert not made.exists()
    # The test can fail: the real unpickler does make it.
    with open(path, "rb") as stream:
        pickle.load(stream)
    assert made.exists()


@pytest.mark.parametrize(
    "value",
    [
        Calls(eval, "1"),
        Calls(np.load, "z.npy"),
        Calls(getattr, "abc", "upper"),
        print,
        np.ndarray,
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "f4")]),
        np.zeros(2, dtype=complex),
        {1, 2}.union,
    ],
    ids=str,
)
def test_whatever_is_no_number_is_refused(tmp_path, value):
    with pytest.raises(InputError, match="not numbers alone"):
        load_arrays(dump(tmp_path / "a.pkl", value))


# By hand: what no honest program writes.
FORGED = {
    "altered function": b"cnumpy\nndarray\n}(S'x'\nI1\nub.",
    "state of a codec": b"c_codecs\nencode\n(Vab\nVlatin1\ntR}b.",
    "another codec": b"c_codecs\nencode\n(Vab\nVutf8\ntR.",
    "a reference": b"Pz\n.",
    "objects from bytes": b"cnumpy\ndtype\n(S'O8'\ntR.",
    "cut short": b"cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(Vf8\ntRc_codecs\nencode\n(Vab\ntRtR.",
}


@pytest.mark.parametrize("content", FORGED.values(), ids=FORGED)
def test_forged_pickles_are_refused(tmp_path, content):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(InputError):
        load_arrays(tmp_path / "a.pkl")


@pytest.mark.parametrize("content", [b"hello", b"\x80\x04", pickle.dumps(np.ones(100))[:-60]])
def test_damage_is_bad_input(tmp_path, content):
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read") as found:
        load_arrays(path)
    assert found.value.file == path


def test_an_empty_file_holds_nothing(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"")
    assert load_arrays(tmp_path / "a.pkl") == []
