"""The session that every test shares: nothing leaves the machine, nothing of the developer's shell comes in."""

import csv
import math
import os
import random
import sys
import tempfile
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

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
