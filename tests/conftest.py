"""The session that every test shares: nothing leaves the machine, nothing of the developer's shell comes in."""

import base64
import csv
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from configs.settings import PHONE_HOME_OFF, ROOT, Settings, settings

Table = dict[str, list[Any]]

GUARD = Path(__file__).parent / "guard"
REAL_HEART = ROOT / "data" / "raw" / "heart_disease" / "heart_disease_uci.csv"


def enter_the_session() -> Path:
    """Prepare this process and the children it will start; the guard's log."""
    for variable in [name for name in os.environ if name.startswith("MEDIMIND_")]:
        del os.environ[variable]
    os.environ.update(PHONE_HOME_OFF)
    handle, log = tempfile.mkstemp(prefix="medimind-guard-", suffix=".log")
    os.close(handle)
    os.environ["MEDIMIND_GUARD_LOG"] = log
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(GUARD) not in paths:  # else Python has run it at its start, and a hook cannot be taken out again
        os.environ["PYTHONPATH"] = os.pathsep.join([str(GUARD), *filter(None, paths)])
        spec = spec_from_file_location("medimind_guard", GUARD / "sitecustomize.py")
        assert spec is not None and spec.loader is not None
        sys.modules["medimind_guard"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["medimind_guard"])
    hypothesis.settings.register_profile("medimind", deadline=None, derandomize=True, database=None, max_examples=60)
    hypothesis.settings.load_profile("medimind")
    return Path(log)


GUARD_LOG = enter_the_session()


def pytest_sessionfinish(session: pytest.Session) -> None:
    refused = GUARD_LOG.read_text(encoding="utf-8").split()
    GUARD_LOG.unlink()
    if refused:
        message = f"{len(refused)} refused tries to leave this machine: {', '.join(sorted(set(refused)))}"
        if reporter := session.config.pluginmanager.get_plugin("terminalreporter"):
            reporter.section("the guard of tests/guard/sitecustomize.py", red=True)
            reporter.line(f"{message}. A test, or a process that it started, did this and may have gone on without it.")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def guard_log() -> Path:
    """One line a refused try to leave the machine. A line that is left here at the end fails the session."""
    return GUARD_LOG


@pytest.fixture(scope="session")
def heart_table() -> Table:
    """The real heart file's columns; None where a cell is empty."""
    import pandas as pd

    if not REAL_HEART.exists():
        pytest.fail(f"{REAL_HEART.relative_to(ROOT)} is not there: `make data` fetches it.")
    frame = pd.read_csv(REAL_HEART)
    return {
        name: [None if gone else cell for cell, gone in zip(frame[name].tolist(), frame[name].isna(), strict=True)]
        for name in frame.columns
    }


@pytest.fixture
def toy_document() -> dict[str, Any]:
    """An invented disease with one of everything, as its YAML would be read; a fresh one for each test."""
    return {
        "name": "toy",
        "title": "An invented disease",
        "owner": "tests",
        "intended_use": "None; it does not exist.",
        "source": {"csv": "toy.csv"},
        "patient_id": "id",
        "columns": {
            "age_years": {"from": "age", "type": "number", "unit": "a", "range": [18, 120], "required": True},
            "cholesterol_mg_dl": {
                "from": "chol",
                "type": "number",
                "unit": "mg/dL",
                "accepts": ["mmol/L"],
                "range": [80, 700],
                "missing_if": [0],
                "loinc": "2093-3",
            },
            "max_heart_rate_bpm": {"from": "rate", "type": "number", "unit": "/min", "range": [40, 250]},
            "sex": {"type": "category", "map": {"F": "female", "M": "male"}, "required": True},
            "pain": {"type": "category", "map": {"none": "none", "on exertion": "exertion", "at rest": "rest"}},
            "smoker": {"type": "boolean"},
            "site": {"type": "category", "map": {"North": "north", "South": "south", "East": "east"}},
        },
        "duplicate_rows": "drop",
        "refused_rows_at_most": 0,
        "outcome": {"column": "sick", "positive": "== 1", "values": [0, 1]},
        "attributes": ["sex", "demographics.age_band", "site"],
        "features": [
            "age_years",
            "cholesterol_mg_dl",
            "max_heart_rate_bpm",
            "cardiac.heart_rate_reserve_used",
            "sex",
            "pain",
            "smoker",
        ],
        "split": {"sites": ["north", "south"], "test_fraction": 0.25, "seed": 17},
        "external": {"sites": ["east"]},
        "candidates": ["logistic", "boosted"],
        "gates": {"auroc": ">= 0.60", "brier": "<= 0.25"},
        "operating_points": {"rule_out": {"sensitivity": 0.95}, "alert": {"specificity": 0.9}},
        "serving": {"max_batch": 16, "deadline_ms": 500},
        "monitoring": {"window": 50, "min_outcomes": 20},
        "change_control": {
            "allowed": ["new_data"],
            "approvals": 0,
            "retrain": {"log_loss": "better", "auroc_drop": 0.02, "min_events": 10, "min_non_events": 10},
        },
    }


