"""The prior commands: what they write, what they print, and how they refuse."""

import json
import os
import pickle

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from cryoscape.analysis.prior_fitting.fit import prior_kinds
from cryoscape.priors.folder import load_prior

CENTRE, SCALE = np.array([40.0, -7.0]), np.array([20.0, 3.0])


def two_states(n=600, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.normal(size=(n, 2)) * 0.4 + np.where(rng.random(n) < 0.7, -1.0, 2.0)[:, None]
    ) * SCALE + CENTRE


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Embeddings of several kinds, and a fitted mixture of two."""
    from cryoscape.cli.main import main

    folder = tmp_path_factory.mktemp("embeddings")
    z = two_states()
    np.save(folder / "z.npy", z)
    np.savez(folder / "errors.npz", z=(z - CENTRE) / SCALE / 2, z_sd=np.full(z.shape, 0.4))
    with open(folder / "z.9.pkl", "wb") as stream:
        pickle.dump(((z - CENTRE) / SCALE).astype(np.float32), stream)
        pickle.dump(np.full(z.shape, -2.0, dtype=np.float32), stream)
    rng = np.random.default_rng(1)
    np.save(folder / "bits.npy", rng.random((300, 4)) < [0.1, 0.5, 0.5, 0.9])
    np.save(folder / "probabilities.npy", np.tile([0.1, 0.5, 0.5, 0.9], (300, 1)))
    np.save(folder / "points.npy", two_states(50, seed=2))
    words = ["prior", "fit", folder / "z.npy", "--kind", "mixture", "-o", folder / "P"]
    assert main([str(word) for word in (*words, "--prior.components", 2, "--steps", 20)]) == 0
    return folder


def test_fit_writes_a_folder(files):
    description = json.loads((files / "P" / "prior.json").read_text())
    assert description["settings"]["components"] == 2
    assert description["source"]["path"] == str(files / "z.npy")
    assert description["report"]["particles"] + description["report"]["held_out"] == 600


def test_fit_says_what_it_found(cli, files, tmp_path):
    words = ("--kind", "mixture", "--prior.components", 2, "--steps", 20)
    code, out, _ = cli("prior", "fit", files / "z.npy", *words, "-o", tmp_path / "P")
    assert code == 0
    assert "600 points, 2 dimensions" in out
    assert "held-out log p" in out
    weights = sorted(float(line.split()[-1]) for line in out.splitlines() if line.startswith("component"))
    np.testing.assert_allclose(weights, [30, 70], atol=5)
    assert f"written: {tmp_path / 'P'}" in out
    # The same seed, the same numbers.
    assert (tmp_path / "P" / "prior.safetensors").read_bytes() == (
        files / "P" / "prior.safetensors"
    ).read_bytes()


def test_scores_are_log_densities_in_the_units_given(cli, files, tmp_path):
    """Against scipy's density of the mixture that the folder holds."""
    out = tmp_path / "scores.npy"
    code, said, _ = cli("prior", "score", files / "P", files / "points.npy", "-o", out)
    assert (code, "50 points" in said) == (0, True)
    states, points = load_prior(files / "P").prior.double().states(), np.load(files / "points.npy")
    densities = [multivariate_normal(m, c).pdf(points) for m, c in zip(states.mean, states.covariance)]
    scores = np.load(out)
    assert (scores.shape, scores.dtype) == ((50,), np.float64)
    np.testing.assert_allclose(scores, np.log(states.weight @ np.array(densities)), rtol=1e-6, atol=1e-6)
    # Against the true law: another unit of length would be log(20 * 3) = 4 nats away.
    states = zip((0.7, 0.3), (-1.0, 2.0))
    covariance = np.diag((0.4 * SCALE) ** 2)
    true = sum(w * multivariate_normal(CENTRE + x * SCALE, covariance).pdf(points) for w, x in states)
    assert abs((scores - np.log(true)).mean()) < 0.1


