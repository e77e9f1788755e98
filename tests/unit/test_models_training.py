"""Training: the same in, the same out; it never looks at the test part's outcomes and keeps no patient."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs.errors import BundleError, SpecError, TrainingError
from configs.settings import Settings
from features import cohort as cohorts
from models import training
from models.family import Range
from models.onnx import Session
from models.training import FOLDS, histogram, out_of_fold, train

TRAIN = """
import json, sys
from pathlib import Path
from configs.errors import MediMindError
from configs.spec import from_document
from features import build, cohort
from models.training import train
spec = from_document(json.loads(Path(sys.argv[1]).read_text()), "angina.yaml")
try:
    print(train(spec, build.plan(spec), cohort.load(Path(sys.argv[2])), Path(sys.argv[3])).digest)
except MediMindError as exc:
    print("refused:", exc)
"""


@pytest.fixture(scope="module")
def linear(disease_of, document):
    """The same patients with one candidate: trained in no time."""
    return disease_of({**document, "candidates": ["logistic"]}, 500, 1)


@pytest.fixture
def laid_out(disease, tmp_path):
    """The spec and the cohort as files, for another process to read."""
    (tmp_path / "spec.json").write_text(json.dumps(disease.spec.document))
    cohorts.save(disease.cohort, tmp_path / "angina.parquet")
    return tmp_path / "spec.json", tmp_path / "angina.parquet"


def with_y(cohort, y):
    return dataclasses.replace(cohort, y=y)


def test_another_process_makes_the_same_bundle(trained, laid_out, child, tmp_path):
    said, _ = child(TRAIN, *laid_out, tmp_path / "elsewhere", PYTHONHASHSEED="7", TZ="UTC-3").communicate(timeout=120)
    assert said.strip() == trained.digest


def test_a_bundle_says_how_many_values_were_beyond_detection_where_there_is_a_limit(linear, tmp_path):
    counts = {"ca125": {"below": 12}}
    counted = dataclasses.replace(linear.cohort, beyond=counts)

    assert train(linear.spec, linear.plan, counted, tmp_path / "with").training["beyond_detection"] == counts
    assert "beyond_detection" not in train(linear.spec, linear.plan, linear.cohort, tmp_path / "without").training


def test_a_disk_that_fills_up_while_training_leaves_nothing_behind(linear, laid_out, child, tmp_path):
    laid_out[0].write_text(json.dumps(linear.spec.document))
    largest = 1000  # the model fits, the documents do not

    said, _ = child(TRAIN, *laid_out, tmp_path / "out" / "angina", largest_file=largest).communicate(timeout=120)

    assert said.startswith("refused: angina: the bundle could not be written: File too large. Nothing was changed.")
    assert list((tmp_path / "out").iterdir()) == []


def test_outcomes_outside_the_training_part_are_not_read(trained, disease, tmp_path):
    outside = disease.cohort.part != "train"
    flipped = with_y(disease.cohort, np.where(outside, 1 - disease.cohort.y, disease.cohort.y))

    other = train(disease.spec, disease.plan, flipped, tmp_path / "flipped")

    for name in ("model.onnx", "calibration.json", "thresholds.json", "reference.json", "selftest.json", "spec.json"):
        assert (other.folder / name).read_bytes() == (trained.folder / name).read_bytes(), name
    changed = {key for key in trained.training if trained.training[key] != other.training[key]}
    assert changed == {"data", "patients"}


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_that_mean_nothing_give_no_model_or_one_like_chance(linear, tmp_path, seed):
    noise = with_y(linear.cohort, np.random.default_rng(seed).permutation(linear.cohort.y))
    try:
        bundle = train(linear.spec, linear.plan, noise, tmp_path / "angina")
    except TrainingError:
        return
    assert 0.4 < bundle.training["candidates"]["logistic"]["auroc"] < 0.6


def test_the_candidate_with_the_lower_out_of_fold_log_loss_is_chosen(trained):
    compared = trained.training["candidates"]
    assert set(compared) == {"logistic", "boosted"}
    assert trained.training["family"] == min(compared, key=lambda name: compared[name]["log_loss"])


def test_a_candidate_that_learned_nothing_does_not_stop_the_other(disease, tmp_path, monkeypatch):
    """As with an effect that has no slope: no linear model finds it, trees do."""
    real = training.family
    backwards = SimpleNamespace(
        fit=lambda X, y, task: SimpleNamespace(log_odds=lambda rows: 50.0 - rows[:, 0].astype(float))
    )
    monkeypatch.setattr(training, "family", lambda name: backwards if name == "logistic" else real(name))

    assert train(disease.spec, disease.plan, disease.cohort, tmp_path / "angina").training["family"] == "boosted"


def test_operating_points_in_the_wrong_order_are_refused(disease_of, document, tmp_path):
    points = {"alert": {"specificity": 0.9}, "rule_out": {"sensitivity": 0.95}}
    wrong = disease_of({**document, "operating_points": points, "candidates": ["logistic"]}, 500, 1)

    with pytest.raises(TrainingError, match=r"operating_points\.rule_out: .*below 'alert'"):
        train(wrong.spec, wrong.plan, wrong.cohort, tmp_path / "angina")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("gap", [0.01, np.nan], ids=["a shift", "NaN"])
def test_an_export_that_says_something_else_is_refused(linear, tmp_path, monkeypatch, gap, task_of):
    """On some rows alone, and none of the self-test's: the oldest patients'."""
    oldest = linear.cohort.X[:, 0].max()
    real = training.fit_family

    def shifted(name, patients, task):
        fitted = real(name, patients, task)
        return SimpleNamespace(
            export=fitted.export, log_odds=lambda X: fitted.log_odds(X) + np.where(X[:, 0] == oldest, gap, 0)
        )

    out_of_fold = training.out_of_fold("logistic", linear.cohort.only("train"), task_of(linear.plan))
    monkeypatch.setattr(training, "fit_family", shifted)
    monkeypatch.setattr(training, "out_of_fold", lambda *_: out_of_fold)

    with pytest.raises(TrainingError, match=r"exported, gives risks .* from its own \(limit 1e-06\)"):
        train(linear.spec, linear.plan, linear.cohort, tmp_path / "angina")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_cannot_be_written_is_a_bundle_error(linear, tmp_path):
    (tmp_path / "a file").write_text("")
    with pytest.raises(BundleError, match="could not be written"):
        train(linear.spec, linear.plan, linear.cohort, tmp_path / "a file" / "angina")


def test_no_patient_and_no_row_stands_in_the_bundle(disease, marker, tmp_path):
    """A value that only one patient has: neither it nor anyone's identifier is found in any file."""
    rare = 234.5675
    patients = dataclasses.replace(disease.cohort, X=disease.cohort.X.copy())
    (row, *_) = np.flatnonzero(patients.part == "train")
    patients.X[row, 2] = rare
    assert all(marker in patient for patient in patients.patient)

    bundle = train(disease.spec, disease.plan, patients, tmp_path / "angina")

    for path in bundle.folder.iterdir():
        content = path.read_bytes()
        assert marker.encode() not in content, path.name
        assert b"234.567" not in content, path.name
        assert np.float32(rare).tobytes() not in content and np.float64(rare).tobytes() not in content, path.name


