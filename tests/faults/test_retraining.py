"""kill -9 at random moments of a retraining: nothing is lost, there is one champion, and the next one goes on."""

import random
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from configs.settings import ROOT
from ledger import promotions, registry, retrainings, tables, traffic
from ledger.chain import check
from ledger.database import reading
from pipelines.verify import verify

pytestmark = pytest.mark.faults(within_s=900)

KILLS = 10
LONGEST_S = 120


def start() -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "pipelines.cli", "retrain", "toy"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def on_record(engine) -> tuple[int, ...]:
    with reading(engine) as connection:
        return tuple(
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for table in (tables.requests, tables.outcomes)
        )


def test_kill_9_at_ten_random_moments_of_a_retraining(clinic_of):
    clinic = clinic_of()
    dice, kills, took_s = random.Random(17), 0, 20.0
    for patients, wanted in ((160, "trial"), (120, "promoted"), (100, "kept")):
        clinic.see(patients, more_events=0.6)
        held = on_record(clinic.engine)
        while (step := retrainings.newest(clinic.engine, "toy")) is None or step.step != wanted:
            began = time.monotonic()
            process = start()
            if kills < KILLS:
                try:
                    process.wait(dice.uniform(0.5, took_s))
                except subprocess.TimeoutExpired:
                    process.kill()
                    kills += 1
            said, _ = process.communicate(timeout=LONGEST_S)
            if process.returncode == 0:
                took_s = time.monotonic() - began
            else:
                assert process.returncode == -9, said.decode()
            assert on_record(clinic.engine) == held
            assert not check(clinic.engine).problems
            assert promotions.find_champion(clinic.engine, "toy").version in (1, 2)
    assert kills >= 3, "too few of the moments met a retraining"
    while kills < KILLS:  # the rest of the moments meet the last step, over and over
        process = start()
        try:
            process.wait(dice.uniform(0.5, 4))
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate(timeout=LONGEST_S)
        kills += 1
    found = retrainings.steps(clinic.engine, "toy")
    assert [step.step for step in found] == ["begun", "trial", "promoted", "kept"]
    assert [version.number for version in registry.versions(clinic.home, "toy")] == [1, 2]
    assert promotions.find_champion(clinic.engine, "toy").version == 2
    assert traffic.find(clinic.engine, "toy").lanes == {}
    assert not verify(clinic.home).problems
