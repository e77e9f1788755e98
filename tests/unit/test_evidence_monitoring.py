"""The window's findings: quiet without drift, loud with it, and never a crash."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from evidence import monitoring, page
from evidence.card import card
from evidence.report import Report

WINDOW = 150
NOW = 1.8e9


@pytest.fixture(scope="module")
def patients(disease_of, document):
    """Many more patients of the same kind as the model learned from."""
    many = disease_of(document, 6000, seed=99).cohort
    return many.where(many.part != "external")


@pytest.fixture
def judged(trained, predictor):
    """`judged(X, outcomes, site)`: the report of a window of these feature rows."""

    def judge(X, outcomes=None, site="north", skewed=0, refused=None) -> Report:
        n = len(X)
        known = np.full(n, np.nan) if outcomes is None else outcomes
        seen = monitoring.Seen(
            X=X,
            risk=predictor.risk(X),
            outcomes=known,
            attributes={"site": np.full(n, site)},
            received=NOW - np.arange(n, 0, -1.0),
            now=NOW,
            skewed=skewed,
            sampled=n,
            refused=refused or {},
        )
        return monitoring.judge(trained, f"{n} predictions", seen)

    return judge


def by_code(report, code):
    return [finding for finding in report.findings if finding.code == code]


def test_windows_without_drift_alarm_about_once_in_a_hundred(patients, judged):
    dice = np.random.default_rng(5)

    windows = [judged(patients.X[dice.integers(0, len(patients), WINDOW)]) for _ in range(100)]

    alarmed = sum(not report.passed for report in windows)
    assert alarmed <= 5, f"{alarmed} of 100 windows without drift raised an alarm"


def test_older_patients_are_found_as_drift_of_age_alone(patients, judged):
    old = patients.X[patients.X[:, 0] > 65][:WINDOW]

    report = judged(old)

    failed = {finding.title for finding in report.failed}
    assert "drift: age_years" in failed
    assert "drift: pain" not in failed


def test_a_column_missing_in_every_record_is_a_finding_with_the_site_named(patients, judged):
    X = patients.X[:WINDOW].copy()
    X[:, 2] = np.nan

    report = judged(X, site="east")

    (finding,) = (found for found in by_code(report, "MW002") if found.title == "missing: cholesterol_mg_dl")
    assert finding.verdict == "failed"
    assert "missing in every record" in finding.explanation
    assert "east 100%" in finding.explanation
    (drift,) = (found for found in by_code(report, "MW003") if found.title == "drift: cholesterol_mg_dl")
    assert drift.verdict == "not applicable"


def test_a_group_of_nine_is_not_told(patients, judged):
    report = judged(patients.X[:9], site="north")

    assert all("fewer than 10" in finding.explanation for finding in by_code(report, "MW002"))


def test_an_empty_window_is_a_failed_finding(trained):
    nothing = np.empty((0, 0), np.float32)
    none = np.empty(0)
    seen = monitoring.Seen(nothing, none, none, {}, none, NOW, 0, 0, {})

    report = monitoring.judge(trained, "an empty window", seen)

    assert [finding.code for finding in report.failed] == ["MW001"]
    assert {finding.verdict for finding in by_code(report, "MW007")} == {"not applicable"}


def test_outcomes_are_judged_only_when_there_are_enough(patients, judged):
    outcomes = patients.y[:WINDOW].copy()
    outcomes[19:] = np.nan

    few = judged(patients.X[:WINDOW], outcomes)
    many = judged(patients.X[:WINDOW], patients.y[:WINDOW])

    assert "19 outcomes are known, 20 are needed" in few.finding("MW007").explanation
    assert many.finding("MW007").verdict == "passed"
    assert many.finding("MW006").verdict == "passed"


def test_a_window_of_events_alone_has_no_auroc_and_no_crash(patients, judged):
    events = patients.X[patients.y == 1][:WINDOW]

    report = judged(events, np.ones(WINDOW))

    assert report.finding("MW007").verdict == "not applicable"
    assert report.finding("MW006").verdict == "failed"


def test_skew_between_training_and_serving_is_a_finding(patients, judged):
    assert judged(patients.X[:WINDOW], skewed=1).finding("MW005").verdict == "failed"


def test_p_values_are_scipys_own():
    before, now = [40, 30, 30], [10, 30, 60]

    assert monitoring.p_value(before, now) == pytest.approx(chi2_contingency([before, now])[1], abs=1e-12)
    assert monitoring.p_value([5, 5], [0, 0]) == 1.0
    assert monitoring.p_value([5, 0], [7, 0]) == 1.0


def test_the_stability_index_of_equal_histograms_is_zero_and_of_shifted_ones_is_its_textbook_sum():
    assert monitoring.stability_index([10, 20], [10, 20]) == 0
    expected = (0.7 - 0.5) * np.log(0.7 / 0.5) + (0.3 - 0.5) * np.log(0.3 / 0.5)
    assert monitoring.stability_index([50, 50], [70, 30]) == pytest.approx(expected, abs=1e-12)


def test_the_page_escapes_what_it_shows_and_holds_every_finding(patients, judged):
    report = judged(patients.X[:WINDOW])

    html = page.html(report, "<i>angina</i>", ["5 < 6"])

    assert "<i>" not in html
    assert "5 &lt; 6" in html
    assert html.count("<tr class=") == len(report.findings)


def test_the_card_holds_facts_and_no_patient(trained, report_on, marker):
    told = card(trained, 3, report_on(trained.digest))

    assert told["version"] == 3
    assert told["intended_use"] == trained.spec.intended_use
    assert told["digests"]["bundle"] == trained.digest
    assert marker not in str(told)
