import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from cryoscape.analysis.prior_fitting.comparison import compare_priors
from cryoscape.analysis.prior_fitting.embeddings import EmbeddingSource
from cryoscape.analysis.records import plain
from cryoscape.errors import InputError
from cryoscape.priors.config import BernoulliConfig, MixtureConfig, NormalConfig, RbmConfig
from cryoscape.priors.normal import NormalPrior

N = 1000
SD = 0.5


def two_states(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) * 0.6 + np.where(rng.random(n) < 0.7, -1.5, 2.5)[:, None] * [1.0, 0.2]


SOURCE = EmbeddingSource(Path("z.npy"), two_states())
SETTINGS = (NormalConfig(), MixtureConfig(components=2))


@pytest.fixture(scope="module")
def comparison():
    return compare_priors(SOURCE, SETTINGS)


def test_halves_and_names(comparison):
    assert (comparison.train, comparison.held_out, comparison.samples) == (500, 500, 500)
    assert [row.name for row in comparison.rows] == ["normal", "mixture"]
    assert comparison.failed == ()


def test_held_out_density_is_that_of_scipy(comparison):
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0)).numpy()
    each = norm.logpdf(SOURCE.z[order[500:]]).sum(axis=1)
    row = comparison.rows[0]
    assert abs(row.log_prob - each.mean()) < 1e-5
    assert abs(row.log_prob_error - each.std(ddof=1) / math.sqrt(500)) < 1e-5


def test_the_right_law_is_at_the_floor_and_the_wrong_one_is_not(comparison):
    normal, mixture = comparison.rows
    assert all(mixture.at_floor.values())
    assert not any(normal.at_floor[name] for name in ("tvd_20", "tvd_50", "tvd_100", "sliced", "auroc"))
    assert (mixture.behind, mixture.behind_error) == (0.0, 0.0)
    assert normal.behind > 10 * normal.behind_error > 0
    assert abs(normal.behind - (mixture.log_prob - normal.log_prob)) < 1e-9


def test_it_is_the_same_again(comparison):
    again = compare_priors(SOURCE, SETTINGS[1:])
    assert comparison.rows[1].scores == again.rows[0].scores
    assert comparison.floor == again.floor
    np.testing.assert_array_equal(comparison.rows[1].points, again.rows[0].points)


def test_the_table_is_plain_json(comparison):
    found = json.loads(json.dumps(plain(comparison.to_dict()), allow_nan=False))
    assert found["priors"]["mixture"]["tvd_50"] == comparison.rows[1].scores.tvd[50]
    assert found["floor"]["sliced"] == comparison.floor.sliced
    assert found["floor_sd"].keys() == found["floor"].keys()


class Diverging(MixtureConfig):
    def build(self, z_dim):
        prior = super().build(z_dim)

        def fail(*_words, **_more):
            raise InputError("the fit diverged")

        prior.fit = fail
        return prior


def test_a_kind_that_fails_does_not_end_the_others():
    found = compare_priors(SOURCE, (Diverging(), NormalConfig()), samples=200)
    assert [row.name for row in found.rows] == ["normal"]
    assert found.failed == (("mixture", "the fit diverged"),)
    with pytest.raises(InputError, match="diverged"):
        compare_priors(SOURCE, (Diverging(),))


def test_refusals():
    with pytest.raises(InputError, match="cannot be compared"):
        compare_priors(SOURCE, (NormalConfig(), RbmConfig()))
    with pytest.raises(InputError, match="law of bits"):
        compare_priors(SOURCE, (RbmConfig(),))
    with pytest.raises(InputError, match="halves of 150"):
        compare_priors(replace(SOURCE, z=SOURCE.z[:150]), SETTINGS)


def test_more_samples_than_data_are_said_to_have_another_floor():
    (note,) = compare_priors(SOURCE, SETTINGS[:1], samples=800).notes
    assert "500 points" in note


def test_bits_are_compared_as_bits():
    rng = np.random.default_rng(0)
    bits = (rng.random((600, 4)) < [0.1, 0.5, 0.5, 0.9]).astype(float)
    found = compare_priors(EmbeddingSource(Path("b.npy"), bits, support="binary"), (BernoulliConfig(),))
    (row,) = found.rows
    assert set(np.unique(row.points)) == {0.0, 1.0}
    assert all(row.at_floor.values())
    want = -(0.1 * math.log(0.1) + 0.9 * math.log(0.9)) * 2 + 2 * math.log(2)
    assert abs(row.log_prob + want) < 4 * row.log_prob_error + 0.03


# -- posteriors ----------------------------------------------------------------------------------


