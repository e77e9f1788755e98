"""Bundle to registered version: judged on the test part, which nothing else reads, and registered with its report."""

import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from configs.errors import BundleError, MediMindError
from configs.settings import ROOT, Settings
from configs.spec import load_spec
from evidence import plots, review
from evidence.case import Rival, case
from evidence.probes import plain_family
from evidence.report import Report
from features import build, cohort
from features.cohort import Cohort
from ledger import promotions, registry, reviews
from ledger.database import Engine, connect
from ledger.registry import Version
from models import bundle as bundles
from models import training
from models.bundle import Bundle
from models.predict import Predictor
from pipelines import compare
from pipelines.files import alone
from pipelines.sites import leave_one_out

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
    engine, commit = connect(settings), git_commit(ROOT)
    report = judge(bundle, patients, _champion(engine, bundle, patients, settings), commit, settings)
    return register(engine, bundle, report, patients, commit, settings)


def judge(bundle: Bundle, patients: Cohort, champion: Rival, commit: str, settings: Settings) -> Report:
    """The whole case of a bundle on the cohort's test part: what is fitted beside it is fitted here, alike."""
    spec, plan = bundle.spec, build.plan(bundle.spec)
    test, learned = patients.only("test"), patients.only("train")
    family, task = bundle.training["family"], training.task(spec, plan, learned, settings)
    tuned, plain = replace(task, parameters=bundle.parameters(family)), plain_family(family)
    summarised = replace(task, parameters=bundle.parameters(plain), plan=plan.summarised)
    yardsticks = {}
    for other in dict.fromkeys(["logistic", *(spec.gates.not_worse_than or {})]):
        # Of signals alone a model of plain numbers sees what their summaries tell.
        blind = other == plain_family(other) and not plan.features
        its_task = replace(task, parameters=bundle.parameters(other))
        its_task = replace(its_task, plan=plan.summarised) if blind else its_task
        its_learned, its_test = (
            replace(part, X=plan.summary(part.X), signals=()) if blind else part for part in (learned, test)
        )
        said = training.fit_family(other, its_learned, its_task).log_odds(its_test.X)
        yardsticks[other] = training.ranking(spec.outcome, said)
    return case(
        Predictor(bundle),
        patients,
        yardsticks,
        champion,
        leave_one_out(spec, patients, family, tuned),
        lambda cohort: training.fit_family(family, cohort, tuned),
        lambda cohort: training.fit_family(plain, cohort, summarised),
        {"git": commit, "libraries": bundle.training["libraries"]},
    )


def register(
    engine: Engine, bundle: Bundle, report: Report, patients: Cohort, commit: str, settings: Settings
) -> Validated:
    """Register the bundle with its report, its pictures and its review page, and put on record who judged it."""
    name, test = report.name, patients.only("test")
    champion = promotions.find_champion(engine, name)
    pictures = plots.draw(bundle.spec.title, test.y, Predictor(bundle).risk(test.X))
    with suppress(BundleError):  # of a damaged champion, which `verify` names, no page can say what changed
        judged = None
        if champion is not None:
            judged = champion.version, bundles.get(champion.bundle, settings), champion.report
        pictures["review.html"] = review.html(bundle, report, None, judged).encode()
    version, new = registry.register(settings, bundle, report, pictures, commit)
    if not new:
        with registry.fetch(settings, version) as (_, registered):
            report = registered
    trained_by = reviews.trainers(engine, name, bundle.digest)
    reviews.validated(engine, version.number, report, trained_by, settings.actor)
    return Validated(version, new, report)


def _champion(engine: Engine, bundle: Bundle, patients: Cohort, settings: Settings) -> Rival:
    """The champion's risks of the test patients, or why they cannot be had."""
    champion = promotions.find_champion(engine, bundle.spec.name)
    if champion is None:
        return Rival("", None, "there is no champion yet")
    shown = f"{champion.model}@{champion.version}"
    if champion.bundle == bundle.digest:
        return Rival(shown, None, "it is the champion itself")
    try:
        rival = bundles.get(champion.bundle, settings)
        return Rival(shown, compare.risk_of(shown, rival, patients))
    except MediMindError as exc:
        return Rival(shown, None, str(exc))


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
