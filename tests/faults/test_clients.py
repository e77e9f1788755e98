"""Clients that are slow, leave in mid-request, or send what is no request: the others notice nothing."""

import asyncio
import io
import json
import random
import resource
import socket
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from serving.app import BODY_WITHIN_S
from serving.bodies import ARROW, JSON
from tests.faults.conftest import Server, answer, post

pytestmark = pytest.mark.faults(within_s=120)

CLIENTS = 1000
SLOW = 20
AT_ONCE_S = 1.0
"""Within this time a lone request is answered, whatever else there is."""
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: the connection is closed by a reset, and not with a farewell."""
MALFORMED = 100_000
WARM = 10_000
FUZZERS = 8
LARGEST_GROWTH_BYTES = {"gone": 20_000_000, "fuzz": 30_000_000}


@pytest.fixture
def shared(once, machine_of):
    """One server for all tests of this file."""

    def make(stack):
        made = Server(machine_of(), "toy")
        stack.callback(made.stop)
        made.wait()
        return made

    return once("shared", make)


def test_clients_of_one_byte_a_second_are_told_408_and_hold_nobody_up(shared, patient):
    request = post(json.dumps({"records": [patient]}).encode(), {})
    head = request[: request.index(b"\r\n\r\n") + 4]

    async def slowly(start: bytes, rest: bytes) -> tuple[int, float]:
        """The status that is said to somebody who sends `rest` a byte a second, and after how many seconds."""
        reader, writer = await asyncio.open_connection("127.0.0.1", shared.port)
        writer.write(start)
        began = time.monotonic()
        asked = asyncio.create_task(answer(reader))
        for place in range(len(rest)):
            writer.write(rest[place : place + 1])
            done, _ = await asyncio.wait([asked], timeout=1)
            if done or time.monotonic() - began > BODY_WITHIN_S + 5:
                break
        asked.cancel()
        writer.close()
        status = asked.result()[0] if asked.done() and not asked.cancelled() else 0
        return status, time.monotonic() - began

    async def everybody() -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
        bodies = asyncio.gather(*(slowly(head, request[len(head) :]) for _ in range(SLOW)))
        heads = asyncio.gather(*(slowly(b"", request) for _ in range(SLOW)))
        return await bodies, await heads

    waited = []
    with ThreadPoolExecutor(1) as pool, shared.client() as client:
        slow = pool.submit(asyncio.run, everybody())
        while not slow.done():
            waited.append(lone(client, patient))
            time.sleep(0.05)
        bodies, heads = slow.result()

    assert [status for status, _ in bodies] == [408] * SLOW
    assert all(BODY_WITHIN_S - 0.5 <= seconds <= BODY_WITHIN_S + 2 for _, seconds in bodies)
    assert [status for status, _ in heads] == [0] * SLOW, "a request that was not there yet was answered"
    assert max(waited) < AT_ONCE_S
    assert_no_fault(shared)


def test_a_thousand_clients_at_once_are_all_answered_by_a_server_that_had_no_load_before(machine_of, serve, patient):
    server = serve(machine_of(), "toy")
    request = post(json.dumps({"records": [patient] * 16}).encode(), {})

    async def everybody() -> Counter[int]:
        lines = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(CLIENTS)]
        for _, writer in lines:
            writer.write(request)
        said = Counter([(await answer(reader))[0] for reader, _ in lines])
        for _, writer in lines:
            writer.close()
        return said

    with server.client() as client:
        lone(client, patient)
    assert asyncio.run(everybody()) == {200: CLIENTS}


@pytest.mark.parametrize("share", [0.5, 1.0], ids=["half a body", "a whole request"])
def test_a_thousand_clients_that_leave_in_mid_request_cost_the_next_one_nothing(share, shared, patient):
    body = json.dumps({"records": [patient] * 16}).encode()
    request = post(body, {})
    sent = request[: len(request) - len(body) + int(share * len(body))]
    (worker,) = shared.workers()
    with shared.client() as client:
        lone(client, patient)
        files, memory = worker.num_fds(), worker.memory_info().rss

        gone = [socket.create_connection(("127.0.0.1", shared.port)) for _ in range(CLIENTS)]
        for number, connection in enumerate(gone):
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.sendall(sent)
        for connection in gone:
            connection.close()
        waited = lone(client, patient)

        deadline = time.monotonic() + 5
        while worker.num_fds() > files and time.monotonic() < deadline:
            time.sleep(0.05)
        assert waited < AT_ONCE_S
        assert worker.num_fds() <= files
        assert worker.memory_info().rss - memory < LARGEST_GROWTH_BYTES["gone"]
        assert lone(client, patient) < AT_ONCE_S
    assert_no_fault(shared)


@pytest.mark.faults(within_s=300)
def test_100_000_malformed_bodies_find_no_fault_and_leave_the_memory_as_it_was(shared, patient):
    (worker,) = shared.workers()
    valid = bodies_of(patient)

    async def fuzz(seed: int, n: int) -> Counter[int]:
        dice = random.Random(seed)
        said: Counter[int] = Counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", shared.port)
        with closing(writer):
            for number in range(n):
                kind, body = mutated(dice, valid)
                writer.write(post(body, {"X-Deadline-Ms": "60000"}, kind))
                async with asyncio.timeout(60):
                    status, told = await answer(reader)
                said[status] += 1
                document = json.loads(told)
                where = f"seed {seed}, body {number}: {status} {told[:200]!r} to {body[:200]!r}"
                assert status in (200, 400, 413, 415, 422), where
                assert status == 200 or (document["error"]["code"] and document["error"]["message"]), where
        return said

    async def all_of_them(first_seed: int, n: int) -> Counter[int]:
        return sum(await asyncio.gather(*(fuzz(first_seed + k, n // FUZZERS) for k in range(FUZZERS))), Counter())

    asyncio.run(all_of_them(100, WARM))
    before = worker.memory_info().rss
    said = asyncio.run(all_of_them(0, MALFORMED))
    grown = worker.memory_info().rss - before

    assert sum(said.values()) == MALFORMED
    assert min(said[400], said[422]) > MALFORMED / 20, "the fuzz reached one layer alone"
    assert said[200] < MALFORMED / 2, "too few of the bodies were malformed"
    assert grown < LARGEST_GROWTH_BYTES["fuzz"]
    with shared.client() as client:
        assert lone(client, patient) < AT_ONCE_S
    assert_no_fault(shared)


def lone(client, patient) -> float:
    """Seconds until a request that is alone is answered."""
    began = time.monotonic()
    said = client.post("/v1/models/toy/predict", json={"records": [patient]})
    assert said.status_code == 200, said.text
    return time.monotonic() - began


def assert_no_fault(server) -> None:
    log = server.log.read_text()
    assert "Traceback" not in log and "ERROR" not in log, log[-3000:]


def bodies_of(patient) -> list[tuple[str, bytes]]:
    """Valid bodies of every kind."""
    import pyarrow as pa

    some = [{**patient, "age_years": 20 + row, "reference": f"fuzz-{row}", "patient": f"p{row}"} for row in range(4)]
    odd = {**patient, "cholesterol_mg_dl": {"value": 6.1, "unit": "mmol/L"}, "at": "2026-03-03T09:00:00+00:00"}
    columns = {name: [record[name] for record in some] for name in some[0]}
    told: list[dict] = [{"records": some[:1]}, {"records": some}, {"records": [odd]}, {"columns": columns}]
    found = [(JSON, json.dumps(body).encode()) for body in told]
    text = pa.dictionary(pa.int8(), pa.string())
    tables = [pa.Table.from_pylist(some), pa.Table.from_pylist(some[:1])]
    tables.append(tables[0].set_column(0, "sex", pa.array(["female"] * 4).cast(text)).drop_columns(["pain"]))
    for table in tables:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        found.append((ARROW, sink.getvalue()))
    return found


NUMBERS = [
    "1e999",
    "-1e999",
    "9" * 400,
    "1e-400",
    "-0",
    "1E+309",
    "0.1e",
    "00",
    "NaN",
    "Infinity",
    "18446744073709551616",
]
JUNK = [None, True, -1, 10**30, 1e308, "", "x" * 5000, "\u0000", "\ud7ff", [], {}, [[]], {"value": None}, {"unit": 3}]


def mutated(dice: random.Random, valid: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A body that was valid, until something happened to it."""
    kind, body = dice.choice(valid)
    return dice.choice(MUTATIONS)(dice, valid, kind, bytearray(body))