def test_the_reference_holds_counts_of_the_training_part(trained, disease):
    patients = disease.cohort.only("train")
    reference = trained.reference

    assert reference["n"] == len(patients) and reference["events"] == patients.y.sum()
    assert list(reference["features"]) == list(disease.plan.names)
    for position, name in enumerate(disease.plan.names):
        feature = reference["features"][name]
        assert sum(feature["counts"]) + feature["missing"] == len(patients)
        assert feature["missing"] == np.isnan(patients.X[:, position]).sum()
    assert sum(reference["score"]["counts"]) == len(patients)


def test_every_case_of_the_self_test_is_invented(trained, disease):
    known = {row.tobytes() for row in disease.cohort.X}
    for case in trained.selftest["cases"]:
        row = np.array([np.nan if value is None else value for value in case["features"]], np.float32)
        assert row.tobytes() not in known


def test_out_of_fold_predictions_are_of_models_that_never_saw_the_patient(disease, monkeypatch, task_of):
    patients = disease.cohort.only("train")
    marked = dataclasses.replace(patients, X=np.arange(len(patients), dtype=np.float32)[:, None].repeat(6, axis=1))
    seen_by = []

    def remembers(name, learned, task):
        mine = set(learned.X[:, 0].tolist())
        seen_by.append(mine)
        return SimpleNamespace(log_odds=lambda X: np.array([float(value in mine) for value in X[:, 0].tolist()]))

    monkeypatch.setattr(training, "fit_family", remembers)

    assert out_of_fold("any", marked, task_of(disease.plan)).tolist() == [0.0] * len(patients)
    assert len(seen_by) == FOLDS


