"""Every limit on what a caller sends has a name, and whoever leaves early costs the others nothing."""

import json
import socket
import time

import pytest

PREDICT = "/v1/models/toy/predict"
LARGEST_BODY = 8 * 1024 * 1024
LONE_WITHIN_S = 0.5


@pytest.fixture
def dial(server):
    """`dial()`: a bare connection to the server."""

    def connect() -> socket.socket:
        return socket.create_connection(("127.0.0.1", server.port), timeout=30)

    return connect


def request(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [
        f"POST {PREDICT} HTTP/1.1",
        "Host: x",
        *headers,
        f"Content-Length: {len(body) if length is None else length}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer_of(connection: socket.socket) -> tuple[int, dict]:
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.lower().partition(b":")
            length = int(value) if name == b"content-length" else length
        return status, json.loads(stream.read(length))


def refused(client, code: str) -> float:
    wanted = f'medimind_refusals_total{{code="{code}",model="toy"}}'
    lines = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines())
    return sum(float(value) for name, _, value in lines if name == wanted)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(dial):
    with dial() as connection:
        connection.sendall(request(b"", "Content-Type: application/json", length=LARGEST_BODY + 1))

        status, body = answer_of(connection)

    assert (status, body["error"]["code"]) == (413, "too_large")


def test_a_body_that_does_not_say_how_large_it_is_is_read_to_the_limit_and_no_further(dial):
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    with dial() as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
        connection.sendall(
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 8 + b"1\r\n \r\n"
        )  # one byte too many, and no end

        status, body = answer_of(connection)

    assert (status, body["error"]["code"]) == (413, "too_large")


def test_a_body_as_large_as_allowed_is_read(client, patient):
    body = json.dumps({"records": [patient]}).encode()

    answer = client.post(PREDICT, content=body.ljust(LARGEST_BODY), headers={"Content-Type": "application/json"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("pain", "unknown_category"),
        ("age_years", "not_a_number"),
        ("patient", "malformed"),
        ("reference", "malformed"),
        ("at", "malformed"),
        ("y" * 1_000_000, "unknown_field"),
    ],
)
def test_a_text_of_a_megabyte_is_refused_by_its_fields_name_and_not_repeated(field, code, ask, patient):
    answer = ask({**patient, field: "x" * 1_000_000})

    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (422, code)
    assert field.startswith(error["field"])
    assert len(answer.content) < 2_000


@pytest.mark.parametrize("nested", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "0" + "}" * 100_000])
@pytest.mark.parametrize("place", ['{{"records": {}}}', '{{"records": [{}]}}', '{{"records": [{{"age_years": {}}}]}}'])
def test_nesting_without_end_is_refused_and_the_next_request_answered(nested, place, client, ask, patient):
    answer = client.post(PREDICT, content=place.format(nested), headers={"Content-Type": "application/json"})

    assert answer.status_code in (400, 422)
    assert set(answer.json()["error"]) == {"code", "message", "field"}
    assert ask(patient).status_code == 200


@pytest.mark.parametrize("name", ["Content-Type", "Idempotency-Key", "X-Deadline-Ms", "X-Traffic-Tag"])
def test_a_header_that_decides_something_and_is_there_twice_is_refused_by_name(name, dial, patient, rows):
    before = rows()
    body = json.dumps({"records": [patient]}).encode()
    with dial() as connection:
        connection.sendall(request(body, "Content-Type: application/json", f"{name}: 100", f"{name}: 200"))

        status, answer = answer_of(connection)

    assert (status, answer["error"]["code"], answer["error"]["field"]) == (422, "malformed", name)
    assert rows() == before


def test_two_lengths_of_one_body_are_no_request(dial, ask, patient, rows):
    before = rows()
    body = json.dumps({"records": [patient]}).encode()
    with dial() as connection:
        connection.sendall(request(body, "Content-Type: application/json", "Content-Length: 5"))

        assert connection.recv(12) == b"HTTP/1.1 400"

    assert rows() == before
    assert ask(patient).status_code == 200


def test_a_request_past_its_deadline_is_counted(client, ask, patient):
    before = refused(client, "deadline")

    assert ask(*[patient] * 3000, X_Deadline_Ms="1").status_code == 503

    assert refused(client, "deadline") == before + 1


def test_two_hundred_clients_that_leave_at_once_are_counted_and_nobody_waits_for_them(
    dial, server, client, ask, patient, rows
):
    """Each sends a whole request and hangs up; sixteen records are a batch of this model, so they form a queue."""
    logged, before = len(server.log.read_text()), refused(client, "gone")
    whole = request(json.dumps({"records": [patient] * 16}).encode(), "Content-Type: application/json")

    for caller in [dial() for _ in range(200)]:
        caller.sendall(whole)
        caller.close()
    began = time.monotonic()
    answer = ask(patient)

    assert answer.status_code == 200
    assert time.monotonic() - began < LONE_WITHIN_S
    assert refused(client, "gone") > before
    said = server.log.read_text()[logged:]
    assert not [line for line in said.splitlines() if "ERROR" in line or "Traceback" in line], said
