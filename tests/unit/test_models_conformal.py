"""A prediction set holds what happens as often as promised, in each class; silence has its reason."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.spec import Uncertainty
from models import bundle as bundles
from models import conformal
from models.conformal import LABELS, ClassConformal, Conformal, abstentions, class_thresholds, labels, thresholds
from models.predict import Predictor
from models.training import train

EVENT = np.array([False, True])


def patients(n, seed):
    dice = np.random.default_rng(seed)
    risk = dice.beta(1.5, 2.5, n)
    return risk, (dice.random(n) < risk).astype(float)


def test_each_class_has_its_coverage_on_new_patients():
    held: dict[int, list[float]] = {0: [], 1: []}
    for seed in range(60):
        found = thresholds(*patients(300, seed), 0.9)
        risk, y = patients(2000, 1000 + seed)
        sets = found.sets(risk)
        for outcome in (0, 1):
            held[outcome].append(sets[y == outcome, outcome].mean())
    for shares in held.values():
        assert 0.895 < np.mean(shares) < 0.915  # at least the coverage, and at most 1 / (n + 1) more of the class


class Told:
    """A classifier whose probabilities are its input."""

    classes_ = np.array([0, 1])

    def fit(self, X, y):
        return self

    def predict_proba(self, X):
        return np.column_stack([1 - X[:, 0], X[:, 0]])

    def predict(self, X):
        return (X[:, 0] >= 0.5).astype(int)

    def __sklearn_is_fitted__(self):
        return True


def test_the_sets_are_those_of_mapie_class_by_class():
    """MAPIE's split-conformal sets by the least ambiguous score, calibrated on each class by itself."""
    from mapie.classification import SplitConformalClassifier

    risk, y = patients(217, 4)
    sets = thresholds(risk, y, 0.85).sets(np.linspace(0.001, 0.999, 400))
    for outcome in (0, 1):
        mine = y == outcome
        peer = SplitConformalClassifier(Told(), confidence_level=0.85, conformity_score="lac", prefit=True)
        peer.conformalize(risk[mine, None], y[mine].astype(int))
        _, theirs = peer.predict_set(np.linspace(0.001, 0.999, 400)[:, None])
        assert np.array_equal(sets[:, outcome], theirs[:, outcome, 0]), outcome


@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=2, max_size=40), st.floats(0.51, 0.99)
)
def test_enough_of_the_patients_themselves_are_covered(rows, coverage):
    risk, y = (np.array(column) for column in zip(*rows, strict=True))
    sets = thresholds(risk, y, coverage).sets(risk)
    for outcome in (0, 1):
        mine = y == outcome
        if mine.any():
            assert sets[mine, outcome].mean() >= coverage or np.isclose(sets[mine, outcome].mean(), coverage)


def test_a_class_of_too_few_patients_is_never_ruled_out():
    found = thresholds(np.array([0.2, 0.8]), np.array([0.0, 1.0]), 0.9)
    assert found.sets(np.array([0.0, 0.5, 1.0])).all()


CLASSES = ("none", "colon", "lung")


def of_three(n, seed):
    """Risks of three classes, the last one rare, and the class that came true."""
    dice = np.random.default_rng(seed)
    risks = dice.dirichlet([4, 2, 0.6], n)
    return risks, (risks.cumsum(axis=1) > dice.random((n, 1))).argmax(axis=1).astype(float)


def test_each_of_several_classes_has_its_coverage_on_new_patients():
    held: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for seed in range(60):
        found = class_thresholds(*of_three(400, seed), CLASSES, 0.9)
        risks, label = of_three(2000, 1000 + seed)
        sets = found.sets(risks)
        for place in held:
            held[place].append(sets[label == place, place].mean())
    assert 0.892 < np.mean(held[0]) < 0.912
    assert 0.890 < np.mean(held[1]) < 0.918
    assert 0.880 < np.mean(held[2]) < 0.945  # of 37 patients in the mean, at most 1 / 38 more than promised


def test_of_two_classes_the_sets_are_those_of_one_event():
    risk, y = patients(217, 4)

    of_event = thresholds(risk, y, 0.85).sets(risk)

    of_classes = class_thresholds(np.column_stack([1 - risk, risk]), y, LABELS, 0.85).sets(
        np.column_stack([1 - risk, risk])
    )
    assert np.array_equal(of_classes, of_event)


def test_a_class_of_too_few_patients_is_never_ruled_out_among_several():
    risks = np.array([[0.8, 0.1, 0.1]] * 20 + [[0.1, 0.8, 0.1]] * 20 + [[0.1, 0.1, 0.8]])
    label = np.array([0.0] * 20 + [1.0] * 20 + [2.0])

    found = class_thresholds(risks, label, CLASSES, 0.9)

    assert found == ClassConformal(0.9, {"none": 0.8, "colon": 0.8, "lung": 0.0})
    assert labels(found.sets(np.array([[0.8, 0.2, 0.0]])), CLASSES) == [["none", "lung"]]


def test_the_events_risk_alone_makes_no_set_of_classes():
    with pytest.raises(IndexError):
        ClassConformal(0.9, {"none": 0.8, "colon": 0.8, "lung": 0.1}).sets(np.array([0.1, 0.2, 0.3]))


