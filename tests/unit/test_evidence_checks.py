"""Each gate passes and fails as it should; a figure without a gate is shown and not judged."""

import dataclasses

import numpy as np
import pytest

from configs.spec import Bound, Gates, from_document
from evidence import metrics
from evidence.checks import METRIC_CODES, censored, gated, judge, judge_elsewhere, worst_subgroup
from evidence.metrics import METRICS
from evidence.report import Report
from evidence.subgroups import Subgroup


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """Twenty reports with a thousand resamples each would take a minute."""
    monkeypatch.setattr(metrics, "RESAMPLES", 60)


def verdict(value, gate, spread=None):
    bound = Gates.model_validate({"auroc": gate}).auroc
    return gated("MM001", "AUROC", value, spread, bound, "100 patients").verdict


@pytest.mark.parametrize(
    ("value", "gate", "expected"),
    [
        (0.80, ">= 0.8", "passed"),
        (0.7999, ">= 0.8", "failed"),
        (0.25, "<= 0.25", "passed"),
        (0.2501, "<= 0.25", "failed"),
        (0.8, [0.8, 1.25], "passed"),
        (1.25, [0.8, 1.25], "passed"),
        (0.79, [0.8, 1.25], "failed"),
        (1.26, [0.8, 1.25], "failed"),
    ],
)
def test_a_gate_is_judged_by_the_value(value, gate, expected):
    assert verdict(value, gate, spread=(0.0, 2.0)) == expected
    assert verdict(value, gate) == expected


@pytest.mark.parametrize(
    ("spread", "expected"),
    [
        ((0.9, 1.1), "passed"),
        ((0.5, 0.81), "passed"),
        ((0.5, 0.8), "passed"),
        ((1.2, 9.0), "passed"),
        ((0.1, 9.0), "passed"),
        ((0.5, 0.79), "failed"),
        ((1.26, 9.0), "failed"),
    ],
)
def test_a_gate_that_an_interval_has_to_reach_fails_only_if_it_lies_wholly_outside(spread, expected):
    assert verdict(sum(spread) / 2, {"reaches": [0.8, 1.25]}, spread) == expected


@pytest.mark.parametrize(("value", "expected"), [(0.8, "passed"), (0.79, "failed")])
def test_without_an_interval_the_value_has_to_reach_it(value, expected):
    assert verdict(value, {"reaches": [0.8, 1.25]}) == expected


def test_without_a_gate_a_figure_is_shown_and_not_judged():
    found = gated("MM001", "AUROC", 0.5, (0.4, 0.6), None, "100 patients")
    assert (found.verdict, found.value, found.limit, found.interval) == ("not applicable", 0.5, None, (0.4, 0.6))
    assert "100 patients" in found.explanation


def test_the_gate_is_repeated_as_it_was_written():
    assert gated("MM001", "AUROC", 0.9, None, Bound(low=0.8, high=None), "").limit == ">= 0.8"


def groups(*aurocs):
    return [
        Subgroup("site", f"s{number}", 40, value, (value - 0.1, value + 0.1), None)
        if value is not None
        else Subgroup("site", f"s{number}", 12, None, None, "12 < 30 patients")
        for number, value in enumerate(aurocs)
    ]


@pytest.mark.parametrize(
    ("aurocs", "expected"), [((0.9, 0.7), "passed"), ((0.9, 0.69), "failed"), ((None, 0.7), "passed")]
)
def test_the_worst_subgroup_is_judged(aurocs, expected):
    found = worst_subgroup(groups(*aurocs), Bound(low=0.7, high=None))
    assert found.verdict == expected
    assert found.value == min(value for value in aurocs if value is not None)
    assert found.explanation.startswith("site s1, 40 patients")


def test_a_worst_subgroup_of_auroc_zero_is_the_worst():
    assert worst_subgroup(groups(0.3, 0.0), Bound(low=0.7, high=None)).value == 0.0


