"""What a worker does with a request: the same bits as the bundle alone, on record before they are told."""

import asyncio
import json
import threading
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import SimpleNamespace

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from configs.errors import RecordError
from features.contract import Contract
from features.synthetic import draw, edges
from ledger import tables
from ledger.predictions import find, idempotency
from ledger.promotions import promote
from ledger.traffic import Route, Traffic
from models import signing
from models.device import Device, HostMemory, Watcher
from models.explain import Explainer, LateError
from serving import runtime as serving_runtime
from serving.app import app
from serving.batcher import Batcher
from serving.bodies import JSON
from serving.explanations import Explanations
from serving.refusals import Refused
from serving.runtime import ALWAYS_WEIGHT, Counters, Model, Runtime, _outcome, _parts
from serving.versions import Version

WHO = "Jane-4711"


@pytest.fixture
def served(ledger, home, stored, report_on):
    """A machine whose angina has a champion."""
    promote(ledger, 1, report_on(stored.digest), "nurse.joy", "first")
    return home


@pytest.fixture
def ask(served):
    """`ask(body, …)`: the answers of a running worker to these bodies, sent at once; a Refused is returned as it is."""

    def run(*bodies, key=None, counted=None):
        count = (lambda *what: counted.append(what)) if counted is not None else lambda *_: None

        async def main():
            runtime = Runtime(served, ["angina"], Counters(count, count, lambda *_: None, count))
            runtime.open()
            sent = [
                runtime.predict("angina", json.dumps(body).encode(), JSON, key, None, monotonic() + 60, None)
                for body in bodies
            ]
            try:
                return await asyncio.gather(*sent, return_exceptions=True)
            finally:
                await runtime.close()

        return [json.loads(said) if isinstance(said, bytes) else said for said in asyncio.run(main())]

    return run


@pytest.fixture
def records(predictor):
    columns = predictor.spec.columns
    return [*edges(columns), *draw(columns, 20, seed=3)]


def rows(engine):
    with engine.connect() as connection:
        return connection.execute(sa.select(tables.requests).order_by(tables.requests.c.id)).all()


def test_while_large_bodies_wait_no_more_are_taken_and_afterwards_they_are(served, records, monkeypatch):
    body = json.dumps({"records": records[:3]}).encode()
    monkeypatch.setattr(serving_runtime, "MOST_BYTES", 2 * len(body))

    async def main():
        runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4))
        runtime.open()
        try:
            until = monotonic() + 60
            asked = [runtime.predict("angina", body, JSON, None, None, until, None) for _ in range(2)]
            waiting = [asyncio.ensure_future(each) for each in asked]
            await asyncio.sleep(0)
            with pytest.raises(Refused) as told:
                runtime.admit("angina", monotonic(), 60_000)
            await asyncio.gather(*waiting)
            return told.value, runtime.admit("angina", monotonic(), 60_000)
        finally:
            await runtime.close()

    refused, until = asyncio.run(main())
    assert (refused.status, refused.code) == (503, "busy") and until > monotonic()


def test_many_requests_at_once_get_the_bits_that_the_bundle_gives_alone(ask, records, predictor):
    alone = predictor.risk(predictor.features([predictor.check(record) for record in records])).tolist()

    answers = ask({"records": records}, *({"records": [record]} for record in records))

    assert [said["risk"] for said in answers[0]["predictions"]] == alone
    assert [answer["predictions"][0]["risk"] for answer in answers[1:]] == alone
    ids = [said["id"] for answer in answers for said in answer["predictions"]]
    assert len(set(ids)) == len(ids) == 2 * len(records)


def test_the_time_of_prediction_is_the_same_for_the_features_and_for_the_ledger(ask, records, ledger, predictor):
    before = datetime.now(UTC)
    ((said,),) = ([one["id"] for one in answer["predictions"]] for answer in ask({"records": records[3:4]}))
    stored = find(ledger, said)

    checked = predictor.check(stored.record)
    assert checked.at == stored.received_at
    assert before <= stored.received_at <= before + timedelta(seconds=60)
    assert np.array_equal(predictor.features([checked])[0], stored.features, equal_nan=True)


def test_a_record_keeps_its_own_time(ask, records, ledger):
    (answer,) = ask({"records": [{**records[3], "at": "2025-12-24T18:00:00+01:00"}]})

    stored = find(ledger, answer["predictions"][0]["id"])

    assert stored.record["at"] == "2025-12-24T17:00:00+00:00"


def test_an_identifier_is_not_kept_with_the_record(ask, records, ledger):
    ask({"records": [{**records[3], "patient": WHO, "reference": "visit-1"}]})

    (row,) = rows(ledger)
    assert set(row.records["fields"]).isdisjoint({"patient", "reference"})
    assert WHO not in str(row)