def test_each_fit_of_a_training_has_a_place_for_its_state_and_says_which_one_it_is(disease, monkeypatch, tmp_path):
    real, places, told = training.fit_family, [], []

    def remembers(name, learned, task):
        places.append(task.checkpoints and task.checkpoints.relative_to(tmp_path).as_posix())
        task.told(0, {"log_loss": 0.5})
        return real(name, learned, task)

    monkeypatch.setattr(training, "fit_family", remembers)
    spec = disease.spec.model_copy(update={"candidates": ["logistic"]})
    training.train(
        spec, disease.plan, disease.cohort, tmp_path / "bundle", None, learned=lambda *said: told.append(said),
        checkpoints=tmp_path / "left",
    )  # fmt: skip
    parts = [f"fold {fold}" for fold in range(1, FOLDS + 1)] + ["all"]
    assert places == [f"left/logistic/{part.replace(' ', '_')}" for part in parts]
    assert told == [("logistic", part, 0, {"log_loss": 0.5}) for part in parts]


def test_a_patients_rows_stay_in_one_fold(disease, monkeypatch, task_of):
    patients = disease.cohort.only("train")
    twice = patients.where(np.arange(len(patients)).repeat(2))  # every patient has two rows
    number = np.unique(twice.patient, return_inverse=True)[1].astype(np.float32)
    marked = dataclasses.replace(twice, X=number[:, None].repeat(6, axis=1))

    def remembers(name, learned, task):
        mine = set(learned.X[:, 0].tolist())
        return SimpleNamespace(log_odds=lambda X: np.array([float(value in mine) for value in X[:, 0].tolist()]))

    monkeypatch.setattr(training, "fit_family", remembers)
    assert not out_of_fold("any", marked, task_of(disease.plan)).any()


def test_a_histograms_outermost_bins_are_open():
    assert histogram(np.array([-99.0, 0.0, 0.5, 1.0, 99.0]), [0.0, 1.0]) == [1, 2, 2]
    assert histogram(np.empty(0), [0.0, 1.0]) == [0, 0, 0]


def test_the_exported_model_is_the_one_that_was_fitted(trained, disease, task_of):
    patients = disease.cohort.only("train")
    fitted = training.fit_family(trained.training["family"], patients, task_of(disease.plan))
    gap = np.abs(Session(trained.folder / "model.onnx").log_odds(disease.cohort.X) - fitted.log_odds(disease.cohort.X))

    assert gap.max() < 1e-5
    assert trained.training["parity"] < 1e-6


@pytest.fixture(scope="module")
def linear_of_classes(disease_of, document_of_classes):
    """The patients with three classes, and one candidate: trained in no time."""
    return disease_of({**document_of_classes, "candidates": ["logistic"]}, 700, 1)


def test_classes_outside_the_training_part_are_not_read_and_the_same_ones_give_the_same_bundle(
    linear_of_classes, tmp_path
):
    spec, plan, patients = (getattr(linear_of_classes, name) for name in ("spec", "plan", "cohort"))
    outside = patients.part != "train"
    label = np.where(outside, 2 - patients.label, patients.label)
    once, again, other = (
        train(spec, plan, cohort, tmp_path / name)
        for name, cohort in (
            ("once", patients),
            ("again", patients),
            ("other", dataclasses.replace(patients, label=label, y=(label > 0) * 1.0)),
        )
    )

    assert again.digest == once.digest
    for path in once.folder.iterdir():
        if path.name not in ("training.json", "MANIFEST.json"):
            assert (other.folder / path.name).read_bytes() == path.read_bytes(), path.name


