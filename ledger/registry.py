"""Which versions there are: the only home of MLflow.

A version's bundle is logged as files with a loader, without code and without pickle. What a reviewer needs stands in
the version itself: description, tags and aliases; report and plots lie beside its run.
"""

import fcntl
import logging
import os
import re
import shutil
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from configs.errors import RegistryError
from configs.settings import Settings
from evidence.report import Report
from features import build
from ledger.chain import Head
from ledger.promotions import Promotion
from models.bundle import Bundle, load, sign
from models.predict import Predictor
from models.tuning import Trial

BUNDLE = "bundle"
REPORT = "report.json"
CANDIDATE, CHAMPION = "candidate", "champion"
SECONDS_UNTOLD = 2
"""How long a network's epochs wait to be told together: short ones take longer to tell one by one than to run."""
CHAIN_HEAD, CHAIN_LENGTH = "chain_head", "chain_length"
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


@dataclass(frozen=True)
class Version:
    """One registered version. `run` is the MLflow run that holds its report, plots and figures."""

    name: str
    number: int
    bundle: str
    passed: bool
    run: str
    aliases: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


def register(
    settings: Settings, bundle: Bundle, report: Report, pictures: Mapping[str, bytes], commit: str
) -> tuple[Version, bool]:
    """The version of this bundle with this report, and whether it is new. Sets `candidate` if the report passes.

    What is registered is signed, a copy; the bundle's own folder is as it was. Raises RegistryError if the registry
    does not answer, BundleError if it cannot be signed; a version is registered whole or not at all.
    """
    with _registry(settings) as mlflow:
        client = mlflow.MlflowClient()
        for known in _versions(client, report.name):
            if known.bundle == bundle.digest and (judged := _report(client, known)) and judged.agrees(report):
                if report.passed and CANDIDATE not in known.aliases:
                    client.set_registered_model_alias(known.name, CANDIDATE, str(known.number))
                return known, False
        mlflow.set_experiment(experiment_id=_experiment(settings, client, report.name))
        with TemporaryDirectory() as folder, mlflow.start_run(run_name=bundle.digest[:12]) as run:
            for file, content in {**pictures, REPORT: report.to_json().encode()}.items():
                Path(folder, file).write_bytes(content)
            mlflow.log_artifacts(folder)
            mlflow.log_params(_parameters(bundle))
            mlflow.log_metrics(_figures(bundle, report))
            with TemporaryDirectory() as copy, warnings.catch_warnings():
                signed = sign(Path(shutil.copytree(bundle.folder, Path(copy, bundle.folder.name))), settings)
                warnings.filterwarnings(
                    "ignore", message=".*input example was not provided"
                )  # the signature is written
                info = mlflow.pyfunc.log_model(
                    name=BUNDLE,
                    loader_module="ledger.registry",
                    data_path=str(signed),
                    pip_requirements=[f"{name}=={number}" for name, number in bundle.training["libraries"].items()],
                    signature=_signature(bundle),
                )
            tags = {
                "bundle_digest": bundle.digest,
                "spec_digest": bundle.spec.digest,
                "data_fingerprint": report.data,
                "git_commit": commit,
                "validation": "passed" if report.passed else "failed",
            }
            mlflow.set_tags(tags)
            _make_model(client, bundle)
            made = client.create_model_version(
                report.name,
                info.model_uri,
                run.info.run_id,
                tags=tags,
                description=describe(bundle, report),
                model_id=info.model_id,  # a server refuses the source without it
            )
        if report.passed:
            client.set_registered_model_alias(report.name, CANDIDATE, made.version)
        return find(settings, report.name, int(made.version)), True


def find(settings: Settings, name: str, number: int) -> Version:
    """That version. Raises RegistryError if there is none."""
    with _registry(settings) as mlflow:
        versions = _versions(mlflow.MlflowClient(), name)
    for version in versions:
        if version.number == number:
            return version
    known = ", ".join(str(version) for version in versions) or "none"
    raise RegistryError(f"{name}@{number} is not registered. Registered: {known}.")


