"""What Prometheus is told of the newest judged window: the present champion's alone, and from the ledger alone."""

import asyncio
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from configs.errors import LedgerError
from evidence.report import Finding, Report
from ledger import alerts, predictions, windows
from ledger.promotions import find_champion, promote
from serving import gauges
from serving.app import front
from serving.runtime import Counters, Runtime

BEFORE, NOW = "3" * 64, "4" * 64
FIGURES = {
    "n": 3,
    "estimate": {
        "auroc": {"value": 0.81, "low": 0.7, "high": 0.9},
        "ppv": {"alert": {"value": 0.6, "low": 0.5, "high": 0.7}, "rule_out": {"value": None}},
        "observed_over_expected": None,
    },
    "realized": {"auroc": {"value": 0.78, "low": 0.6, "high": 0.9}, "observed_over_expected": {"value": 1}},
}


@pytest.fixture
def judge(answered):
    """`judge(engine, version, bundle, figures, verdict, …)`: a window of three predictions, and what was found."""

    def make(engine, version, bundle, figures=FIGURES, verdict="failed", known=0):
        said = answered(3, bundle=bundle, version=version)
        predictions.keep(engine, predictions.Entry([said], None, lambda numbers: b""))
        (block,), _ = windows.due(engine, "angina", version, bundle, 3, 20)
        window, outcomes_to = windows.read(engine, block)
        window.outcomes[:known] = 1.0
        findings = (
            Finding("MW001", "predictions", "passed", 3.0, ">= 1", "3 predictions"),
            Finding("MW002", "drift", verdict, 0.2, "<= 0.1", 'the "age" \\ moved'),
        )
        report = Report("angina", "monitoring", bundle, "window", findings, figures)
        return windows.keep(engine, block, window, outcomes_to, report)

    return make


def told(text):
    """Every sample, by name and labels, as Prometheus' own parser reads it."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_the_newest_window_of_the_champion_is_told_as_the_ledger_has_it(engine, report_on, judge):
    promote(engine, 3, report_on(BEFORE), "nurse.joy", "first")
    judge(engine, 3, BEFORE, verdict="passed")
    newest = judge(engine, 3, BEFORE)
    alerts.failing(
        engine,
        "angina",
        3,
        {("MW002", "missing: sex"): "drift", ("MW002", "missing: age"): "drift"},
        [],
        ["log", "mail"],
    )

    found = told(gauges.read(engine, [find_champion(engine, "angina")]))

    of = "model=angina", "version=3"
    assert found == {
        ("medimind_window_number", *of): 2,
        ("medimind_window_predictions", *of): 3,
        ("medimind_window_outcomes", *of): 0,
        ("medimind_window_failed_findings", *of): 1,
        ("medimind_window_judged_timestamp_seconds", *of): newest.judged_at.timestamp(),
        ("medimind_window_figure", "figure=auroc", "kind=estimate", *of): 0.81,
        ("medimind_window_figure", "figure=auroc", "kind=realized", *of): 0.78,
        ("medimind_window_figure", "figure=ppv", "kind=estimate", *of[:1], "point=alert", *of[1:]): 0.6,
        ("medimind_window_figure", "figure=observed_over_expected", "kind=realized", *of): 1,
        ("medimind_episodes_open", "model=angina"): 2,
        ("medimind_alerts_undelivered",): 4,
    }


def test_a_new_champion_is_not_told_the_figures_of_the_one_before(ledger, report_on, judge):
    promote(ledger, 3, report_on(BEFORE), "nurse.joy", "first")
    judge(ledger, 3, BEFORE)
    promote(ledger, 4, report_on(NOW), "nurse.joy", "second")

    found = told(gauges.read(ledger, [find_champion(ledger, "angina")]))

    assert found == {("medimind_episodes_open", "model=angina"): 0, ("medimind_alerts_undelivered",): 0}


def test_what_fewer_than_ten_patients_could_be_counted_from_is_not_told(ledger, report_on, judge):
    """An observed / expected of 0.6, a mean risk and the number of predictions give back how many had the event."""
    promote(ledger, 3, report_on(BEFORE), "nurse.joy", "first")
    alerted = {"rare": {"value": 6.0}, "often": {"value": 20.0}, "most": {"value": 94.0}}
    estimate = {"auroc": {"value": 0.81}, "alerts_per_100": alerted}
    realized = {"observed_over_expected": {"value": 0.6}}
    newest = judge(ledger, 3, BEFORE, {"n": 50, "few": True, "realized": realized, "estimate": estimate}, known=2)
    assert newest.outcomes == 2

    found = told(gauges.read(ledger, [find_champion(ledger, "angina")]))

    figures = {label for name, *labels in found if name == "medimind_window_figure" for label in labels if "=" in label}
    assert "kind=realized" not in figures and "figure=auroc" in figures
    assert {label for label in figures if label.startswith("point=")} == {"point=often"}
    assert "medimind_window_outcomes" not in {name for name, *_ in found}


def test_a_label_that_holds_quotes_is_read_back_as_it_was(ledger, report_on, judge):
    promote(ledger, 3, report_on(BEFORE), "nurse.joy", "first")
    odd = 'ppv "alert" \\ \n low'
    judge(ledger, 3, BEFORE, {"realized": {odd: {"value": 0.5}}})

    found = told(gauges.read(ledger, [find_champion(ledger, "angina")]))

    assert found["medimind_window_figure", f"figure={odd}", "kind=realized", "model=angina", "version=3"] == 0.5


def test_a_running_worker_tells_them_and_goes_on_telling_them_while_the_ledger_is_away(
    home, stored, ledger, report_on, judge, monkeypatch
):
    promote(ledger, 1, report_on(stored.digest), "nurse.joy", "first")
    judge(ledger, 1, stored.digest)

    async def main():
        runtime = Runtime(home, ["angina"], Counters(*[lambda *_: None] * 4))
        runtime.open()
        try:
            for _ in range(100):
                await asyncio.sleep(0.05)
                if runtime.gauges:
                    break
            first = runtime.gauges
            monkeypatch.setattr(gauges, "read", lambda *_: (_ for _ in ()).throw(LedgerError("away")))
            await runtime._read_gauges()
            return first, runtime.gauges
        finally:
            await runtime.close()

    first, then = asyncio.run(main())

    assert told(first)["medimind_window_number", "model=angina", "version=1"] == 1
    assert then == first


def test_they_stand_behind_the_servers_own_metrics_and_its_length_is_theirs_too():
    async def inner(scope, receive, send):
        headers = [(b"content-length", b"8"), (b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"own ", "more_body": True})
        await send({"type": "http.response.body", "body": b"1.0\n"})

    sent = []

    async def send(message):
        sent.append(message)

    runtime = SimpleNamespace(gauges=b"ours 2.0\n")
    asyncio.run(front(runtime, inner)({"type": "http", "path": "/metrics", "method": "GET"}, None, send))

    start, body = sent
    assert body["body"] == b"own 1.0\nours 2.0\n"
    assert dict(start["headers"]) == {b"content-length": b"17", b"content-type": b"text/plain"}
