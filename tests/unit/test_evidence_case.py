"""Each fault that is planted in a model or its data is caught by the finding that is there for it."""

import dataclasses
import json

import numpy as np
import pytest

from configs.settings import Settings
from evidence import calibration, importance, metrics, probes
from evidence.case import Rival, case
from evidence.report import Report
from models.calibration import Calibration
from models.predict import Predictor
from models.training import fit_family, ranking, task, train
from pipelines.sites import leave_one_out

NOBODY = Rival("", None, "there is no champion yet")


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 60)
    monkeypatch.setattr(importance, "REPEATS", 3)
    monkeypatch.setattr(probes, "NOISY_REPEATS", 3)


def judged(disease, predictor, cohort=None, champion=NOBODY):
    cohort = disease.cohort if cohort is None else cohort
    learning, family = task(disease.spec, disease.plan, cohort, Settings()), predictor.bundle.training["family"]

    def fit(patients):
        return fit_family(family, patients, learning)

    yardstick = fit_family("logistic", cohort.only("train"), learning).log_odds(cohort.only("test").X)
    logistic = ranking(disease.spec.outcome, yardstick)
    sites = leave_one_out(disease.spec, cohort, family, learning)
    return case(predictor, cohort, {"logistic": logistic}, champion, sites, fit, fit, {"git": "unknown"})


@pytest.fixture(scope="module")
def honest(disease, predictor):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "RESAMPLES", 60)
        patch.setattr(importance, "REPEATS", 3)
        patch.setattr(probes, "NOISY_REPEATS", 3)
        return judged(disease, predictor)


def failed(report):
    return {finding.code for finding in report.failed}


def test_an_honest_model_fails_nothing_and_its_report_travels_as_json(honest):
    assert not failed(honest)
    assert Report.from_json(honest.to_json()) == honest


def test_every_code_of_the_documentation_is_made_or_its_absence_has_a_reason(honest):
    codes = {finding.code for finding in honest.findings}
    assert {f"MM{number:03}" for number in (*range(1, 9), 9, 11, 12, *range(14, 39))} - codes <= {"MM013", "MM010"}
    for finding in honest.findings:
        assert finding.explanation
        assert finding.verdict != "not applicable" or finding.value is not None or len(finding.explanation) > 10


def test_no_figure_of_the_page_holds_a_patient(disease, honest):
    told = json.dumps(honest.figures)
    assert not any(patient in told for patient in disease.cohort.patient.tolist())
    assert len(honest.figures["roc"]["fpr"]) == 101


def test_the_same_model_and_data_make_the_same_report(disease, predictor, honest):
    assert judged(disease, predictor).agrees(honest)


def test_a_leaking_column_is_named(disease_of, document, tmp_path):
    """The outcome, scaled, plus noise, under an innocent name."""
    disease = disease_of(document, 400, 3)
    place = next(i for i, feature in enumerate(disease.plan.features) if not feature.categories)
    X = disease.cohort.X.copy()
    dice = np.random.default_rng(0)
    low, high = disease.spec.columns[disease.plan.names[place]].range
    X[:, place] = low + (high - low) * (0.3 + 0.4 * disease.cohort.y + dice.normal(0, 0.04, len(X)))
    leaking = dataclasses.replace(disease, cohort=dataclasses.replace(disease.cohort, X=X))
    bundle = train(leaking.spec, leaking.plan, leaking.cohort, tmp_path / "leaking")

    report = judged(leaking, Predictor(bundle))

    assert "MM032" in failed(report)
    assert report.finding("MM032").explanation.startswith(disease.plan.names[place])


def test_a_patient_on_both_sides_of_the_split_is_counted(disease, predictor):
    cohort = disease.cohort
    patient = cohort.patient.copy()
    learned, tested = (np.flatnonzero(cohort.part == part)[0] for part in ("train", "test"))
    patient[tested] = patient[learned]

    report = judged(disease, predictor, dataclasses.replace(cohort, patient=patient))

    assert report.finding("MM034").value == 1
    assert "MM034" in failed(report)


