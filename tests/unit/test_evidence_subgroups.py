"""A group too small to judge says so, and its figures stay unsaid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence import metrics
from evidence.metrics import auroc
from evidence.subgroups import (
    FEWEST_OF_A_CLASS,
    FEWEST_PATIENTS,
    SMALLEST_CELL,
    equalized_odds_difference,
    subgroups,
    told,
)


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
    assert found.why == "fewer than 10 events or non-events among 40"
    assert found.auroc is None


@pytest.mark.parametrize("events", [FEWEST_OF_A_CLASS, 40 - FEWEST_OF_A_CLASS])
def test_ten_of_each_class_are_enough(events):
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


def patients(counts, seed=2):
    """Labels, outcomes and risks of groups, each {label: (events, non-events)}."""
    dice = np.random.default_rng(seed)
    labels = np.concatenate([np.full(events + non_events, label) for label, (events, non_events) in counts.items()])
    y = np.concatenate([np.r_[np.ones(events), np.zeros(non_events)] for events, non_events in counts.values()])
    return labels, y, np.clip(0.3 * y + 0.7 * dice.random(len(y)), 0, 1)


def judged(counts, thresholds=None, seed=2):
    labels, y, risk = patients(counts, seed)
    return {one.label: one for one in subgroups({"sex": labels}, y, risk, 17, thresholds)}


def test_a_groups_figures_are_those_of_its_own_patients():
    labels, y, risk = patients({"female": (40, 60), "male": (50, 30), "unknown": (15, 20)})

    for found in subgroups({"sex": labels}, y, risk, 17, {"alert": 0.4}):
        rows = labels == found.label
        alert, event = risk[rows] >= 0.4, y[rows] == 1
        assert (found.n, found.events, found.non_events) == (rows.sum(), event.sum(), (~event).sum())
        assert found.calibration == pytest.approx(event.sum() / risk[rows].sum(), abs=1e-12)
        assert found.calibration_interval[0] < found.calibration < found.calibration_interval[1]
        rates = found.at["alert"]
        assert rates.sensitivity == alert[event].mean()
        assert rates.false_alarm_share == alert[~event].mean()
        assert rates.sensitivity_interval == metrics.wilson(alert[event].sum(), event.sum())
        assert rates.false_alarm_interval == metrics.wilson(alert[~event].sum(), (~event).sum())


def test_patients_without_a_value_are_a_group_that_is_named():
    assert judged({"female": (40, 60), "unknown": (1, 2)})["unknown"].why == "fewer than 10 patients"


@pytest.mark.parametrize("few", [(1, 2), (3, 0), (0, 3), (4, 5)])
def test_a_group_under_ten_is_told_in_no_figure(few):
    found = judged({"a": (40, 60), "b": (50, 30), "c": few}, {"alert": 0.4})["c"]

    assert (found.n, found.events, found.non_events, found.auroc, found.interval) == (None,) * 5
    assert (found.calibration, found.calibration_interval) == (None, None)
    assert vars(found.at["alert"]) == {**dict.fromkeys(vars(found.at["alert"])), "why": "fewer than 10 patients"}
    assert found.why == "fewer than 10 patients"
    assert not set("0123456789") & set(found.counted)


@pytest.mark.parametrize(("classes", "cell"), [((9, 60), "events"), ((60, 9), "non-events")])
def test_a_class_under_ten_is_told_in_no_figure(classes, cell):
    found = judged({"a": (40, 60), "b": (50, 30), "c": classes}, {"alert": 0.4})["c"]

    assert (found.n, found.events, found.non_events) == (69, None, None)
    assert found.auroc is None and found.calibration is None
    assert found.at["alert"].why == f"fewer than 10 {cell}"
    assert found.at["alert"].sensitivity is None and found.at["alert"].false_alarm_share is None
    assert found.counted == "69 patients"


def test_a_group_with_fewer_than_ten_alerts_has_no_rates():
    labels, y, risk = patients({"a": (40, 60), "b": (50, 30)})
    tenth = float(np.sort(risk[labels == "a"])[-10])

    for threshold, why in ((tenth, None), (tenth + 1e-9, "fewer than 10 alerts")):
        rates = subgroups({"sex": labels}, y, risk, 17, {"alert": threshold})[0].at["alert"]
        assert rates.why == why
        assert (rates.sensitivity is None) == (why is not None)


def test_of_two_groups_the_total_would_tell_the_small_one():
    found = judged({"female": (2, 1), "male": (50, 30)})

    assert (found["male"].n, found["male"].events, found["male"].non_events) == (None, None, None)
    assert found["male"].auroc is not None and found["male"].why is None
    assert "80" not in found["male"].counted


@given(st.lists(st.integers(0, 60), max_size=8))
def test_no_count_under_ten_is_told_or_found_by_subtraction(counts):
    shown = told(counts)
    hidden = [count for count, one in zip(counts, shown, strict=True) if one is None]

    assert all(one is None or (one == count and one >= SMALLEST_CELL) for count, one in zip(counts, shown, strict=True))
    if hidden and len(hidden) < len(counts):
        assert len(hidden) > 1
        assert sum(hidden) >= SMALLEST_CELL


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from([0.0, 0.4, 1.0])), max_size=25))
def test_no_group_ever_raises(rows):
    labels = np.array([row[0] for row in rows], dtype=np.str_)
    y, risk = np.array([float(row[1]) for row in rows]), np.array([row[2] for row in rows])

    found = subgroups({"sex": labels}, y, risk, 17, {"low": 0.0, "high": 1.0})

    assert [one.label for one in found] == sorted(set(labels.tolist()))
    assert all(one.auroc is None for one in found)  # under 30 patients
    equalized_odds_difference(found, "sex", "low")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.5])
def test_the_equalized_odds_difference_is_fairlearns(seed, threshold):
    fairness = pytest.importorskip("fairlearn.metrics")
    labels, y, risk = patients({"a": (40, 60), "b": (50, 30), "c": (20, 90)}, seed)
    risk = np.where(labels == "b", risk**1.5, risk)
    theirs = fairness.equalized_odds_difference(y, (risk >= threshold).astype(int), sensitive_features=labels)

    groups = subgroups({"sex": labels, "site": np.full(len(y), "only")}, y, risk, 17, {"alert": threshold})
    gap = equalized_odds_difference(groups, "sex", "alert")

    assert gap.value == pytest.approx(theirs, abs=1e-12)
    assert "alert: sex " in gap.about
    assert equalized_odds_difference(groups, "site", "alert").value is None


def test_a_group_whose_outcomes_are_turned_round_shows_as_the_gap():
    labels, y, risk = patients({"a": (60, 60), "b": (60, 60)})
    risk = np.where(labels == "b", 1 - risk, risk)

    gap = equalized_odds_difference(subgroups({"sex": labels}, y, risk, 17, {"alert": 0.5}), "sex", "alert")

    assert gap.value > 0.3
    assert "sex a" in gap.about and "b" in gap.about


def test_one_group_alone_has_no_gap_and_says_so():
    groups = list(judged({"a": (40, 60), "b": (2, 3)}, {"alert": 0.4}).values())
    gap = equalized_odds_difference(groups, "sex", "alert")

    assert (gap.value, gap.about) == (None, "sex at alert: 1 subgroups with rates to tell, 2 are needed")