ORIGINS = {
    "column": "origin",
    "classes": {"none": ["healthy"], "colon": ["crc", "colon"], "lung": ["nsclc"]},
    "positive": ["colon", "lung"],
    "costs": {
        "none": {"colon": 1, "lung": 1},
        "colon": {"none": 20, "lung": 4},
        "lung": {"none": 20, "colon": 4},
    },
}


@pytest.fixture
def classes_document(toy_document: dict[str, Any]) -> dict[str, Any]:
    """The invented disease of which it is told where it comes from: three classes."""
    return {**toy_document, "outcome": ORIGINS}


@pytest.fixture(scope="session")
def classes_table(toy_table: Callable[..., Table]) -> Callable[..., Table]:
    """`classes_table(n, seed)`: the same patients as `toy_table`'s, and where the disease of the sick comes from."""

    def make(n: int = 400, seed: int = 1) -> Table:
        dice, table = random.Random(seed), toy_table(n, seed)
        origin = [
            "healthy" if not sick else dice.choice(["crc", "colon"]) if (pain == "at rest") ^ odd else "nsclc"
            for sick, pain, odd in zip(
                table["sick"], table["pain"], (dice.random() < 0.15 for _ in range(n)), strict=True
            )
        ]
        return {**table, "origin": origin}

    return make


@pytest.fixture
def invented_bundle(toy_document: dict[str, Any]) -> Callable[..., Any]:
    """`invented_bundle(digest=…, training={…}, **spec)`: a bundle in memory, with nothing on disk."""
    from configs.spec import from_document
    from models.bundle import Bundle
    from models.calibration import Calibration

    def make(digest: str = "b" * 64, training: dict[str, Any] | None = None, **changed: Any) -> Bundle:
        held = {
            "family": "boosted",
            "candidates": {"logistic": {"auroc": 0.84, "log_loss": 0.46}, "boosted": {"auroc": 0.86, "log_loss": 0.44}},
            "parity": 2e-8,
            "patients": {
                "train": {"n": 450, "events": 210},
                "test": {"n": 150, "events": 70},
                "external": {"n": 200, "events": 120},
            },
            "dropped": {"the same row twice": 2, "cholesterol out of range": 1},
            "data": "d" * 64,
            "code": "c" * 64,
            "libraries": {"numpy": "2.4.6", "scikit-learn": "1.7.2"},
        }
        return Bundle(
            digest=digest,
            folder=Path("nowhere"),
            spec=from_document({**toy_document, **changed}, "toy.yaml"),
            calibration=Calibration(slope=0.94, intercept=0.03),
            thresholds={"rule_out": 0.12, "alert": 0.61},
            conformal=None,
            reference={},
            selftest={"about": "", "cases": []},
            training={**held, **(training or {})},
        )

    return make


