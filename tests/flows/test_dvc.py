"""DVC's route and the plain functions' route end in the same bundle, and the registered version names it."""

import os
import shutil
import subprocess
from pathlib import Path

import yaml

from ledger import registry
from models.bundle import load
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.train import train
from pipelines.validate import validate

ROOT = Path(__file__).resolve().parents[2]
DVC = ROOT / ".venv" / "bin" / "dvc"
CODE = ("features", "models", "pipelines")


def test_dvc_and_the_plain_functions_make_the_same_bundle(medimind_home, tmp_path):
    for step in (ingest, prepare, train):
        step("toy", medimind_home)
    validated = validate("toy", medimind_home)

    project = tmp_path / "project"
    for folder in CODE:
        shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(medimind_home.configs, project / "configs")
    shutil.copy(ROOT / "configs" / "spec.py", project / "configs" / "spec.py")
    shutil.copy(ROOT / "dvc.yaml", project / "dvc.yaml")
    (project / ".venv").symlink_to(ROOT / ".venv")
    environment = {
        **os.environ,
        "MEDIMIND_DATA": str(project / "data"),
        "MEDIMIND_CONFIGS": str(project / "configs"),
        "MEDIMIND_HOME": str(tmp_path / "dvc-home"),
    }
    subprocess.run([DVC, "init", "--no-scm", "--quiet"], cwd=project, env=environment, check=True, timeout=120)
    repro = subprocess.run([DVC, "repro"], cwd=project, env=environment, capture_output=True, text=True, timeout=300)

    assert repro.returncode == 0, repro.stdout + repro.stderr
    by_dvc = load(project / "data" / "bundles" / "toy")
    by_hand = load(medimind_home.data / "bundles" / "toy")
    assert by_dvc.digest == by_hand.digest
    assert registry.find(medimind_home, "toy", validated.version.number).bundle == by_dvc.digest
    locked = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert set(locked) == {"ingest@toy", "prepare@toy", "train@toy"}