def versions(settings: Settings, name: str) -> list[Version]:
    """Every version of a model, oldest first."""
    with _registry(settings) as mlflow:
        return _versions(mlflow.MlflowClient(), name)


@contextmanager
def fetch(settings: Settings, version: Version) -> Iterator[tuple[Path, Report]]:
    """The version's bundle folder, for as long as the context lasts, and its report."""
    with TemporaryDirectory() as folder:
        with _registry(settings) as mlflow:
            client = mlflow.MlflowClient()
            model = client.get_model_version(version.name, str(version.number))
            mlflow.artifacts.download_artifacts(model.source, dst_path=folder)
            report = _report(client, version)
        found = next((path.parent for path in Path(folder).rglob("MANIFEST.json")), None)
        if found is None or report is None:
            raise RegistryError(f"{version}: the registry holds no {'bundle' if found is None else 'report'} for it.")
        yield found, report


def copy_champion(settings: Settings, promotion: Promotion, head: Head) -> bool:
    """Make MLflow's `champion` alias say what the promotion row says; whether it had said something else.

    The version's tags keep the chain's head at its promotion. A head that is further on is never replaced: it may be
    all that is left of decisions that were cut off.
    """
    number = str(promotion.version)
    with _registry(settings) as mlflow:
        client = mlflow.MlflowClient()
        kept = _head(client.get_model_version(promotion.model, number).tags)
        if kept is None or kept.length < head.length:
            client.set_model_version_tag(promotion.model, number, CHAIN_HEAD, head.hash)
            client.set_model_version_tag(promotion.model, number, CHAIN_LENGTH, str(head.length))
        for version in _versions(client, promotion.model):
            if CHAMPION in version.aliases and version.number == promotion.version:
                return False
        client.set_registered_model_alias(promotion.model, CHAMPION, number)
        client.set_model_version_tag(promotion.model, number, "promoted_by", promotion.actor)
        return True


def heads(settings: Settings, name: str) -> dict[int, Head]:
    """The chain's head at each version's last promotion, as its tags keep it."""
    with _registry(settings) as mlflow:
        found = mlflow.MlflowClient().search_model_versions(f"name='{name}'")
        kept = {int(version.version): _head(version.tags) for version in found}
    return {number: head for number, head in kept.items() if head is not None}


class Watched:
    """A training as a run of the registry, made when there is something to tell; its trials are runs nested in it, and
    so are its networks, which learn one epoch after the other.

    A registry that does not answer is told of once, in the log, and the training goes on unwatched.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._experiment = self._run = self._network = ""
        self._learning = ("", "")
        self._untold: list[tuple[str, float, int, int]] = []
        self._told_at = -np.inf
        self._lost = False

    def trial(self, candidate: str, part: str, trial: Trial) -> None:
        """Keep a trial of the candidate's search in a `part` of the training patients."""
        now = int(time.time() * 1000)
        about = {"candidate": candidate, "part": part, "trial": str(trial.number), "state": trial.state}

        def keep(client: Any) -> None:
            from mlflow.entities import Metric, Param, RunTag

            name, nested = f"{candidate}, {part}, trial {trial.number}", {"mlflow.parentRunId": self._run}
            run = client.create_run(self._experiment, tags=nested, run_name=name).info.run_id
            client.log_batch(
                run,
                [Metric("log_loss", loss, now, folds) for folds, loss in enumerate(trial.losses, start=1)],
                [Param(key, str(value)) for key, value in trial.parameters.items()],
                [RunTag(key, value) for key, value in about.items()],
            )
            client.set_terminated(run, "FAILED" if trial.state == "failed" else "FINISHED")

        self._tell(keep)

    def epoch(self, candidate: str, part: str, epoch: int, figures: Mapping[str, float]) -> None:
        """Keep an epoch's figures of a network that learns from a `part` of the training patients.

        Several short epochs are told at once, within SECONDS_UNTOLD; each with its own number and time.
        """
        if (candidate, part) != self._learning:
            self._learned("FINISHED")
            self._learning = candidate, part
        now = int(time.time() * 1000)
        self._untold += [(name, value, now, epoch) for name, value in figures.items() if np.isfinite(value)]
        if time.monotonic() - self._told_at > SECONDS_UNTOLD:
            self._tell(self._epochs)

    def _epochs(self, client: Any) -> None:
        """Put what was not told yet in the network's own run, nested in the training's."""
        from mlflow.entities import Metric

        candidate, part = self._learning
        if not self._network:
            about = {"mlflow.parentRunId": self._run, "candidate": candidate, "part": part}
            run = client.create_run(self._experiment, tags=about, run_name=f"{candidate}, {part}")
            self._network = run.info.run_id
        client.log_batch(self._network, [Metric(*figure) for figure in self._untold])
        self._untold, self._told_at = [], time.monotonic()

    def _learned(self, status: Literal["FINISHED", "FAILED"]) -> None:
        """The network whose epochs were told last has learned all that it will."""
        if self._untold:
            self._tell(self._epochs)
        if run := self._network:
            self._tell(lambda client: client.set_terminated(run, status))
        self._network, self._untold = "", []

    def ended(self, status: Literal["FINISHED", "FAILED"]) -> None:
        self._learned(status)
        if self._run:
            self._tell(lambda client: client.set_terminated(self._run, status))

    def _tell(self, what: Callable[[Any], None]) -> None:
        """Do this with MLflow's client, in which the training has its run."""
        if self._lost:
            return
        try:
            with _registry(self._settings) as mlflow:
                client = mlflow.MlflowClient()
                if not self._run:
                    self._experiment = _experiment(self._settings, client, self._name)
                    self._run = client.create_run(self._experiment, run_name=f"train {self._name}").info.run_id
                what(client)
        except RegistryError as exc:
            self._lost = True
            logging.getLogger("medimind").warning("%s The training goes on, and is not watched there.", exc)


