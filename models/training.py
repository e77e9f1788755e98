"""From a cohort to a bundle: candidates compared, the best one calibrated, given its thresholds, exported and checked.

Everything that is chosen here is chosen on out-of-fold predictions of the training part. The test part's outcomes are
not read; its feature rows serve, like every other row, to check that the exported model says what the fitted one says.
"""

import hashlib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import TrainingError
from configs.settings import ROOT, Settings
from configs.spec import Outcome, Spec
from features.build import Plan, build
from features.cohort import Cohort, class_counts
from features.columns import as_arrays, check_record, times
from features.events import Reducer
from features.synthetic import draw, edges
from models import bundle as bundles
from models import conformal
from models.bundle import Bundle
from models.calibration import Calibration, ClassCalibration, calibrate, calibrate_classes
from models.family import Fitted, Task, family, load
from models.predict import TOLERANCE
from models.thresholds import operating_points

FOLDS = 5
RANDOM_RECORDS = 1000
SELF_TEST_RECORDS = 13
SCORE_EDGES = [round(0.1 * step, 1) for step in range(1, 10)]


def task(spec: Spec, plan: Plan, train: Cohort, settings: Settings) -> Task:
    """What every candidate of the spec learns with on `train`."""
    classes = len(spec.outcome.classes or ("no event", "event"))
    return Task(plan, spec.split.seed, train.groups, settings, classes, spec.learning, spec.encoder)


def fit_family(name: str, train: Cohort, task: Task) -> Fitted:
    """One candidate, fitted on `train` with one thread, so that the same patients give the same bits."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        classes = 2 if train.label is None else task.classes  # a probe may learn the event alone
        return family(name).fit(train.X, train.target, replace(task, groups=train.groups, classes=classes))


def out_of_fold(name: str, train: Cohort, task: Task) -> NDArray[np.float64]:
    """Log-odds (n,), of several classes (n, K), of each training patient from a model that never saw that patient.

    Raises TrainingError if all patients of a class came into one fold: they are one patient's rows.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    found: NDArray[np.float64] = np.empty(0)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=task.seed)
    for learn, hold in folds.split(train.X, train.target, train.groups):
        learned = train.where(np.isin(np.arange(len(train)), learn))
        if lacking := sorted(set(train.target.tolist()) - set(learned.target.tolist())):
            raise TrainingError(
                f"class {lacking[0]:g} is that of too few different patients: a fold of the cross-validation has none."
            )
        said = fit_family(name, learned, task).log_odds(train.X[hold])
        if not len(found):
            found = np.empty((len(train), *said.shape[1:]))
        found[hold] = said
    return found


def calibrated(outcome: Outcome, log_odds: NDArray[np.float64], train: Cohort) -> Calibration | ClassCalibration:
    """What makes these out-of-fold log-odds fit the training patients' outcomes, or their classes.

    Raises TrainingError if they know nothing of them.
    """
    if outcome.classes is None:
        return calibrate(log_odds, train.y)
    return calibrate_classes(log_odds, train.target, tuple(outcome.classes), tuple(outcome.positive))


def ranking(outcome: Outcome, log_odds: NDArray[np.float64]) -> NDArray[np.float64]:
    """What orders patients by the event, (n,): their log-odds, or of several classes its uncalibrated probability."""
    if outcome.classes is None:
        return log_odds
    return ClassCalibration(1.0, dict.fromkeys(outcome.classes, 0.0), tuple(outcome.positive)).risk(log_odds)


def train(spec: Spec, plan: Plan, cohort: Cohort, folder: Path, settings: Settings | None = None) -> Bundle:
    """The bundle of the best candidate, written to `folder`. `settings` of this machine: absent, its environment's.

    Raises TrainingError if nothing was learned, an operating point cannot be reached, or the exported model differs
    from the fitted one; BundleError if the bundle cannot be written.
    """
    patients = cohort.only("train")
    learning = task(spec, plan, patients, settings or Settings())
    held_out = {name: out_of_fold(name, patients, learning) for name in spec.candidates}
    compared = {name: _compare(spec.outcome, log_odds, patients) for name, log_odds in held_out.items()}
    chosen = min(compared, key=lambda name: compared[name]["log_loss"])
    calibration = calibrated(spec.outcome, held_out[chosen], patients)
    risks = calibration.risks(held_out[chosen])
    risk = calibration.positive(risks)
    thresholds = operating_points(spec.operating_points, risk, patients.y)
    fitted = fit_family(chosen, patients, learning)

    many = SELF_TEST_RECORDS if plan.signals else RANDOM_RECORDS  # a signal is large, and its model slow
    random_rows = _features(spec, plan, draw(spec.columns, many, spec.split.seed, spec.events))
    cases = [
        *edges(spec.columns, spec.events),
        *draw(spec.columns, SELF_TEST_RECORDS, spec.split.seed + 1, spec.events),
    ]
    case_rows = _features(spec, plan, cases)
    parity = 0.0

    documents: dict[str, Any] = {
        "spec": spec.document,
        "calibration": calibration.document,
        "thresholds": thresholds,
        "conformal": _conformal(spec, risks, patients),
        "reference": _reference(spec.outcome, plan, patients, risks, risk),
    }

    def export(files: Path) -> None:
        nonlocal parity
        fitted.export(files)
        exported = load(files, plan)
        for rows in (cohort.X, random_rows, case_rows):
            gap = np.abs(calibration.risks(exported.log_odds(rows)) - calibration.risks(fitted.log_odds(rows)))
            parity = float(np.maximum(parity, gap.max()))  # keeps a NaN, which Python's max() may drop
        if not parity <= TOLERANCE:
            raise TrainingError(
                f"{spec.name}: {chosen}, exported, gives risks {parity:.2g} from its own (limit {TOLERANCE:g})."
            )
        documents["selftest"] = _self_test(
            cases, case_rows, calibration, exported.log_odds(case_rows), len(plan.features)
        )
        documents["training"] = {
            "family": chosen,
            "candidates": compared,
            "parity": parity,
            "patients": {part: _count(spec.outcome, cohort.only(part)) for part in ("train", "test", "external")},
            "dropped": cohort.dropped,
            **({"beyond_detection": cohort.beyond} if cohort.beyond else {}),
            "data": cohort.fingerprint,
            "split": cohort.assignment,
            "code": code_fingerprint(),
            "libraries": {name: version(name) for name in ("numpy", "scikit-learn", "onnx", "onnxruntime")},
        }

    return bundles.write(folder, documents, export)


