"""The benchmark's document: tables in Markdown, written from what was measured and nothing else."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench.invented import Workload
from bench.servers import Server

HEADLINE = 64
FLOORS = {"one": (7.0, 10.0), "many": (3.5, 5.0), "network": (4.5, 6.0)}
"""Times the best batching peer, from the floor that must be reached to the aim."""


def render(found: dict[str, Any], everyone: Sequence[Server], done: Sequence[Workload]) -> str:
    parts = [_facts(found["facts"], found["left_out"], everyone)]
    rounds = found.get("rounds", {})
    if rounds.get("cells"):
        parts += [_headline(rounds, everyone, workload) for workload in done]
        parts += [_ratios(rounds, everyone, done), _sweep(rounds, everyone, done), _starts(rounds, everyone)]
    writers: dict[str, Callable[[Any], str]] = {
        "equality": _equality,
        "pressure": _pressure,
        "keepalive": _keep_alive,
        "workers": _workers,
    }
    for name, write in writers.items():
        if name in found:
            failed = isinstance(found[name], dict) and found[name].get("failed")
            parts.append(f"### {name}\n\nIt failed: {failed}" if failed else write(found[name]))
    return "\n\n".join(parts) + "\n"


def _facts(facts: dict[str, Any], left_out: dict[str, str], everyone: Sequence[Server]) -> str:
    libraries = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())
    peers = sorted({requirement for server in everyone for requirement in server.requirements})
    lines = [
        f"`{facts['command']}`, {facts['at']}",
        f"- {facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB; Linux {facts['kernel']}, "
        f"Python {facts['python']}; load average {_loads(facts['load_average_before'])} before and "
        f"{_loads(facts['load_average_after'])} after.",
        f"- Every server on core {facts['server_cores']} and wrk on core {facts['driver_cores']}, one worker, one "
        f"numeric thread; {facts['rounds']} rounds of {facts['seconds']:g} s, interleaved. Median (least to most).",
        f"- Ours: {libraries}. Ledger durable, metrics on.",
        f"- Peers: {', '.join(peers)}.",
        "- CPU is user and system seconds of the server's whole process tree for 1,000 right answers; memory is the "
        "tree's resident memory. An error is an answer that is not 2xx, a broken connection or a time-out of 30 s.",
    ]
    lines += [f"- Left out: {key}: {why}" for key, why in left_out.items()]
    if facts["quick"]:
        lines.append("- **A quick run, of few servers and one round: to try the benchmark, not to quote.**")
    return f"{lines[0]}\n\n" + "\n".join(lines[1:])


def _loads(loads: Sequence[float]) -> str:
    return " ".join(f"{load:.2f}" for load in loads)


def _headline(rounds: dict[str, Any], everyone: Sequence[Server], workload: Workload) -> str:
    rows = []
    for server in everyone:
        cells = _cells(rounds, server.key, workload.key, HEADLINE)
        if not cells:
            continue
        differences = [
            item["largest"]
            for item in rounds["differences"]
            if item["server"] == server.key and item["workload"] == workload.key
        ]
        rows.append(
            [
                server.title,
                _spread([cell["rate"] for cell in cells], _number),
                _spread([cell["cpu_s"] for cell in cells if cell["cpu_s"]], lambda value: f"{value:.3f}"),
                *(_middle(cells, key) for key in ("p50_ms", "p95_ms", "p99_ms")),
                f"{max(cell['rss_mb'] for cell in cells):.0f}",
                str(sum(cell["errors"] for cell in cells)),
                f"{max(differences):.1g}" if differences else "no model",
            ]
        )
    heads = ["server", "answers/s", "CPU s / 1,000", "p50 ms", "p95 ms", "p99 ms", "MB", "errors", "largest difference"]
    return f"### {workload.title}, {HEADLINE} connections\n\n" + _table(heads, rows)


def _ratios(rounds: dict[str, Any], everyone: Sequence[Server], done: Sequence[Workload]) -> str:
    """Ours over the others, round by round: the servers of one round ran within minutes of each other."""
    batching = [server.key for server in everyone if server.kind == "batching peer"]
    peers = [server.key for server in everyone if server.kind.endswith("peer")]
    rows = []
    bodies = {"ours": "ours", "ours_columns": "ours, columns", "ours_arrow": "ours, Arrow"}
    for workload, (us, named) in ((workload, body) for workload in done for body in bodies.items()):
        floor, aim = FLOORS[workload.key]
        for said, keys in (
            (f"the best batching peer (floor {floor:g}, aim {aim:g})", batching),
            ("the best peer, tuned ones among them", peers),
            ("BentoML, plain", ["bentoml"]),
            ("the same handler on bare uvicorn", ["handler"]),
            ("bare uvicorn echo", ["echo"]),
        ):
            by_rate, by_cpu = [], []
            for ours in _cells(rounds, us, workload.key, HEADLINE):
                others = [
                    cell
                    for key in keys
                    for cell in _cells(rounds, key, workload.key, HEADLINE)
                    if cell["round"] == ours["round"] and cell["rate"]
                ]
                if others:
                    best = max(others, key=lambda cell: cell["rate"])
                    by_rate.append(ours["rate"] / best["rate"])
                    if ours["cpu_s"]:
                        by_cpu.append(best["cpu_s"] / ours["cpu_s"])
            if by_rate:
                rows.append(
                    [workload.title, f"{named}, over {said}", _spread(by_rate, _ratio), _spread(by_cpu, _ratio)]
                )
    heads = ["workload", "what over what", "answers/s", "answers per CPU second"]
    return "### Ratios\n\n" + _table(heads, rows)


def _sweep(rounds: dict[str, Any], everyone: Sequence[Server], done: Sequence[Workload]) -> str:
    counts = sorted({cell["connections"] for cell in rounds["cells"]})
    heads = ["server", *(f"{count:,}" for count in counts), "errors", "a lone request after the most"]
    parts = []
    for workload in done:
        rows = []
        for server in everyone:
            cells = {count: _cells(rounds, server.key, workload.key, count) for count in counts}
            if not any(cells.values()):
                continue
            after = [cell["lone_s"] for cell in cells[counts[-1]]]
            rows.append(
                [
                    server.title,
                    *(_both(cells[count]) for count in counts),
                    str(sum(cell["errors"] for found in cells.values() for cell in found)),
                    "more than 30 s" if None in after else f"{max(after):.2f} s" if after else "",
                ]
            )
        parts.append(f"### {workload.title}: answers/s (p95 ms) by connections\n\n" + _table(heads, rows))
    return "\n\n".join(parts)


def _both(cells: Sequence[dict[str, Any]]) -> str:
    if not cells:
        return ""
    return f"{_number(median(cell['rate'] for cell in cells))} ({_middle(cells, 'p95_ms')})"


def _starts(rounds: dict[str, Any], everyone: Sequence[Server]) -> str:
    rows = []
    empty = [item["seconds"] for item in rounds["starts"] if item["server"] == "empty"]
    for server in everyone:
        took = [item["seconds"] for item in rounds["starts"] if item["server"] == server.key]
        if took:
            ratio = f"{median(took) / median(empty):.2f}" if empty else ""
            rows.append([server.title, _spread(took, lambda value: f"{value:.1f}"), ratio])
    heads = ["server", "s", "of an empty BentoML service"]
    return "### From the command to the first right answer\n\n" + _table(heads, rows)


def _equality(said: dict[str, Any]) -> str:
    return (
        f"### Equal to the library\n\nOver {said['records']:,} random valid records, {said['missing_values']:,} "
        f"missing values and {said['values_on_thresholds']:,} values on a tree's threshold (or the float32 beside it) "
        f"among them, a risk lies at most {said['largest_difference']:.2g} from scikit-learn's."
    )


def _pressure(said: dict[str, Any]) -> str:
    rows = []
    for name, words in (("half", "half of it"), ("triple", "three times it"), ("flood", "the same, 8,000 connections")):
        told = said[name]
        accepted, refused = told["accepted_ms"] or {}, told["refused_ms"] or {}
        others = sum(count for status, count in told["answers"].items() if status not in ("200", "503"))
        rows.append(
            [
                words,
                _number(told["rate_offered"]),
                _number(told["answers"].get("200", 0) / (told["sent"] + told["unsent"]) * told["rate_offered"]),
                *(str(accepted.get(key, "")) for key in ("p50", "p95", "p99")),
                str((told["accepted_since_sent_ms"] or {}).get("p95", "")),
                f"{100 * told['share_503']:.1f} %",
                str(refused.get("p95", "")),
                str(told["broken"] + told["unanswered"] + others),
                str(told["unsent"]),
                str((told["sent_late_ms"] or {}).get("p99", "")),
            ]
        )
    heads = [
        "rate",
        "sent/s",
        "accepted/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "p95 ms since sent",
        "503",
        "503 p95 ms",
        "other errors",
        "not sent",
        "sent late p99 ms",
    ]
    lone = "more than 30 s" if said["lone_s"] is None else f"{said['lone_s']:.2f} s"
    return (
        f"### Open loop, one record\n\nSaturation, with 64 connections: {_number(said['saturation'])}/s. A lone "
        f"request after it all: {lone}. 1,000 connections. Latencies count from when a request was due; one is not "
        f"sent where all connections are busy.\n\n" + _table(heads, rows)
    )


def _keep_alive(said: dict[str, Any]) -> str:
    accepted = said["accepted_ms"] or {}
    wrong = sum(count for status, count in said["answers"].items() if status != "200")
    return (
        f"### 10,000 connections kept open, each sending every {said['interval_s']:g} s\n\n"
        f"{said['sent']:,} requests, {said['rate_offered']:.0f}/s; errors "
        f"{wrong + said['broken'] + said['unanswered']}; "
        f"p95 {accepted.get('p95', '')} ms, p99 {accepted.get('p99', '')} ms; connections that the server closed while "
        f"they were idle {said['closed_while_idle']:,}, open at the end {said['connections']:,}; memory "
        f"{said['rss_mb']:.0f} MB, {said['rss_before_mb']:.0f} MB before."
    )


def _workers(cells: Sequence[dict[str, Any]]) -> str:
    rows = []
    for workload in dict.fromkeys(cell["workload"] for cell in cells):
        for key, words in (("ours", "one"), ("ours2", "two")):
            own = [cell for cell in cells if cell["workload"] == workload and cell["server"] == key]
            if own:
                rows.append(
                    [
                        workload,
                        words,
                        _spread([cell["rate"] for cell in own], _number),
                        _spread([cell["cpu_s"] for cell in own if cell["cpu_s"]], lambda value: f"{value:.3f}"),
                        f"{max(cell['rss_mb'] for cell in own):.0f}",
                        str(sum(cell["errors"] for cell in own)),
                    ]
                )
    heads = ["workload", "workers", "answers/s", "CPU s / 1,000", "MB", "errors"]
    return "### Workers\n\nOn all cores, which wrk shares; 64 connections.\n\n" + _table(heads, rows)


def _cells(rounds: dict[str, Any], server: str, workload: str, connections: int) -> list[dict[str, Any]]:
    wanted = (server, workload, connections)
    return [cell for cell in rounds["cells"] if (cell["server"], cell["workload"], cell["connections"]) == wanted]


def _spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return write(values[0])
    return f"{write(median(values))} ({write(min(values))} to {write(max(values))})"


def _middle(cells: Sequence[dict[str, Any]], key: str) -> str:
    return f"{median(cell[key] for cell in cells):.1f}"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
