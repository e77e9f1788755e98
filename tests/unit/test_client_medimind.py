"""The client against a scripted service on a real socket: what it asks again, what it raises, what it never tells."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from client import (
    Client,
    ClientError,
    Event,
    ModelState,
    Outcome,
    OutcomeRecorded,
    Prediction,
    RecordRefused,
    Refused,
    Unanswered,
)

RECORD = {"age_years": 61, "sex": "female", "patient": "MARKER4711"}
GOOD = {
    "model": "toy",
    "version": 3,
    "predictions": [
        {"id": "7-0", "risk": 0.25, "band": None, "missing": ["pain"], "later": "unknown to this release"},
        {"error": {"code": "out_of_range", "message": "age_years: 999 a lies outside.", "field": "age_years"}},
        {
            "id": "7-1",
            "risk": 0.5,
            "band": None,
            "missing": [],
            "set": ["negative", "positive"],
            "abstained": "neither outcome can be ruled out",
            "version": 4,
            "explanation": {"base": -1.5, "contributions": {"age_years": 1.5}},
        },
    ],
}
BUSY = {"error": {"code": "not_ready", "message": "toy is not ready.", "field": None}}


@dataclass
class Service:
    """Answers (status, headers, body) in turn, the last one for ever; None hangs up. Keeps what it was asked."""

    url: str
    script: list[tuple[int, dict[str, str], Any] | None]
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Callable[..., Service]]:
    """`service(answer, …)`: a service that says this."""
    running = []

    def start(*script: Any) -> Service:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                made.asked.append((self.command, self.path, headers, body))
                said = made.script.pop(0) if len(made.script) > 1 else made.script[0]
                if said is None:
                    self.close_connection = True
                    return
                status, headers, document = said
                content = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        made = Service(f"http://127.0.0.1:{server.server_port}", list(script))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        running.append(server)
        return made

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def test_an_answer_is_typed_and_keeps_the_order_of_the_records(service):
    with Client(service((200, {}, GOOD)).url) as client:
        answer = client.predict("toy", [RECORD, RECORD, RECORD])

    first, second, third = answer.predictions
    assert (answer.model, answer.version) == ("toy", 3)
    assert first == Prediction("7-0", 0.25, None, ("pain",), 3, None)
    assert second == RecordRefused("out_of_range", "age_years", "age_years: 999 a lies outside.")
    assert isinstance(third, Prediction) and third.version == 4 and third.explanation is not None
    assert third.explanation.contributions == {"age_years": 1.5}
    assert (third.set, third.abstained) == (("negative", "positive"), "neither outcome can be ruled out")


def test_what_is_asked_goes_out_as_the_contract_names_it(service):
    served = service((200, {}, GOOD))
    with Client(served.url) as client:
        client.predict("toy", [RECORD], explain=True, deadline_ms=250, tag="ward b")
        client.columns("toy", {"age_years": (61, 40), "sex": ("female", None)})

    (method, path, headers, body), (_, _, plain, columns) = served.asked
    assert (method, path) == ("POST", "/v1/models/toy/predict")
    assert json.loads(body) == {"records": [RECORD], "explain": True}
    assert (headers["x-deadline-ms"], headers["x-traffic-tag"]) == ("250", "ward b")
    assert json.loads(columns) == {"columns": {"age_years": [61, 40], "sex": ["female", None]}, "explain": False}
    assert "x-deadline-ms" not in plain and "x-traffic-tag" not in plain


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i2", "<i4", "|u1", "<u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_goes_out_as_the_npy_file_that_numpy_reads(service, dtype, order):
    served = service((200, {}, GOOD))
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype, order=order)
    with Client(served.url) as client:
        client.predict(
            "toy",
            [RECORD, {"sex": "männlich"}],
            array=array,
            unit="uV",
            sampling_hz=360.5,
            leads=["I", "V1"],
            deadline_ms=250,
        )
        client.predict("toy", array=array[:, ::2], field="ecg", explain=True)

    (method, path, headers, body), (_, _, bare, second) = served.asked
    found = np.load(io.BytesIO(body), allow_pickle=False)
    assert (method, path, headers["content-type"]) == ("POST", "/v1/models/toy/predict", "application/x-npy")
    assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())
    assert np.load(io.BytesIO(second)).tolist() == array[:, ::2].tolist()
    assert json.loads(headers["x-record"]) == [RECORD, {"sex": "männlich"}]
    assert [headers[f"x-{name}"] for name in ("unit", "sampling-hz", "leads")] == ["uV", "360.5", "I,V1"]
    assert (bare["x-field"], bare["x-explain"]) == ("ecg", "true")
    assert headers["x-deadline-ms"] == "250"
    assert not {"x-record", "x-unit", "x-sampling-hz", "x-leads"} & set(bare) and "x-explain" not in headers


NONE = ([[1.0, 2.0]], "ecg", np.array([None]), np.zeros((2, 2), complex), np.zeros(2, "U1"), np.zeros(2, "M8[s]"))


@pytest.mark.parametrize("array", NONE)
def test_what_is_no_array_of_numbers_is_not_sent(service, array):
    served = service((200, {}, GOOD))
    with Client(served.url) as client, pytest.raises(ClientError, match="array: "):
        client.predict("toy", array=array)
    assert not served.asked


def test_what_is_said_of_an_array_needs_one(service):
    with Client(service((200, {}, GOOD)).url) as client, pytest.raises(ValueError, match="none is given"):
        client.predict("toy", [RECORD], unit="uV")


def test_an_event_goes_out_as_json_and_what_did_not_count_comes_back(service):
    heard = {**GOOD, "predictions": [{**GOOD["predictions"][0], "ignored": {"twice": 1}}, GOOD["predictions"][0]]}
    served = service((200, {}, heard))
    moment = datetime(2026, 3, 3, 9, tzinfo=timezone(timedelta(hours=1)))
    events = [Event(moment, "2524-7", 2.5, "mmol/L"), Event(moment, "fall")]
    with Client(served.url) as client:
        answer = client.predict("toy", [{**RECORD, "events": events}])

    when = "2026-03-03T09:00:00+01:00"
    assert json.loads(served.asked[0][3])["records"][0]["events"] == [
        {"time": when, "code": "2524-7", "value": 2.5, "unit": "mmol/L"},
        {"time": when, "code": "fall"},
    ]
    assert [said.ignored for said in answer.predictions] == [{"twice": 1}, {}]
    assert "2.5" not in repr(events)


@pytest.mark.parametrize(
    "trouble", [(503, {}, BUSY), (503, {}, b"<html>busy</html>"), None], ids=["ours", "a proxy's", "hangs up"]
)
def test_a_call_is_tried_again_with_the_same_key_and_bytes_until_it_is_answered(trouble, service):
    served = service(trouble, trouble, (200, {}, GOOD))

    with Client(served.url) as client:
        assert client.predict("toy", [RECORD]).version == 3

    assert len(served.asked) == 3
    assert len({(headers["idempotency-key"], body) for _, _, headers, body in served.asked}) == 1


def test_each_call_has_a_key_of_its_own(service):
    served = service((200, {}, GOOD))

    with Client(served.url) as client:
        for _ in range(3):
            client.predict("toy", [RECORD])

    assert len({headers["idempotency-key"] for _, _, headers, _ in served.asked}) == 3


@pytest.mark.parametrize(
    "after", [lambda: "1", lambda: formatdate(time.time() + 2, usegmt=True)], ids=["seconds", "date"]
)
def test_the_service_is_left_alone_for_as_long_as_it_asks(after, service):
    served = service((503, {"Retry-After": after()}, BUSY), (200, {}, GOOD))
    began = time.monotonic()

    with Client(served.url) as client:
        client.predict("toy", [RECORD])

    assert 0.9 <= time.monotonic() - began < 4


def test_a_wait_that_outlasts_the_call_is_not_begun(service):
    served = service((503, {"Retry-After": "60"}, BUSY))
    began = time.monotonic()

    with Client(served.url, within_s=5) as client, pytest.raises(Unanswered) as raised:
        client.predict("toy", [RECORD])

    assert time.monotonic() - began < 2
    assert str(raised.value) == "no answer after 1 try; the last: 503 not_ready"
    assert (raised.value.tries, raised.value.status) == (1, 503)


def test_a_service_that_is_not_there_is_given_up_after_the_last_try():
    with Client("http://127.0.0.1:9", tries=3) as client, pytest.raises(Unanswered) as raised:
        client.models()

    assert (raised.value.tries, raised.value.status) == (3, None)
    assert "ConnectError" in str(raised.value)


def test_a_service_that_says_nothing_is_given_up_when_the_time_is_over(service):
    served = service((503, {}, BUSY))
    began = time.monotonic()

    with Client(served.url, tries=10_000, within_s=1.5) as client, pytest.raises(Unanswered) as raised:
        client.predict("toy", [RECORD])

    assert time.monotonic() - began < 2.5
    assert raised.value.tries > 1


@pytest.mark.parametrize("status", [400, 404, 408, 413, 415, 422, 500])
def test_what_would_fail_again_is_raised_at_once(status, service):
    error = {"code": "the_code", "message": "what the service says.", "field": "age_years"}
    served = service((status, {}, {"error": error}))

    with Client(served.url) as client, pytest.raises(Refused) as raised:
        client.predict("toy", [RECORD])

    assert len(served.asked) == 1
    refused = raised.value
    assert (refused.status, refused.code, refused.field) == (status, "the_code", "age_years")
    assert refused.message == "what the service says."


def test_each_record_says_why_where_none_could_be_used(service):
    error = GOOD["predictions"][1]
    served = service((422, {}, {**error, "predictions": [error, error]}))

    with Client(served.url) as client, pytest.raises(Refused) as raised:
        client.predict("toy", [RECORD, RECORD])

    assert [one.code for one in raised.value.refused] == ["out_of_range", "out_of_range"]


def test_no_error_holds_a_value_that_was_sent(service, caplog):
    caplog.set_level("DEBUG")
    quoting = {"error": {"code": "malformed", "message": "MARKER4711 is no patient.", "field": "patient"}}
    raised = []
    for said in ((422, {}, {**quoting, "predictions": [quoting]}), (503, {}, BUSY), None, (200, {}, b"MARKER4711")):
        with Client(service(said).url, tries=2) as client, pytest.raises(ClientError) as one:
            client.predict("toy", [RECORD])
        raised.append(one)
    with Client("http://127.0.0.1:9") as client, pytest.raises(ClientError) as one:
        client.predict("toy", [{**RECORD, "age_years": float("nan")}])
    raised.append(one)

    for one in raised:
        assert "MARKER4711" not in "".join([str(one.value), repr(one.value), str(one.getrepr(style="native"))])
    assert [type(one.value) for one in raised] == [Refused, Unanswered, Unanswered, ClientError, ClientError]
    assert "MARKER4711" not in repr(raised[0].value.refused) + caplog.text


def test_a_number_that_json_does_not_know_is_never_sent(service):
    served = service((200, {}, GOOD))

    for wrong in (float("nan"), float("inf"), datetime.now(UTC)):
        with Client(served.url) as client, pytest.raises(ClientError, match="is no JSON"):
            client.predict("toy", [{"age_years": wrong}])

    assert served.asked == []


def test_outcomes_are_told_with_their_time_and_come_back_with_their_prediction(service):
    refused = {"error": {"code": "not_on_record", "message": "no prediction.", "field": None}}
    served = service((200, {}, {"outcomes": [{"prediction_id": "7-0"}, refused]}))
    at = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)

    with Client(served.url) as client:
        told = client.outcomes([Outcome(True, at, prediction_id="7-0"), Outcome(False, at, reference="visit-1")])

    assert told == (OutcomeRecorded("7-0"), RecordRefused("not_on_record", None, "no prediction."))
    assert json.loads(served.asked[0][3]) == [
        {"value": True, "observed_at": "2026-11-23T09:30:00+00:00", "prediction_id": "7-0"},
        {"value": False, "observed_at": "2026-11-23T09:30:00+00:00", "reference": "visit-1"},
    ]


def test_a_name_cannot_lead_to_another_path(service):
    served = service((404, {}, {"error": {"code": "unknown_model", "message": "none.", "field": "name"}}))

    with Client(served.url) as client:
        for call in (lambda: client.schema("toy/../../outcomes"), lambda: client.prediction("1-0?replay=true#")):
            with pytest.raises(Refused):
                call()

    assert [path for _, path, _, _ in served.asked] == [
        "/v1/models/toy%2F..%2F..%2Foutcomes/schema",
        "/v1/predictions/1-0%3Freplay%3Dtrue%23",
    ]


def test_many_threads_share_one_client(service):
    served = service((200, {}, {"models": [{"name": "toy", "version": 1, "ready": True, "why": None}]}))
    said: list[Any] = []

    with Client(served.url) as client:
        threads = [threading.Thread(target=lambda: said.append(client.models())) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert said == [(ModelState("toy", 1, True, None),)] * 20


@pytest.mark.parametrize("url", ["127.0.0.1:8400", "ftp://here", ""])
def test_an_address_without_http_is_refused_at_once(url):
    with pytest.raises(ValueError, match="http://host:port"):
        Client(url)