@contextmanager
def watched(settings: Settings, name: str) -> Iterator[Watched]:
    """What a training of that disease tells while it goes on, for as long as the context lasts."""
    found = Watched(settings, name)
    try:
        yield found
    except BaseException:
        found.ended("FAILED")
        raise
    found.ended("FINISHED")


def describe(bundle: Bundle, report: Report) -> str:
    """What a reviewer reads first, in Markdown: what it is for, and every finding with a gate."""
    lines = [
        f"**{bundle.spec.title}**. {bundle.spec.intended_use}",
        "",
        f"Family `{bundle.training['family']}`, report **{'passed' if report.passed else 'failed'}**.",
        "",
        "| code | finding | value | 95 % interval | limit | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for finding in report.findings:
        if finding.limit is None:
            continue  # it stands in the report; all of them would pass the 5000 characters that MLflow's tables hold
        value = "" if finding.value is None else f"{finding.value:.4g}"
        spread = "" if finding.interval is None else f"{finding.interval[0]:.3f} to {finding.interval[1]:.3f}"
        lines.append(f"| {finding.code} | {finding.title} | {value} | {spread} | {finding.limit} | {finding.verdict} |")
    return "\n".join(lines)


def _load_pyfunc(data_path: str) -> Any:
    """MLflow's loader of a version: rows of named features in, risks out."""
    predictor = Predictor(load(Path(data_path)))

    class Model:
        def predict(self, rows: Any) -> Any:
            plan = predictor.plan
            plain = rows[[feature.name for feature in plan.features]].to_numpy(np.float32)
            whole = [np.stack(list(rows[signal.name])).astype(np.float32) for signal in plan.signals]
            return predictor.risk(np.concatenate([plain, *whole], axis=1))

    return Model()


@contextmanager
def _registry(settings: Settings) -> Iterator[Any]:
    """The mlflow module, pointed at our registry; whatever it raises becomes a RegistryError."""
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    uri = settings.registry_uri
    try:
        if uri.startswith("sqlite:"):
            settings.private(settings.home / "mlflow")
            with closing(sqlite3.connect(make_url(uri).database or "")) as database:
                database.execute("PRAGMA schema_version")  # MLflow would try for 100 s to open what cannot be opened
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        if uri.startswith("sqlite:"):
            with open(settings.home / "mlflow" / "migration.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two processes that make MLflow's first tables at once both fail
                mlflow.MlflowClient().search_experiments(max_results=1)
        yield mlflow
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as exc:
        said = f"the registry {uri} failed ({type(exc).__name__}: {str(exc).partition(chr(10))[0]:.300})."
        if password := urlsplit(uri).password:
            said = said.replace(f":{password}@", ":***@")
        hint = " Is it up? `make up` starts one here." if uri.startswith("http") else ""
        raise RegistryError(said + hint) from exc


def _experiment(settings: Settings, client: Any, name: str) -> str:
    known = client.get_experiment_by_name(name)
    if known is not None:
        return str(known.experiment_id)
    local = settings.registry_uri.startswith("sqlite:")
    place = (settings.home / "mlflow" / "artifacts" / name).as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=place))