def test_candidates_are_compared_by_the_log_loss_of_all_classes(linear_of_classes, tmp_path, task_of):
    from sklearn.metrics import log_loss, roc_auc_score

    spec, plan, patients = linear_of_classes.spec, linear_of_classes.plan, linear_of_classes.cohort.only("train")

    bundle = train(spec, plan, linear_of_classes.cohort, tmp_path / "angina")

    log_odds = out_of_fold("logistic", patients, task_of(plan))
    shares = np.exp(log_odds) / np.exp(log_odds).sum(axis=1, keepdims=True)
    compared = bundle.training["candidates"]["logistic"]
    assert compared["log_loss"] == pytest.approx(log_loss(patients.label, bundle.calibration.risks(log_odds)))
    assert compared["auroc"] == pytest.approx(roc_auc_score(patients.y, shares[:, 1] + shares[:, 2]))


def test_an_operating_point_is_reached_by_the_risk_of_all_the_events_classes(linear_of_classes, tmp_path, task_of):
    spec, plan, patients = linear_of_classes.spec, linear_of_classes.plan, linear_of_classes.cohort.only("train")

    bundle = train(spec, plan, linear_of_classes.cohort, tmp_path / "angina")

    risk = bundle.calibration.risk(out_of_fold("logistic", patients, task_of(plan)))
    assert (risk[patients.y == 1] >= bundle.thresholds["rule_out"]).mean() >= 0.95
    assert (risk[patients.y == 0] < bundle.thresholds["alert"]).mean() >= 0.9


def test_the_reference_has_each_classs_patients_and_a_histogram_of_its_risks(predictor_of_classes, disease_of_classes):
    patients = disease_of_classes.cohort.only("train")

    classes = predictor_of_classes.bundle.reference["classes"]

    assert list(classes) == ["none", "stable", "unstable"]
    for place, name in enumerate(classes):
        share = (patients.label == place).mean()
        assert classes[name]["n"] == (patients.label == place).sum()
        assert sum(classes[name]["score"]["counts"]) == len(patients)
        assert classes[name]["score"]["mean"] == pytest.approx(share)  # calibrated on these very patients


def test_an_export_that_says_something_else_of_one_class_is_refused(linear_of_classes, tmp_path, monkeypatch, task_of):
    out = training.out_of_fold("logistic", linear_of_classes.cohort.only("train"), task_of(linear_of_classes.plan))
    real = training.fit_family

    def shifted(name, patients, task):
        fitted = real(name, patients, task)
        return SimpleNamespace(export=fitted.export, log_odds=lambda X: fitted.log_odds(X) + np.array([0, 0, 1e-4]))

    monkeypatch.setattr(training, "fit_family", shifted)
    monkeypatch.setattr(training, "out_of_fold", lambda *_: out)

    with pytest.raises(TrainingError, match=r"exported, gives risks .* from its own"):
        train(linear_of_classes.spec, linear_of_classes.plan, linear_of_classes.cohort, tmp_path / "angina")


def test_classes_that_mean_nothing_give_no_model_or_one_like_chance(linear_of_classes, tmp_path):
    patients = linear_of_classes.cohort
    label = np.random.default_rng(3).permutation(patients.label)
    noise = dataclasses.replace(patients, label=label, y=(label > 0) * 1.0)
    try:
        bundle = train(linear_of_classes.spec, linear_of_classes.plan, noise, tmp_path / "angina")
    except TrainingError:
        return
    assert 0.4 < bundle.training["candidates"]["logistic"]["auroc"] < 0.6


def test_a_class_that_is_one_patients_rows_cannot_be_cross_validated(linear_of_classes, task_of):
    patients = linear_of_classes.cohort.only("train")
    one = dataclasses.replace(patients, patient=np.where(patients.label == 2, "P", patients.patient))

    with pytest.raises(TrainingError, match="class 2 is that of too few different patients"):
        out_of_fold("logistic", one, task_of(linear_of_classes.plan))


@pytest.fixture(scope="module")
def searched(disease_of, document):
    """The same patients with one candidate, whose penalty is chosen by trials."""
    return disease_of({**document, "candidates": ["logistic"], "trials": {"count": 7, "folds": 2}}, 500, 1)


def of_trials(disease, folder, home, tried=lambda candidate, part, trial: None):
    return train(disease.spec, disease.plan, disease.cohort, folder, home, tried)


