"""A shadow says what its version would have said, behind the answers, and stands in nobody's way."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from features.synthetic import draw
from serving import shadow
from serving.answers import Part
from serving.scoring import Scorer
from serving.shadow import Shadow
from serving.versions import Version, load

NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)


@dataclass
class Desk:
    """Where a shadow's rows go, once it is open."""

    open: threading.Event
    rows: list[dict[str, Any]] = field(default_factory=list)

    def shadow(self, row):
        self.open.wait(30)
        self.rows.append(row)
        return True


@pytest.fixture
def version(stored, home):
    return load("angina", 4, stored.digest, home, lambda: None, lambda: None, lambda *_: None)


@pytest.fixture
def said(version, predictor):
    """What the champion answered to seven records, one with a unit and a time of its own."""
    sent = draw(predictor.spec.columns, 7, seed=3)
    sent[2] |= {"cholesterol_mg_dl": {"value": 5.2, "unit": "mmol/L"}, "at": "2025-12-24T18:00:00+01:00"}
    part = Part(version, sent, range(7))
    part.scored, part.received = Scorer(predictor).alone(sent, NINE), NINE
    return part


@pytest.fixture
def counted():
    return Counter()


@pytest.fixture
def desk():
    """A writer that takes what it is given at once."""
    made = Desk(threading.Event())
    made.open.set()
    return made


@pytest.fixture
def behind(desk, counted):
    """The shadow itself."""
    made = Shadow(desk, lambda model, outcome, records: counted.update({outcome: records}))
    yield made
    desk.open.set()
    made.close()


def eventually(claim):
    until = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def test_a_shadow_puts_on_record_what_its_version_says_of_each_record(behind, desk, counted, said, version):
    behind.offer(version, 17, said)
    eventually(lambda: counted["scored"] == 7)

    (row,) = desk.rows
    assert (row["request"], row["version"], row["bundle"]) == (17, 4, version.bundle)
    assert row["risks"] == said.scored.risks.tobytes()  # the same bundle as the champion's


def test_a_shadow_reads_signals_as_they_stand_on_record(behind, desk, counted, reader, recording):
    of_reader = Version("toy", 1, reader, None, None)
    sent = [{"age_years": 61, "sex": "female", "ecg": recording(seed)} for seed in range(3)]
    part = Part(of_reader, sent, range(3))
    part.scored, part.received = Scorer(reader).alone(sent, NINE), NINE

    behind.offer(of_reader, 17, part)
    eventually(lambda: counted["scored"] == 3)

    assert desk.rows[0]["risks"] == part.scored.risks.tobytes()


@pytest.mark.parametrize(
    "form", [lambda wave: wave, lambda wave: {"value": wave, "unit": "mV"}, lambda wave: wave.tolist()]
)
def test_signals_that_wait_are_bounded_by_their_bytes(form, behind, desk, counted, reader, recording, monkeypatch):
    of_reader = Version("toy", 1, reader, None, None)
    sent = [{"age_years": 61, "sex": "female", "ecg": form(recording(1))}]
    part = Part(of_reader, sent, range(1))
    part.scored, part.received = Scorer(reader).alone(sent, NINE), NINE
    monkeypatch.setattr(shadow, "MOST_BYTES", 4 * recording(1).nbytes + 99)  # other cells are texts, too
    desk.open.clear()

    for number in range(20):
        behind.offer(of_reader, number, part)
    assert counted["let_go"] in (15, 16)  # one may be with the desk already

    desk.open.set()
    eventually(lambda: counted["scored"] + counted["let_go"] == 20)
    behind.offer(of_reader, 20, part)
    eventually(lambda: counted["scored"] + counted["let_go"] == 21)
    assert counted["scored"] in (5, 6)


def test_what_its_contract_refuses_has_no_risk_and_is_counted(behind, desk, counted, said, version):
    narrower = version.predictor.contract
    age = list(narrower.columns).index("age_years")
    cells = [list(cells) for cells in said.scored.cells]
    cells[3][age] = 7.0  # a child, whom the champion's contract might take
    said.scored.cells = [tuple(one) for one in cells]

    behind.offer(version, 17, said)
    eventually(lambda: counted["refused_in_part"] == 7)

    risks = np.frombuffer(desk.rows[0]["risks"])
    assert np.isnan(risks).tolist() == [place == 3 for place in range(7)]
    others = [place for place in range(7) if place != 3]
    assert risks[others].tobytes() == said.scored.risks[others].tobytes()


def test_a_shadow_that_falls_behind_lets_records_go_and_holds_nobody_up(
    behind, desk, counted, said, version, monkeypatch
):
    monkeypatch.setattr(shadow, "MOST_WAITING", 3)
    desk.open.clear()
    began = time.monotonic()
    for number in range(50):
        behind.offer(version, number, said)
    assert time.monotonic() - began < 1
    desk.open.set()
    eventually(lambda: sum(counted.values()) == 50 * 7)

    assert counted["let_go"] >= 46 * 7
    assert counted["scored"] == 7 * len(desk.rows)


def test_a_fault_of_the_shadow_is_counted_and_the_next_request_is_scored(behind, desk, counted, said, version):
    broken = Part(version, [], [])
    broken.scored, broken.received = said.scored, None  # no time at which it was received

    behind.offer(version, 1, broken)
    behind.offer(version, 2, said)
    eventually(lambda: counted["scored"] == 7)

    assert counted["failed"] == 7
    assert [row["request"] for row in desk.rows] == [2]
