"""The serving benchmark: ours and the peer servers, same model and payloads, side by side. `python -m bench.serving`.

Rounds are interleaved: in each round every server is started afresh, checked against the library's risks, measured and
stopped, so that no idle neighbour takes the processor. Writes var/bench/serving.json (every cell) and serving.md.
"""

import argparse
import ctypes
import json
import os
import platform
import resource
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import figures, load, page
from bench.invented import BENCH, PAYLOADS, Workload, prepare, workloads
from bench.servers import TOLERANCE, Server, install, servers, start, write_payloads

CONNECTIONS = (1, 16, 256, 1000)
HEADLINE = 64
QUICK_CONNECTIONS = (1, 1000)
QUICK = ("ours", "echo", "fastapi_async")
FIGURES = ("equality", "rounds", "pressure", "keepalive", "workers")
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
WARM_UP_S = 1
SLOW_LONE_S = 5.0
"""A server that lets a lone request wait longer than this after a load is started afresh before the next one."""


@dataclass(frozen=True)
class Plan:
    """How much is measured. `cores` are the server's and the driver's, alike for everyone."""

    rounds: int
    sweeps: int
    seconds: int
    cores: tuple[str, str]
    until: float
    connections: tuple[int, ...]


def main() -> None:
    asked = _arguments()
    if shutil.which("wrk") is None:
        sys.exit("bench: wrk is not here; `make tools` installs it, or Debian's package wrk.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every `finally` runs
    _adopt_orphans()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the servers and the driver: 10,000 connections each
    prepare()
    done = workloads()
    everyone = servers(done)
    chosen, left_out = _installed([server for server in everyone if server.key in asked.servers])
    write_payloads(chosen, done)
    plan = Plan(
        asked.rounds,
        asked.sweeps,
        asked.seconds,
        (asked.server_cores, asked.driver_cores),
        time.monotonic() + 60 * asked.minutes,
        QUICK_CONNECTIONS if asked.quick else CONNECTIONS,
    )
    found: dict[str, Any] = {"facts": facts(plan, asked), "left_out": left_out}
    steps: dict[str, Callable[[], Any]] = {
        "equality": lambda: figures.equality(10_000 if asked.quick else figures.RANDOM_RECORDS),
        "rounds": lambda: measure(chosen, done, plan, left_out),
        "pressure": lambda: figures.under_pressure(_ours(chosen), done[0], max(2 * plan.seconds, 5), plan.cores),
        "keepalive": lambda: figures.keep_alive(_ours(chosen), done[0], 30, 20, plan.cores),
        "workers": lambda: figures.workers(
            [server for server in chosen if server.key in ("ours", "ours2")], done, plan.seconds, plan.rounds
        ),
    }
    for name in asked.only:
        print(f"{name} …", flush=True)
        try:
            found[name] = steps[name]()
        except (RuntimeError, ValueError, OSError) as exc:
            found[name] = {"failed": str(exc)}
            print(f"  failed: {exc}", flush=True)
        found["facts"]["load_average_after"] = os.getloadavg()
        (BENCH / "serving.json").write_text(json.dumps(found, indent=1) + "\n")
        (BENCH / "serving.md").write_text(page.render(found, everyone, done))
    print(f"\n{(BENCH / 'serving.md').read_text()}\n{BENCH / 'serving.md'}, {BENCH / 'serving.json'}")


def measure(
    chosen: Sequence[Server], done: Sequence[Workload], plan: Plan, left_out: dict[str, str]
) -> dict[str, list[Any]]:
    """Every server in every round, the order turned by one each time; cells, starts and largest differences."""
    found: dict[str, list[Any]] = {"cells": [], "starts": [], "differences": []}
    for number in range(plan.rounds):
        turn = number % len(chosen)
        for server in [*chosen[turn:], *chosen[:turn]]:
            if server.key in left_out or server.key == "ours2":
                continue
            if time.monotonic() > plan.until:
                left_out["round " + str(number + 1)] = "the time that was allowed had passed"
                return found
            try:
                _round(server, done, plan, number, found)
            except (RuntimeError, ValueError, OSError) as exc:
                left_out[server.key] = str(exc)
                print(f"  {server.title} left out: {exc}", flush=True)
    return found


def _round(server: Server, done: Sequence[Workload], plan: Plan, number: int, found: dict[str, list[Any]]) -> None:
    """One server's turn: checked, then 64 connections, and in the first rounds the others, the most last."""
    first = next(workload for workload in done if workload.key in server.paths)
    running = start(server, first, plan.cores[0])
    try:
        found["starts"].append({"round": number, "server": server.key, "seconds": running.started_s})
        if server.kind == "start only":
            return
        own = [workload for workload in done if workload.key in server.paths]
        if server.risks is not None:
            for workload in own:
                most = PAYLOADS if number == 0 else 8
                worst = load.check(running, workload, most // 4 if workload.key == "many" else most)
                found["differences"].append({"server": server.key, "workload": workload.key, "largest": worst})
                if worst > TOLERANCE:
                    raise ValueError(f"{workload.title}: a risk lies {worst:.2g} from the library's")
        few = [HEADLINE, *(c for c in plan.connections if c <= 256 and number < plan.sweeps)]
        many = [c for c in plan.connections if c > 256 and number < plan.sweeps]
        loads = [(workload, count) for workload in own for count in few]
        loads += [(workload, count) for count in many for workload in own]
        warm: set[str] = set()
        for place, (workload, connections) in enumerate(loads):
            if workload.key not in warm:
                load.wrk(running, workload, min(connections, HEADLINE), WARM_UP_S, plan.cores[1])
                load.lone(running, workload)  # until the server has done with what the warm-up left behind
                warm.add(workload.key)
            seconds = plan.seconds if connections in (HEADLINE, 1000) else max(plan.seconds // 2, 1)
            cell = load.measure(running, workload, connections, seconds, plan.cores[1], number)
            found["cells"].append(asdict(cell))
            print(
                f"  {number + 1} {server.title:32} {workload.title:11} {connections:5} {cell.rate:9.1f}/s "
                f"cpu {cell.cpu_s or 0:8.3f} p95 {cell.p95_ms:9.1f} ms errors {cell.errors}",
                flush=True,
            )
            if place + 1 < len(loads) and (cell.lone_s is None or cell.lone_s > SLOW_LONE_S):
                running.stop()
                running = start(server, first, plan.cores[0])
                warm.clear()
    finally:
        running.stop()


def facts(plan: Plan, asked: argparse.Namespace) -> dict[str, Any]:
    """The machine and the versions, as far as they bear on the figures."""
    cpu = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    memory = Path("/proc/meminfo").read_text().splitlines()[0].split()[1]
    names = (
        "bentoml",
        "numpy",
        "onnxruntime",
        "scikit-learn",
        "starlette",
        "uvicorn",
        "uvloop",
        "httptools",
        "msgspec",
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m bench.serving", *sys.argv[1:]]),
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(memory) / 1e6),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in names},
        "load_average_before": os.getloadavg(),
        "server_cores": plan.cores[0],
        "driver_cores": plan.cores[1],
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "quick": asked.quick,
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.serving", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ours, the echo and FastAPI, one round: about two minutes")
    parser.add_argument("--only", action="append", choices=FIGURES, help="a part; may be given again. Default: all")
    parser.add_argument("--server", action="append", dest="servers", metavar="KEY", help="a server; may be given again")
    parser.add_argument("--rounds", type=int, help="interleaved rounds at 64 connections (3)")
    parser.add_argument("--sweeps", type=int, default=1, help="how many of them measure the other connections too (1)")
    parser.add_argument(
        "--seconds", type=int, help="of one load at 64 and 1,000 connections; half of it at the others (4)"
    )
    parser.add_argument("--server-cores", default="0", help="as taskset takes them (0)")
    parser.add_argument("--driver-cores", default="1")
    parser.add_argument("--minutes", type=float, default=60, help="no further server is started after these (60)")
    asked = parser.parse_args()
    known = [server.key for server in servers([])]
    asked.servers = asked.servers or (list(QUICK) if asked.quick else known)
    if unknown := sorted(set(asked.servers) - set(known)):
        parser.error(f"--server {unknown[0]}: known are {', '.join(known)}")
    asked.only = asked.only or (["equality", "rounds"] if asked.quick else list(FIGURES))
    asked.rounds = asked.rounds or (1 if asked.quick else 3)
    asked.seconds = asked.seconds or (2 if asked.quick else 4)
    return asked


def _installed(wanted: Sequence[Server]) -> tuple[list[Server], dict[str, str]]:
    """The servers whose virtual environment could be made, and why the others' could not."""
    reasons = {server.key: why for server in wanted if (why := install(server)) is not None}
    return [server for server in wanted if server.key not in reasons], reasons


def _ours(chosen: Sequence[Server]) -> Server:
    return next(server for server in chosen if server.key == "ours")


def _adopt_orphans() -> None:
    """What a server leaves behind becomes a child of this process: it is counted with the server, and ends with it."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


if __name__ == "__main__":
    main()
