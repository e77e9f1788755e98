"""An open loop: requests are sent when they are due, whether or not earlier ones were answered.

Run by itself, for wrk waits for its answers: `python open_loop.py PORT PATH FILE RATE SECONDS CONNECTIONS [--hold]`.
The latency counts from the time a request was due, so that a server that makes its clients queue does not hide it.
With `--hold` all connections are opened first and take turns. Prints one line of JSON.
"""

import argparse
import json
import random
import select
import socket
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

BURST = 32
"""Requests that are sent before answers are looked at again: a late driver must reuse connections, not open more."""
DEADLINE_MS = 200
"""What the service may know of how long an answer is of use."""
GRACE_S = 10.0
"""How long the last answers are waited for."""


@dataclass
class Connection:
    socket: socket.socket
    due: float | None = None
    sent: float = 0.0
    received: bytearray = field(default_factory=bytearray)


def drive(port: int, bodies: list[bytes], rate: float, seconds: float, most: int, hold: bool) -> dict[str, Any]:
    """Send at `rate` for `seconds` (Poisson arrivals, seeded); what came back."""
    poll = select.epoll()
    open_now: dict[int, Connection] = {}
    free: deque[Connection] = deque()
    told: dict[int, list[float]] = {}
    broken = closed = sent = 0
    late: list[float] = []
    since_sent: list[float] = []

    def connect() -> Connection:
        made = Connection(socket.create_connection(("127.0.0.1", port), timeout=30))
        made.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        open_now[made.socket.fileno()] = made
        poll.register(made.socket.fileno(), select.EPOLLIN)
        return made

    def drop(connection: Connection) -> None:
        poll.unregister(connection.socket.fileno())
        del open_now[connection.socket.fileno()]
        connection.socket.close()

    if hold:
        free.extend(connect() for _ in range(most))
    dice = random.Random(17)  # noqa: S311  # arrivals, not secrets
    began = perf_counter()
    due = began + dice.expovariate(rate)
    while True:
        now = perf_counter()
        for _ in range(BURST):
            if not due <= now < began + seconds:
                break
            while free and free[0].socket.fileno() < 0:
                free.popleft()
            if free:
                connection = free.popleft()
            elif len(open_now) < most:
                connection = connect()
            else:
                break  # every connection is busy: this request waits for one, and its wait counts
            connection.due, connection.sent = due, now
            late.append(now - due)
            sent += 1
            try:
                connection.socket.sendall(bodies[sent % len(bodies)])
            except OSError:
                broken += 1
                drop(connection)
            due += dice.expovariate(rate)
        over = now >= began + seconds
        if over and (now > began + seconds + GRACE_S or not any(c.due is not None for c in open_now.values())):
            break
        for descriptor, _ in poll.poll(min(max(due - perf_counter(), 0), 0.05), 256):
            connection = open_now[descriptor]
            try:
                content = connection.socket.recv(262144)
            except OSError:
                content = b""
            if not content:
                broken += connection.due is not None
                closed += connection.due is None
                drop(connection)
                continue
            connection.received += content
            status = answered(connection.received)
            if status is None or connection.due is None:
                continue
            now = perf_counter()
            told.setdefault(status, []).append(now - connection.due)
            if status == 200:
                since_sent.append(now - connection.sent)
            connection.due = None
            connection.received.clear()
            free.append(connection)
    unsent = 0
    while due < began + seconds:
        unsent += 1
        due += dice.expovariate(rate)
    unanswered = sum(connection.due is not None for connection in open_now.values())
    good = told.get(200, [])
    return {
        "rate_offered": (sent + unsent) / seconds,
        "sent": sent,
        "unsent": unsent,
        "connections": len(open_now),
        "answers": {str(status): len(times) for status, times in sorted(told.items())},
        "share_503": len(told.get(503, [])) / max(sent, 1),
        "broken": broken,
        "unanswered": unanswered,
        "closed_while_idle": closed,
        "accepted_ms": quantiles(good),
        "accepted_since_sent_ms": quantiles(since_sent),
        "refused_ms": quantiles(told.get(503, [])),
        "sent_late_ms": quantiles(late),
    }


def answered(received: bytearray) -> int | None:
    """The status of a response that has arrived whole; None while it has not."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(received[:end]).lower()
    place = head.find(b"content-length:")
    length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
    return int(head[9:12]) if len(received) >= end + 4 + length else None


def quantiles(seconds: list[float]) -> dict[str, float] | None:
    """In milliseconds."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return {
        name: round(1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)], 3)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }


def read(path: Path) -> list[bytes]:
    """The bodies of a file: each one's length on a line, then itself."""
    found = []
    with open(path, "rb") as file:
        while line := file.readline():
            found.append(file.read(int(line)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("file", type=Path)
    parser.add_argument("rate", type=float)
    parser.add_argument("seconds", type=float)
    parser.add_argument("connections", type=int)
    parser.add_argument("--hold", action="store_true")
    asked = parser.parse_args()
    head = f"POST {asked.path} HTTP/1.1\r\nHost: 127.0.0.1:{asked.port}\r\nContent-Type: application/json\r\n"
    head += f"X-Deadline-Ms: {DEADLINE_MS}\r\n"
    bodies = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in read(asked.file)]
    print(json.dumps(drive(asked.port, bodies, asked.rate, asked.seconds, asked.connections, asked.hold)))


if __name__ == "__main__":
    main()
