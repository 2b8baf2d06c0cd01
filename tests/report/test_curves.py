import numpy as np

from cryoscape.report.curves import curve, progress_column
from tests.analysis.fakes import metrics


def test_splits_are_told_apart():
    record = metrics(steps=60)
    trained, unseen = curve(record, "kl"), curve(record, "kl", held_out=True)
    assert len(trained.values) == 60
    assert len(unseen.values) == 6
    np.testing.assert_array_equal(unseen.images, trained.images[9::10])


def test_missing_columns_and_entries_are_left_out():
    record = {
        "step": np.arange(4),
        "split": np.array(["train"] * 4),
        "elbo": np.array([1.0, np.nan, 2.0, np.inf]),
    }
    assert not curve(record, "clash")
    assert not curve(None, "elbo")
    np.testing.assert_array_equal(curve(record, "elbo").values, [1.0, 2.0])
    assert progress_column(record)[0] == "elbo"
    assert progress_column(metrics())[0] == "gain_nats"


def test_smoothing_keeps_length_level_and_slope():
    record = {"images": np.arange(300.0), "kl": 2.0 + 0.5 * np.arange(300.0)}
    smooth = curve(record, "kl").smoothed()
    assert len(smooth) == 300
    np.testing.assert_allclose(smooth[10:-10], record["kl"][10:-10])
