"""`make demo`, from an empty machine that has the raw files, to its end: what it promises, and nothing left behind."""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from configs.settings import ROOT, Settings

NAMES = ("heart_disease", "breast_cancer")


@dataclass(frozen=True)
class Told:
    """The machine that the demo ran on, its exit code and what it printed, every run of blanks as one."""

    settings: Settings
    variables: dict[str, str]
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, guard_log: Path) -> Told:
    base = tmp_path_factory.mktemp("demo")
    settings = Settings(home=base / "home", configs=ROOT / "configs", data=base / "data")
    for name in NAMES:
        if not (raw := ROOT / "data" / "raw" / name).is_dir():
            pytest.fail(f"{raw.relative_to(ROOT)} is not there: `make data` fetches it.")
        shutil.copytree(raw, settings.data / "raw" / name)
    variables = {"MEDIMIND_HOME": str(settings.home), "MEDIMIND_DATA": str(settings.data)}
    done = run(variables, "pipelines.demo", timeout_s=600)
    # BentoML's process manager, circus, asks for this machine's own name when it starts.
    others = [line for line in guard_log.read_text().splitlines() if line != socket.gethostname()]
    guard_log.write_text("".join(f"{line}\n" for line in others))
    return Told(settings, variables, done.returncode, " ".join(done.stdout.split()), done.stderr)


def run(
    variables: dict[str, str], module: str, *words: str, timeout_s: int = 120
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=ROOT,
        env={**{name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}, **variables},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def test_it_runs_to_its_end(told):
    assert told.code == 0, told.out[-2_000:] + told.err[-2_000:]
    assert "the demo took" in told.out


def test_both_diseases_are_promoted(told):
    for name in NAMES:
        assert f"promote {name}@1 is now champion" in told.out
        assert f"ready: {name}@1, its self-test replayed" in told.out


def test_the_broken_record_is_refused_by_code_and_field(told):
    assert told.out.count("refused not_a_number in cholesterol_mg_dl:") == 1


def test_the_patients_of_the_other_hospitals_are_answered_and_their_cholesterol_has_drifted(told):
    assert re.search(r"Zurich and Basel: 123 patients answered, 0 refused; \d+ of them have the disease", told.out)
    assert re.search(r"Long Beach VA: 200 patients answered, 0 refused; \d+ of them have the disease", told.out)
    drift = re.search(r"[^|]*cholesterol_mg_dl.*?switzerland 100\s?%", told.out)
    assert drift is not None


def test_the_monitoring_report_is_where_it_says(told):
    (page,) = re.findall(r"the monitoring report (\S+\.html)", told.out)

    assert Path(page).parent == told.settings.reports / "heart_disease"
    assert "cholesterol_mg_dl" in Path(page).read_text(encoding="utf-8")


def test_the_prediction_that_it_names_is_replayed_to_the_bit(told):
    (prediction,) = re.findall(r"medimind replay (\S+)", told.out)

    done = run(told.variables, "pipelines.cli", "replay", prediction)

    assert done.returncode == 0, done.stderr
    assert "to the bit" in done.stdout
    assert "the same digest" in done.stdout


def test_it_leaves_no_process_behind(told):
    assert not [process for process in psutil.process_iter() if home_of(process) == str(told.settings.home)]


def home_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("MEDIMIND_HOME")
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return None