def flipped(dice, valid, kind, body):
    for _ in range(dice.randint(1, 8)):
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
    return kind, bytes(body)


def cut(dice, valid, kind, body):
    return kind, bytes(body[: dice.randrange(len(body))])


def spliced(dice, valid, kind, body):
    other = dice.choice(valid)[1]
    return kind, bytes(body[: dice.randrange(len(body))]) + other[dice.randrange(len(other)) :]


def repeated(dice, valid, kind, body):
    start = dice.randrange(len(body))
    stop = start + dice.randint(1, 64)
    return kind, bytes(body[:stop] + body[start:stop] * dice.randint(1, 50) + body[stop:])


def nested(dice, valid, kind, body):
    opening, closing_ = dice.choice([(b"[", b"]"), (b'{"records":', b"}"), (b'{"a":', b"}"), (b'{"value":[', b"]}")])
    depth = dice.choice([3, 100, 1000, 20_000])
    inner = opening * depth + b"1" + (closing_ * depth if dice.random() < 0.7 else b"")
    return JSON, inner if dice.random() < 0.3 else b'{"records": [{"age_years": ' + inner + b"}]}"


def huge(dice, valid, kind, body):
    number = dice.choice(NUMBERS).encode()
    return JSON, dice.choice([body for kind, body in valid if kind == JSON]).replace(b"240", number)


def odd(dice, valid, kind, body):
    """Valid JSON of wrong types, unknown fields and missing ones."""
    document = json.loads(dice.choice([body for kind, body in valid if kind == JSON]))
    key = dice.choice(list(document))
    if dice.random() < 0.2:
        document[dice.choice(["records", "columns", "explain", "x"])] = dice.choice(JUNK)
    elif isinstance(document[key], list):
        record = dice.choice(document[key])
        record[dice.choice([*record, "x", "at", "patient"])] = dice.choice(JUNK)
    else:
        name = dice.choice(list(document[key]))
        document[key][name] = dice.choice([dice.choice(JUNK), [dice.choice(JUNK)] * dice.randint(0, 5)])
    return JSON, json.dumps(document).encode()


def noise(dice, valid, kind, body):
    return kind, dice.randbytes(dice.randint(0, 2000))


def mislabelled(dice, valid, kind, body):
    return dice.choice([JSON, ARROW, "text/plain", "application/octet-stream"]), bytes(body)


MUTATIONS = [flipped, cut, spliced, repeated, nested, huge, odd, noise, mislabelled]


@pytest.fixture(autouse=True)
def _many_files():
    """As many open files as this test process may have: a thousand clients, and the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
