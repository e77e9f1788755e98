"""From a cohort to a bundle: candidates compared, the best one calibrated, given its thresholds, exported and checked.

Everything that is chosen here is chosen on out-of-fold predictions of the training part. The test part's outcomes are
not read; its feature rows serve, like every other row, to check that the exported model says what the fitted one says.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

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
from models.family import Fitted, Task, family, load, space
from models.predict import TOLERANCE
from models.thresholds import operating_points
from models.tuning import Parameters, Search, Shelf, State, Trial, refuse_idle, search

FOLDS = 5
ALL = "all"
"""The part of the training patients that the final model learns from."""
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


Choose = Callable[[Cohort, str], Parameters]
"""The parameters that a candidate takes on some training patients, a part of them with a name."""
Learned = Callable[[str, str, int, Mapping[str, float]], None]
"""Told of each epoch of a network: whose, in which part of the training patients, which one, and its figures."""


def out_of_fold(
    name: str, train: Cohort, task: Task, choose: Choose | None = None, learned: Learned | None = None
) -> NDArray[np.float64]:
    """Log-odds (n,), of several classes (n, K), of each training patient from a model that never saw that patient.

    Nor did whoever chose its parameters, if they are to be chosen for each fold and are not the task's own. Raises
    TrainingError if all patients of a class came into one fold: they are one patient's rows.
    """
    found: NDArray[np.float64] = np.empty(0)
    for fold, (some, hold) in enumerate(_folds(train, FOLDS, task.seed), start=1):
        others, part = train.where(some), f"fold {fold}"
        its = _part(task, name, part, learned)
        if choose is not None:
            its = replace(its, parameters=choose(others, part))
        said = fit_family(name, others, its).log_odds(train.X[hold])
        if not len(found):
            found = np.empty((len(train), *said.shape[1:]))
        found[hold] = said
    return found


def _part(task: Task, name: str, part: str, learned: Learned | None) -> Task:
    """The task of one of a training's fits: its state lies in a folder of its own, and it says which one it is."""
    folder = None if task.checkpoints is None else task.checkpoints / name / part.replace(" ", "_")
    return replace(task, checkpoints=folder, told=task.told if learned is None else partial(learned, name, part))