def test_parameters_are_chosen_by_trials_and_the_bundle_says_which_and_how_often(searched, home, tmp_path, task_of):
    told = []
    bundle = of_trials(searched, tmp_path / "angina", home, lambda *each: told.append(each))

    said = bundle.training["trials"]["logistic"]
    parts = [f"fold {number}" for number in range(1, FOLDS + 1)] + ["all"]
    assert [(candidate, part, trial.number) for candidate, part, trial in told] == [
        ("logistic", part, number) for part in parts for number in range(7)
    ]
    last = [trial for _, part, trial in told if part == "all"]
    best = min((trial for trial in last if trial.state == "complete"), key=lambda trial: trial.losses[-1])
    assert (said["parameters"], said["log_loss"]) == (best.parameters, best.losses[-1])
    assert said["log_loss_of_own"] == last[0].losses[-1] >= said["log_loss"]
    assert said["complete"] + said["pruned"] + said["failed"] == 7
    assert len(said["by_fold"]) == FOLDS
    assert bundle.parameters("logistic") == said["parameters"] and bundle.parameters("boosted") == {}
    patients = searched.cohort.only("train")
    task = dataclasses.replace(task_of(searched.plan), parameters=said["parameters"])
    again = training.fit_family("logistic", patients, task)
    assert np.abs(Session(bundle.folder / "model.onnx").log_odds(patients.X) - again.log_odds(patients.X)).max() < 1e-5


def test_a_bundle_without_trials_does_not_speak_of_them(trained):
    assert "trials" not in trained.training and "optuna" not in trained.training["libraries"]


def test_a_training_killed_in_its_search_ends_with_the_bundle_of_an_unbroken_one(searched, home, tmp_path):
    class Killed(Exception):
        pass

    def until_the_kill(candidate, part, trial):
        if (part, trial.number) == ("fold 3", 4):
            raise Killed

    with pytest.raises(Killed):
        of_trials(searched, tmp_path / "angina", home, until_the_kill)
    told = []
    resumed = of_trials(searched, tmp_path / "angina", home, lambda _, part, trial: told.append(part))
    elsewhere = Settings(home=tmp_path / "elsewhere")
    unbroken = of_trials(searched, tmp_path / "unbroken", elsewhere)

    assert resumed.digest == unbroken.digest
    assert [told.count(f"fold {number}") for number in (1, 2, 3, 4)] == [0, 0, 2, 7]  # 5 of the third were on record


def test_whoever_is_held_out_has_no_say_in_the_parameters_of_the_model_that_judges_them(searched, monkeypatch, task_of):
    patients = searched.cohort.only("train")
    marked = dataclasses.replace(patients, X=np.arange(len(patients), dtype=np.float32)[:, None].repeat(6, axis=1))
    asked, fitted = [], []

    def choose(learned, part):
        asked.append(set(learned.X[:, 0].tolist()))
        return {"C": float(len(asked))}

    def remembers(name, learned, task):
        fitted.append((task.parameters, set(learned.X[:, 0].tolist())))
        return SimpleNamespace(log_odds=lambda X: np.array([float(value in asked[-1]) for value in X[:, 0].tolist()]))

    monkeypatch.setattr(training, "fit_family", remembers)

    assert not out_of_fold("any", marked, task_of(searched.plan), choose).any()  # nobody was among those who chose
    assert fitted == [({"C": float(number)}, who) for number, who in enumerate(asked, start=1)]


def test_a_search_reads_nobody_but_those_whom_it_is_given(searched, monkeypatch, home, task_of):
    patients = searched.cohort.only("train")
    some = patients.where(np.arange(len(patients)) % 3 > 0)
    seen = set()
    real = training.fit_family

    def remembers(name, learned, task):
        seen.update(row.tobytes() for row in learned.X)
        fitted = real(name, learned, task)
        return SimpleNamespace(log_odds=lambda X: seen.update(row.tobytes() for row in X) or fitted.log_odds(X))

    monkeypatch.setattr(training, "fit_family", remembers)
    task = dataclasses.replace(task_of(searched.plan), settings=home)
    training.Tuner("logistic", searched.spec, task, lambda *_: None)(some, "some")

    assert seen == {row.tobytes() for row in some.X}