def _make_model(client: Any, bundle: Bundle) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(bundle.spec.name)
    except MlflowException:
        client.create_registered_model(bundle.spec.name, description=f"{bundle.spec.title}. {bundle.spec.intended_use}")


def _versions(client: Any, name: str) -> list[Version]:
    from mlflow.exceptions import MlflowException

    found = []
    try:
        aliases = client.get_registered_model(name).aliases
    except MlflowException as exc:
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    for model in client.search_model_versions(f"name='{name}'"):
        number = int(model.version)
        mine = tuple(sorted(alias for alias, points_to in aliases.items() if int(points_to) == number))
        passed = model.tags.get("validation") == "passed"
        found.append(Version(name, number, model.tags.get("bundle_digest", ""), passed, model.run_id, mine))
    return sorted(found, key=lambda version: version.number)


def _head(tags: Mapping[str, str]) -> Head | None:
    """What the tags keep; a length that is no number is no link of any chain."""
    if CHAIN_HEAD not in tags and CHAIN_LENGTH not in tags:
        return None
    length = tags.get(CHAIN_LENGTH, "")
    return Head(int(length) if length.isascii() and length.isdigit() else -1, tags.get(CHAIN_HEAD, ""))


def _report(client: Any, version: Version) -> Report | None:
    """The report beside the version's run; None if there is none that can be read."""
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory() as folder:
        try:
            text = Path(client.download_artifacts(version.run, REPORT, folder)).read_text(encoding="utf-8")
            return Report.from_json(text)
        except (MlflowException, OSError, ValueError, KeyError, TypeError):
            return None


def _parameters(bundle: Bundle) -> dict[str, Any]:
    training = bundle.training
    return {
        "family": training["family"],
        "candidates": ", ".join(training["candidates"]),
        "features": len(bundle.spec.features),
        "seed": bundle.spec.split.seed,
        "split": bundle.spec.split.model_dump_json(exclude={"seed"}, exclude_none=True),
        **{f"tuned_{name}": value for name, value in bundle.parameters(training["family"]).items()},
        **{f"patients_{part}": count["n"] for part, count in training["patients"].items()},
        **{f"threshold_{name}": value for name, value in bundle.thresholds.items()},
        **{f"calibration_{name}": value for name, value in bundle.calibration.terms.items()},
    }


def _figures(bundle: Bundle, report: Report) -> dict[str, float]:
    figures = {
        f"out of fold {name} {figure}": value
        for name, compared in bundle.training["candidates"].items()
        for figure, value in compared.items()
    }
    for finding in report.findings:
        # MLflow takes letters, digits and few signs besides
        key = re.sub(r"[^\w\-. :]", "", f"{finding.code} {finding.title}".replace("%", "percent"), flags=re.ASCII)
        if finding.value is not None:
            figures[key] = finding.value
        if finding.interval is not None:
            figures[f"{key} low"], figures[f"{key} high"] = finding.interval
    return figures


def _signature(bundle: Bundle) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, DataType

    plan = build.plan(bundle.spec)
    plain = [ColSpec("double", feature.name) for feature in plan.features]
    whole = [ColSpec(Array(DataType.double), signal.name) for signal in plan.signals]
    return ModelSignature(inputs=Schema([*plain, *whole]), outputs=Schema([ColSpec("double", "risk")]))
