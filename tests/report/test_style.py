import numpy as np

from cryoscape.report.style import chain_spans, second_range
from tests.analysis.fakes import chain_model


def test_one_chain_keeps_its_numbers_and_several_do_not_overlap():
    (only,) = chain_spans(chain_model(20, chains="A"))
    np.testing.assert_array_equal(only.position, np.arange(1, 21))
    first, second = chain_spans(chain_model(40))
    assert second.name == "B"
    assert second.position[0] > first.position[-1]
    np.testing.assert_array_equal(second.index, np.arange(20, 40))


def test_a_flat_component_is_drawn_flat():
    x = np.linspace(-5, 5, 100)
    assert second_range(np.column_stack([x, 0.5 * x])) is None
    assert second_range(np.zeros((10, 2))) is None
    np.testing.assert_allclose(second_range(np.column_stack([x, 3 + 1e-3 * x])), [2, 4])
