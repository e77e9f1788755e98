"""What a server does under load: wrk's closed loop, the open loop, and the request of one who comes alone."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.invented import Workload
from bench.servers import Running, largest_difference

WRK = Path(__file__).parent / "wrk.lua"
OPEN_LOOP = Path(__file__).parent / "open_loop.py"
LONE_WITHIN_S = 30.0


@dataclass(frozen=True)
class Cell:
    """One server under one load. `rate` counts right answers (2xx) a second; `cpu_s` is for 1,000 of them.

    `lone_s` is what a lone request waited when all the clients had gone; None if it waited longer than we did.
    """

    round: int
    server: str
    workload: str
    connections: int
    seconds: float
    answers: int
    errors: int
    rate: float
    cpu_s: float | None
    cores: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    rss_mb: float
    lone_s: float | None


def measure(running: Running, workload: Workload, connections: int, seconds: int, cores: str, number: int = 0) -> Cell:
    """wrk's view of one load, and the processor time of the server's whole process tree meanwhile."""
    before, began = running.cpu_s(), time.monotonic()
    said = wrk(running, workload, connections, seconds, cores)
    took = time.monotonic() - began
    after = running.cpu_s()
    used = sum(spent - before.get(pid, 0.0) for pid, spent in after.items())
    rss = running.rss_mb()
    good = said["answers"] - said["refused"]
    return Cell(
        round=number,
        server=running.server.key,
        workload=workload.key,
        connections=connections,
        seconds=said["seconds"],
        answers=good,
        errors=said["refused"] + said["broken"] + said["timeouts"],
        rate=good / said["seconds"],
        # wrk opens its connections and prints for a moment longer than it counts; the server idles then.
        cpu_s=1000 * used / good if good else None,
        cores=used / took,
        p50_ms=said["p50_ms"],
        p95_ms=said["p95_ms"],
        p99_ms=said["p99_ms"],
        rss_mb=rss,
        lone_s=lone(running, workload),
    )


def wrk(running: Running, workload: Workload, connections: int, seconds: int, cores: str) -> dict[str, Any]:
    """What wrk saw. It takes whole seconds."""
    address = f"http://127.0.0.1:{running.port}"
    command = [
        *("taskset", "-c", cores, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"),
        *("-s", str(WRK), address, "--", running.server.paths[workload.key], str(running.server.payloads(workload))),
        running.server.content_type,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, start_new_session=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"wrk"')]
    if not lines:
        raise RuntimeError(f"wrk against {running.server.title}: {done.stdout[-300:]} {done.stderr[-300:]}")
    said: dict[str, Any] = json.loads(lines[0])
    return said


def open_loop(
    running: Running, workload: Workload, rate: float, seconds: float, connections: int, cores: str, hold: bool = False
) -> dict[str, Any]:
    """Requests sent when they are due, from a process of their own."""
    command = [
        *("taskset", "-c", cores, sys.executable, str(OPEN_LOOP), str(running.port)),
        *(running.server.paths[workload.key], str(running.server.payloads(workload))),
        *(f"{rate:g}", f"{seconds:g}", str(connections), *(["--hold"] if hold else [])),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, start_new_session=True)
    if done.returncode:
        raise RuntimeError(f"the open loop against {running.server.title}: {done.stderr[-600:]}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def lone(running: Running, workload: Workload) -> float | None:
    """Seconds until a request that comes alone is answered; None after 30."""
    began = time.monotonic()
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{running.port}", timeout=LONE_WITHIN_S, trust_env=False
        ) as client:
            running.ask(client, workload, 0)
    except (httpx.TransportError, ValueError):
        return None
    return time.monotonic() - began


def check(running: Running, workload: Workload, most: int) -> float:
    """How far the server's risks lie from the library's, at most, over so many payloads."""
    numbers = range(min(most, len(workload.records)))
    with running.client() as client, ThreadPoolExecutor(4) as pool:
        said = pool.map(lambda number: running.ask(client, workload, number), numbers)
        return max(
            largest_difference(risks, workload.expected[number]) for number, risks in zip(numbers, said, strict=True)
        )
