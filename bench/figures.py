"""The figures that stand beside the table: equality with the library, open loop, ten thousand connections, workers."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bench import load
from bench.invented import SHARED, TREES, Workload, champion, machine, population
from bench.servers import Server, start

RANDOM_RECORDS = 100_000
KEEP_ALIVE = 10_000
CONNECTIONS, MANY_CONNECTIONS = 1_000, 8_000
"""Of the open loop; with many, each of which asks once in a while, it is the connections that cost."""


def equality(n: int = RANDOM_RECORDS) -> dict[str, Any]:
    """The champion against scikit-learn's pipeline, over random valid records with missing values.

    Every second record has ten of its numbers moved onto a threshold of the trees, or to the float32 beside it.
    """
    os.environ["BENCH_SHARED"] = str(SHARED)
    import pandas as pd

    from bench.peers import peer_model
    from features.synthetic import draw

    predictor = champion(TREES)
    columns = predictor.spec.columns
    on_thresholds, dice = _thresholds(), np.random.default_rng(29)
    records = [*draw(columns, n // 2, 23), *population(n - n // 2, 31)]
    moved = 0
    for record in records[::2]:
        for name in dice.choice(list(on_thresholds), 10, replace=False).tolist():
            value = float(dice.choice(on_thresholds[name]))
            low, high = columns[name].range or (value, value)
            if low <= value <= high:
                record[name] = value
                moved += 1
    library = peer_model.trees()
    numbers, categories = peer_model.names()
    worst, missing = 0.0, 0
    for begin in range(0, n, 2000):
        checked = [predictor.check(record) for record in records[begin : begin + 2000]]
        X = predictor.features(checked)
        missing += int(np.isnan(X).sum())
        frame = pd.DataFrame(X.astype(np.float64), columns=[*numbers, *categories])
        for name in categories:
            frame[name] = [columns[name].categories[int(place)] for place in frame[name]]
        worst = max(worst, float(np.abs(predictor.risk(X) - np.array(library(frame))).max()))
    return {"records": n, "largest_difference": worst, "missing_values": missing, "values_on_thresholds": moved}


def _thresholds() -> dict[str, list[float]]:
    """Of each number that the trees split: their thresholds, and the float32 on either side."""
    from configs.spec import load_spec
    from features import build, cohort
    from models import training

    settings = machine()
    spec = load_spec(TREES, settings.configs)
    plan = build.plan(spec)
    patients = cohort.load(settings.data / "cohorts" / f"{TREES}.parquet").only("train")
    fitted: Any = training.fit_family("boosted", patients, training.task(spec, plan, patients, settings))
    found: dict[str, set[float]] = {}
    for (predictor,) in fitted.model._predictors:
        for node in predictor.nodes[predictor.nodes["is_leaf"] == 0]:
            if node["feature_idx"] < len(fitted.layout.numbers):
                at = np.float32(node["num_threshold"])
                beside = (np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf)))
                values = found.setdefault(plan.names[fitted.layout.numbers[node["feature_idx"]]], set())
                values.update([float(node["num_threshold"]), float(at), *map(float, beside)])
    return {name: sorted(values) for name, values in sorted(found.items())}


def under_pressure(server: Server, workload: Workload, seconds: int, cores: tuple[str, str]) -> dict[str, Any]:
    """Open loop at half and at three times the rate that the server reaches with 64 connections."""
    running = start(server, workload, cores[0])
    try:
        load.wrk(running, workload, 64, 1, cores[1])
        saturated = load.measure(running, workload, 64, seconds, cores[1]).rate
        half = load.open_loop(running, workload, saturated / 2, seconds, CONNECTIONS, cores[1])
        load.lone(running, workload)
        triple = load.open_loop(running, workload, 3 * saturated, seconds, CONNECTIONS, cores[1])
        flood = load.open_loop(running, workload, 3 * saturated, seconds, MANY_CONNECTIONS, cores[1])
        lone_s = load.lone(running, workload)
        return {"saturation": saturated, "half": half, "triple": triple, "flood": flood, "lone_s": lone_s}
    finally:
        running.stop()


def keep_alive(
    server: Server, workload: Workload, seconds: float, interval_s: float, cores: tuple[str, str]
) -> dict[str, Any]:
    """10,000 connections that stay open, each sending once an interval on average."""
    running = start(server, workload, cores[0])
    try:
        idle = running.rss_mb()
        rate = KEEP_ALIVE / interval_s
        said = load.open_loop(running, workload, rate, seconds, KEEP_ALIVE, cores[1], hold=True)
        return {"interval_s": interval_s, "rss_before_mb": idle, "rss_mb": running.rss_mb(), **said}
    finally:
        running.stop()


def workers(servers: Sequence[Server], workloads: Sequence[Workload], seconds: int, rounds: int) -> list[Any]:
    """One worker and two, on all cores, which wrk shares; interleaved."""
    everywhere = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
    found = []
    for number in range(rounds):
        for server in servers:
            running = start(server, workloads[0], everywhere)
            try:
                for workload in workloads:
                    load.wrk(running, workload, 64, 1, everywhere)
                    found.append(asdict(load.measure(running, workload, 64, seconds, everywhere, number)))
            finally:
                running.stop()
    return found