def test_a_bad_record_gets_its_error_in_its_place_and_the_ids_count_the_good_ones(ask, records, ledger):
    counted = []
    (answer,) = ask({"records": [records[3], {**records[4], "age_years": 7}, None, records[5]]}, counted=counted)

    first, young, nothing, last = answer["predictions"]
    number = first["id"].partition("-")[0]
    assert (first["id"], last["id"]) == (f"{number}-0", f"{number}-1")
    assert (young["error"]["code"], nothing["error"]["code"]) == ("out_of_range", "malformed")
    assert find(ledger, last["id"]).risk == last["risk"]
    assert counted == [("angina", "out_of_range"), ("angina", "malformed"), ("angina", 1, 2)]


def test_a_request_of_bad_records_alone_is_refused_and_leaves_nothing(ask, ledger):
    (refused,) = ask({"records": [{"age_years": 7}, {}]})

    assert isinstance(refused, Refused) and refused.status == 422
    assert [one["error"]["code"] for one in refused.body["predictions"]] == ["out_of_range", "missing_field"]
    assert rows(ledger) == []


def test_a_key_gets_one_answer_however_often_it_comes_at_once(ask, records, ledger):
    answers = ask(*[{"records": records[:2]}] * 5, key="k")

    assert answers == [answers[0]] * 5
    assert [row.idempotency_key for row in rows(ledger)] == [idempotency("k", b"").key]


@pytest.mark.parametrize("inline", [0, 10**9])
def test_a_large_body_is_hashed_in_a_thread_and_its_key_gets_one_answer_as_well(inline, ask, records, monkeypatch):
    where = []

    def hashed(key, body):
        where.append(threading.current_thread() is threading.main_thread())
        return idempotency(key, body)

    monkeypatch.setattr(serving_runtime.predictions, "idempotency", hashed)
    monkeypatch.setattr(serving_runtime, "HASHED_INLINE", inline)

    first, *again = ask(*[{"records": records[:2]}] * 3, key="k" * 9)

    assert where == [inline > 0] * 3
    assert again == [first, first] and len(first["predictions"]) == 2


def test_columns_and_explanations_are_of_the_same_predictions(ask, records):
    names = {name: [record.get(name) for record in records] for name in records[0]}

    plain, columns, explained = ask({"records": records}, {"columns": names}, {"records": records, "explain": True})

    risks = [one["risk"] for one in plain["predictions"]]
    assert [one["risk"] for one in columns["predictions"]] == risks
    assert [one["risk"] for one in explained["predictions"]] == risks
    assert all(set(one["explanation"]) == {"base", "contributions"} for one in explained["predictions"])
    assert not any("explanation" in one for one in plain["predictions"])


def test_a_model_without_a_champion_is_refused_and_says_how_to_make_one(home):
    async def main():
        runtime = Runtime(home, ["angina"], Counters(*[lambda *_: None] * 4))
        with pytest.raises(Refused) as caught:
            runtime.admit("angina", monotonic(), None)
        runtime.engine.dispose()
        return caught.value

    refused = asyncio.run(main())
    assert (refused.status, refused.code) == (503, "not_ready")
    assert "medimind run angina" in str(refused)


@pytest.mark.parametrize("tag", [None, "ward-b"])
def test_a_version_past_its_last_day_answers_nobody_behind_a_canary_or_a_tag_either(tag):
    champion = SimpleNamespace(number=1, expired=False)
    routes = {"canary": Route(1, 2, "b" * 64, 1.0), "tags": {"ward-b": Route(2, 2, "b" * 64, None)}}
    sent = [{"patient": "p"}, {"patient": "q"}]

    def answered_by(expired):
        other = SimpleNamespace(number=2, expired=expired)
        model = Model("angina", None, champion, None, None, Traffic(**routes), {2: other})
        return [part.version.number for part in _parts(model, champion, sent, tag, b"k" * 32)]

    assert answered_by(expired=False) == [2]
    assert answered_by(expired=True) == [1]


@pytest.mark.parametrize("fault", ["revoked", "unsigned"])
def test_a_champion_whose_signature_does_not_count_is_not_served_from_the_next_load(served, trained, fault):
    if fault == "revoked":
        signing.revoke(signing.own_id(served), "lost", served)
    else:
        (served.store / trained.digest / signing.SIGNATURE).unlink()

    runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4))
    runtime.engine.dispose()

    state = runtime.models["angina"].state()
    assert not state["ready"] and fault in state["why"] and "medimind keys sign" in state["why"]
    with pytest.raises(Refused, match=fault) as raised:
        runtime.model("angina")
    assert raised.value.status == 503