def _conformal(spec: Spec, risks: NDArray[np.float64], train: Cohort) -> dict[str, Any]:
    """The prediction sets' thresholds; empty where the spec asks for none."""
    if spec.uncertainty is None:
        return {}
    coverage = spec.uncertainty.coverage
    if spec.outcome.classes is None:
        return conformal.thresholds(risks, train.y, coverage).document
    return conformal.class_thresholds(risks, train.target, tuple(spec.outcome.classes), coverage).document


def code_fingerprint() -> str:
    """SHA-256 over the sources that decide what a bundle says: configs, features and models."""
    digest = hashlib.sha256()
    for package in ("configs", "features", "models"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _compare(outcome: Outcome, log_odds: NDArray[np.float64], train: Cohort) -> dict[str, float]:
    """A candidate's out-of-fold figures: the AUROC of the event, and the log loss of its calibrated risks, of all
    classes where there are several."""
    from sklearn.metrics import log_loss, roc_auc_score

    try:
        risks = calibrated(outcome, log_odds, train).risks(log_odds)
    except TrainingError:  # it knows no more than the prevalence; another candidate may
        shares = np.bincount(train.target.astype(np.int64)) / len(train)
        risks = np.tile(shares, (len(train), 1))
    auroc = roc_auc_score(train.y, ranking(outcome, log_odds))
    return {"auroc": float(auroc), "log_loss": float(log_loss(train.target, risks))}


def _features(spec: Spec, plan: Plan, records: list[dict[str, Any]]) -> NDArray[np.float32]:
    reducer = Reducer(spec.columns, spec.events)
    checked = [check_record(spec.columns, record, reducer) for record in records]
    return build(plan, as_arrays(spec.columns, checked), times(checked))


def _self_test(
    cases: list[dict[str, Any]],
    X: NDArray[np.float32],
    calibration: Calibration | ClassCalibration,
    log_odds: NDArray[np.float64],
    plain: int,
) -> dict[str, Any]:
    """Each case with its `plain` features and its risk; of several classes the risk of each as well."""
    risks = calibration.risks(log_odds)
    told: list[dict[str, Any]] = [{"risk": float(value)} for value in calibration.positive(risks)]
    if isinstance(calibration, ClassCalibration):
        told = [{**case, "risks": row} for case, row in zip(told, risks.tolist(), strict=True)]
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in X[:, :plain]]
    return {
        "about": "synthetic records drawn from the contract; no patient among them",
        "cases": [
            {"record": record, "features": row, **said} for record, row, said in zip(cases, rows, told, strict=True)
        ],
    }


def _count(outcome: Outcome, cohort: Cohort) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(cohort), "events": int(cohort.y.sum())}
    return found if outcome.classes is None else {**found, "classes": class_counts(outcome, cohort)}


def _reference(
    outcome: Outcome, plan: Plan, patients: Cohort, risks: NDArray[np.float64], risk: NDArray[np.float64]
) -> dict[str, Any]:
    """Histograms that later windows are compared with: counts, never rows. Several classes have one each.

    A number's bins are cut at its deciles, rounded to three digits; the outermost bins are open, so no patient's
    extreme value is told.
    """
    features: dict[str, dict[str, Any]] = {}
    described = plan.summary(patients.X)
    for position, feature in enumerate(plan.summaries):
        column = described[:, position].astype(np.float64)
        present = column[~np.isnan(column)]
        if feature.categories:
            counts = [int((present == index).sum()) for index in range(len(feature.categories))]
            features[feature.name] = {"categories": list(feature.categories), "counts": counts}
        else:
            cuts = sorted({float(f"{cut:.3g}") for cut in np.quantile(present, np.linspace(0.1, 0.9, 9))})
            features[feature.name] = {"edges": cuts, "counts": histogram(present, cuts)}
        features[feature.name]["missing"] = int(np.isnan(column).sum())
    found = {"n": len(patients), "events": int(patients.y.sum()), "features": features, "score": _scores(risk)}
    if outcome.classes is not None:
        found["classes"] = {
            name: {"n": count, "score": _scores(risks[:, place])}
            for place, (name, count) in enumerate(class_counts(outcome, patients).items())
        }
    return found


def _scores(risk: NDArray[np.float64]) -> dict[str, Any]:
    return {"edges": SCORE_EDGES, "counts": histogram(risk, SCORE_EDGES), "mean": float(risk.mean())}


def histogram(values: NDArray[np.float64], edges: list[float]) -> list[int]:
    """How many values lie in each of the bins that `edges` cut, the outermost open: len(edges) + 1 counts."""
    found: list[int] = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).tolist()
    return found
