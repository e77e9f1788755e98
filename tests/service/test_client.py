"""The Python client against the real server: every call of it, and a retry that is one prediction."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import jsonschema
import pytest

from client import Client, Outcome, OutcomeRecorded, Prediction, RecordRefused, Refused


@pytest.fixture
def medimind(server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_records_get_the_champions_risks_and_one_bad_record_its_reason(medimind, predictor, patient):
    answer = medimind.predict("toy", [patient, {**patient, "pain": "sharp"}], deadline_ms=60_000)

    good, bad = answer.predictions
    assert (answer.model, answer.version) == ("toy", 1)
    assert isinstance(good, Prediction) and isinstance(bad, RecordRefused)
    assert good.risk == predictor.risk(predictor.features([predictor.check(patient)]))[0]
    assert (bad.code, bad.field) == ("unknown_category", "pain")


def test_columns_get_the_same_risks_as_records(medimind, patient):
    records = [{**patient, "age_years": age} for age in (41, 61, 81)]
    columns = {name: [record[name] for record in records] for name in patient}

    by_records, by_columns = medimind.predict("toy", records), medimind.columns("toy", columns)

    assert [one.risk for one in by_columns.predictions] == [one.risk for one in by_records.predictions]


def test_an_explanation_comes_when_it_is_asked_for(medimind, patient, predictor):
    (plain,) = medimind.predict("toy", [patient], deadline_ms=60_000).predictions
    (explained,) = medimind.predict("toy", [patient], explain=True, deadline_ms=60_000).predictions

    assert plain.explanation is None
    assert explained.explanation is not None
    assert set(explained.explanation.contributions) == set(predictor.spec.features)


def test_a_body_of_bad_records_alone_is_refused_with_a_reason_for_each(medimind, patient):
    with pytest.raises(Refused) as raised:
        medimind.predict("toy", [{**patient, "pain": "sharp"}, {}])

    assert (raised.value.status, raised.value.code) == (422, "unknown_category")
    assert [one.code for one in raised.value.refused] == ["unknown_category", "missing_field"]


def test_an_outcome_finds_its_prediction_and_the_prediction_its_record(medimind, patient):
    (said,) = medimind.predict("toy", [{**patient, "reference": "the client's own"}]).predictions

    told = medimind.outcomes(
        [
            Outcome(True, datetime.now(UTC), prediction_id=said.id),
            Outcome(False, datetime.now(UTC), reference="the client's own", model="toy"),
            Outcome(True, datetime.now(UTC), reference="nobody's"),
        ]
    )
    kept = medimind.prediction(said.id, replay=True)

    assert told[:2] == (OutcomeRecorded(said.id), OutcomeRecorded(said.id))
    assert isinstance(told[2], RecordRefused) and told[2].code == "not_on_record"
    assert kept.record is not None and kept.record["age_years"] == patient["age_years"]
    assert kept.risk == said.risk
    assert kept.replay is not None and kept.replay.agrees == "to the bit"


def test_the_models_and_the_schema_of_a_record_can_be_asked_for(medimind):
    (state,) = medimind.models()
    schema = medimind.schema("toy")

    assert (state.name, state.version, state.ready) == ("toy", 1, True)
    for example in schema["examples"]:
        jsonschema.validate(example, schema, jsonschema.Draft202012Validator)
    with pytest.raises(Refused) as raised:
        medimind.schema("nobody")
    assert raised.value.code == "unknown_model"


@pytest.mark.parametrize("lost", [1, 3])
def test_a_retry_after_a_lost_answer_is_one_prediction(lost, server, patient, rows):
    """The server predicted and answered; the connection broke before the answer was read."""
    before = rows()

    with losing_answers(server.url, lost) as url, Client(url) as client:
        answer = client.predict("toy", [patient, patient], deadline_ms=60_000)

    assert len(answer.predictions) == 2
    assert rows() - before == 2


@contextmanager
def losing_answers(url: str, lost: int) -> Iterator[str]:
    """The same service behind a proxy that lets a request through, and hangs up on the first answers."""
    host, _, port = url.removeprefix("http://").partition(":")
    door = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        left = lost
        with suppress(OSError):  # the door is shut at the end
            while True:
                caller, _ = door.accept()
                with caller, socket.create_connection((host, int(port)), timeout=60) as service:
                    service.sendall(whole(caller))
                    answer = whole(service)
                    if left:
                        left -= 1
                    else:
                        caller.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    with door:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
        door.shutdown(socket.SHUT_RDWR)


def whole(connection: socket.socket) -> bytes:
    """A request or an answer to its end."""
    read, head, length = b"", b"", 0
    while not head or len(read) < len(head) + length:
        part = connection.recv(1 << 16)
        if not part:
            return read
        read += part
        if not head and b"\r\n\r\n" in read:
            head = read[: read.index(b"\r\n\r\n") + 4]
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    return read