def test_the_gate_is_not_applicable_without_a_subgroup_of_30():
    found = worst_subgroup(groups(None), Bound(low=0.7, high=None))
    assert (found.verdict, found.value, found.limit) == ("not applicable", None, ">= 0.7")
    assert "12 < 30" in found.explanation


def test_the_gate_is_not_applicable_without_attributes():
    assert worst_subgroup([], None).explanation == "the spec has no attributes"


@pytest.fixture
def judged(disease, trained, predictor, document):
    """`judged(gates, …)`: the report of the trained bundle under these gates, with risks and outcomes of choice."""

    def make(gates=None, risk=None, y=None, yardsticks=None, thresholds=None, training=None):
        bundle = trained
        if gates is not None:
            bundle = dataclasses.replace(bundle, spec=from_document({**document, "gates": gates}, "angina.yaml"))
        bundle = dataclasses.replace(
            bundle, thresholds=thresholds or bundle.thresholds, training={**bundle.training, **(training or {})}
        )
        cohort = disease.cohort
        if y is not None:
            changed = cohort.y.copy()
            changed[cohort.part == "test"] = y
            cohort = dataclasses.replace(cohort, y=changed)
        test, external = cohort.only("test"), cohort.only("external")
        risk = predictor.risk(test.X) if risk is None else risk
        return judge(bundle, cohort, risk, predictor.risk(external.X), yardsticks or {"logistic": risk})

    return make


@pytest.fixture
def tests(disease):
    return disease.cohort.only("test")


def test_a_good_model_passes_every_gate(judged):
    report = judged()

    assert report.passed
    gated_codes = [finding.code for finding in report.findings if finding.limit]
    # auroc, brier, not worse than logistic, parity, what the two operating points promise, how many gates were judged
    assert gated_codes == ["MM001", "MM003", "MM010", "MM011", "MM022", "MM022", "MM014"]
    assert Report.from_json(report.to_json()) == report


def test_a_report_in_which_no_gate_could_be_judged_does_not_pass(judged, monkeypatch):
    monkeypatch.setattr("evidence.subgroups.FEWEST_PATIENTS", 10_000)

    report = judged({"worst_subgroup_auroc": ">= 0.99"})

    assert report.finding("MM008").verdict == "not applicable"
    assert report.finding("MM014").verdict == "failed"
    assert not report.passed


def test_the_report_is_about_this_bundle_and_these_patients(judged, trained, disease):
    report = judged()
    assert (report.name, report.kind) == ("angina", "validation")
    assert (report.bundle, report.data) == (trained.digest, disease.cohort.fingerprint)


def test_every_metric_is_shown_with_its_interval(judged, predictor, tests):
    report = judged()
    for name, (code, _) in METRIC_CODES.items():
        finding = report.finding(code)
        assert finding.value == METRICS[name](tests.y, predictor.risk(tests.X))
        assert finding.interval[0] < finding.value < finding.interval[1]


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize(("gate", "expected"), [(">= -1000", "passed"), ("<= -1000", "failed")])
def test_each_metrics_gate_decides(judged, name, gate, expected):
    report = judged(gates={name: gate})

    assert report.finding(METRIC_CODES[name][0]).verdict == expected
    assert report.passed == (expected == "passed")
    limited = {finding.code for finding in report.findings if finding.limit}
    assert limited == {METRIC_CODES[name][0], "MM011", "MM014", "MM022"}


@pytest.mark.parametrize("name", ["auroc", "auprc", "calibration_slope", "calibration_intercept"])
def test_a_gate_on_a_figure_that_cannot_be_computed_fails(judged, tests, name):
    report = judged(gates={name: ">= -1000"}, y=np.zeros(len(tests)))
    finding = report.finding(METRIC_CODES[name][0])

    assert (finding.verdict, finding.value) == ("failed", None)
    assert "cannot be computed" in finding.explanation
    assert not report.passed
    assert Report.from_json(report.to_json()) == report


