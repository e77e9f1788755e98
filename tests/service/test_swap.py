"""Another version becomes champion while clients ask: nobody is failed, and every worker follows soon."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from features.synthetic import draw
from ledger import promotions
from ledger.registry import fetch, find
from models.bundle import put
from pipelines.promote import promote, rollback

SWAPS = 20
REQUESTS = 10_000
FOLLOWED_WITHIN_S = 2.0
HEALED_WITHIN_S = 6.0
"""A version that could not be loaded is tried again every five seconds."""

pytestmark = pytest.mark.usefixtures("at_one")


@dataclass
class Said:
    """One answer: when its request was sent, which record was in it, and what came back."""

    at: float
    place: int
    status: int
    answer: dict[str, Any]


@dataclass
class Told:
    """All answers, and the version that each connection was answered by last."""

    said: list[Said] = field(default_factory=list)
    last: dict[int, int] = field(default_factory=dict)


@contextmanager
def asking(pair, records) -> Iterator[Told]:
    """Four clients a worker, each asking again as soon as it is answered; a connection that breaks is an error."""
    bodies = [json.dumps({"records": [record]}).encode() for record in records]
    head = "POST /v1/models/toy/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    told = Told()
    over = threading.Event()

    async def client(number, connection):
        reader, writer = await asyncio.open_connection(sock=connection)
        place = number
        while not over.is_set():
            place = (place + 1) % len(requests)
            at = time.monotonic()
            writer.write(requests[place])
            top = await reader.readuntil(b"\r\n\r\n")
            length = int(top.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(length))
            told.said.append(Said(at, place, int(top.split()[1]), answer))
            told.last[number] = answer.get("version")
        writer.close()

    async def clients():
        await asyncio.gather(*(client(n, connection) for n, connection in enumerate(connections)))

    connections = pair.connections(each=4)
    failed = []

    def run():
        try:
            asyncio.run(clients())
        except Exception as exc:
            failed.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while len(told.last) < len(connections) and not failed:
            time.sleep(0.01)
        yield told
    finally:
        over.set()
        thread.join(timeout=60)
    assert failed == []


def test_no_request_fails_while_the_champion_changes_twenty_times(pair, ward, versions):
    records = draw(versions[1].spec.columns, 50, seed=3)
    risks = {
        number: versions[number].risk(versions[number].features([versions[number].check(r) for r in records])).tolist()
        for number in (1, 2)
    }
    took: list[float] = []
    eras: list[tuple[float, float, int]] = []

    with asking(pair, records) as told:
        for swap in range(SWAPS):
            expected = 1 if swap % 2 else 2
            if swap % 2:
                rollback("toy", "back again", ward)
            else:
                promote("toy", 2, "the better one", ward)
            decided = time.monotonic()
            while set(told.last.values()) != {expected} and time.monotonic() < decided + 20:
                time.sleep(0.005)
            agreed = time.monotonic()
            took.append(agreed - decided)
            time.sleep(0.1)
            eras.append((agreed, time.monotonic(), expected))
        while len(told.said) < REQUESTS:
            time.sleep(0.1)

    assert max(took) <= FOLLOWED_WITHIN_S
    assert [said.answer for said in told.said if said.status != 200] == []
    assert {said.answer["version"] for said in told.said} == {1, 2}
    for said in told.said:
        (one,) = said.answer["predictions"]
        assert one["risk"] == risks[said.answer["version"]][said.place]
    for begin, end, expected in eras:
        settled = [said.answer["version"] for said in told.said if begin <= said.at <= end]
        assert settled and set(settled) == {expected}


def test_a_new_champion_whose_bundle_is_damaged_leaves_the_old_one_answering_until_it_is_promoted_again(
    pair, ward, ward_ledger, patient
):
    with fetch(ward, find(ward, "toy", 4)) as (folder, report):
        kept = put(folder, ward)
    content = bytearray((kept.folder / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (kept.folder / "model.onnx").write_bytes(content)
    with pair.one_client_each() as clients:
        promotions.promote(ward_ledger, 4, report, "tests", "its bundle is damaged meanwhile")
        time.sleep(FOLLOWED_WITHIN_S)
        for client in clients.values():
            assert ask(client, patient)["version"] == 1
            ready = client.get("/readyz")
            assert ready.status_code == 503  # the others in the ward see to that: one of them has had its last day
            state = ready.json()["models"]["toy"]
            assert (state["version"], state["ready"]) == (1, True)
            assert "toy@4 cannot be loaded" in state["why"] and "model.onnx" in state["why"]

        promote("toy", 4, "laid in the store anew", ward)

        deadline = time.monotonic() + HEALED_WITHIN_S + FOLLOWED_WITHIN_S
        for client in clients.values():
            while (version := ask(client, patient)["version"]) != 4 and time.monotonic() < deadline:
                time.sleep(0.1)
            assert version == 4
            assert client.get("/readyz").json()["models"]["toy"]["why"] is None


def ask(client: httpx.Client, record: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/v1/models/toy/predict", json={"records": [record]})
    assert answer.status_code == 200, answer.text
    return answer.json()
