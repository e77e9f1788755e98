"""A lesion in two numbers: drawn by hand, turned around, and the same in a batch as alone."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from features.definitions import lesion

SIDE = 24


def picture(*spots, skin=0.8, lesion=0.2):
    """A picture of skin with darker rectangles (top, bottom, left, right), as a column's values (1, 3 * 24 * 24)."""
    grey = np.full((SIDE, SIDE), skin)
    for top, bottom, left, right in spots:
        grey[top:bottom, left:right] = lesion
    return np.stack([grey] * 3).reshape(1, -1)


MIDDLE = (8, 16, 8, 16)


def test_darkness_is_the_share_of_the_picture_times_how_much_darker_it_is():
    assert_allclose(lesion.mean_darkness(picture(MIDDLE)), [0.6 * 64 / SIDE**2])
    assert_allclose(lesion.mean_darkness(picture(MIDDLE, skin=0.6)), [0.4 * 64 / SIDE**2])


def test_a_lesion_in_the_middle_is_symmetrical_and_one_at_a_side_is_not():
    assert_allclose(lesion.asymmetry(picture(MIDDLE)), [0], atol=1e-12)
    assert_allclose(lesion.asymmetry(picture((8, 16, 4, 8))), [0.5])  # not left and right, but above and below
    assert_allclose(lesion.asymmetry(picture((4, 8, 4, 8))), [1])


def test_turning_the_picture_changes_neither():
    odd = picture((4, 14, 6, 12), (10, 18, 10, 16)).reshape(3, SIDE, SIDE)
    turned = np.rot90(odd, axes=(1, 2)).reshape(1, -1)
    for number in (lesion.mean_darkness, lesion.asymmetry):
        assert_allclose(number(turned), number(odd.reshape(1, -1)))


def test_missing_in_missing_out_and_skin_alone_has_no_asymmetry():
    gone = np.full((1, 3 * SIDE * SIDE), np.nan)
    with np.errstate(invalid="ignore"):
        assert_array_equal(lesion.mean_darkness(gone), [np.nan])
        assert_array_equal(lesion.asymmetry(gone), [np.nan])
        assert_array_equal(lesion.asymmetry(picture()), [np.nan])


def test_a_row_has_the_same_bits_alone_and_in_a_batch():
    rows = np.random.default_rng(5).random((7, 3 * SIDE * SIDE))
    for number in (lesion.mean_darkness, lesion.asymmetry):
        assert_array_equal(np.concatenate([number(rows[[place]]) for place in range(7)]), number(rows))


def test_what_is_no_square_in_three_colours_is_not_taken_for_one():
    with pytest.raises(ValueError, match="100 numbers are no square picture in three colours"):
        lesion.mean_darkness(np.ones((1, 100)))
