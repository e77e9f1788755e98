"""The champion's windows judged: drift that is there is found, drift that is not there raises no alarm."""

import json
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from configs.settings import Settings
from ledger.alerts import open_episodes, waiting
from ledger.database import connect, writing
from ledger.outcomes import Outcome, record
from ledger.promotions import find_champion, promote
from ledger.windows import judged


@pytest.fixture
def ledger(machine, tmp_path, monkeypatch):
    """An empty ledger of its own, with the machine's champion."""
    engine = connect(machine)
    champion = find_champion(engine, "toy")
    engine.dispose()
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    fresh = connect(Settings(home=machine.home, ledger=url))
    promote(fresh, champion.version, champion.report, "tests", "the same champion")
    yield url, fresh
    fresh.dispose()


@pytest.fixture
def monitored(medimind, ledger, monkeypatch):
    """`monitored()`: the report that `medimind monitor toy` wrote, by title, and the text of both pages."""

    def run():
        monkeypatch.setenv("MEDIMIND_LEDGER", ledger[0])
        said = medimind("monitor", "toy")
        assert said.code == 0, said.err
        page = Path(re.search(r"report (\S+\.html)", said.out)[1])
        drawing = Path(re.search(r"drawing (\S+\.html)", said.out)[1])
        findings = json.loads(page.with_suffix(".json").read_text())["findings"]
        return {finding["title"]: finding for finding in findings}, page.read_text(), drawing.read_text()

    return run


def outcomes(engine, ids, values):
    with writing(engine) as connection:
        for prediction, value in zip(ids, values, strict=True):
            record(connection, Outcome(prediction, None, None, value, datetime.now(UTC)))


def failed(findings):
    return {title for title, finding in findings.items() if finding["verdict"] == "failed"}


def test_an_empty_window_is_a_finding(monitored):
    findings, page, drawing = monitored()

    assert failed(findings) == {"predictions in the window"}
    assert "Nothing is drawn: the window is empty" in drawing
    assert "no prediction of this version" in page


def test_patients_who_have_not_changed_raise_no_alarm(monitored, answered, patients, ledger):
    records = patients(50, 11)
    ids = answered(records, ledger[0])

    findings, _, drawing = monitored()

    assert failed(findings) == set()
    assert findings["training-serving skew"]["value"] == 0
    assert "Nothing is drawn" not in drawing
    assert len(ids) == 50


def test_patients_who_have_changed_are_found(monitored, answered, patients, ledger):
    shifted = [{**one, "age_years": min(one["age_years"] + 25, 110), "pain": "rest"} for one in patients(50, 11)]
    ids = answered(shifted, ledger[0])
    outcomes(ledger[1], ids, [1] * 50)

    findings, _, _ = monitored()

    assert failed(findings) >= {"drift: age_years", "drift: pain", "drift: risk", "prevalence"}
    assert findings["drift: sex"]["verdict"] == "passed"


def test_a_column_that_is_missing_everywhere_is_a_finding(monitored, answered, patients, ledger):
    answered([{**one, "cholesterol_mg_dl": 0} for one in patients(50, 11)], ledger[0])

    findings, page, drawing = monitored()

    assert failed(findings) == {"missing: cholesterol_mg_dl"}
    assert findings["drift: cholesterol_mg_dl"]["verdict"] == "not applicable"
    assert "cholesterol_mg_dl: missing" in drawing
    assert "Not drawn: cholesterol_mg_dl" in page


def test_without_the_cohort_the_page_says_so(monitored, answered, patients, ledger, machine):
    answered(patients(50, 11), ledger[0])
    path = machine.data / "cohorts" / "toy.parquet"
    aside = path.rename(path.with_suffix(".aside"))

    try:
        findings, page, drawing = monitored()
    finally:
        aside.rename(path)

    assert failed(findings) == set()
    assert "It has no reference" in page
    assert "the reference's rows were not found" in drawing


def test_every_full_window_has_its_page_and_the_time_line_leads_to_all_of_them(
    medimind, monitored, answered, patients, ledger, machine
):
    answered(patients(120, 11), ledger[0])

    monitored()

    folder = machine.reports / "toy"
    timeline = (folder / "timeline.html").read_text()
    for number in (1, 2):
        assert f'href="window-1-{number}.html"' in timeline
        assert (folder / f"window-1-{number}.html").exists()
    assert "window-1-3.html" not in timeline, "20 predictions fill no window"
    assert oct((folder / "drift.html").stat().st_mode & 0o777) == "0o600"


def test_a_window_that_is_not_full_is_shown_and_on_no_record(medimind, monitored, answered, patients, ledger):
    answered(patients(30, 11), ledger[0])

    findings, page, _ = monitored()

    assert findings["predictions in the window"]["value"] == 30
    assert "a window on no record" in page
    assert judged(ledger[1], "toy", find_champion(ledger[1], "toy").bundle) == []


def test_since_looks_once_and_keeps_nothing_and_tells_nobody(medimind, answered, patients, ledger, monkeypatch):
    shifted = [{**one, "age_years": 110} for one in patients(60, 11)]
    answered(shifted, ledger[0])
    monkeypatch.setenv("MEDIMIND_LEDGER", ledger[0])

    said = medimind("monitor", "toy", "--since", "2026-01-01")

    assert said.code == 0 and "60 predictions" in said.out
    assert "MW003" in said.out
    assert judged(ledger[1], "toy", find_champion(ledger[1], "toy").bundle) == []
    assert waiting(ledger[1]) == 0 and open_episodes(ledger[1], "toy") == []


def test_a_failed_finding_is_told_on_standard_error_once_and_a_webhook_that_is_down_waits(
    process, machine, answered, patients, ledger
):
    answered([{**one, "age_years": 110} for one in patients(50, 11)], ledger[0])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"json://127.0.0.1:{taken.getsockname()[1]}/secret4711"
        first, second = (
            process("monitor", "toy", settings=machine, MEDIMIND_LEDGER=ledger[0], MEDIMIND_ALERTS=address)
            for _ in range(2)
        )

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "MW003" in first.err and "drift: age_years" in first.err and "medimind monitor toy" in first.err
    assert second.err == ""
    for said in (first, second):
        assert "could not be delivered" in said.out
        assert "secret4711" not in said.out + said.err


def test_an_address_that_is_none_is_told_of_and_stops_nothing(process, machine, answered, patients, ledger):
    answered(patients(50, 11), ledger[0])

    said = process("monitor", "toy", settings=machine, MEDIMIND_LEDGER=ledger[0], MEDIMIND_ALERTS="nowhere")

    assert said.code == 0, said.err
    assert said.err.startswith("MEDIMIND_ALERTS: address 1 is none that apprise knows")
    assert len(judged(ledger[1], "toy", find_champion(ledger[1], "toy").bundle)) == 1