def _folds(train: Cohort, count: int, seed: int) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """For each fold, which rows are learned from (n,), and which numbers are held out; a patient's are on one side."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for learn, hold in folds.split(train.X, train.target, train.groups):
        learned = np.isin(np.arange(len(train)), learn)
        if lacking := sorted(set(train.target.tolist()) - set(train.target[learned].tolist())):
            raise TrainingError(
                f"class {lacking[0]:g} is that of too few different patients: a fold of the cross-validation has none."
            )
        yield learned, hold


@dataclass(frozen=True)
class Tuner:
    """Chooses a candidate's parameters by the trials that the spec asks for, and keeps each of its searches.

    Its own parameters are the family's where the spec asks for none, or the family has nothing to choose.
    """

    name: str
    spec: Spec
    task: Task
    tried: Callable[[str, str, Trial], None]
    searches: dict[str, Search] = field(default_factory=dict)

    def __call__(self, learned: Cohort, part: str) -> Parameters:
        """The parameters of the lowest log loss, cross-validated in these patients alone: no others are read.

        Raises TrainingError if a class has fewer patients than there are folds, or the trials cannot be kept.
        """
        asked = self.spec.trials
        if asked is None or not (varied := space(self.name, self.spec.encoder)):
            return {}
        for number in np.unique(learned.target):
            patients = len(np.unique(learned.groups[learned.target == number]))
            if patients < asked.folds:
                raise TrainingError(
                    f"trials.folds: class {number:g} has {patients} patients in {part} of the training part, fewer "
                    f"than the {asked.folds} folds that each trial is judged on."
                )
        about = {
            "disease": self.spec.name,
            "candidate": self.name,
            "part": part,
            "patients": learned.fingerprint,
            "spec": self.spec.digest,
            "code": code_fingerprint(),
            "libraries": json.dumps(_libraries(self.spec)),
        }
        shelf = Shelf(self.task.settings.private(self.task.settings.home) / "trials.db", about)
        folds = [*_folds(learned, asked.folds, self.task.seed)]
        losses, told = partial(self._losses, learned, folds), partial(self.tried, self.name, part)
        self.searches[part] = search(varied, asked, self.task.seed, losses, shelf, told)
        return self.searches[part].best.parameters

    def _losses(
        self, learned: Cohort, folds: Sequence[tuple[NDArray[np.bool_], NDArray[np.int64]]], parameters: Parameters
    ) -> Iterator[float]:
        """The log loss of the calibrated risks of who is held out in the first fold, the first two, and so on; NaN if
        the model gives no finite ones, or these parameters learn nothing."""
        its = replace(self.task, parameters=parameters, checkpoints=None, told=lambda _epoch, _figures: None)
        found: NDArray[np.float64] = np.empty(0)
        seen = np.zeros(len(learned), bool)
        for some, hold in folds:
            try:
                said = fit_family(self.name, learned.where(some), its).log_odds(learned.X[hold])
            except TrainingError:
                if not parameters:  # what the family's own parameters cannot learn from, none can
                    raise
                yield math.nan  # a network that diverged, say
                return
            if not len(found):
                found = np.empty((len(learned), *said.shape[1:]))
            found[hold], seen[hold] = said, True
            if not np.isfinite(said).all():
                yield math.nan
                return
            known = learned.where(seen)
            if len(np.unique(known.target)) == len(np.unique(learned.target)):  # else the next fold tells
                yield _log_loss(self.spec.outcome, found[seen], known)

    @property
    def document(self) -> dict[str, Any]:
        """What was chosen for the final model, by how many trials, and what each fold of the comparison had taken.

        `log_loss` is that of the trial which won: the parameters were chosen by it, and it is too good.
        """
        last = self.searches[ALL]
        return {
            "parameters": dict(last.best.parameters),
            "log_loss": last.best.losses[-1],
            "log_loss_of_own": last.trials[0].losses[-1] if last.trials[0].state == "complete" else None,
            **{state: last.count(state) for state in get_args(State)},
            "by_fold": [dict(found.best.parameters) for part, found in self.searches.items() if part != ALL],
        }


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


def train(
    spec: Spec,
    plan: Plan,
    cohort: Cohort,
    folder: Path,
    settings: Settings | None = None,
    tried: Callable[[str, str, Trial], None] = lambda _candidate, _part, _trial: None,
    learned: Learned | None = None,
    checkpoints: Path | None = None,
) -> Bundle:
    """The bundle of the best candidate, written to `folder`. `settings` of this machine: absent, its environment's.

    `tried` hears of each trial: whose, in which part of the training patients, and what came of it; `learned` of each
    epoch of a network. Under `checkpoints` networks leave where they stand, and go on from what lies there. Raises
    TrainingError if nothing was learned, an operating point cannot be reached, or the exported model differs from the
    fitted one; BundleError if the bundle cannot be written.
    """
    patients = cohort.only("train")
    learning = replace(task(spec, plan, patients, settings or Settings()), checkpoints=checkpoints)
    refuse_idle(spec)
    tuners = {name: Tuner(name, spec, learning, tried) for name in spec.candidates}
    held_out = {name: out_of_fold(name, patients, learning, tuners[name], learned) for name in spec.candidates}
    compared = {name: _compare(spec.outcome, log_odds, patients) for name, log_odds in held_out.items()}
    chosen = min(compared, key=lambda name: compared[name]["log_loss"])
    calibration = calibrated(spec.outcome, held_out[chosen], patients)
    risks = calibration.risks(held_out[chosen])
    risk = calibration.positive(risks)
    thresholds = operating_points(spec.operating_points, risk, patients.y)
    parameters = {name: choose(patients, ALL) for name, choose in tuners.items()}
    fitted = fit_family(chosen, patients, replace(_part(learning, chosen, ALL, learned), parameters=parameters[chosen]))

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
            **(
                {"trials": {name: tuner.document for name, tuner in tuners.items() if tuner.searches}}
                if spec.trials
                else {}
            ),
            "parity": parity,
            "patients": {part: _count(spec.outcome, cohort.only(part)) for part in ("train", "test", "external")},
            "dropped": cohort.dropped,
            **({"beyond_detection": cohort.beyond} if cohort.beyond else {}),
            "data": cohort.fingerprint,
            "split": cohort.assignment,
            "code": code_fingerprint(),
            "libraries": _libraries(spec),
        }

    return bundles.write(folder, documents, export)


def _libraries(spec: Spec) -> dict[str, str]:
    """The versions of the libraries that decide what a bundle says."""
    names = ["numpy", "scikit-learn", "onnx", "onnxruntime", *(["optuna"] if spec.trials else [])]
    if any(hasattr(family(name), "load") for name in spec.candidates):  # more than an ONNX graph
        names += ["torch", "lightning"]
    if spec.encoder is not None:
        names += ["tokenizers", "transformers"]
    return {name: version(name) for name in names}


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
    """A candidate's out-of-fold figures: the AUROC of the event, and the log loss."""
    from sklearn.metrics import roc_auc_score

    auroc = roc_auc_score(train.y, ranking(outcome, log_odds))
    return {"auroc": float(auroc), "log_loss": _log_loss(outcome, log_odds, train)}


def _log_loss(outcome: Outcome, log_odds: NDArray[np.float64], train: Cohort) -> float:
    """That of the calibrated risks, of all classes where there are several."""
    from sklearn.metrics import log_loss

    try:
        risks = calibrated(outcome, log_odds, train).risks(log_odds)
    except TrainingError:  # it knows no more than the prevalence; another candidate may
        shares = np.bincount(train.target.astype(np.int64)) / len(train)
        risks = np.tile(shares, (len(train), 1))
    return float(log_loss(train.target, risks))


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
