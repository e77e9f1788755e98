"""Several classes: the figures of other people's code, what chance and a perfect model get, and what is never told."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec import from_document
from evidence import calibration, classes, metrics
from evidence.report import Report

NAMES = ["none", "colon", "lung", "breast"]
COSTS = np.array([[0, 1, 1, 1], [20, 0, 4, 4], [20, 4, 0, 4], [20, 4, 4, 0]], float)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 60)
    monkeypatch.setattr(calibration, "RESAMPLES", 10)


def patients(n=600, shares=(0.5, 0.2, 0.2, 0.1), tells=1.5, seed=0):
    """`n` patients whose scores lean towards their class by `tells`, and the right risks for such scores."""
    dice = np.random.default_rng(seed)
    label = dice.choice(len(shares), n, p=shares)
    scores = dice.normal(size=(n, len(shares))) + tells * np.eye(len(shares))[label]
    right = np.exp(tells * scores) * np.array(shares)
    return label.astype(float), right / right.sum(axis=1, keepdims=True)


@pytest.fixture
def spec_of(document):
    """`spec_of(gates=…, costs=…, positive=…, **changed)`: the invented disease as a cancer of four classes."""

    def make(gates=None, costs=None, positive=("colon", "lung", "breast"), **changed):
        outcome = {"column": "origin", "classes": {name: [name] for name in NAMES}, "positive": list(positive)}
        if costs is not None:
            outcome["costs"] = costs
        changed = {**document, "outcome": outcome, "gates": gates or {"auroc": ">= 0.6"}, **changed}
        return from_document(json.loads(json.dumps(changed)), "cancer.yaml")

    return make


def found(findings, code, title=""):
    (one,) = [finding for finding in findings if finding.code == code and title in finding.title]
    return one


def test_the_figures_are_scikit_learns():
    from sklearn.metrics import log_loss, roc_auc_score

    label, risks = patients()
    each = classes.one_against_rest(NAMES, label, risks, 1)

    assert classes.hand_till(label, risks) == pytest.approx(roc_auc_score(label, risks, multi_class="ovo"), abs=1e-12)
    mean = roc_auc_score(label, risks, multi_class="ovr")
    assert np.mean([one.auroc for one in each]) == pytest.approx(mean, abs=1e-12)
    assert classes.log_loss(label, risks) == pytest.approx(log_loss(label, risks), abs=1e-12)


def test_two_classes_give_the_binary_figures():
    label, risks = patients(shares=(0.6, 0.4))
    y, risk = label, risks[:, 1]

    assert classes.hand_till(label, risks) == pytest.approx(metrics.auroc(y, risk))
    assert classes.log_loss(label, risks) == pytest.approx(metrics.log_loss(y, risk))
    assert classes.squared_error(label, risks) == pytest.approx(2 * metrics.brier(y, risk))


def test_calibrated_risks_have_a_slope_of_one_and_as_many_of_each_class_as_expected():
    for one in classes.one_against_rest(NAMES, *patients(20_000), 1):
        assert one.oe == pytest.approx(1, abs=0.05)
        assert one.oe_interval[0] < one.oe < one.oe_interval[1]
        assert one.slope == pytest.approx(1, abs=0.1)
        assert one.intercept == pytest.approx(0, abs=0.1)
        assert one.ici < 0.02


def test_risks_that_are_too_extreme_have_a_slope_under_one():
    label, risks = patients()
    extreme = risks**3 / (risks**3).sum(axis=1, keepdims=True)
    assert all(one.slope < 0.6 for one in classes.one_against_rest(NAMES, label, extreme, 1))


@given(seed=st.integers(0, 2**32 - 1), several=st.integers(2, 5))
def test_the_order_of_patients_and_of_classes_changes_no_figure_of_all(seed, several):
    dice = np.random.default_rng(seed)
    label = np.r_[np.arange(several), dice.integers(0, several, 40)].astype(float)
    risks = dice.dirichlet(np.ones(several), len(label))
    rows, order = dice.permutation(len(label)), dice.permutation(several)
    renamed = np.argsort(order)[label.astype(int)].astype(float)

    for figure in (classes.hand_till, classes.log_loss, classes.squared_error):
        value = figure(label, risks)
        assert figure(label[rows], risks[rows]) == pytest.approx(value, abs=1e-9)
        assert figure(renamed, risks[:, order]) == pytest.approx(value, abs=1e-9)
    assert 0 <= classes.hand_till(label, risks) <= 1
    assert 0 <= classes.squared_error(label, risks) <= 2


def test_chance_is_a_half_and_a_perfect_model_is_one():
    label, _ = patients()
    alike = np.full((len(label), 4), 0.25)

    assert classes.hand_till(label, alike) == 0.5
    assert classes.hand_till(label, np.eye(4)[label.astype(int)]) == 1
    assert classes.squared_error(label, np.eye(4)[label.astype(int)]) == 0


def test_the_macro_auroc_does_not_change_with_the_mix_of_classes():
    label, risks = patients()
    none_twice = np.r_[np.arange(len(label)), np.flatnonzero(label == 0)]
    assert classes.hand_till(label[none_twice], risks[none_twice]) == pytest.approx(classes.hand_till(label, risks))


@pytest.mark.parametrize("figure", [classes.hand_till, classes.log_loss, classes.squared_error])
def test_nobody_has_no_figure(figure):
    assert np.isnan(figure(np.empty(0), np.empty((0, 4))))


def test_the_cost_is_counted_by_hand_and_held_against_the_cheapest_class_for_all():
    label = np.array([0, 0, 0, 1], float)
    said = np.array([0, 0, 1, 0])

    cost = classes.cost_of(label, said, COSTS, 1)

    assert cost.model == (0 + 0 + 1 + 20) / 4
    assert (cost.same, cost.same_for_all) == (1, 3 / 4)  # said of everybody, `colon` costs 1 for each without
    assert cost.difference == pytest.approx(cost.model - cost.same_for_all)


def test_where_few_have_the_disease_each_patient_counts_as_many_as_there_are(spec_of):
    # of 100 without 20 are said to have colon, all 100 with colon are found: 20 cost 1 in the study, where half have it
    label = np.repeat([0.0, 1.0], 100)
    risks = np.repeat([[0.9, 0.1, 0, 0], [0.1, 0.9, 0, 0]], [80, 120], axis=0)
    spec = spec_of(screening={"prevalence": 0.01, "source": "invented"})

    findings = classes.judged(spec, label, risks, None, {})

    assert found(findings, "MM047").value == pytest.approx(20 / 200 - 100 / 200)
    there = found(findings, "MM054")
    assert there.value == pytest.approx(0.99 * 0.2 - 0.01)
    assert (there.verdict, there.limit) == ("not applicable", None)
    assert "where 50.0% have it" in there.explanation
    none_of_them = classes.judged(spec, np.zeros(200), risks, None, {})
    assert found(none_of_them, "MM054").value is None


def test_the_confusion_is_counted_to_the_ten_and_not_under_10():
    label = np.repeat([0.0, 1.0, 2.0, 3.0], [60, 44, 100, 25])
    said = np.repeat([0, 1, 2, 0, 1, 3, 2, 3], [44, 13, 3, 20, 24, 0, 100, 25])

    # the last class has fewer than 30 patients
    told = [[40, 10, None, None], [20, 20, None, None], [None, None, 100, None], [None, None, None, None]]
    assert classes.confusion(NAMES, label, said) == told


@given(seed=st.integers(0, 2**32 - 1))
def test_every_cell_of_the_confusion_that_is_not_told_may_be_one_of_several_counts(seed):
    dice = np.random.default_rng(seed)
    counts = dice.choice([0, 1, 5, 9, 11, 30, 204], (4, 4))
    true, said = (
        np.repeat(places.ravel(), counts.ravel()) for places in np.meshgrid(range(4), range(4), indexing="ij")
    )

    for row, there in zip(classes.confusion(NAMES, true.astype(float), said), counts, strict=True):
        told = [cell for cell in row if cell is not None]
        assert all(cell is None or (cell >= 10 and abs(cell - n) <= 5) for cell, n in zip(row, there, strict=True))
        if told and None in row:  # from the row's number and its other cells follows no sum of those not told
            least, most = sum(max(cell - 5, 10) for cell in told), sum(cell + 5 for cell in told)
            assert min(there.sum() - least, 9 * row.count(None)) > max(there.sum() - most, 0)


def test_a_class_that_nobody_has_is_named_and_the_others_are_judged(spec_of):
    label, risks = patients()
    kept = label != 3
    spec = spec_of({"macro_auroc": ">= 0.6", "worst_class_auroc": ">= 0.6"})

    findings = classes.judged(spec, label[kept], risks[kept], None, {})

    for code in ("MM039", "MM040", "MM041"):
        gone = found(findings, code, "breast")
        assert (gone.verdict, gone.value) == ("not applicable", None)
        assert f"none of the {kept.sum()} patients" in gone.explanation
    for code in ("MM042", "MM043"):
        assert found(findings, code).verdict == "passed"
        assert "3 of 4 classes judged, without breast" in found(findings, code).explanation


def test_a_class_of_fewer_than_10_has_no_figure_and_cannot_be_found_by_subtraction(spec_of):
    label, risks = patients()
    kept = (label != 3) | (np.cumsum(label == 3) <= 7)

    findings = classes.judged(spec_of(), label[kept], risks[kept], None, {})

    few = found(findings, "MM039", "breast")
    assert (few.value, few.explanation) == (None, "fewer than 10 patients are of this class")
    # the smallest of the others is not counted either: with all three and the total, 7 would be left
    told = [one.n for one in classes.one_against_rest(NAMES, label[kept], risks[kept], 1)]
    assert told.count(None) == 2


def test_a_gate_fails_on_a_model_that_knows_nothing(spec_of):
    label, risks = patients()
    spec = spec_of({"macro_auroc": ">= 0.6", "worst_class_auroc": ">= 0.6"})
    dice = np.random.default_rng(5)

    findings = classes.judged(spec, dice.permutation(label), risks, None, {})

    assert found(findings, "MM042").verdict == found(findings, "MM043").verdict == "failed"


def test_a_class_that_is_not_told_from_the_rest_fails_its_gate_though_the_macro_auroc_passes(spec_of):
    label, risks = patients(2000, tells=2.5)
    dice = np.random.default_rng(5)
    risks[:, 3] = dice.permutation(risks[:, 3])
    spec = spec_of({"macro_auroc": ">= 0.75", "worst_class_auroc": ">= 0.75"})

    findings = classes.judged(spec, label, risks / risks.sum(axis=1, keepdims=True), None, {})

    assert found(findings, "MM043").verdict == "passed"
    assert found(findings, "MM042").verdict == "failed"
    assert found(findings, "MM042").explanation.startswith("breast")


def test_choices_that_cost_more_than_saying_one_class_of_all_fail(spec_of):
    label, risks = patients()
    costs = {true: {said: COSTS[i, j] for j, said in enumerate(NAMES) if i != j} for i, true in enumerate(NAMES)}

    assert found(classes.judged(spec_of(costs=costs), label, risks, None, {}), "MM047").verdict == "passed"
    wrong = found(classes.judged(spec_of(costs=costs), label, risks[:, ::-1], None, {}), "MM047")
    assert wrong.verdict == "failed" and wrong.interval[0] > 0
    assert "by the spec's `outcome.costs`" in wrong.explanation


def test_of_the_positives_it_is_counted_whose_class_is_the_likeliest_positive_one(spec_of):
    # ten of each positive class; `none` is the likeliest of all throughout, and does not count
    label = np.repeat([1.0, 2.0, 3.0, 0.0], 10)
    risks = np.repeat(
        [[0.5, 0.3, 0.1, 0.1], [0.5, 0.3, 0.15, 0.05], [0.5, 0.1, 0.2, 0.2], [0.9, 0.1, 0, 0]], 10, axis=0
    )

    findings = classes.judged(spec_of(), label, risks, None, {"screen": 0.4, "never": 0.9})

    first, second = (found(findings, "MM048", f"{guess}, of all") for guess in ("first guess", "first two guesses"))
    assert first.value == pytest.approx(10 / 30)
    assert first.interval == metrics.wilson(10, 30)
    assert second.value == 1
    assert found(findings, "MM048", "first guess, of those found at screen").value == pytest.approx(10 / 30)
    assert found(findings, "MM048", "first guess, of those found at never").explanation == "fewer than 10 patients"


def test_with_one_positive_class_there_is_no_origin_to_name(spec_of):
    findings = classes.judged(spec_of(positive=["lung"]), *patients(), None, {"screen": 0.4})
    assert not [finding for finding in findings if finding.code == "MM048"]


def test_the_sets_are_told_by_their_size(spec_of):
    label, risks = patients()
    alone, all_of_them = np.eye(4, dtype=bool)[label.astype(int)], np.ones((len(label), 4), bool)

    assert found(classes.judged(spec_of(), label, risks, alone, {}), "MM049").value == 1
    wide = found(classes.judged(spec_of(), label, risks, all_of_them, {}), "MM049")
    assert wide.value == 4 and "100% all" in wide.explanation
    drawn = classes.drawn(spec_of(), label, risks, alone, {})["class_sets"]
    assert [row["class"] for row in drawn] == NAMES
    assert all((row["size"], row["one"], row["right_alone"]) == (1, 1, 1) for row in drawn)


def test_the_findings_and_figures_travel_as_json(spec_of):
    label, risks = patients()
    findings = classes.judged(spec_of(), label, risks, risks > 0.1, {"screen": 0.4})
    figures = classes.drawn(spec_of(), label, risks, risks > 0.1, {"screen": 0.4})

    report = Report("cancer", "validation", "b" * 64, "d" * 64, tuple(findings), figures)

    assert Report.from_json(report.to_json()).findings == report.findings
    codes = [finding.code for finding in findings]
    assert sorted(set(codes)) == [f"MM0{number}" for number in range(39, 50)]
    assert all(len(finding.explanation) > 10 for finding in findings)


def test_each_class_has_its_curve_of_calibration(spec_of):
    label, risks = patients(2000)
    curves = classes.drawn(spec_of(), label, risks, None, {})["class_calibration"]

    assert list(curves) == NAMES
    for curve in curves.values():
        assert all(low < high for low, high in pairwise(curve["risk"]))
        known = [(risk, seen) for risk, seen in zip(curve["risk"], curve["observed"], strict=True) if seen is not None]
        assert max(abs(risk - seen) for risk, seen in known) < 0.15
