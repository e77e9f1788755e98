"""The clinical figures: each disease's model on patients it never saw, beside untuned models of the same columns.

`python -m bench.clinical [NAME …]` takes each disease from its source to its report, in a temporary folder, with the
gates and the seed of its spec, and prints the tables that stand in docs/benchmarks.md. Nothing is registered.

The families are compared on the test part, which nothing was chosen on, each fitted and calibrated on the training part
alone: AUROCs by DeLong's paired test, log losses by the paired bootstrap.

An untuned model is scikit-learn's own, with its defaults, in five folds over the patients who are learned from or
tested: no patient in two folds, and one AUROC over all out-of-fold risks. "Absences alone" is a boosted model that sees
which values are missing and none of them: a model can learn as much from the way the patients were examined.
"""

import argparse
import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from configs.settings import ROOT, Settings
from configs.spec import diseases, load_spec
from evidence.case import Rival
from evidence.comparison import Paired, delong, delong_interval, paired_interval
from evidence.metrics import auroc, log_loss
from features import build, cohort
from features.cohort import Cohort
from features.definitions import Array
from models import training
from models.encoding import encoding
from pipelines import sources, validate
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.train import train

AIMED_AT = {
    "heart_disease": "none",
    "breast_cancer": "none",
    "nafld_mortality": "0.83, untuned, baseline alone",
    "hospital_mortality": "0.819, untuned, 26 columns",
    "cognitive_impairment": "0.884, untuned",
    "ovarian_cancer_blood": "0.89 logistic, 0.96 boosted, all women and columns",
}
"""The AUROC that was known of these data before, from somebody's untuned model. On which folds is not known."""

SIDE_BY_SIDE = ("heart_disease", "hospital_mortality")
"""The diseases whose table every family of tables is fitted on, a candidate of the spec or not."""
BESIDE, FAMILIES = "boosted", ("logistic", "boosted", "tabular_net")

Matrix = NDArray[np.float32]
FOLDS, SEED = 5, 17
OURS = {
    "AUROC": "AUROC",
    "Brier score": "Brier",
    "observed / expected events": "O/E",
    "calibration slope": "slope",
}


@dataclass(frozen=True)
class Variant:
    """The same disease read otherwise than its spec does, to see what a decision in the spec costs."""

    said: str
    change: Callable[[dict[str, Any]], None]


def _with_race(document: dict[str, Any]) -> None:
    document["features"].append("race")


def _everything(document: dict[str, Any]) -> None:
    """As the table was published: every woman, every column, and what was not measured left to the model."""
    document["features"].append("neutrophils_pct")
    for column in document["columns"].values():
        column.pop("required", None)


def _baseline_alone(document: dict[str, Any]) -> None:
    document["features"] = ["age_years", "sex", "weight_kg", "height_cm", "bmi_kg_m2"]


