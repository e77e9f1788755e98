"""From a cohort to a bundle: candidates compared, the best one calibrated, given its thresholds, exported and checked.

Everything that is chosen here is chosen on out-of-fold predictions of the training part. The test part's outcomes are
not read; its feature rows serve, like every other row, to check that the exported model says what the fitted one says.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.errors import TrainingError
from configs.settings import ROOT
from configs.spec import Spec
from features.build import Plan, build
from features.cohort import Cohort
from features.columns import as_arrays, check_record
from features.synthetic import draw, edges
from models import bundle as bundles
from models import conformal
from models.bundle import Bundle
from models.calibration import calibrate
from models.family import Fitted, family
from models.onnx import Session
from models.predict import TOLERANCE
from models.thresholds import operating_points

FOLDS = 5
RANDOM_RECORDS = 1000
SELF_TEST_RECORDS = 13
SCORE_EDGES = [round(0.1 * step, 1) for step in range(1, 10)]


def fit_family(name: str, plan: Plan, train: Cohort, seed: int) -> Fitted:
    """One candidate, fitted on `train` with one thread, so that the same patients give the same bits."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        return family(name).fit(train.X, train.y, plan.features, seed)


def out_of_fold(name: str, plan: Plan, train: Cohort, seed: int) -> NDArray[np.float64]:
    """Log-odds (n,) of each training patient from a model that never saw that patient."""
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.empty(len(train))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for learn, hold in folds.split(train.X, train.y, train.groups):
        learned = train.where(np.isin(np.arange(len(train)), learn))
        found[hold] = fit_family(name, plan, learned, seed).log_odds(train.X[hold])
    return found


def train(spec: Spec, plan: Plan, cohort: Cohort, folder: Path) -> Bundle:
    """The bundle of the best candidate, written to `folder`.

    Raises TrainingError if nothing was learned, an operating point cannot be reached, or the exported model differs
    from the fitted one; BundleError if the bundle cannot be written.
    """
    patients = cohort.only("train")
    seed = spec.split.seed
    held_out = {name: out_of_fold(name, plan, patients, seed) for name in spec.candidates}
    compared = {name: _compare(log_odds, patients.y) for name, log_odds in held_out.items()}
    chosen = min(compared, key=lambda name: compared[name]["log_loss"])
    calibration = calibrate(held_out[chosen], patients.y)
    risk = calibration.risk(held_out[chosen])
    thresholds = operating_points(spec.operating_points, risk, patients.y)
    fitted = fit_family(chosen, plan, patients, seed)

    random_rows = _features(spec, plan, draw(spec.columns, RANDOM_RECORDS, seed))
    cases = [*edges(spec.columns), *draw(spec.columns, SELF_TEST_RECORDS, seed + 1)]
    case_rows = _features(spec, plan, cases)
    parity = 0.0
    expected: NDArray[np.float64] = np.empty(0)

    documents: dict[str, Any] = {
        "spec": spec.document,
        "calibration": {"slope": calibration.slope, "intercept": calibration.intercept},
        "thresholds": thresholds,
        "conformal": _conformal(spec, risk, patients.y),
        "reference": _reference(plan, patients, risk),
    }

    def export(path: Path) -> None:
        nonlocal parity, expected
        fitted.export(path)
        session = Session(path)
        for rows in (cohort.X, random_rows, case_rows):
            gap = np.abs(calibration.risk(session.log_odds(rows)) - calibration.risk(fitted.log_odds(rows)))
            parity = float(np.maximum(parity, gap.max()))  # keeps a NaN, which Python's max() may drop
        if not parity <= TOLERANCE:
            raise TrainingError(
                f"{spec.name}: {chosen} as ONNX gives risks {parity:.2g} from its own (limit {TOLERANCE:g})."
            )
        expected = calibration.risk(session.log_odds(case_rows))
        documents["selftest"] = _self_test(cases, case_rows, expected)
        documents["training"] = {
            "family": chosen,
            "candidates": compared,
            "parity": parity,
            "patients": {part: _count(cohort.only(part)) for part in ("train", "test", "external")},
            "dropped": cohort.dropped,
            "data": cohort.fingerprint,
            "split": cohort.assignment,
            "code": code_fingerprint(),
            "libraries": {name: version(name) for name in ("numpy", "scikit-learn", "onnx", "onnxruntime")},
        }

    return bundles.write(folder, documents, export)


def _conformal(spec: Spec, risk: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, Any]:
    """The prediction sets' thresholds; empty where the spec asks for none."""
    return {} if spec.uncertainty is None else conformal.thresholds(risk, y, spec.uncertainty.coverage).document


def code_fingerprint() -> str:
    """SHA-256 over the sources that decide what a bundle says: configs, features and models."""
    digest = hashlib.sha256()
    for package in ("configs", "features", "models"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _compare(log_odds: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, float]:
    """A candidate's out-of-fold figures. The log loss is that of its calibrated risk."""
    from sklearn.metrics import log_loss, roc_auc_score

    try:
        risk = calibrate(log_odds, y).risk(log_odds)
    except TrainingError:  # it knows no more than the prevalence; another candidate may
        risk = np.full(len(y), y.mean())
    return {"auroc": float(roc_auc_score(y, log_odds)), "log_loss": float(log_loss(y, risk))}


def _features(spec: Spec, plan: Plan, records: list[dict[str, Any]]) -> NDArray[np.float32]:
    checked = [check_record(spec.columns, record) for record in records]
    return build(plan, as_arrays(spec.columns, checked), np.full(len(records), np.nan))


def _self_test(cases: list[dict[str, Any]], X: NDArray[np.float32], risk: NDArray[np.float64]) -> dict[str, Any]:
    rows = [[None if np.isnan(value) else float(value) for value in row] for row in X]
    return {
        "about": "synthetic records drawn from the contract; no patient among them",
        "cases": [
            {"record": record, "features": row, "risk": float(value)}
            for record, row, value in zip(cases, rows, risk, strict=True)
        ],
    }


def _count(cohort: Cohort) -> dict[str, int]:
    return {"n": len(cohort), "events": int(cohort.y.sum())}


def _reference(plan: Plan, patients: Cohort, risk: NDArray[np.float64]) -> dict[str, Any]:
    """Histograms that later windows are compared with: counts, never rows.

    A number's bins are cut at its deciles, rounded to three digits; the outermost bins are open, so no patient's
    extreme value is told.
    """
    features = {}
    for position, feature in enumerate(plan.features):
        column = patients.X[:, position].astype(np.float64)
        present = column[~np.isnan(column)]
        if feature.categories:
            counts = [int((present == index).sum()) for index in range(len(feature.categories))]
            features[feature.name] = {"categories": list(feature.categories), "counts": counts}
        else:
            cuts = sorted({float(f"{cut:.3g}") for cut in np.quantile(present, np.linspace(0.1, 0.9, 9))})
            features[feature.name] = {"edges": cuts, "counts": histogram(present, cuts)}
        features[feature.name]["missing"] = int(np.isnan(column).sum())
    score = {"edges": SCORE_EDGES, "counts": histogram(risk, SCORE_EDGES), "mean": float(risk.mean())}
    return {"n": len(patients), "events": int(patients.y.sum()), "features": features, "score": score}


def histogram(values: NDArray[np.float64], edges: list[float]) -> list[int]:
    """How many values lie in each of the bins that `edges` cut, the outermost open: len(edges) + 1 counts."""
    found: list[int] = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).tolist()
    return found