def test_samples_are_of_the_prior(cli, files, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / f"{name}.npy"
        assert cli("prior", "sample", files / "P", "-n", 3000, "-o", out, "--seed", seed)[0] == 0
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert (a.shape, a.dtype) == ((3000, 2), np.float32)
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    want = two_states(100_000)
    np.testing.assert_allclose((a.mean(axis=0) - want.mean(axis=0)) / SCALE, 0, atol=0.15)
    np.testing.assert_allclose(a.std(axis=0) / want.std(axis=0), 1, atol=0.1)


def test_deconvolution_warns_of_tempered_posteriors(cli, files, tmp_path):
    words = ("--kind", "mixture", "--prior.components", 2, "--objective", "deconvolved")
    code, out, _ = cli("prior", "fit", files / "z.9.pkl", *words, "-o", tmp_path / "P")
    assert code == 0
    assert "evidence" in out
    assert "warning: cryoDRGN's posteriors are tempered" in out
    assert any("tempered" in text for text in load_prior(tmp_path / "P").report.warnings)


@pytest.mark.parametrize("name", ["bits.npy", "probabilities.npy"])
def test_bits(cli, files, tmp_path, name):
    words = ("--kind", "bernoulli", "--steps", 50)
    code, out, _ = cli("prior", "fit", files / name, *words, "-o", tmp_path / "P")
    assert code == 0
    assert "field, kT" in out
    assert cli("prior", "sample", tmp_path / "P", "-n", 2000, "-o", tmp_path / "s.npy")[0] == 0
    np.testing.assert_allclose(np.load(tmp_path / "s.npy").mean(axis=0), [0.1, 0.5, 0.5, 0.9], atol=0.1)
    assert cli("prior", "score", tmp_path / "P", tmp_path / "s.npy", "-o", tmp_path / "p.npy")[0] == 0
    code, _, err = cli(
        "prior", "score", tmp_path / "P", files / "probabilities.npy", "-o", tmp_path / "q.npy"
    )
    assert (code, "row 1" in err) == (2, True)


def test_couplings_are_printed(cli, files, tmp_path):
    words = ("--kind", "boltzmann", "--prior.spins", 2, "--steps", 5)
    code, out, _ = cli("prior", "fit", files / "z.npy", *words, "-o", tmp_path / "P")
    assert code == 0
    assert "1 and 2" in out
    assert "equal signs" in out
    assert {"++", "+-", "-+", "--"} <= {line.split()[0] for line in out.splitlines() if line}


def test_compare_prints_the_table_with_its_floors(cli, files, tmp_path):
    words = ("--kinds", "normal", "mixture", "--mixture.components", 2, "--seed", 3)
    more = ("--json", tmp_path / "c.json", "--plot", tmp_path / "c.png")
    code, out, _ = cli("prior", "compare", files / "z.npy", *words, *more)
    assert code == 0
    lines = out.splitlines()
    header = lines[0]
    assert all(name in header for name in ("log p, nats", "TVD 20", "TVD 50", "TVD 100", "AUROC", "holes"))
    assert [line.split()[0] for line in lines[2:6]] == ["normal", "mixture", "floor", "its"]
    assert lines[2].count("*") <= 1  # holes: N(0, I) hides in the thin tail of data with this spread
    assert lines[3].count("*") == 7
    table = json.loads((tmp_path / "c.json").read_text())
    assert f"{table['floor']['tvd_20']:.3f}" in lines[4]
    assert f"{table['priors']['mixture']['tvd_100']:.3f} *" in lines[3]
    assert (table["train"], table["held_out"], table["samples"]) == (300, 300, 300)
    assert (tmp_path / "c.png").read_bytes()[:4] == b"\x89PNG"


def test_kinds_suit_the_embedding(cli, files, monkeypatch):
    import cryoscape.analysis.prior_fitting.comparison as comparison

    asked = []

    def stop(_source, settings, *_more, **_named):
        asked.append({each.kind for each in settings})
        raise KeyboardInterrupt

    monkeypatch.setattr(comparison, "compare_priors", stop)
    for name in ("z.npy", "bits.npy", "probabilities.npy"):
        cli("prior", "compare", files / name)
    assert asked == [set(prior_kinds(support)) for support in ("real", "binary", "real")]


FIT = ("--kind", "mixture", "-o", "P")
BAD = {
    "no such file": (("fit", "missing.npy", *FIT), "missing.npy"),
    "no embedding": (("fit", "text.npy", *FIT), "text.npy"),
    "not finite": (("fit", "nan.npy", *FIT), "nan.npy, row 7"),
    "one dimension": (("fit", "flat.npy", *FIT), "(600,)"),
    "too few": (("fit", "few.npy", *FIT), "5 particles"),
    "all the same": (("fit", "same.npy", *FIT), "same"),
    "no errors": (("fit", "z.npy", *FIT, "--objective", "deconvolved"), "without errors"),
    "unknown kind": (("fit", "z.npy", "--kind", "mixtures", "-o", "P"), "'mixture'"),
    "misspelt setting": (("fit", "z.npy", *FIT, "--prior.component", "3"), "prior.components"),
    "bad setting": (("fit", "z.npy", *FIT, "--prior.components", "many"), "prior.components"),
    "joint setting": (("fit", "z.npy", *FIT, "--prior.lr", "0.1"), "Give --lr"),
    "two kinds": (("fit", "z.npy", *FIT, "--prior.kind", "flow"), "differ"),
    "other section": (("fit", "z.npy", *FIT, "--training.lr", "0.1"), "training"),
    "bits wanted": (("fit", "z.npy", "--kind", "rbm", "-o", "P"), "row 1"),
    "reals wanted": (("fit", "bits.npy", *FIT), "bits"),
    "negative steps": (("fit", "z.npy", *FIT, "--steps=-1"), "--steps"),
    "no rate": (("fit", "z.npy", *FIT, "--lr", "0"), "--lr"),
    "place taken": (("fit", "z.npy", "--kind", "normal", "-o", "other"), "other files"),
    "place taken, forced": (("fit", "z.npy", "--kind", "normal", "-o", "other", "--force"), "other files"),
    "another prior": (("fit", "z.npy", "--kind", "normal", "-o", "fitted"), "--force"),
    "a program": (("fit", "evil.pkl", *FIT), "not numbers alone"),
    "no prior": (("score", "other", "z.npy", "-o", "s.npy"), "not a fitted prior"),
    "other dimension": (("score", "fitted", "bits.npy", "-o", "s.npy"), "(n, 2)"),
    "score not finite": (("score", "fitted", "nan.npy", "-o", "s.npy"), "row 7"),
    "score of no array": (("score", "fitted", "text.npy", "-o", "s.npy"), "text.npy"),
    "score to text": (("score", "fitted", "z.npy", "-o", "s.txt"), ".npy"),
    "no samples": (("sample", "fitted", "-n", "0", "-o", "s.npy"), "-n 1"),
    "sample to text": (("sample", "fitted", "-n", "3", "-o", "s.txt"), ".npy"),
    "no number": (("sample", "fitted", "-o", "s.npy"), "-n"),
    "unknown kinds": (("compare", "z.npy", "--kinds", "soup"), "mixture"),
    "mixed kinds": (("compare", "bits.npy", "--kinds", "rbm", "normal"), "one sort"),
    "few particles": (("compare", "few.npy"), "few.npy"),
    "few samples": (("compare", "z.npy", "--samples", "3"), "--samples"),
    "plot to pdf": (("compare", "z.npy", "--plot", "c.pdf"), ".png"),
    "compare setting": (("compare", "z.npy", "--mixture.component", "3"), "mixture.components"),
}


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made",)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_message_and_leaves_nothing(cli, files, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    z = two_states()
    for file, array in (
        ("z.npy", z), ("flat.npy", z[:, 0]), ("few.npy", z[:5]), ("same.npy", np.ones((50, 2))),
        ("bits.npy", np.load(files / "bits.npy")),
    ):  # fmt: skip
        np.save(file, array)
    z[6, 0] = np.nan
    np.save("nan.npy", z)
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    os.symlink(files / "P", tmp_path / "fitted")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Runs()))
    before = sorted(tmp_path.iterdir())
    words, expected = BAD[name]
    code, out, err = cli("prior", *words)
    assert (code, out) == (2, "")
    messages = [line for line in err.splitlines() if line.startswith("cryoscape: ")]
    assert len(messages) == 1
    assert expected in err
    assert "Traceback" not in err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "other" / "thesis.txt").read_text() == "mine"


def test_a_prior_is_replaced_when_asked(cli, files, tmp_path):
    for words in ((), ("--force",)):
        assert cli("prior", "fit", files / "z.npy", "--kind", "normal", "-o", tmp_path / "P", *words)[0] == 0


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("fit", "EMBEDDING --kind --out -o --objective --steps --lr --seed --force"),
        ("score", "--out -o"),
        ("sample", "-n --out -o --seed"),
        ("compare", "EMBEDDING --kinds --json --plot --objective --samples --seed"),
    ],
)
def test_help_names_the_options(cli, command, options):
    code, out, _ = cli("prior", command, "--help")
    assert code == 0
    assert [name for name in options.split() if name not in out] == []


def test_help_names_every_kind(cli):
    out = cli("prior", "fit", "--help")[1]
    assert [kind for kind in prior_kinds() if kind not in out] == []
