"""The machine's clock, set back and set forward while the server answers."""

import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import sqlalchemy as sa

from ledger import tables
from ledger.database import utc
from tests.faults.conftest import nothing_is_lost, opened

pytestmark = pytest.mark.faults(within_s=120)

HOUR_S = 3600


def test_a_clock_set_back_and_forward_by_an_hour_changes_no_order_no_deadline_and_no_answer(
    machine_of, serve, load, patient, tmp_path
):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not here; make tools installs it.")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    settings = machine_of()
    server = serve(
        settings,
        "toy",
        LD_PRELOAD=str(library),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_DONT_FAKE_MONOTONIC="1",  # setting a clock never moves the monotonic one
        FAKETIME_FORCE_MONOTONIC_FIX="0",  # its remedy for an old C library holds threads up for seconds
        FAKETIME_CACHE_DURATION="1",
    )

    with load(server, 8) as calls, server.client() as client:
        for hours in (0, -1, 0):
            clock.write_text(f"{hours * HOUR_S:+d}")
            time.sleep(3)
            deadline = {"X-Deadline-Ms": "3000"}  # far less than the clock was moved by
            answer = client.post("/v1/models/toy/predict", json={"records": [patient]}, headers=deadline)
            assert answer.status_code == 200, f"{hours:+d} h: {answer.text}"
        said = calls.turn()

    assert set(said) == {"200"}
    nothing_is_lost(settings, calls)
    of_caller: dict[str, list[int]] = {}
    for told in calls.told:
        numbers = of_caller.setdefault(told.reference.rpartition("-")[0], [])
        number = int(told.id.partition("-")[0])
        if number not in numbers[-1:]:  # a key's second answer
            numbers.append(number)
    assert all(numbers == sorted(set(numbers)) for numbers in of_caller.values()), "a later answer has an earlier id"
    with opened(settings) as engine, engine.connect() as connection:
        kept = sa.select(tables.requests.c.received_at).order_by(tables.requests.c.id)
        times = [utc(time_) for time_ in connection.execute(kept).scalars()]
    steps = [later - earlier for earlier, later in pairwise(times)]
    assert min(steps) < -timedelta(minutes=59), "the clock was not set back"
    assert max(steps) > timedelta(minutes=59), "the clock was not set forward again"