VARIANTS = {
    "nafld_mortality": Variant("the baseline alone: 5 columns", _baseline_alone),
    "hospital_mortality": Variant("with race as an input: 26 columns", _with_race),
    "ovarian_cancer_blood": Variant("all 349 women and 49 columns, required or not", _everything),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    there = [name for name in AIMED_AT if name in diseases(ROOT / "configs")]
    parser.add_argument("names", nargs="*", default=there)
    judged, untuned, compared = [], [], []
    for name in parser.parse_args().names:
        with tempfile.TemporaryDirectory(prefix="medimind-bench-") as folder:
            machine = _machine(name, ROOT / "configs", Path(folder) / "spec")
            if lacking := sources.absent(load_spec(name, machine.configs), machine):
                print(f"Left out: {' '.join(lacking)}\n", flush=True)
                continue
            patients = _cohort(name, machine)
            judged.append([name, *_ours(name, machine, patients), AIMED_AT.get(name, "none")])
            untuned.append([name, "as in its spec", *_untuned(name, machine, patients)])
            if name in SIDE_BY_SIDE:
                compared += [[name, *row] for row in _families(name, machine, patients)]
            if variant := VARIANTS.get(name):
                other = _varied(name, variant, Path(folder))
                untuned.append([name, variant.said, *_untuned(name, other, _cohort(name, other))])
            print(f"{name} is done", flush=True)
    print(_table(["disease", "family", "tested (events)", *OURS.values(), "aimed at (AUROC)"], judged))
    print(_table(["disease", "columns", "patients (events)", "logistic", "boosted", "absences alone"], untuned))
    heads = ["AUROC", f"less {BESIDE}'s", "p", "log loss", f"less {BESIDE}'s", "log loss out of fold"]
    print(_table(["disease", "family", *heads], compared))


def _machine(name: str, configs: Path, home: Path) -> Settings:
    """A machine of its own, which has the raw files that this one has."""
    settings = Settings(home=home, configs=configs, data=home / "data")
    if (raw := ROOT / "data" / "raw" / name).is_dir():
        shutil.copytree(raw, settings.data / "raw" / name)
    return settings


def _cohort(name: str, machine: Settings) -> Cohort:
    ingest(name, machine)
    prepare(name, machine)
    return cohort.load(machine.data / "cohorts" / f"{name}.parquet")


def _varied(name: str, variant: Variant, folder: Path) -> Settings:
    """A machine whose spec of the disease is changed."""
    document = copy.deepcopy(load_spec(name, ROOT / "configs").document)
    variant.change(document)
    if "xlsx" in document["source"]:  # a path from the repository's root, which is not where this spec lies
        document["source"]["xlsx"] = str(ROOT / document["source"]["xlsx"])
    configs = folder / "configs"
    (configs / "diseases").mkdir(parents=True)
    (configs / "diseases" / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return _machine(name, configs, folder / "varied")


def _ours(name: str, machine: Settings, patients: Cohort) -> list[str]:
    """The family that the training chooses, its test patients, and the report's figures of them."""
    bundle = train(name, machine)
    nobody = Rival("", None, "there is no champion here")
    report = validate.judge(bundle, patients, nobody, validate.git_commit(ROOT), machine)
    found = {finding.title: finding for finding in report.findings}
    told = []
    for title in OURS:
        finding = found.get(title)
        value = "" if finding is None or finding.value is None else f"{finding.value:.3f}"
        told.append(value + (f" ({_ends(finding.interval)})" if finding and finding.interval else ""))
    test = patients.only("test")
    return [bundle.training["family"], f"{len(test)} ({int(test.y.sum())})", *told]


def _ends(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _families(name: str, machine: Settings, patients: Cohort) -> list[list[str]]:
    """Each family's figures on the test part, beside those of boosted, and the log loss that training chooses by."""
    spec = load_spec(name, machine.configs)
    learned, test = patients.only("train"), patients.only("test")
    task = training.task(spec, build.plan(spec), learned, machine)
    risks: dict[str, Array] = {}
    of_choice: dict[str, float] = {}
    for family in FAMILIES:
        held_out = training.out_of_fold(family, learned, task)
        calibration = training.calibrated(spec.outcome, held_out, learned)
        risks[family] = calibration.risk(training.fit_family(family, learned, task).log_odds(test.X))
        of_choice[family] = log_loss(learned.y, calibration.risk(held_out))
    rows = []
    for family, risk in risks.items():
        ranked = delong(test.y, risk, risks[BESIDE])
        lost = paired_interval(log_loss, test.y, risk, risks[BESIDE], spec.split.seed)
        ends, p = delong_interval(test.y, risk), "" if ranked.p is None else f"{ranked.p:.2g}"
        told = [f"{ranked.a:.3f}" + (f" ({_ends(ends)})" if ends else ""), _less(ranked), p]
        told += [f"{lost.a:.4f}", _less(lost), f"{of_choice[family]:.4f}"]
        rows.append([family, *told] if family != BESIDE else [family, told[0], "", "", told[3], "", told[5]])
    return rows


def _less(paired: Paired) -> str:
    ends = (paired.low, paired.high)
    spread = "" if None in ends else f" ({paired.low:+.4f} to {paired.high:+.4f})"
    return f"{paired.difference:+.4f}{spread}"


def _untuned(name: str, machine: Settings, patients: Cohort) -> list[str]:
    """The AUROC, with DeLong's 95 % interval, of scikit-learn's logistic regression and boosted trees as they come."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    here = patients.where(patients.part != "external")
    plan = build.plan(load_spec(name, machine.configs))
    X = encoding(plan.features).apply(here.X)
    logistic = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=5000))
    boosted = HistGradientBoostingClassifier(random_state=SEED)
    absent = np.isnan(here.X).astype(np.float32)
    told = [f"{len(here)} ({int(here.y.sum())})", *(_told(here, model, X) for model in (logistic, boosted))]
    return [*told, _told(here, boosted, absent) if absent.any() else "nothing is missing"]


def _told(here: Cohort, model: Any, X: Matrix) -> str:
    risk = _out_of_fold(here, model, X)
    ends = delong_interval(here.y, risk)
    return f"{auroc(here.y, risk):.3f}" + (f" ({_ends(ends)})" if ends else "")


def _out_of_fold(here: Cohort, model: Any, X: Matrix) -> Array:
    from sklearn.model_selection import StratifiedGroupKFold

    risk = np.full(len(here), np.nan)
    for train_rows, test_rows in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED).split(
        X, here.y, here.groups
    ):
        model.fit(X[train_rows], here.y[train_rows])
        risk[test_rows] = model.predict_proba(X[test_rows])[:, 1]
    return risk


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
