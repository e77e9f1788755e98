"""A group too small to judge says so, and its figures stay unsaid."""

import numpy as np
import pytest

from evidence.metrics import auroc
from evidence.subgroups import FEWEST_OF_A_CLASS, FEWEST_PATIENTS, subgroups


def group(n, events, label="north", seed=0):
    dice = np.random.default_rng(seed)
    y = np.r_[np.ones(events), np.zeros(n - events)]
    (found,) = subgroups({"site": np.full(n, label)}, y, dice.random(n) / 2 + y / 3, 17)
    return found


def test_a_group_of_12_is_not_judged():
    found = group(12, 6)
    assert found.why == "12 < 30 patients"
    assert found.auroc is None and found.interval is None
    assert (found.attribute, found.label, found.n) == ("site", "north", 12)


@pytest.mark.parametrize(("n", "judged"), [(FEWEST_PATIENTS - 1, False), (FEWEST_PATIENTS, True)])
def test_thirty_patients_are_enough(n, judged):
    assert (group(n, 10).auroc is not None) == judged


@pytest.mark.parametrize("events", [0, FEWEST_OF_A_CLASS - 1, 40 - FEWEST_OF_A_CLASS + 1, 40])
def test_a_group_of_too_few_of_a_class_is_not_judged(events):
    found = group(40, events)
    assert found.why == "fewer than 5 events or non-events among 40"
    assert found.auroc is None


@pytest.mark.parametrize("events", [FEWEST_OF_A_CLASS, 40 - FEWEST_OF_A_CLASS])
def test_five_of_each_class_are_enough(events):
    assert group(40, events).auroc is not None


def test_each_value_of_each_attribute_is_a_group_of_its_own_patients():
    dice = np.random.default_rng(1)
    y, risk = dice.integers(0, 2, 200).astype(float), dice.random(200)
    site, sex = dice.choice(["north", "south"], 200), dice.choice(["male", "female", "unknown"], 200)

    found = subgroups({"site": site, "sex": sex}, y, risk, 17)

    assert [(one.attribute, one.label) for one in found] == [
        ("site", "north"),
        ("site", "south"),
        ("sex", "female"),
        ("sex", "male"),
        ("sex", "unknown"),
    ]
    for one in found:
        rows = {"site": site, "sex": sex}[one.attribute] == one.label
        assert one.n == rows.sum()
        assert one.auroc == auroc(y[rows], risk[rows])
        assert one.interval[0] < one.auroc < one.interval[1]


def test_without_attributes_there_are_no_groups():
    assert subgroups({}, np.ones(40), np.ones(40), 17) == []
