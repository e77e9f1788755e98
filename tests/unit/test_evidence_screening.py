"""Screening: which stages are found, and what an alert means where few have the disease, as counted by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec import from_document
from evidence import screening
from evidence.metrics import wilson
from evidence.report import Report

# 100 with the disease, of whom 60 are found, and 1,000 without, of whom 10 are alerted for nothing.
Y = np.repeat([1.0, 0.0], [100, 1000])
RISK = np.r_[np.full(60, 0.9), np.full(40, 0.1), np.full(10, 0.9), np.full(990, 0.1)]


@pytest.fixture
def spec(document):
    changed = {**document, "screening": {"prevalence": 0.01, "source": "an invented screening programme, 2026"}}
    return from_document(json.loads(json.dumps(changed)), "angina.yaml")


def of(y_found, y_missed, alarmed, spared):
    y = np.repeat([1.0, 0.0], [y_found + y_missed, alarmed + spared])
    return y, np.repeat([0.9, 0.1, 0.9, 0.1], [y_found, y_missed, alarmed, spared])


def test_predictive_values_follow_from_bayes_rule():
    made = screening.screened(Y, RISK, 0.5, 0.01, 1)

    # of 100,000: 1,000 have it, 600 of them are found; 99,000 do not, 990 of them are alerted
    assert made.ppv.value == pytest.approx(600 / 1590)
    assert made.npv.value == pytest.approx(98010 / 98410)
    assert made.alerts.value == pytest.approx(1590)
    assert made.found.value == pytest.approx(600)


def test_at_the_studys_own_prevalence_the_values_are_the_studys():
    from evidence.utility import utility

    made, study = screening.screened(Y, RISK, 0.5, 100 / 1100, 1), utility(Y, RISK, 0.5)
    assert (made.ppv.value, made.npv.value) == pytest.approx((study.ppv, study.npv))
    assert made.alerts.value == pytest.approx(1000 * study.alerts_per_100)


def test_the_intervals_are_near_mercaldos_where_both_shares_lie_well_inside():
    """Standard logit intervals, equations of Mercaldo 2007: the variances of log-odds by the delta method."""
    y, risk = of(300, 200, 100, 900)
    made, prevalence = screening.screened(y, risk, 0.5, 0.05, 1), 0.05
    sensitivity, specificity = 0.6, 0.9
    ppv = np.log(sensitivity * prevalence / ((1 - specificity) * (1 - prevalence)))
    npv = np.log(specificity * (1 - prevalence) / ((1 - sensitivity) * prevalence))
    variance = {
        "ppv": (1 - sensitivity) / sensitivity / 500 + specificity / (1 - specificity) / 1000,
        "npv": sensitivity / (1 - sensitivity) / 500 + (1 - specificity) / specificity / 1000,
    }
    for middle, name in ((ppv, "ppv"), (npv, "npv")):
        ends = [1 / (1 + np.exp(-(middle + side * 1.959964 * variance[name] ** 0.5))) for side in (-1, 1)]
        assert getattr(made, name).ends == pytest.approx(ends, abs=0.004)


def test_the_interval_holds_the_true_ppv_as_often_as_it_says():
    dice, held, times = np.random.default_rng(4), 0, 400
    true = 0.5 * 0.01 / (0.5 * 0.01 + 0.01 * 0.99)
    for seed in range(times):
        found, alarmed = dice.binomial(80, 0.5), dice.binomial(400, 0.01)
        made = screening.screened(*of(found, 80 - found, alarmed, 400 - alarmed), 0.5, 0.01, seed)
        held += made.ppv.low <= true <= made.ppv.high
    assert 0.92 <= held / times <= 0.98


def test_no_false_alarm_at_all_is_no_certainty():
    made = screening.screened(*of(50, 50, 0, 200), 0.5, 0.01, 1)

    assert (made.ppv.value, made.ppv.high) == (1, 1)
    assert made.ppv.low < 0.7


def test_an_alert_of_nobody_or_of_everybody_leaves_a_value_undefined():
    assert screening.screened(*of(0, 20, 0, 20), 0.5, 0.01, 1).ppv is None
    assert screening.screened(*of(20, 0, 20, 0), 0.5, 0.01, 1).npv is None


@pytest.mark.parametrize(("events", "others"), [(9, 100), (100, 9), (0, 0)])
def test_too_few_patients_give_no_figure(events, others):
    assert screening.screened(*of(events, 0, 0, others), 0.5, 0.01, 1) is None


@given(counts=st.tuples(*[st.integers(0, 60)] * 4), prevalence=st.floats(1e-5, 0.99), rarer=st.floats(0.01, 0.99))
def test_a_rarer_disease_never_has_a_higher_ppv_and_every_value_lies_in_its_interval(counts, prevalence, rarer):
    found, missed, alarmed, spared = counts
    y, risk = of(found + 5, missed + 5, alarmed + 5, spared + 5)
    made, there = (screening.screened(y, risk, 0.5, p, 1) for p in (prevalence, prevalence * rarer))

    for estimate in (made.ppv, made.npv, made.alerts, made.found):
        assert estimate.low <= estimate.value <= estimate.high
    assert there.ppv.value <= made.ppv.value and there.npv.value >= made.npv.value
    assert made.ppv.low >= 0 and made.ppv.high <= 1


def staged(**counts):
    """Risks and stages of events: `I=(10, 5)` are 10 of stage I of whom 5 are found."""
    stage = np.concatenate([np.full(n, name) for name, (n, _) in counts.items()])
    risk = np.concatenate([np.r_[np.full(found, 0.9), np.full(n - found, 0.1)] for n, found in counts.values()])
    return np.ones(len(risk)), risk, np.where(stage == "unknown", "", stage)


def test_sensitivity_by_stage_is_counted_in_the_stages_order_unknown_last():
    found = screening.by_stage(*staged(unknown=(12, 6), II=(20, 10), I=(40, 4), IV=(30, 30)), 0.5)

    assert [one.stage for one in found] == ["I", "II", "IV", "not known"]
    assert [one.sensitivity for one in found] == [0.1, 0.5, 1.0, 0.5]
    assert [(one.low, one.high) for one in found] == [wilson(4, 40), wilson(10, 20), wilson(30, 30), wilson(6, 12)]


def test_a_stage_of_fewer_than_10_is_not_told_nor_the_one_that_would_tell_it():
    few, next_smallest, told = screening.by_stage(*staged(I=(4, 1), II=(20, 10), III=(50, 25)), 0.5)

    assert (few.n, few.sensitivity, few.why) == (None, None, "fewer than 10 patients")
    assert (next_smallest.n, next_smallest.sensitivity) == (None, None)
    assert "another stage" in next_smallest.why
    assert (told.n, told.sensitivity) == (50, 0.5)


def test_the_stage_of_those_without_the_disease_counts_for_nothing():
    y, risk, stage = staged(I=(40, 4))
    with_others = np.r_[y, np.zeros(50)], np.r_[risk, np.full(50, 0.9)], np.r_[stage, np.full(50, "I")]
    assert screening.by_stage(*with_others, 0.5) == screening.by_stage(y, risk, stage, 0.5)


def test_every_finding_is_shown_and_none_is_judged(spec):
    stage = np.where(Y == 1, "II", "")
    findings = screening.judged(spec, Y, RISK, stage, {"screen": 0.5, "never": 0.95})

    assert {finding.code for finding in findings} == {"MM050", "MM051", "MM052", "MM053"}
    assert {finding.verdict for finding in findings} == {"not applicable"}
    ppv = next(finding for finding in findings if finding.title == "PPV at screen where 1 % have the disease")
    assert ppv.value == pytest.approx(600 / 1590)
    assert "0.857 in the study, where 9.1% have it" in ppv.explanation
    assert "an invented screening programme, 2026" in ppv.explanation
    alerts = next(finding for finding in findings if finding.title == "alerts of 100,000 screened at screen")
    assert "600 (" in alerts.explanation and "of the 1,000 with the disease are found, 400 missed" in alerts.explanation
    assert "990 alerts are false" in alerts.explanation
    figures = screening.drawn(spec, Y, RISK, stage, {"screen": 0.5})
    report = Report("angina", "validation", "b" * 64, "d" * 64, tuple(findings), figures)
    assert Report.from_json(report.to_json()).findings == report.findings


def test_a_spec_that_names_neither_stage_nor_prevalence_gets_nothing(disease):
    assert screening.judged(disease.spec, Y, RISK, None, {"screen": 0.5}) == []
    assert not any(screening.drawn(disease.spec, Y, RISK, None, {"screen": 0.5}).values())
