"""A file of records, replayed to the running service at a set rate. What is answered goes on record."""

import asyncio
import ipaddress
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from configs.errors import RecordError, ServiceError, SourceError
from configs.settings import Settings
from configs.spec import load_spec
from pipelines import inputs

if TYPE_CHECKING:
    import httpx

ANSWERED_WITHIN_S = 30.0
"""An answer that takes longer is an error."""
LATE_AT_MOST_S = 1.0
"""What could not be sent so long after the end, because every connection still waits, is not sent."""
LARGEST_RATE = 100_000
LONGEST_S = 24 * 60 * 60


@dataclass(frozen=True)
class Plan:
    """So many requests a second, for so long, of so many records each, over at most so many connections."""

    rate: float
    seconds: float
    batch: int
    connections: int

    def __post_init__(self) -> None:
        if not 0 < self.rate <= LARGEST_RATE:
            raise ServiceError(f"--rate {self.rate:g}: above 0 and up to {LARGEST_RATE} requests a second is expected.")
        if not 0 < self.seconds <= LONGEST_S:
            raise ServiceError(f"--seconds {self.seconds:g}: above 0 and up to {LONGEST_S} is expected.")

    @property
    def requests(self) -> int:
        return ceil(self.rate * self.seconds)


@dataclass
class Loaded:
    """What came back: requests by how they ended, records by what was said of them.

    `took_ms` holds, for each request that was answered, the time since it was due: a request that had to wait for a
    free connection has waited, as a patient's would have.
    """

    plan: Plan
    took_ms: list[float] = field(default_factory=list)
    sent: int = 0
    sent_for_s: float = 0.0
    predictions: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unavailable: int = 0
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Requests a second that were sent."""
        return self.sent / max(self.sent_for_s, self.plan.seconds)

    def percentile_ms(self, share: float) -> float:
        """The time within which this share of the answered requests was answered."""
        return sorted(self.took_ms)[ceil(share * len(self.took_ms)) - 1]


def load(name: str, path: Path, url: str, plan: Plan, settings: Settings) -> Loaded:
    """Send the file's records over and over at the plan's rate, whether or not answers come.

    Raises ServiceError if nobody answers there, the model is not served, or `url` is another machine's.
    """
    base = _on_this_machine(url)
    records = inputs.read(path, load_spec(name, settings.configs), settings)
    if not records:
        raise SourceError(f"{path}: holds no record.")
    return asyncio.run(_replay(name, base, _encoded(records, path), plan))


def _on_this_machine(url: str) -> str:
    """Scheme, host and port. Load is for a service on loopback; another machine's may be somebody's ward."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here or parts.scheme != "http":
        raise ServiceError(f"--url {url}: only this machine is put under load; http://127.0.0.1:8400 is expected.")
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port or 80}"


def _encoded(records: Sequence[Any], path: Path) -> list[bytes]:
    encoded = []
    for number, record in enumerate(records, 1):
        try:
            encoded.append(json.dumps(record, allow_nan=False, separators=(",", ":"), default=_packed).encode())
        except (TypeError, ValueError) as exc:  # a time of a Parquet file; an infinite number
            raise SourceError(f"{path}: record {number} cannot be sent as JSON ({exc}).") from None
    return encoded


def _packed(value: Any) -> Any:
    """What a signal's file holds, as a request's JSON: base64, of an array of its numbers as float32. A picture's
    colours stay lists, which say whether they are the first axis or the last."""
    if isinstance(value, RecordError):
        raise SourceError(str(value))
    if isinstance(value, np.ndarray):
        if value.ndim > 2:
            return value.tolist()
        value = value.astype("<f4").tobytes()
    if not isinstance(value, bytes):
        raise TypeError(f"a {type(value).__name__} is no JSON")
    return b64encode(value).decode()


async def _replay(name: str, base: str, records: Sequence[bytes], plan: Plan) -> Loaded:
    import ssl

    import httpx

    done = Loaded(plan)
    unused = ssl.create_default_context()  # made once: each client would make its own, in 20 ms

    def caller() -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"{base}/v1/models/{name}", trust_env=False, timeout=ANSWERED_WITHIN_S, verify=unused
        )

    async with caller() as client:
        try:
            known = await client.get("/schema")
        except httpx.TransportError as exc:
            raise ServiceError(f"{base} does not answer ({type(exc).__name__}); is `medimind serve` running?") from None
        if known.status_code == 404:
            raise ServiceError(f"{base} does not serve {name!r}; `medimind serve {name}` does.")
    numbers = iter(range(plan.requests))
    begin = monotonic()

    async def connection() -> None:
        """Sends the next request that nobody has taken, when it is due or as soon as this connection is free.

        In a client of its own: 64 callers of one httpx client spend their time in its pool, 250 requests a second.
        """
        async with caller() as client:
            for number in numbers:
                due = begin + number / plan.rate
                await asyncio.sleep(due - monotonic())
                if monotonic() > begin + plan.seconds + LATE_AT_MOST_S:
                    return
                done.sent += 1
                done.sent_for_s = monotonic() - begin
                body = _body(records, number * plan.batch, plan.batch)
                try:
                    answer = await client.post("/predict", content=body, headers={"Content-Type": "application/json"})
                except httpx.TransportError as exc:
                    done.errors[type(exc).__name__] += 1
                else:
                    _count(done, answer, (monotonic() - due) * 1000)

    await asyncio.gather(*(connection() for _ in range(min(plan.connections, plan.requests))))
    return done


def _body(records: Sequence[bytes], first: int, n: int) -> bytes:
    return b'{"records":[' + b",".join(records[(first + place) % len(records)] for place in range(n)) + b"]}"


def _count(done: Loaded, answer: "httpx.Response", took_ms: float) -> None:
    batch = done.plan.batch
    if answer.status_code == 503:
        done.unavailable += 1
    elif answer.status_code >= 500:
        done.errors[f"status {answer.status_code}"] += 1
    else:
        try:
            said = answer.json()
            each = said["predictions"] if answer.status_code == 200 else said.get("predictions") or [said] * batch
            refused = [one["error"]["code"] for one in each if "error" in one]
        except (ValueError, KeyError, TypeError, AttributeError):
            done.errors["no answer of MediMind's"] += 1
            return
        done.took_ms.append(took_ms)
        done.refused.update(refused)
        done.predictions += len(each) - len(refused)