def test_without_a_gate_such_a_figure_is_not_applicable(judged, tests):
    assert judged(gates={"brier": "<= 1"}, y=np.zeros(len(tests))).finding("MM001").verdict == "not applicable"


def test_a_yardstick_that_cannot_be_computed_fails(judged, tests):
    report = judged(gates={"not_worse_than": {"logistic": 0.02}}, y=np.zeros(len(tests)))

    assert (report.finding("MM010").verdict, report.finding("MM010").value) == ("failed", None)
    assert Report.from_json(report.to_json()) == report


def test_a_model_may_be_worse_than_its_yardstick_by_the_margin_and_no_more(judged, tests):
    gates = {"not_worse_than": {"logistic": 0.02}}
    perfect = {"logistic": tests.y}

    assert judged(gates=gates, risk=tests.y * 0.8 + 0.1, yardsticks=perfect).finding("MM010").verdict == "passed"
    worse = judged(gates=gates, yardsticks=perfect).finding("MM010")
    assert worse.verdict == "failed" and worse.value < -0.02
    assert "logistic" in worse.title and "1.000" in worse.explanation


@pytest.mark.parametrize(("parity", "expected"), [(0.0, "passed"), (1e-6, "passed"), (1.1e-6, "failed")])
def test_the_exports_parity_is_always_judged(judged, parity, expected):
    assert judged(training={"parity": parity}).finding("MM011").verdict == expected


def test_each_operating_point_is_shown_with_its_figures(judged, trained):
    points = [finding for finding in judged().findings if finding.code == "MM012"]

    assert [finding.title for finding in points] == ["operating point rule_out", "operating point alert"]
    assert [finding.value for finding in points] == list(trained.thresholds.values())
    for finding in points:
        for figure in ("sensitivity", "specificity", "PPV", "NPV", "net benefit", "treat all", "alerts per 100"):
            assert figure in finding.explanation


def test_a_figure_without_patients_is_said_to_be_undefined(judged):
    report = judged(thresholds={"never": 0.999999})
    assert "PPV undefined" in report.finding("MM012").explanation


def test_each_external_site_is_shown(judged, disease):
    (site,) = [finding for finding in judged().findings if finding.code == "MM013"]
    external = disease.cohort.only("external")

    assert site.title == "AUROC at the external site east"
    assert site.verdict == "not applicable" and site.value is not None
    assert f"{len(external)} patients, {int(external.y.sum())} events" in site.explanation


def test_without_external_patients_there_is_no_such_finding(disease, trained, tests):
    inside = disease.cohort.where(disease.cohort.part != "external")
    risk = np.linspace(0.1, 0.9, len(tests))
    report = judge(trained, inside, risk, np.empty(0), {"logistic": risk})
    assert [finding for finding in report.findings if finding.code == "MM013"] == []


def test_no_patient_stands_in_a_report(judged, marker):
    assert marker not in judged().to_json()


def test_elsewhere_a_further_finding_is_told_and_counts_among_the_gates(trained, tests, predictor):
    risk = predictor.risk(tests.X)
    gate = gated("MM043", "macro AUROC", 0.4, None, Bound(low=0.8, high=None), "invented")

    report, without = (judge_elsewhere(trained, "f" * 64, tests.y, risk, {}, None, further) for further in ([gate], []))

    assert report.finding("MM043") in report.failed
    assert report.finding("MM014").value == without.finding("MM014").value + 1


def test_who_was_left_out_as_censored_is_warned_of_with_the_share_of_the_event_for_both(disease):
    patients = disease.cohort
    assert censored(patients) == []
    lost = len(patients)
    (found,) = censored(dataclasses.replace(patients, dropped={"censored before the horizon": lost}))

    share = patients.y.mean()
    assert (found.code, found.value, found.verdict) == ("MM056", 0.5, "not applicable")
    assert f"warning: {lost} of {2 * lost} patients" in found.explanation
    assert f"{share:.1%} of the others have it, {share / 2:.1%} of all" in found.explanation
