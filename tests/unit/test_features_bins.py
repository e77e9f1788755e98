"""Counts in bins: what GC does to them is taken away, and sums do not depend on the batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from features.bins import arm_shares, gc_corrected, total

B = 160
GC = np.random.default_rng(3).uniform(0.35, 0.55, B)
FLAT = np.full((1, B), 1000.0)


@pytest.mark.parametrize(("slope", "bend"), [(0.3, 0.0), (-0.2, 0.0), (0.1, -0.1), (0.0, -0.15)])
def test_a_hump_over_gc_is_taken_away(slope, bend):
    x = (GC - 0.45) / 0.05
    skewed = FLAT * np.exp(slope * x + bend * x**2)

    corrected = gc_corrected(skewed, GC)

    assert skewed.std() / skewed.mean() > 0.1
    assert corrected.std() / corrected.mean() < 0.035
    assert np.median(corrected) == pytest.approx(np.median(skewed), rel=0.03)


def test_counts_that_do_not_depend_on_gc_stay_what_they_are():
    assert_allclose(gc_corrected(FLAT, GC), FLAT, rtol=1e-12)


def test_a_gained_arm_is_not_corrected_away():
    gained = FLAT.copy()
    gained[:, :20] *= 1.1  # bins of every GC

    assert_allclose(gc_corrected(gained, GC)[0, :20].mean() / gc_corrected(gained, GC)[0, 20:].mean(), 1.1, rtol=0.01)


@pytest.mark.parametrize("digits", [1, 2])
def test_bins_whose_gc_is_known_roughly_are_corrected_as_well_as_it_is_known(digits):
    rough = np.round(GC, digits)
    skewed = FLAT * np.exp(0.3 * (rough - 0.45) / 0.05)

    corrected = gc_corrected(skewed, rough)

    assert_allclose(corrected / np.median(skewed), 1, rtol=0.035)


def test_where_all_bins_have_one_gc_nothing_is_corrected():
    assert_allclose(gc_corrected(FLAT, np.full(B, 0.41)), FLAT)


def test_a_sample_without_fragments_has_no_corrected_counts():
    assert np.isnan(gc_corrected(np.zeros((1, B)), GC)).all()
    assert np.isnan(gc_corrected(np.full((1, B), np.nan), GC)).all()


def test_the_gc_of_other_bins_is_refused():
    with pytest.raises(ValueError, match="160 bins were counted, and the GC of 2 is known"):
        gc_corrected(FLAT, GC[:2])


def test_shares_of_the_arms_add_up_to_one_and_an_empty_sample_has_none():
    arm = np.array(["1p", "1q", "1q", "2p"])

    assert_array_equal(
        arm_shares(np.array([[1.0, 2, 3, 4], [0, 0, 0, 0]]), arm, np.array(["1p", "1q", "2p"])),
        [[0.1, 0.5, 0.4], [np.nan] * 3],
    )


@given(st.integers(1, 9), st.integers(1, 700), st.integers(0, 2**32))
def test_a_total_is_the_same_to_the_bit_alone_in_a_batch_and_in_any_layout(n, width, seed):
    values = np.random.default_rng(seed).uniform(-1e6, 1e6, (n, width))

    together = total(values)

    assert together.tobytes() == total(np.asfortranarray(values)).tobytes()
    assert together.tobytes() == np.concatenate([total(values[row : row + 1]) for row in range(n)]).tobytes()
    assert_allclose(together, values.sum(axis=1), atol=1e-3)


def test_a_total_of_nothing_is_0():
    assert_array_equal(total(np.empty((2, 0))), [0, 0])
