"""The chart is quiet while the risks are right, and loud, on the right side, when they are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.cusum import chart

SEED = 17


def patients(n, seed, shift=0.0):
    dice = np.random.default_rng(seed)
    odds = dice.normal(-0.5, 1, n)
    y = (dice.random(n) < 1 / (1 + np.exp(-(odds + shift)))).astype(float)
    return y, 1 / (1 + np.exp(-odds))


def by_hand(y, risk, ratio):
    path, now = [], 0.0
    for happened, p in zip(y, risk, strict=True):
        now = max(0.0, now + np.log((ratio if happened else 1) / (1 - p + ratio * p)))
        path.append(now)
    return path


def test_the_path_is_that_of_steiner_and_others():
    y, risk = patients(60, 1)
    found = chart(y, risk, SEED)
    places = np.array(found["at"]) - 1
    assert found["up"] == pytest.approx(np.array(by_hand(y, risk, 2.0))[places])
    assert found["down"] == pytest.approx(np.array(by_hand(y, risk, 0.5))[places])
    assert found["o_minus_e"] == pytest.approx(np.cumsum(y - risk)[places])


def test_looked_at_whenever_outcomes_come_a_calibrated_model_crosses_in_about_one_window_of_a_hundred():
    """From half of the outcomes on, ten more at a time, in any order."""
    crossed = 0
    for seed in range(150):
        y, risk = patients(100, seed)
        came = np.random.default_rng(seed).permutation(100)
        looks = [chart(y[known], risk[known], SEED) for known in (np.sort(came[:n]) for n in range(50, 101, 10))]
        crossed += any(one["highest"] > one["limit"] for one in looks)
    assert crossed <= 4


@pytest.mark.parametrize(
    ("shift", "side", "other"), [(1.5, "crossed_up", "crossed_down"), (-1.5, "crossed_down", "crossed_up")]
)
def test_more_events_cross_upwards_and_fewer_downwards(shift, side, other):
    found = chart(*patients(200, 3, shift), SEED)
    assert found[side] is not None and found[other] is None


@given(n=st.integers(10, 260), seed=st.integers(0, 99))
def test_no_point_is_one_patients(n, seed):
    found = chart(*patients(n, seed), SEED)
    assert (np.diff([0, *found["at"]]) >= 10).all() and n - 10 < found["at"][-1] <= n
    assert len(found["at"]) == len(found["up"]) == len(found["down"]) == len(found["o_minus_e"]) <= 201


def test_the_last_patient_alone_changes_nothing_that_is_told():
    """Of 51 the fifty-first waits for nine more: whether that patient had the event can be read off nothing."""
    y, risk = patients(51, 3, 1.5)
    with_event, without = (chart(np.append(y[:50], last), risk, SEED) for last in (1.0, 0.0))
    assert with_event == without and with_event["at"] == [10, 20, 30, 40, 50]


@pytest.mark.parametrize("n", [0, 9])
def test_of_fewer_than_ten_there_is_no_chart(n):
    assert chart(*patients(n, 1), SEED) == {}