def test_parameters_that_learn_nothing_are_a_failed_trial_and_end_no_training(searched, monkeypatch, home, task_of):
    real = training.fit_family

    def diverges(name, learned, task):
        if task.parameters.get("C", 0) > 1:
            raise TrainingError("it diverged")
        return real(name, learned, task)

    monkeypatch.setattr(training, "fit_family", diverges)
    tuner = training.Tuner(
        "logistic", searched.spec, dataclasses.replace(task_of(searched.plan), settings=home), lambda *_: None
    )
    tuner(searched.cohort.only("train"), "all")

    trials = tuner.searches["all"].trials
    assert {trial.state == "failed" for trial in trials if trial.parameters.get("C", 0) > 1} == {True}
    assert tuner.searches["all"].best.parameters.get("C", 0) <= 1


def test_what_a_familys_own_parameters_cannot_learn_from_ends_the_search(searched, monkeypatch, home, task_of):
    def fails(*_):
        raise TrainingError("nobody to learn from")

    monkeypatch.setattr(training, "fit_family", fails)
    tuner = training.Tuner(
        "logistic", searched.spec, dataclasses.replace(task_of(searched.plan), settings=home), lambda *_: None
    )
    with pytest.raises(TrainingError, match="nobody to learn from"):
        tuner(searched.cohort.only("train"), "other")


def test_the_tuned_figure_is_too_good_and_the_reported_one_is_not(disease_of, document, monkeypatch, home, task_of):
    """Eight scores that mean nothing, and outcomes by lot: one of them looks better than chance, every time."""
    asked = {**document, "candidates": ["logistic"], "trials": {"count": 8, "folds": 2}}
    disease = disease_of(asked, 300, 2)
    patients = disease.cohort.only("train")
    task = dataclasses.replace(task_of(disease.plan), settings=home)

    def fit(X, y, task):
        scale = 1000.0 * (1 + task.parameters.get("which", 0))
        return SimpleNamespace(log_odds=lambda rows: np.sin(scale * rows[:, 0].astype(float) + 7 * rows[:, 1]))

    monkeypatch.setattr(training, "family", lambda name: SimpleNamespace(fit=fit))
    monkeypatch.setattr(training, "space", lambda *_: {"which": Range(1, 400)})
    monkeypatch.setattr(training, "Shelf", lambda *_: None)  # nothing is kept, which would take most of the time
    tuned, reported, aurocs = [], [], []
    for seed in range(4):
        dice = np.random.default_rng(seed)
        X = dice.random((len(patients), 6)).astype(np.float32)
        noise = dataclasses.replace(patients, X=X, y=dice.permutation(patients.y))
        tuner = training.Tuner("logistic", disease.spec, task, lambda *_: None)
        held_out = training._compare(disease.spec.outcome, out_of_fold("logistic", noise, task, tuner), noise)
        tuner(noise, "all")
        tuned.append(tuner.document["log_loss"])
        reported.append(held_out["log_loss"])
        aurocs.append(held_out["auroc"])
    share = patients.y.mean()
    chance = -share * np.log(share) - (1 - share) * np.log(1 - share)

    assert max(tuned) < chance - 0.002  # the best of eight, on the patients who chose it
    assert min(reported) > chance - 0.001 and abs(np.mean(aurocs) - 0.5) < 0.03


def test_a_class_of_fewer_patients_than_the_trials_have_folds_is_named(disease_of, document, home, tmp_path):
    few = disease_of({**document, "candidates": ["logistic"], "trials": {"count": 2, "folds": 40}}, 300, 1)
    sick = np.flatnonzero((few.cohort.y == 1) & (few.cohort.part == "train"))[25:]
    fewer = few.cohort.where(~np.isin(np.arange(len(few.cohort)), sick))

    with pytest.raises(TrainingError, match=r"trials\.folds: class 1 has 20 patients in fold 1 of the training part"):
        train(few.spec, few.plan, fewer, tmp_path / "angina", home)


def test_trials_of_candidates_with_nothing_to_choose_are_refused(searched, home, tmp_path, monkeypatch):
    from models.families import logistic

    monkeypatch.setattr(logistic, "SPACE", {})
    with pytest.raises(SpecError, match="angina: trials: none of the candidates logistic has parameters to choose"):
        train(searched.spec, searched.plan, searched.cohort, tmp_path / "angina", home)
