"""Acting on a threshold, counted by hand."""

import numpy as np
import pytest

from evidence.utility import Utility, utility

# 100 patients, 30 with the event. At 0.25: 24 events and 14 others are alerted.
Y = np.r_[np.ones(24), np.ones(6), np.zeros(14), np.zeros(56)]
RISK = np.r_[np.full(24, 0.6), np.full(6, 0.1), np.full(14, 0.25), np.full(56, 0.2)]


def test_a_table_counted_by_hand():
    found = utility(Y, RISK, 0.25)

    assert found.sensitivity == 24 / 30
    assert found.specificity == 56 / 70
    assert found.ppv == 24 / 38
    assert found.npv == 56 / 62
    assert found.alerts_per_100 == pytest.approx(38)
    assert found.net_benefit == pytest.approx(0.24 - 0.14 / 3)  # at 0.25 a false alarm costs a third of a found event
    assert found.net_benefit_treat_all == pytest.approx(0.30 - 0.70 / 3)


def test_a_threshold_at_or_below_every_risk_treats_all():
    found = utility(Y, RISK, 0.1)

    assert (found.sensitivity, found.specificity, found.ppv, found.npv) == (1, 0, 0.3, None)
    assert found.alerts_per_100 == 100
    assert found.net_benefit == pytest.approx(found.net_benefit_treat_all)


def test_a_threshold_that_nobody_reaches_treats_none():
    assert utility(Y, RISK, 0.7) == Utility(0, 1, None, 0.7, 0, 0, pytest.approx(0.3 - 0.7 * 0.7 / 0.3))


def test_at_the_prevalence_treating_all_is_worth_nothing():
    assert utility(Y, RISK, 0.3).net_benefit_treat_all == pytest.approx(0)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_the_ends_of_the_scale_and_one_class_are_never_an_exception(threshold, outcome):
    found = utility(np.full(10, outcome), np.linspace(0, 1, 10), threshold)
    assert found.sensitivity is None if outcome == 0 else found.specificity is None
    assert not np.isnan(found.net_benefit)
    assert not np.isnan(found.net_benefit_treat_all)