def test_classes_of_the_event_that_cannot_be_told_apart_leave_no_doubt_of_it():
    rule = Uncertainty(coverage=0.9, abstain_unless_one_label=True)
    event = np.array([False, True, True])
    possible = np.array([[True, False, False], [False, True, True], [True, True, False], [False, False, False]])

    assert abstentions(rule, possible, event, [0] * 4) == [
        None,
        None,
        "neither outcome can be ruled out",
        "the risk is that of neither outcome",
    ]


def test_labels_stand_in_words():
    sets = Conformal(0.9, negative=0.6, positive=0.3).sets(np.array([0.1, 0.4, 0.7]))
    assert labels(sets, LABELS) == [["negative"], ["negative", "positive"], ["positive"]]
    assert labels(Conformal(0.9, negative=0.2, positive=0.8).sets(np.array([0.5])), LABELS) == [[]]


def test_the_rule_says_why_it_keeps_silent():
    possible = np.array([[True, False], [True, True], [False, False], [False, True]])
    rule = Uncertainty(coverage=0.9, abstain_unless_one_label=True, missing_at_most=2)

    assert abstentions(rule, possible, EVENT, [0, 0, 0, 3]) == [
        None,
        "neither outcome can be ruled out",
        "the risk is that of neither outcome",
        "3 values are missing, at most 2 may be",
    ]
    lax = Uncertainty(coverage=0.9, abstain_unless_one_label=False)
    assert abstentions(lax, possible, EVENT, [9, 9, 9, 9]) == [None] * 4


@pytest.fixture(scope="module")
def certain(disease_of, document, tmp_path_factory):
    """The invented disease, with prediction sets and silence where more than one value is missing."""
    rule = {"coverage": 0.8, "abstain_unless_one_label": False, "missing_at_most": 1}
    disease = disease_of({**document, "uncertainty": rule}, 500, 1)
    folder = tmp_path_factory.mktemp("certain") / "angina"
    return Predictor(train(disease.spec, disease.plan, disease.cohort, folder)), disease


def test_a_bundle_carries_its_thresholds_and_its_answers_say_so(certain):
    predictor, disease = certain
    whole, sparse = (
        predictor.check(next(case["record"] for case in predictor.bundle.selftest["cases"] if keep(case["features"])))
        for keep in (lambda row: None not in row, lambda row: row.count(None) > 2)
    )
    told, silent = predictor.predictions([whole, sparse], predictor.risk(predictor.features([whole, sparse])))

    assert predictor.bundle.conformal.coverage == 0.8
    assert set(told.set) <= set(conformal.LABELS) and told.abstained is None
    assert silent.band is None and "values are missing" in silent.abstained
    sets = predictor.sets(predictor.risk(disease.cohort.only("test").X))
    y = disease.cohort.only("test").y
    assert np.where(y == 1, sets[:, 1], sets[:, 0]).mean() > 0.7


def test_a_bundle_without_the_section_answers_as_before(predictor):
    record = predictor.check(predictor.bundle.selftest["cases"][-1]["record"])
    (told,) = predictor.predictions([record], np.array([0.5]))
    assert (predictor.bundle.conformal, told.set, told.abstained) == (None, None, None)


def test_a_bundle_of_the_first_format_is_still_read_and_answers_to_the_bit(trained, predictor, tmp_path, reseal):
    folder = tmp_path / "first"
    shutil.copytree(trained.folder, folder)
    (folder / "conformal.json").unlink()
    reseal(folder)
    manifest = json.loads((folder / bundles.MANIFEST).read_text())
    (folder / bundles.MANIFEST).write_text(json.dumps({**manifest, "format": 1}))

    first = Predictor(bundles.load(folder))

    X = first.features([first.check(case["record"]) for case in first.bundle.selftest["cases"]])
    assert first.bundle.conformal is None
    assert first.risk(X).tobytes() == predictor.risk(X).tobytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"coverage": 0.8},
        {"coverage": 0.9, "negative": 0.5, "positive": 0.4},
        {"coverage": 0.8, "negative": "0.5", "positive": 0.4},
        {"coverage": 0.8, "negative": None, "positive": 0.4},
        {"coverage": 0.8, "negative": float("nan"), "positive": 0.4},
        {"coverage": 0.8, "negative": 0.5, "positive": -0.1},
        {"coverage": 0.8, "negative": 0.5, "positive": 0.4, "more": 0.1},
    ],
)
def test_thresholds_that_are_not_what_the_spec_asks_for_are_refused(certain, tmp_path, reseal, wrong):
    folder = tmp_path / "odd"
    shutil.copytree(certain[0].bundle.folder, folder)
    (folder / "conformal.json").write_text(json.dumps(wrong))
    reseal(folder)

    with pytest.raises(bundles.BundleError, match=r"conformal\.json"):
        bundles.load(folder)


def test_thresholds_that_no_spec_asks_for_are_refused(trained, tmp_path, reseal):
    folder = tmp_path / "odd"
    shutil.copytree(trained.folder, folder)
    (folder / "conformal.json").write_text('{"coverage": 0.9, "negative": 0.5, "positive": 0.4}')
    reseal(folder)

    with pytest.raises(bundles.BundleError, match=r"conformal\.json has a coverage of 0\.9"):
        bundles.load(folder)


def test_a_set_is_a_value_like_any_other():
    assert dataclasses.asdict(Conformal(0.9, 0.6, 0.3)) == Conformal(0.9, 0.6, 0.3).document
