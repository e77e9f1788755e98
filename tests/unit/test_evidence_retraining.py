"""A candidate takes the champion's place if it is better by more than chance on the same patients, and only then."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec import Retrain
from evidence import retraining
from evidence.metrics import log_loss
from evidence.report import Finding, Report

ASKED = Retrain(log_loss="better", auroc_drop=0.02, min_events=10, min_non_events=10)


def patients(n, seed, slope=1.0, shift=0.0):
    """Outcomes drawn from true risks, and risks that are off by a slope and a shift on the scale of log-odds."""
    dice = np.random.default_rng(seed)
    odds = dice.normal(0, 1.5, n)
    y = (dice.random(n) < 1 / (1 + np.exp(-odds))).astype(float)
    return y, 1 / (1 + np.exp(-odds)), 1 / (1 + np.exp(-(slope * odds + shift)))


def verdicts(findings):
    return {finding.code: finding.verdict for finding in findings}


def test_a_calibrated_candidate_takes_the_place_of_a_champion_that_says_too_little():
    y, candidate, champion = patients(200, 1, slope=0.6, shift=-1.5)
    findings = retraining.compare(ASKED, y, candidate, champion, 17)
    assert retraining.better(findings) is True
    assert findings[0].value == pytest.approx(log_loss(y, candidate) - log_loss(y, champion))
    assert findings[0].interval[1] < 0


def test_the_other_way_round_it_is_refused():
    y, candidate, champion = patients(200, 1, slope=0.6, shift=-1.5)
    findings = retraining.compare(ASKED, y, champion, candidate, 17)
    assert retraining.better(findings) is False and verdicts(findings)["MR001"] == "failed"


def test_of_two_that_are_alike_the_champion_stays():
    y, risk, _ = patients(200, 2)
    assert retraining.better(retraining.compare(ASKED, y, risk, risk, 17)) is False


def test_chance_alone_rarely_makes_a_candidate_better():
    fooled = 0
    for seed in range(60):
        y, risk, _ = patients(120, seed)
        noise = np.random.default_rng(seed + 1000).normal(0, 0.3, (2, len(y)))
        odds = np.log(risk / (1 - risk))
        one, other = (1 / (1 + np.exp(-(odds + each))) for each in noise)
        fooled += bool(retraining.better(retraining.compare(ASKED, y, one, other, 17)))
    assert fooled <= 5  # the interval's lower end alone: 1 in 40


def test_better_calibrated_and_worse_in_order_is_refused():
    y, risk, _ = patients(400, 3)
    flat = np.full(len(y), y.mean())
    champion = 1 / (1 + np.exp(-(4 * np.log(risk / (1 - risk)) + 3)))
    findings = retraining.compare(ASKED, y, flat, champion, 17)
    assert verdicts(findings) == {"MR001": "passed", "MR002": "failed", "MR003": "passed"}
    assert retraining.better(findings) is False


@given(events=st.integers(0, 20), non_events=st.integers(0, 20))
def test_with_too_few_of_a_class_nothing_is_judged(events, non_events):
    y = np.array([1.0] * events + [0.0] * non_events)
    risk = np.linspace(0.1, 0.9, len(y)) if len(y) else np.empty(0)
    better = retraining.better(retraining.compare(ASKED, y, risk, risk[::-1], 17))
    assert (better is None) == (events < 10 or non_events < 10)


def test_the_score_of_the_spec_decides():
    y, candidate, champion = patients(200, 1, slope=0.6, shift=-1.5)
    asked = Retrain(brier="better", auroc_drop=0.02, min_events=10, min_non_events=10)
    assert retraining.compare(asked, y, candidate, champion, 17)[0].title == "Brier score less the champion's"


def test_a_release_gate_is_shown_and_not_judged_and_a_leak_still_fails():
    case = Report(
        "toy",
        "validation",
        "b" * 64,
        "d" * 64,
        (
            Finding("MM001", "AUROC", "failed", 0.71, ">= 0.8", "99 patients"),
            Finding("MM034", "patients in more than one part", "failed", 3.0, "<= 0", "of 99"),
            Finding("MM014", "gates judged", "passed", 1.0, ">= 1", "1"),
        ),
    )
    y, candidate, champion = patients(200, 1, slope=0.6, shift=-1.5)
    found = retraining.compare(ASKED, y, candidate, champion, 17)
    report = retraining.judge(case, ASKED, {"version": 1, "bundle": "c" * 64, "paired": {}}, found)
    assert report.kind == "retraining" and report.finding("MM001").verdict == "not applicable"
    assert ">= 0.8" in report.finding("MM001").explanation
    assert [finding.code for finding in report.failed] == ["MM034"]
    assert Report.from_json(report.to_json()) == report


def test_a_new_champion_that_is_worse_by_more_than_chance_is_told_so_in_words():
    y, good, bad = patients(200, 1, slope=0.6, shift=-1.5)
    assert "worse than the earlier champion's" in retraining.worse(ASKED, y, bad, good, 17)
    assert retraining.worse(ASKED, y, good, bad, 17) is None
    assert retraining.worse(ASKED, y, good, good, 17) is None
    assert retraining.worse(ASKED, np.empty(0), np.empty(0), np.empty(0), 17) is None