def test_a_ledger_that_was_slow_for_a_while_throttles_nobody_afterwards(served, monkeypatch):
    async def main():
        runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4))
        runtime.open()
        try:
            monkeypatch.setattr(runtime, "_rate", 1.0)  # as after commits of many seconds
            monkeypatch.setattr(runtime, "_turn_s", 5.0)
            monkeypatch.setattr(runtime, "_told_at", monotonic())
            runtime.admit("angina", monotonic(), 200)  # nobody waits: whatever was slow is over
            monkeypatch.setattr(runtime, "_waiting", 100)
            monkeypatch.setattr(runtime, "_weight", ALWAYS_WEIGHT + 1)
            monkeypatch.setattr(runtime, "_turn_s", 0.0)
            with pytest.raises(Refused, match="ask again"):
                runtime.admit("angina", monotonic(), 200)
            monkeypatch.setattr(runtime, "_told_at", monotonic() - 2)
            runtime.admit("angina", monotonic(), 200)  # a rate of some time ago says nothing of now
        finally:
            await runtime.close()

    asyncio.run(main())


@pytest.mark.parametrize("field", ["reference", "model"])
def test_an_outcome_s_name_that_a_database_cannot_hold_costs_its_neighbours_nothing(field):
    outcome = {"reference": "visit-1", "value": 1, "observed_at": "2026-01-01T00:00:00Z", field: "visit\x00"}

    with pytest.raises(RecordError, match=f"{field}: 1 to"):
        _outcome(outcome)


class Full(HostMemory):
    """A memory that is full as often as `times` says."""

    times = 0

    def measured(self, compute):
        if self.times:
            self.times -= 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().measured(compute)


class Card:
    """A pretended card for a runtime, with what it told."""

    def __init__(self, monkeypatch):
        self.memory, self.batches, self.events = Full(), [], []
        watcher = Watcher(lambda *batch: self.batches.append(batch), lambda *what: self.events.append(what))
        self.device = Device(torch.device("cpu"), self.memory, None, watcher, exact=False)
        monkeypatch.setattr("serving.runtime.open_device", lambda _settings, _watcher: self.device)


def test_a_network_has_a_thread_of_its_own_and_its_place_and_memory_are_told(
    served, records, as_network, monkeypatch, predictor
):
    card, held, formed = Card(monkeypatch), [], []
    count = Counters(*[lambda *_: None] * 4, lambda *what: formed.append(what), held=lambda *what: held.append(what))

    async def main():
        runtime = Runtime(served, ["angina"], count)
        runtime.open()
        try:
            body = json.dumps({"records": records}).encode()
            said = json.loads(await runtime.predict("angina", body, JSON, None, None, monotonic() + 60, None))
            while not held:
                await asyncio.sleep(0.05)
            return said, runtime.models["angina"].state(), runtime.models["angina"].version.batcher
        finally:
            await runtime.close()

    said, state, batcher = asyncio.run(main())
    alone = predictor.risk(predictor.features([predictor.check(record) for record in records]))
    assert np.allclose([one["risk"] for one in said["predictions"]], alone, atol=1e-5)
    assert state["computed"] == {"device": "cpu", "precision": "float32", "why": None}
    assert batcher._thread is not None
    assert held[-1][:2] == ("angina", 2 * 4) and held[-1][2] > 0
    assert [(name, n) for name, n, _ in formed] == [("angina", 16), ("angina", len(records) - 16)]
    assert all(name == "angina" for name, _, _ in card.batches) and not card.events


def test_a_network_that_is_gone_is_told_to_hold_nothing(served):
    held = []
    runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4, held=lambda *what: held.append(what)))
    runtime._opened = SimpleNamespace(held={"angina": (8, 100), "fracture": (4, 50)})
    runtime._count_held()
    runtime._opened.held = {"fracture": (4, 50)}
    runtime._count_held()
    runtime._count_held()
    assert held == [("angina", 8, 100), ("fracture", 4, 50), ("fracture", 4, 50), ("angina", 0, 0), ("fracture", 4, 50)]


def test_explanations_take_turns_after_as_many_rows_as_the_explainer_says(ask, records, monkeypatch):
    """A network takes up to a second for a row: who asks for one waits for a row of another, not for all."""
    turns, of = [], Explanations.of

    def counted(self, version, X, late):
        turns.append(len(X))
        return of(self, version, X, late)

    monkeypatch.setattr(Explanations, "of", counted)
    monkeypatch.setattr(Explainer, "at_once", 2)
    (answer,) = ask({"records": records[:5], "explain": True})
    assert turns == [2, 2, 1]
    assert all("explanation" in one for one in answer["predictions"])


