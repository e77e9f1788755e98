"""Bundle to registered version: judged on the test part, which nothing else reads, and registered with its report."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from configs.errors import BundleError
from configs.settings import ROOT, Settings
from configs.spec import load_spec
from evidence import checks, plots
from evidence.report import Report
from features import build, cohort
from ledger import registry
from ledger.registry import Version
from models import bundle as bundles
from models import training
from models.predict import Predictor
from pipelines.files import alone

CODE = ("configs", "features", "models", "evidence", "ledger", "pipelines")
"""The folders that a version's figures depend on: a new file there may be imported before git knows it."""


@dataclass(frozen=True)
class Validated:
    version: Version
    new: bool
    report: Report


def validate(name: str, settings: Settings) -> Validated:
    """Judge the disease's bundle on its test and external patients, and register it with the report, passing or not.

    Raises BundleError if the bundle is not of the present spec and cohort, RegistryError if MLflow does not answer.
    """
    with alone(name, settings):
        return _validate(name, settings)


def _validate(name: str, settings: Settings) -> Validated:
    spec = load_spec(name, settings.configs)
    bundle = bundles.load(settings.data / "bundles" / name)
    patients = cohort.load(settings.data / "cohorts" / f"{name}.parquet")
    for what, trained_on, present in (
        ("spec", bundle.spec.digest, spec.digest),
        ("cohort", bundle.training["data"], patients.fingerprint),
        ("code", bundle.training["code"], training.code_fingerprint()),
    ):
        if trained_on != present:
            raise BundleError(f"{name}: the bundle was trained with another {what}; `medimind train {name}` first.")
    predictor = Predictor(bundle)
    test, learned = patients.only("test"), patients.only("train")
    test_risk = predictor.risk(test.X)
    plan = build.plan(spec)
    yardsticks = {
        family: training.fit_family(family, plan, learned, spec.split.seed).log_odds(test.X)
        for family in spec.gates.not_worse_than or {}
    }
    report = checks.judge(bundle, patients, test_risk, predictor.risk(patients.only("external").X), yardsticks)
    pictures = plots.draw(spec.title, test.y, test_risk)
    version, new = registry.register(settings, bundle, report, pictures, git_commit(ROOT))
    return Validated(version, new, report)


def git_commit(root: Path) -> str:
    """The checkout's commit; `-dirty` if files differ from it, or lie in CODE without being in it.

    `unknown` outside a git checkout.
    """
    try:
        commit = _git(root, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*")
        beside = _git(root, "status", "--porcelain", "--untracked-files=normal", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}-dirty" if beside and not commit.endswith("-dirty") else commit


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()
