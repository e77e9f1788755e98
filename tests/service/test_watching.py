"""What the monitor needs of the server, and what it tells of the monitor: both of all workers, each thing once."""

import time
from datetime import timedelta

import pytest

from evidence.report import Finding, Report
from ledger import refusals, windows
from ledger.database import now
from ledger.promotions import find_champion
from serving.runtime import GAUGES_S, POLL_S

pytestmark = pytest.mark.usefixtures("at_one")


def gauges(client):
    """The samples of `steady`'s newest window, by their whole name."""
    lines = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines())
    return {name: float(value) for name, _, value in lines if name.startswith("medimind_window_")}


def test_either_worker_tells_the_newest_window_and_nobody_adds_them_up(pair, ward_ledger, patient):
    champion = find_champion(ward_ledger, "steady")
    with pair.one_client_each() as clients:
        for client in clients.values():
            assert client.post("/v1/models/steady/predict", json={"records": [patient] * 5}).status_code == 200
        blocks, _ = windows.due(ward_ledger, "steady", 1, champion.bundle, 5, 20)
        for block in blocks:
            window, outcomes_to = windows.read(ward_ledger, block)
            finding = Finding("MW001", "predictions", "failed", 5.0, ">= 1", "5 predictions")
            figures = {"realized": {"auroc": {"value": 0.75, "low": 0.6, "high": 0.9}}}
            report = Report("steady", "monitoring", champion.bundle, "window", (finding,), figures)
            windows.keep(ward_ledger, block, window, outcomes_to, report)
        of = 'model="steady",version="1"'
        expected = {
            f"medimind_window_number{{{of}}}": blocks[-1].number,
            f"medimind_window_predictions{{{of}}}": 5,
            f"medimind_window_failed_findings{{{of}}}": 1,
            f'medimind_window_figure{{{of},kind="realized",figure="auroc"}}': 0.75,
        }
        deadline = time.monotonic() + GAUGES_S + 3

        def follows(client):
            return expected.items() <= gauges(client).items()

        while not all(follows(client) for client in clients.values()) and time.monotonic() < deadline:
            time.sleep(0.5)

        for client in clients.values():
            assert expected.items() <= gauges(client).items()
            text = client.get("/metrics").text
            assert text.count("# TYPE medimind_window_number gauge") == 1
            assert "medimind_predictions_total" in text
            assert client.head("/metrics").status_code == 200


def test_what_either_worker_refused_is_on_record_once_within_two_polls(pair, ward_ledger, patient):
    began = now()
    bad = [{**patient, "age_years": age} for age in (7, 121, 300)] + [{**patient, "pain": "stabbing"}] * 2
    with pair.one_client_each() as clients:
        for client in clients.values():
            answer = client.post("/v1/models/toy/predict", json={"records": [patient, *bad]})
            assert answer.status_code == 200
        time.sleep(2 * POLL_S)

        found = refusals.between(ward_ledger, "toy", began, now() + timedelta(minutes=1))

    assert found == {("out_of_range", "age_years"): 6, ("unknown_category", "pain"): 4}