@pytest.mark.parametrize("inline", [0, 10**9])
def test_what_is_kept_of_large_records_is_made_in_a_thread_and_answers_are_on_record_as_well(
    inline, ask, records, ledger, predictor, monkeypatch
):
    monkeypatch.setattr(serving_runtime, "KEPT_INLINE", inline)
    where, table = [], Contract.table

    def told(self, cells):
        where.append(threading.current_thread() is threading.main_thread())
        return table(self, cells)

    monkeypatch.setattr(Contract, "table", told)
    answers = ask({"records": records}, {"records": records[:2], "explain": True})
    assert where == [inline > 0] * 2
    assert [len(one["predictions"]) for one in answers] == [len(records), 2]
    assert len(rows(ledger)) == 2
    assert find(ledger, answers[0]["predictions"][0]["id"]).risk == answers[0]["predictions"][0]["risk"]


@pytest.mark.parametrize("inline", [0, 10**9])
def test_a_row_that_cannot_be_made_fails_its_own_request(inline, ask, records, ledger, monkeypatch):
    monkeypatch.setattr(serving_runtime, "KEPT_INLINE", inline)
    monkeypatch.setattr(Contract, "table", lambda *_: {}["nothing"])
    (said,) = ask({"records": records})
    assert isinstance(said, KeyError)
    assert not rows(ledger)


@pytest.mark.parametrize("slow", ["the model is read", "another's row is explained"])
def test_who_waits_for_an_explanation_is_told_when_the_deadline_passes_and_not_when_it_is_done(
    slow, served, records, ledger, monkeypatch
):
    """Of a network the first explanation imports for seconds, and the thread may be at another's row."""
    go_on = threading.Event()

    def blocked(*_):
        go_on.wait(30)
        raise LateError

    if slow == "the model is read":
        monkeypatch.setattr(Version, "explainer", property(blocked))
    else:
        monkeypatch.setattr(Explanations, "of", blocked)

    async def main():
        runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4))
        runtime.open()
        body = json.dumps({"records": records[:1], "explain": True}).encode()
        try:
            async with asyncio.timeout(20):
                asked = asyncio.create_task(runtime.predict("angina", body, JSON, None, None, monotonic() + 1, None))
                while runtime._bytes != len(body):  # what waits counts among all that wait
                    await asyncio.sleep(0)
                await asked
        finally:
            go_on.set()
            await runtime.close()

    with pytest.raises(Refused) as refused:
        asyncio.run(main())
    assert (refused.value.status, refused.value.code) == (503, "deadline")
    assert not rows(ledger)


def test_a_request_whose_turn_would_come_too_late_is_told_at_once_and_not_computed(ask, records, ledger, monkeypatch):
    asked = []

    def behind(_self, n, until):
        asked.append((n, until - monotonic()))
        return True

    monkeypatch.setattr(Batcher, "behind", behind)
    (refused,) = ask({"records": records[:3]})
    assert isinstance(refused, Refused) and (refused.status, refused.code) == (503, "busy")
    ((n, left_s),) = asked
    assert n == 3 and 0 < left_s <= 60
    assert not rows(ledger)


def test_a_full_memory_is_a_503_that_asks_to_come_again_and_the_service_lives(served, records, as_network, monkeypatch):
    card = Card(monkeypatch)

    async def main():
        runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4))
        runtime.open()
        sent, heads = [], {b"content-type": b"application/json"}

        async def ask():
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/v1/models/angina/predict",
                "headers": list(heads.items()),
            }
            messages = iter([{"type": "http.request", "body": json.dumps({"records": records[:3]}).encode()}])

            async def receive():
                return next(messages)

            async def send(message):
                sent.append(message)

            await app(runtime)(scope, receive, send)

        try:
            card.memory.times = 2  # the batch, and its half
            await ask()
            card.memory.times = 1
            await ask()
        finally:
            await runtime.close()
        return sent

    refused, body, good, answer = asyncio.run(main())
    assert refused["status"] == 503 and (b"retry-after", b"1") in refused["headers"]
    assert json.loads(body["body"])["error"]["code"] == "out_of_memory"
    assert good["status"] == 200 and len(json.loads(answer["body"])["predictions"]) == 3
    assert [event for _, event in card.events] == ["oom_retry", "out_of_memory", "oom_retry"]


def test_a_card_that_vanishes_is_told_with_the_model_and_the_answers_go_on(served, records, as_network, monkeypatch):
    card = Card(monkeypatch)

    async def main():
        runtime = Runtime(served, ["angina"], Counters(*[lambda *_: None] * 4))
        runtime.open()

        def vanish(_compute):
            raise torch.AcceleratorError("CUDA error: unspecified launch failure")

        card.memory.measured = vanish
        try:
            body = json.dumps({"records": records}).encode()
            said = json.loads(await runtime.predict("angina", body, JSON, None, None, monotonic() + 60, None))
            return said, runtime.models["angina"].state()
        finally:
            await runtime.close()

    said, state = asyncio.run(main())
    assert len(said["predictions"]) == len(records) and state["ready"]
    assert "all is computed on the CPU" in state["computed"]["why"]
    assert card.events == [("angina", "lost")]