def posteriors(n=N, seed=0):
    """Posteriors under N(0, I) of points of two states, each measured with its own noise."""
    rng = np.random.default_rng(seed + 1000)
    truth = two_states(n, seed) * 0.5
    measured = truth + SD * rng.normal(size=truth.shape)
    shrink = 1 / (1 + SD**2)
    z_sd = np.full_like(truth, SD * math.sqrt(shrink))
    return EmbeddingSource(Path("z.npz"), shrink * measured, z_sd, reference=NormalPrior(2))


def test_aggregate_priors_of_posteriors_are_judged_on_their_samples():
    source = posteriors()
    found = compare_priors(source, (MixtureConfig(components=2),))
    spread = np.vstack([found.data, found.rows[0].points]).std(axis=0)
    want = np.sqrt(source.z.var(axis=0) + source.z_sd[0] ** 2)
    np.testing.assert_allclose(spread, want, rtol=0.06)
    assert all(found.rows[0].at_floor.values())


def test_deconvolved_priors_are_judged_as_they_would_be_measured():
    source = replace(posteriors(2000), cautions=("not to be trusted",))
    found = compare_priors(source, (NormalConfig(), MixtureConfig(components=2)), "deconvolved")
    normal, mixture = found.rows
    assert abs(normal.log_prob) < 1e-5  # p = p0
    assert normal.behind > 4 * normal.behind_error
    assert not normal.at_floor["sliced"]
    assert mixture.warnings == ()
    # The data are the posterior means themselves: narrower than either law.
    np.testing.assert_allclose(found.data.std(axis=0), source.z.std(axis=0), rtol=0.05)
    assert "not to be trusted" in found.notes


def test_a_direction_of_which_images_say_nothing_is_left_out():
    source = posteriors(400)
    z, z_sd = (np.column_stack([a, b]) for a, b in ((source.z, np.zeros(400)), (source.z_sd, np.ones(400))))
    found = compare_priors(
        replace(source, z=z, z_sd=z_sd, reference=NormalPrior(3)), SETTINGS[1:], "deconvolved"
    )
    assert found.data.shape[1] == found.rows[0].points.shape[1] == found.axes.shape[1] == 2
    assert any("say nothing: 1" in note for note in found.notes)
    assert all(found.rows[0].at_floor.values())


def test_posteriors_under_a_learned_prior_are_reweighted():
    """Of particles of N(0, 4), under N(0, 4): the run's own prior is right, and N(0, 1) is not."""
    rng = np.random.default_rng(5)
    truth = 2 * rng.normal(size=(N, 2))
    shrink = 4 / (4 + SD**2)
    mean = shrink * (truth + SD * rng.normal(size=truth.shape))
    wide = MixtureConfig(components=1).build(2)
    wide.fit(2 * rng.normal(size=(20_000, 2)), steps=0)
    z_sd = np.full_like(mean, SD * math.sqrt(shrink))
    source = EmbeddingSource(Path("run"), mean, z_sd, reference=wide, own_prior="mixture")
    found = compare_priors(source, (NormalConfig(),), "deconvolved")
    normal, own = found.rows
    assert own.name == "own (mixture)"
    assert abs(own.log_prob) < 1e-5
    assert all(own.at_floor.values())
    np.testing.assert_allclose(found.data.std(axis=0), truth.std(axis=0), rtol=0.08)
    # log of N(y; 0, 1 + V) over N(y; 0, 4 + V), with y = mean / shrink, for the held-out half.
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0)).numpy()
    y = mean[order[500:]] / shrink
    want = (norm.logpdf(y, scale=math.sqrt(1 + SD**2)) - norm.logpdf(y, scale=math.sqrt(4 + SD**2))).sum(1)
    assert abs(normal.log_prob - want.mean()) < 0.15
    assert normal.behind > 4 * normal.behind_error
    assert not any(normal.at_floor[name] for name in ("tvd_20", "sliced", "auroc"))


def test_a_runs_own_prior_is_a_row():
    source = replace(posteriors(400), own_prior="normal")
    found = compare_priors(source, (NormalConfig(),))
    assert [row.name for row in found.rows] == ["normal", "own (normal)"]
    assert found.rows[0].scores == found.rows[1].scores
    assert found.rows[1].seconds is None
    assert any("trained on all particles" in note for note in found.notes)


def test_the_right_law_deconvolved_is_at_the_floor_on_average():
    """One fit to 1,000 particles has an error of its own, which a single comparison may show."""
    settings = (MixtureConfig(components=2),)
    above, others = [], []
    for seed in range(4):
        found = compare_priors(posteriors(2000, seed), settings, "deconvolved")
        tvd, floor, sd = found.rows[0].scores.tvd, found.floor.tvd, found.floor_sd.tvd
        above.append([(tvd[bins] - floor[bins]) / sd[bins] for bins in tvd])
        others.append([ok for name, ok in found.rows[0].at_floor.items() if not name.startswith("tvd")])
    assert np.mean(above, axis=0).max() < 2.0
    assert np.mean(others) > 0.9
