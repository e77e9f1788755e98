"""Which cells DNA comes from: a mixture that was planted is found again, as exactly as it was measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from features.definitions import methylation
from pipelines.liquid_biopsy import CELL_OF_ORIGIN, CELL_TYPES, genome, references, sample

ATLAS = {
    name: np.array(value)
    for name, value in references()["cell_type_atlas_simulated"].items()
    if isinstance(value, list)
}
K = len(CELL_TYPES)
TYPES = list(CELL_TYPES)


@given(st.lists(st.floats(0, 1), min_size=K, max_size=K).filter(lambda weights: sum(weights) > 0.1))
def test_any_mixture_of_the_atlas_is_recovered(weights):
    mixture = np.array(weights) / sum(weights)
    betas = (mixture @ genome().beta)[None]

    assert_allclose(methylation.cell_type_fractions(betas, ATLAS)[0], mixture, atol=1e-8)
    assert_allclose(methylation.share_not_of_blood(betas, ATLAS), mixture[4:].sum(), atol=1e-8)
    assert_allclose(methylation.atlas_misfit(betas, ATLAS), 0, atol=1e-8)


@pytest.mark.parametrize(("origin", "cell"), CELL_OF_ORIGIN.items())
@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.3])
def test_a_simulated_tumours_share_is_recovered_to_half_a_percent_on_average_and_three_in_a_sample(
    origin, cell, fraction
):
    found = sample(np.full(150, fraction), np.full(150, origin), 11)
    fractions = methylation.cell_type_fractions(found["methylation_betas"], ATLAS)[:, TYPES.index(cell)]

    excess = fractions - (1 - fraction) * CELL_TYPES[cell]
    assert abs(np.mean(excess) - fraction) < 0.005
    assert (abs(excess - fraction) < 0.03).mean() > 0.95


def test_fractions_are_shares():
    found = sample(np.full(20, 0.1), np.full(20, "lung"), 3)
    fractions = methylation.cell_type_fractions(found["methylation_betas"], ATLAS)

    assert (fractions >= 0).all()
    assert_allclose(fractions.sum(axis=1), 1)
    assert methylation.PARTS["cell_type_fractions"](ATLAS) == tuple(TYPES)


def test_markers_in_another_order_do_not_fit_the_atlas():
    betas = sample(np.zeros(50), np.full(50, "none"), 3)["methylation_betas"]

    ours, reversed_order = methylation.atlas_misfit(betas, ATLAS), methylation.atlas_misfit(betas[:, ::-1], ATLAS)
    assert ours.max() < 0.025 < reversed_order.min()


def test_a_sample_that_was_not_measured_or_is_empty_has_no_fractions():
    betas = np.vstack([np.full((1, 90), np.nan), np.zeros((1, 90))])

    assert np.isnan(methylation.cell_type_fractions(betas, ATLAS)).all()
    assert np.isnan(methylation.share_not_of_blood(betas, ATLAS)).all()
    assert np.isnan(methylation.atlas_misfit(betas, ATLAS)).all(), "no betas at all are no perfect fit"


@given(st.integers(1, 6), st.integers(0, 2**32))
def test_a_sample_is_the_same_to_the_bit_alone_and_in_a_batch(n, seed):
    betas = np.random.default_rng(seed).uniform(0, 1, (n, 90))

    for function in (methylation.cell_type_fractions, methylation.share_not_of_blood, methylation.atlas_misfit):
        together = function(betas, ATLAS)
        alone = [function(betas[row : row + 1], ATLAS)[0] for row in range(n)]
        assert together.tobytes() == np.array(alone).tobytes()
