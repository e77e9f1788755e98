"""kill -9 at random moments of a retraining: nothing is lost, there is one champion, and the next one goes on."""

import random
import subprocess
import sys
from contextlib import suppress

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
    dice, kills = random.Random(17), 0
    for patients, wanted, moments, longest_s in (
        (160, "trial", 7, 8.0),
        (120, "promoted", 2, 4.0),
        (100, "kept", 1, 3.0),
    ):
        clinic.see(patients, more_events=0.6)
        held = on_record(clinic.engine)
        while (step := retrainings.newest(clinic.engine, "toy")) is None or step.step != wanted:
            process = start()
            if moments:
                moments -= 1
                with suppress(subprocess.TimeoutExpired):
                    process.wait(dice.uniform(0.5, longest_s))
                if process.poll() is None:
                    process.kill()
                    kills += 1
            said, _ = process.communicate(timeout=LONGEST_S)
            assert process.returncode in (0, -9), said.decode()
            assert on_record(clinic.engine) == held
            assert not check(clinic.engine).problems
            assert promotions.find_champion(clinic.engine, "toy").version in (1, 2)
    assert kills == KILLS, "a retraining was over before its moment came"
    found = retrainings.steps(clinic.engine, "toy")
    assert [step.step for step in found] == ["begun", "trial", "promoted", "kept"]
    assert [version.number for version in registry.versions(clinic.home, "toy")] == [1, 2]
    assert promotions.find_champion(clinic.engine, "toy").version == 2
    assert traffic.find(clinic.engine, "toy").lanes == {}
    assert not verify(clinic.home).problems