@pytest.fixture
def full_report() -> Any:
    """An invented validation report with every figure that the review page can draw, and one failed finding."""
    from evidence.report import Finding, Report

    grid = [step / 100 for step in range(101)]
    inner = grid[1:-1]
    about = "150 test patients, 70 events"
    findings = (
        Finding("MM001", "AUROC", "passed", 0.868, ">= 0.6", about, (0.81, 0.921)),
        Finding("MM003", "Brier score", "passed", 0.148, "<= 0.25", about, (0.12, 0.179)),
        Finding("MM005", "observed / expected events", "passed", 1.04, "0.8 to 1.25", about, (0.9, 1.19)),
        Finding("MM006", "calibration slope", "passed", 0.97, "interval reaches 0.8 to 1.25", about, (0.7, 1.3)),
        Finding("MM007", "calibration intercept", "not applicable", -0.02, None, "no gate in the spec", (-0.4, 0.4)),
        Finding("MM008", "worst subgroup's AUROC", "failed", 0.62, ">= 0.7", "site <south> & others", (0.48, 0.75)),
        Finding("MM009", "AUROC, sex female", "not applicable", None, None, "12 < 30", None),
        Finding("MM010", "AUROC against logistic", "passed", 0.012, ">= -0.02", "logistic reaches 0.856"),
    )
    low = {"value": 0.9, "low": 0.82, "high": 0.96}
    figures = {
        "roc": {"fpr": grid, "tpr": [x**0.16 for x in grid]},
        "precision_recall": {"recall": grid, "precision": [1 - 0.53 * x**4 for x in grid]},
        "calibration": {
            "risk": inner,
            "observed": [min(x * 1.05, 1) for x in inner],
            "low": [x * 0.85 - 0.03 for x in inner],
            "high": [x * 1.15 + 0.05 for x in inner],
            "histogram": {"edges": grid[::10], "counts": [31, 22, 14, 10, None, None, 11, 15, 19, 24]},
        },
        "decision_curve": {
            "threshold": inner,
            "model": [max(0.46 - 0.47 * x - 0.01, 0.46 - (0.54 * x / (1 - x))) * (x < 0.9) for x in inner],
            "treat_all": [0.46 - 0.54 * x / (1 - x) for x in inner],
        },
        "alert_burden": {
            "threshold": inner,
            "alerts_per_100": [100 * (1 - x) ** 0.8 for x in inner],
            "sensitivity": [1 - x**2.5 for x in inner],
            "ppv": [*(0.46 + 0.5 * x for x in inner[:-4]), None, None, None, None],
        },
        "operating_points": [
            {
                "name": name,
                "threshold": threshold,
                **dict.fromkeys(("sensitivity", "specificity", "ppv"), low),
                "npv": {"value": None, "low": None, "high": None},
                "alerts_per_100": {"value": 62.0, "low": 54.1, "high": 69.9},
                "net_benefit": 0.41,
            }
            for name, threshold in (("rule_out", 0.12), ("alert", 0.61))
        ],
        "subgroups": [
            {
                "attribute": "sex",
                "label": "male",
                "n": 101,
                "events": 52,
                "auroc": 0.87,
                "low": 0.8,
                "high": 0.93,
                "why": None,
            },
            {
                "attribute": "sex",
                "label": "female",
                "n": 12,
                "events": None,
                "auroc": None,
                "low": None,
                "high": None,
                "why": "12 < 30",
            },
            {
                "attribute": "site",
                "label": "<south>",
                "n": 62,
                "events": 30,
                "auroc": 0.62,
                "low": 0.48,
                "high": 0.75,
                "why": None,
            },
        ],
        "conformal": [
            {"group": "all", "n": 150, "coverage": 0.91, "low": 0.85, "high": 0.95, "nominal": 0.9, "abstained": 0.22},
            {
                "group": "events",
                "n": 70,
                "coverage": 0.87,
                "low": 0.77,
                "high": 0.94,
                "nominal": 0.9,
                "abstained": 0.25,
            },
        ],
        "importance": [
            {"feature": "pain", "drop": 0.11, "low": 0.08, "high": 0.14},
            {"feature": "cardiac.heart_rate_reserve_used", "drop": 0.05, "low": 0.02, "high": 0.08},
            {"feature": "cholesterol_mg_dl", "drop": -0.001, "low": -0.01, "high": 0.01},
        ],
        "robustness": [
            {"probe": "missing", "feature": "cholesterol_mg_dl", "change": -0.004, "low": -0.01, "high": 0.002},
            {"probe": "unit slip", "feature": "cholesterol_mg_dl", "change": -0.06, "low": -0.09, "high": -0.03},
        ],
        "sites": [
            {
                "site": "north",
                "kind": "left out",
                "n": 300,
                "events": 130,
                "auroc": 0.84,
                "low": 0.79,
                "high": 0.88,
                "oe": 1.1,
                "why": None,
            },
            {
                "site": "east",
                "kind": "external",
                "n": 9,
                "events": 2,
                "auroc": None,
                "low": None,
                "high": None,
                "oe": None,
                "why": "9 < 30",
            },
        ],
        "flow": {
            "read": 803,
            "dropped": {"the same row twice": 2, "cholesterol out of range": 1},
            "parts": {
                part: {"n": n, "events": events}
                for part, n, events in (("train", 450, 210), ("test", 150, 70), ("external", 200, 120))
            },
        },
        "table1": {
            "columns": ["all", "events", "non-events"],
            "rows": [
                {"name": "patients", "level": None, "cells": ["600", "280", "320"]},
                {
                    "name": "age_years",
                    "level": "median (quartiles)",
                    "cells": ["55 (44 to 66)", "61 (52 to 70)", "49 (40 to 58)"],
                },
                {"name": "pain", "level": "rest", "cells": ["200 (33%)", "150 (54%)", "50 (16%)"]},
                {"name": "smoker", "level": "missing", "cells": ["31 (5%)", "fewer than 10", "23 (7%)"]},
            ],
        },
        "lineage": {
            "git": "a" * 40,
            "data": "d" * 64,
            "spec": "e" * 64,
            "code": "c" * 64,
            "libraries": {"numpy": "2.4.6"},
        },
        "sample_size": [{"criterion": "events per parameter", "needed": 410, "have": 450}],
    }
    return Report("toy", "validation", "b" * 64, "d" * 64, findings, figures)