def test_a_row_entered_twice_under_two_names_is_counted(disease, predictor):
    cohort = disease.cohort
    X, y = cohort.X.copy(), cohort.y.copy()
    whole = ~np.isnan(X).any(axis=1)
    learned, tested = (np.flatnonzero((cohort.part == part) & whole)[0] for part in ("train", "test"))
    X[tested], y[tested] = X[learned], y[learned]

    report = judged(disease, predictor, dataclasses.replace(cohort, X=X, y=y))

    assert report.finding("MM035").value == 1


def test_an_uncalibrated_model_fails_its_calibration_gates(disease_of, document, tmp_path):
    gates = {"calibration_slope": {"reaches": [0.8, 1.25]}, "ici": "<= 0.1"}
    disease = disease_of({**document, "gates": gates}, 500, 1)
    predictor = Predictor(train(disease.spec, disease.plan, disease.cohort, tmp_path / "angina"))
    assert not failed(judged(disease, predictor))

    off = Calibration(slope=predictor.bundle.calibration.slope * 4, intercept=2.0)
    predictor.bundle = dataclasses.replace(predictor.bundle, calibration=off)

    assert {"MM006", "MM017"} <= failed(judged(disease, predictor))


def test_a_subgroup_with_inverted_labels_is_the_worst_and_fails(disease_of, document, tmp_path):
    disease = disease_of({**document, "gates": {"worst_subgroup_auroc": ">= 0.6"}}, 1200, 1)
    predictor = Predictor(train(disease.spec, disease.plan, disease.cohort, tmp_path / "angina"))
    cohort = disease.cohort
    there = cohort.attributes["site"] == "south"
    y = np.where(there & (cohort.part == "test"), 1 - cohort.y, cohort.y)

    report = judged(disease, predictor, dataclasses.replace(cohort, y=y))

    assert "MM008" in failed(report)
    assert report.finding("MM008").explanation.startswith("site south")


def test_the_champion_is_compared_on_the_same_patients_or_the_reason_is_told(disease, predictor, honest):
    assert honest.finding("MM015").explanation == "there is no champion yet"
    same = predictor.risk(disease.cohort.only("test").X)

    finding = judged(disease, predictor, champion=Rival("angina@1", same)).finding("MM015")

    assert (finding.value, finding.verdict) == (0.0, "not applicable")
    assert "angina@1" in finding.explanation


@pytest.fixture(scope="module")
def of_classes(disease_of_classes, tmp_path_factory):
    disease = disease_of_classes
    bundle = train(disease.spec, disease.plan, disease.cohort, tmp_path_factory.mktemp("classes") / "angina")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "RESAMPLES", 60)
        patch.setattr(calibration, "RESAMPLES", 10)
        patch.setattr(importance, "REPEATS", 3)
        patch.setattr(probes, "NOISY_REPEATS", 3)
        return judged(disease, Predictor(bundle))


def test_of_several_classes_each_is_judged_beside_the_event_of_any_of_them(disease_of_classes, of_classes):
    assert failed(of_classes) <= {"MM022"}  # of 113 patients a point may miss what it promised
    codes = {finding.code for finding in of_classes.findings}
    assert {f"MM{number:03}" for number in (*range(1, 9), *range(39, 51))} - codes <= {"MM010"}
    assert Report.from_json(of_classes.to_json()) == of_classes
    test = disease_of_classes.cohort.only("test")
    assert f"{int((test.label > 0).sum())} events" in of_classes.finding("MM001").explanation
    assert [one["name"] for one in of_classes.figures["classes"]] == ["none", "stable", "unstable"]
    assert {one["stage"] for one in of_classes.figures["stages"]} <= {"1", "2", "3", "4", "not known"}
    assert of_classes.figures["table1"]["columns"] == ["all", "none", "stable", "unstable"]


def test_no_figure_of_classes_holds_a_patient(disease_of_classes, of_classes):
    told = json.dumps([of_classes.figures, of_classes.to_json()])
    assert not any(patient in told for patient in disease_of_classes.cohort.patient.tolist())


def test_what_only_classes_or_screening_ask_for_is_not_in_a_report_without_them(honest):
    assert not {finding.code for finding in honest.findings} & {f"MM{number:03}" for number in range(39, 54)}
    assert not {"classes", "confusion", "class_sets", "stages", "screening"} & set(honest.figures)
