"""Riley's criteria, as published and as the makers' own program answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evidence.sample_size import criteria, max_r2_cox_snell, r2_of_auroc, r2_of_nothing_known


def needed(*asked):
    return [one.needed for one in criteria(*asked)]


def test_the_published_example():
    """pmsampsize(type = "b", csrsquared = 0.288, parameters = 24, prevalence = 0.174), by the criteria's authors.

    Its answers: 623, 662 and 221 patients, 4.8 events for each parameter at the largest; Riley 2020, BMJ m441, gives
    the largest R² at this prevalence as 0.60.
    """
    found = criteria(24, 0.174, 0.288)

    assert [one.needed for one in found] == [623, 662, 221]
    assert max(found, key=lambda one: one.needed).events_per_parameter == pytest.approx(4.8, abs=0.05)
    assert max_r2_cox_snell(0.174) == pytest.approx(0.603, abs=5e-4)


def test_the_published_example_from_an_auroc():
    """pmsampsize(type = "b", cstatistic = 0.89, parameters = 24, prevalence = 0.174), which simulates a million."""
    assert needed(24, 0.174, r2_of_auroc(0.89, 0.174)) == [615, 660, 221]


@pytest.mark.parametrize(("auroc", "prevalence"), [(0.89, 0.174), (0.7, 0.5), (0.6, 0.02), (0.97, 0.3)])
def test_an_aurocs_r2_is_what_a_logistic_regression_reaches_on_simulated_patients(auroc, prevalence):
    from scipy.stats import norm
    from sklearn.metrics import log_loss, roc_auc_score

    api = pytest.importorskip("statsmodels.api")
    dice = np.random.default_rng(1)
    y = (dice.random(200_000) < prevalence).astype(float)
    x = dice.normal(0, 1, len(y)) + y * math.sqrt(2) * norm.ppf(auroc)
    fitted = api.Logit(y, api.add_constant(x)).fit(disp=False)
    gained = log_loss(y, np.full(len(y), y.mean())) - log_loss(y, fitted.predict())

    assert roc_auc_score(y, x) == pytest.approx(auroc, abs=0.01)
    assert r2_of_auroc(auroc, prevalence) == pytest.approx(1 - math.exp(-2 * gained), abs=0.004)


@pytest.mark.parametrize("prevalence", [0.001, 0.05, 0.174, 0.5, 0.9])
def test_the_largest_r2_is_that_of_a_model_without_error(prevalence):
    """Cox and Snell's R² with a likelihood of one: 1 - (φ^φ (1-φ)^(1-φ))², Riley 2020, box 3; 0.75 at even odds."""
    written = 1 - (prevalence**prevalence * (1 - prevalence) ** (1 - prevalence)) ** 2

    assert max_r2_cox_snell(prevalence) == pytest.approx(written, abs=1e-12)
    assert r2_of_auroc(1.0, prevalence) == pytest.approx(written, abs=1e-12)
    assert r2_of_nothing_known(prevalence) == pytest.approx(0.15 * written, abs=1e-12)


@given(st.floats(0.5, 1), st.floats(0.001, 0.999))
def test_an_aurocs_r2_lies_between_nothing_and_the_largest(auroc, prevalence):
    assert -1e-9 <= r2_of_auroc(auroc, prevalence) <= max_r2_cox_snell(prevalence) + 1e-9


@given(st.integers(1, 200), st.floats(0.01, 0.99), st.floats(0.02, 0.98))
def test_more_parameters_need_more_patients(parameters, prevalence, share):
    r2 = share * max_r2_cox_snell(prevalence)
    few, more = needed(parameters, prevalence, r2), needed(parameters + 1, prevalence, r2)

    assert few[0] <= more[0] and few[1] <= more[1] and few[2] == more[2]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ((24, 0.0, 0.2), "the outcome's prevalence is 0,"),
        ((24, 1.0, 0.2), "the outcome's prevalence is 1,"),
        ((24, float("nan"), 0.2), "the outcome's prevalence is nan,"),
        ((0, 0.2, 0.2), "0 candidate parameters"),
        ((24, 0.174, 0.61), "R² of 0.61 is expected; it has to lie between 0 and 0.603"),
        ((24, 0.174, r2_of_auroc(0.5, 0.174)), "R² of 0 is expected"),
        ((24, 0.174, float("nan")), "R² of nan is expected"),
    ],
)
def test_what_cannot_be_asked_says_why(asked, why):
    first = criteria(*asked)[0]

    assert (first.needed, first.events_per_parameter) == (None, None)
    assert why in first.why


def test_the_overall_risk_needs_no_r2():
    assert needed(24, 0.174, float("nan")) == [None, None, 221]


@pytest.mark.parametrize(("auroc", "prevalence"), [(0.8, 0.0), (0.8, 1.0), (float("nan"), 0.2), (1.2, 0.2)])
def test_no_auroc_or_one_class_has_no_r2(auroc, prevalence):
    assert math.isnan(r2_of_auroc(auroc, prevalence))