@pytest.fixture
def of_classes(invented_bundle: Callable[..., Any], full_report: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bundle that tells three classes apart and its report, with the figures of invented patients."""
    from evidence import calibration, classes, metrics, screening

    monkeypatch.setattr(metrics, "RESAMPLES", 40)
    monkeypatch.setattr(calibration, "RESAMPLES", 5)
    outcome = {
        "column": "origin",
        "classes": {"none": ["no"], "colon": ["crc"], "lung": ["lung"]},
        "positive": ["colon", "lung"],
        "stage": "stage",
    }
    where = {"prevalence": 0.01, "source": "<a programme>"}
    bundle = invented_bundle(outcome=outcome, screening=where)
    dice = np.random.default_rng(0)
    label = np.repeat([0.0, 1.0, 2.0], [200, 80, 60])
    scores = dice.normal(size=(340, 3)) + 1.5 * np.eye(3)[label.astype(int)]
    risks = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    y, risk = (label > 0).astype(float), risks[:, 1:].sum(axis=1)
    stage = np.where(y == 1, np.where(np.arange(340) % 40 < 3, "I", "II"), "")
    figures = {
        **full_report.figures,
        **classes.drawn(bundle.spec, label, risks, risks > 0.2, bundle.thresholds),
        **screening.drawn(bundle.spec, y, risk, stage, bundle.thresholds),
    }
    return bundle, replace(full_report, figures=figures)


@pytest.fixture(scope="session")
def toy_table() -> Callable[..., Table]:
    """`toy_table(n, seed)`: the invented disease's source; AUROC about 0.85, one optional cell in 20 empty."""
    return _toy_table


def _toy_table(n: int = 400, seed: int = 1) -> Table:
    dice = random.Random(seed)
    rows = [_toy_patient(dice, number) for number in range(1, n + 1)]
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def _toy_patient(dice: random.Random, number: int) -> dict[str, Any]:
    age = dice.randint(30, 80)
    pain = dice.choice(["none", "on exertion", "at rest"])
    smoker = dice.random() < 0.4
    rate = min(240, max(60, round(dice.gauss(205 - age, 18))))
    score = 0.08 * (age - 55) + 1.5 * (pain == "at rest") + 1.2 * smoker - 0.03 * (rate - 150) - 1.4
    patient = {
        "age": age,
        "chol": max(90, round(dice.gauss(210 + 10 * score, 40))),
        "rate": rate,
        "sex": dice.choice(["F", "M"]),
        "pain": pain,
        "smoker": smoker,
        "site": ["North", "South", "East"][number % 3],
        "sick": int(dice.random() < 1 / (1 + math.exp(-score))),
    }
    for optional in ("chol", "rate", "pain", "smoker"):
        if dice.random() < 0.05:
            patient[optional] = 0 if optional == "chol" else None  # a zero is this source's way of saying: not measured
    return {"id": f"P{number:04d}", **patient}


@pytest.fixture(scope="session")
def recording() -> Callable[[int], NDArray[np.float32]]:
    """`recording(seed)`: an invented recording, (leads, samples), in mV: half a second of a tone in two leads."""
    return _recording


def _recording(seed: int) -> NDArray[np.float32]:
    dice = np.random.default_rng(seed)
    tones = np.sin(2 * np.pi * dice.uniform(1, 9, (2, 1)) * np.arange(50) / 100)
    return np.asarray(tones + dice.normal(0, 0.2, (2, 50)), "<f4")


@pytest.fixture(scope="session")
def recordings_table(toy_table: Callable[..., Table]) -> Callable[..., Table]:
    """`recordings_table(n, seed)`: the invented disease's source with a waveform and a picture of each patient."""

    def table(n: int = 400, seed: int = 1) -> Table:
        pictures = np.random.default_rng(seed).random((n, 8, 8)).astype("<f4")
        packed = {
            "ecg": [base64.b64encode(_recording(seed * n + row).tobytes()).decode() for row in range(n)],
            "scan": [base64.b64encode(picture.tobytes()).decode() for picture in pictures],
        }
        return {**toy_table(n, seed), **packed}

    return table


@pytest.fixture
def recordings_document(toy_document: dict[str, Any]) -> dict[str, Any]:
    """The invented disease with a waveform and an image among its columns and features; a fresh one for each test."""
    ecg = {"type": "waveform", "leads": ["I", "V1"], "sampling_hz": 100, "samples": 50, "unit": "mV"}
    scan = {"type": "image", "channels": 1, "height": 8, "width": 8, "unit": "1", "range": [0, 1]}
    signals = {"ecg": {**ecg, "accepts": ["uV"], "range": [-20, 20]}, "scan": scan}
    return {
        **toy_document,
        "candidates": ["logistic"],
        "columns": {**toy_document["columns"], **signals},
        "features": [*toy_document["features"], *signals],
    }


@pytest.fixture
def medimind_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_document: dict[str, Any], toy_table: Callable[..., Table]
) -> Settings:
    """A machine of its own that knows one disease, the invented one, and its 400 patients."""
    configs, data = tmp_path / "configs", tmp_path / "data"
    for folder in (configs / "diseases", data / "raw"):
        folder.mkdir(parents=True)
    table = toy_table(400, 1)
    with open(data / "raw" / "toy.csv", "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(table)
        lines.writerows(zip(*table.values(), strict=True))
    document = {**toy_document, "source": {"csv": str(data / "raw" / "toy.csv")}}
    (configs / "diseases" / "toy.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    (configs / "enabled.yaml").write_text("enabled: [toy]\n", encoding="utf-8")
    monkeypatch.setenv("MEDIMIND_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEDIMIND_CONFIGS", str(configs))
    monkeypatch.setenv("MEDIMIND_DATA", str(data))
    return settings()


@pytest.fixture
def clinic_of(medimind_home: Settings, toy_table: Callable[..., Table]) -> Callable[..., Any]:
    """`clinic_of(canary=…)`: a hospital where the invented disease has its first champion; keys of the retraining."""
    from tests.clinic import with_a_champion

    return lambda **retrain: with_a_champion(medimind_home, toy_table, **retrain)


@pytest.fixture
def clinic_of_classes(
    medimind_home: Settings, classes_document: dict[str, Any], classes_table: Callable[..., Table]
) -> Callable[..., Any]:
    """`clinic_of_classes(canary=…)`: the same where the disease's origin is told, by a model of three classes."""
    return _hospital(medimind_home, {**classes_document, "candidates": ["logistic"]}, classes_table)


def _hospital(home: Settings, document: dict[str, Any], patients: Callable[..., Table]) -> Callable[..., Any]:
    """Makes a hospital where the disease of this document has its first champion, from 600 patients."""
    from tests.clinic import with_a_champion

    table = patients(600, 1)
    with open(home.data / "raw" / "toy.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
    document = {**document, "source": {"csv": str(home.data / "raw" / "toy.csv")}}
    path = home.configs / "diseases" / "toy.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return lambda **retrain: with_a_champion(home, patients, **retrain)


@pytest.fixture
def clinic_of_recordings(
    medimind_home: Settings, recordings_document: dict[str, Any], recordings_table: Callable[..., Table]
) -> Callable[..., Any]:
    """`clinic_of_recordings(…)`: the same where a waveform and a picture of each patient are sent as well."""
    return _hospital(medimind_home, recordings_document, recordings_table)


@pytest.fixture
def windows_shown() -> Any:
    """Invented windows of two versions: the first version's last two drift and fail; the last has few outcomes."""
    from datetime import UTC, datetime, timedelta

    from evidence.report import Finding, Report
    from evidence.timeline import Shown

    def spread(value: float, by: float) -> dict[str, float]:
        return {"value": value, "low": value - by, "high": value + by}

    def window(place: int, version: int, number: int, bad: bool, known: bool) -> Shown:
        begins = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=2 * place)
        reached = 0.66 if bad else 0.86
        findings = (
            Finding("MW002", "missing: cholesterol_mg_dl", "passed", 0.4, "p >= 0.001", "6% missing, 5% in training"),
            Finding("MW003", "drift: age_years", "failed" if bad else "passed", 1e-9, "p >= 0.001", "older & <sicker>"),
            Finding("MW003", "drift: sex", "passed", 0.3, "p >= 0.001", "as in training"),
            Finding("MW007", "AUROC", "failed", reached, ">= 0.7", "80 outcomes", (reached - 0.03, reached + 0.03))
            if bad
            else Finding("MW007", "AUROC", "not applicable", None, ">= 0.7", "too few outcomes"),
        )
        realized = {
            "auroc": spread(reached, 0.05),
            "observed_over_expected": spread(1.6 if bad else 1.0, 0.2),
            "calibration_slope": spread(0.4 if bad else 1.0, 0.3),
            "calibration_intercept": spread(1.2 if bad else 0.0, 0.4),
            "ppv": {"alert": spread(0.7, 0.1)},
        }
        path = [step / 4 for step in range(8)]
        figures = {
            "n": 80,
            "mean_risk": 0.5,
            "estimate": {
                "auroc": spread(0.87, 0.04),
                "ppv": {"alert": spread(0.8, 0.1)},
                "alerts_per_100": {"rule_out": spread(80.0, 9.0), "alert": spread(30.0, 10.0)},
            },
            "realized": realized if known else {},
            "cusum": {
                "at": [10 * step for step in range(1, 9)],
                "up": path,
                "down": [0.0] * 8,
                "limit": 1.6,
                "crossed_up": 70 if bad else None,
                "crossed_down": None,
            }
            if known
            else {},
            "coverage": [
                {"attribute": "all", "label": "", "n": 80, "coverage": 0.9, "low": 0.83, "high": 0.95, "nominal": 0.9},
                {"attribute": "sex", "label": "male", "n": None, "coverage": None, "nominal": 0.9},
            ]
            if known
            else [],
            "subgroups": [
                {"attribute": "sex", "label": "male", "n": 40, "auroc": 0.8, "low": 0.7, "high": 0.9},
            ],
            "drift": {"age_years": {"p": 1e-9 if bad else 0.5, "psi": 0.4}, "sex": {"p": 0.3, "psi": 0.01}},
            "missing": {"age_years": 0.0, "sex": 0.02},
        }
        report = Report("toy", "monitoring", "b" * 64, f"window {number}, 80 predictions", findings, figures)
        page = f"window-{version}-{number}.html"
        return Shown(version, number, 80, 80 if known else 7, begins, begins + timedelta(days=2), report, page)

    first = [window(place, 1, place + 1, bad=place > 1, known=True) for place in range(4)]
    return [*first, window(4, 2, 1, False, True), window(5, 2, 2, False, False)]


WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "fell", "twice", "no", "falls", "steady", "unsteady", "at", "home", ".")


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as sentence-transformers writes it: eight numbers of at most eight tokens, by a network of chance."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("sentences") / "model"
    torch.manual_seed(5)
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, **small)).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    steps = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": n, "path": path, "type": f"sentence_transformers.models.{kind}"} for n, (path, kind) in enumerate(steps)
    ]
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True})
    )
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))
    return folder
