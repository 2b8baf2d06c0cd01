"""What the decoder sees of bits as a run goes on."""

import pytest

from cryoscape.errors import InputError
from cryoscape.models.relaxations import Exponential, GumBolt, ReinMax, StraightThrough
from cryoscape.training.bits import relaxation_at
from cryoscape.training.config import Config


def config(occupancy="tied", hold=0.4, **encoder):
    return Config(
        prior={"kind": "bm"},
        decoder={"kind": "atomic", "occupancy": occupancy},
        encoder=encoder,
        objective={"hold": hold},
    )


def test_tied_chains_see_bits_and_an_unbiased_gradient_once_the_prior_counts():
    kinds = [type(relaxation_at(config(), step, 100)) for step in (0, 39, 40, 99)]
    assert kinds == [StraightThrough, StraightThrough, ReinMax, ReinMax]
    assert isinstance(relaxation_at(config(hold=0.0), 0, 100), ReinMax)


def test_other_bits_are_smoothed():
    assert relaxation_at(config("free"), 0, 10) == relaxation_at(config("free"), 9, 10) == Exponential()


def test_what_is_asked_for_stays():
    asked = config(relaxation="gumbolt", sharpness=3.0)
    assert relaxation_at(asked, 0, 10) == relaxation_at(asked, 9, 10) == GumBolt(3.0)
    with pytest.raises(InputError, match="no sharpness"):
        relaxation_at(config(sharpness=2.0), 0, 10)
