"""*Simulated* lesions: the same from one seed, pictures as the contract wants them, and a truth that can be seen."""

import base64

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from features.definitions import lesion
from pipelines import lesions


def pictures(of, traits, seed=1):
    dice = np.random.default_rng(seed)
    return np.array([lesions.picture(np.array(traits, float), 0.2, 1.0, dice).reshape(-1) for _ in range(of)])


def test_the_same_seed_gives_the_same_people_and_another_one_others():
    assert lesions.study(5, 1) == lesions.study(5, 1)
    assert lesions.study(5, 1) != lesions.study(5, 2)


def test_a_picture_is_float32_of_eight_bits_in_three_colours_and_nobody_is_named():
    table = lesions.study(30, 1)
    for cell in table["lesion_picture"]:
        found = np.frombuffer(base64.b64decode(cell), "<f4")
        assert found.shape == (3 * lesions.SIDE**2,)
        assert_array_equal(found, (np.round(found * 255) / 255).astype(np.float32))
    assert all(name.startswith("simulated-") for name in table["id"])
    assert max(table["id"].count(name) for name in table["id"]) == lesions.MOST_PICTURES
    assert len(set(zip(table["id"], table["taken_on"], strict=True))) == len(table["id"])


@pytest.mark.parametrize(("trait", "place"), [("asymmetry", 0), ("irregularity", 1)])
def test_an_odd_outline_is_less_symmetrical(trait, place):
    low, high = np.zeros(3), np.zeros(3)
    low[place], high[place] = -2, 2
    assert lesion.asymmetry(pictures(40, high)).mean() > lesion.asymmetry(pictures(40, low)).mean() + 0.03


def test_variegation_is_seen_in_the_colours_of_the_middle():
    def spread(of):
        middle = of.reshape(-1, 3, lesions.SIDE, lesions.SIDE)[:, :, 18:30, 18:30]
        return (middle[:, 0] - middle[:, 2]).std(axis=(1, 2)).mean()

    assert spread(pictures(40, [0, 0, 2])) > 1.5 * spread(pictures(40, [0, 0, -2]))


def test_a_third_is_malignant():
    assert 0.25 < np.mean(lesions.study(150, 3)["malignant"]) < 0.45
