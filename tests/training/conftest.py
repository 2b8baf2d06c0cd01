import pytest

from cryoscape.training.train import train
from tests.training.builders import KNOWN, make_sample, settings


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """A hundred and twenty images; tests do not write here."""
    return make_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def trained(sample, tmp_path_factory):
    """A short finished run; tests do not write here."""
    out = tmp_path_factory.mktemp("trained") / "run"
    return train(sample.particles, sample.model, settings(), out, interpretation=KNOWN)
