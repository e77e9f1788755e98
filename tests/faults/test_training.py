"""A training that is killed, and one of several processes or machines: from the command line, as a person starts it."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.settings import ROOT, Settings
from models import bundle, checkpoints
from models.bundle import Bundle
from pipelines import ingest, prepare
from tests.cli.conftest import variables_of, write_csv, write_yaml

pytestmark = pytest.mark.faults(within_s=900)

TOGETHER = 0.01
"""How far the figures of a training may lie from those of the same by two processes. Each drops out other units; what
they sum in another order alone moves a weight by 1e-7 (tests/unit/test_models_learner.py)."""


@pytest.fixture
def networks(tmp_path: Path, toy_document: dict[str, Any], toy_table: Callable[..., dict[str, list[Any]]]) -> Settings:
    """A machine on which the toy's cohort is prepared; a network is among its candidates."""
    settings = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")
    write_csv(settings.data / "raw" / "toy.csv", toy_table(400, 1))
    document = {
        **toy_document,
        "source": {"csv": str(settings.data / "raw" / "toy.csv")},
        "candidates": ["boosted", "tabular_net"],
        "learning": {"epochs": 4, "patience": 4},
    }
    write_yaml(settings.configs / "diseases" / "toy.yaml", document)
    ingest.ingest("toy", settings)
    prepare.prepare("toy", settings)
    return settings


def another(settings: Settings, name: str) -> Settings:
    """A machine with the same prepared cohort."""
    base = settings.home.parent / name
    shutil.copytree(settings.data, base / "data")
    return Settings(home=base / "home", configs=settings.configs, data=base / "data")


def started(settings: Settings, *words: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *words],
        cwd=ROOT,
        env={**os.environ, **variables_of(settings), "MEDIMIND_DEVICE": "cpu", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trained(settings: Settings, process: "subprocess.Popen[str]") -> Bundle:
    """What a training left behind that ended well."""
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    return bundle.load(settings.data / "bundles" / "toy")


def figures(of: Bundle) -> dict[str, float]:
    """What the network's risks are worth to patients whom it did not learn from, in five folds."""
    found: dict[str, float] = of.training["candidates"]["tabular_net"]
    return found


def test_a_training_killed_amid_its_networks_goes_on_and_ends_as_the_same_bundle(networks):
    unbroken = another(networks, "unbroken")
    whole = trained(unbroken, started(unbroken, "train", "toy"))

    for fold in ("fold_2", "fold_4"):  # killed twice
        process = started(networks, "train", "toy", "--resume")
        left = networks.home / "checkpoints" / "toy" / "tabular_net" / fold / checkpoints.STATE
        while not left.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.kill()
        process.communicate()

    assert trained(networks, started(networks, "train", "toy", "--resume")).digest == whole.digest
    assert not (networks.home / "checkpoints" / "toy").exists()


def test_two_processes_train_what_one_does(networks):
    together = another(networks, "together")
    one = trained(networks, started(networks, "train", "toy"))
    two = trained(together, started(together, "train", "toy", MEDIMIND_DEVICES="2"))
    assert figures(two) == pytest.approx(figures(one), abs=TOGETHER)


def test_two_machines_train_together_and_each_has_the_bundle(networks):
    machines = [networks, another(networks, "second")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meet = {"MEDIMIND_NODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [started(here, "train", "toy", **meet, NODE_RANK=str(rank)) for rank, here in enumerate(machines)]
    first, second = (trained(here, process) for here, process in zip(machines, processes, strict=True))
    assert first.digest == second.digest
