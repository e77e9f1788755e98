"""The champion watched: each window is judged once, again when more is known, and what fails is told once."""

import base64
import shutil
import threading
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from evidence.report import Finding
from ledger import alerts, outcomes, predictions, refusals, windows
from ledger.database import at, now, writing
from ledger.outcomes import Outcome
from ledger.predictions import prediction_id
from pipelines import monitor
from pipelines.alerts import LOG
from tests.clinic import Clinic

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Where a hospital with its champion lies, once one was made."""
    return tmp_path_factory.mktemp("made") / "home"


@pytest.fixture
def clinic(made, clinic_of, medimind_home, toy_table):
    if not made.exists():
        clinic_of()
        shutil.copytree(medimind_home.home, made)
    shutil.copytree(made, medimind_home.home, dirs_exist_ok=True)
    return Clinic(medimind_home, toy_table)


def watch(clinic, channels=(LOG,)):
    champion = clinic.champion
    return monitor.watch(clinic.engine, champion, clinic.predictor(champion.bundle), clinic.home, channels)


def numbers(watched):
    return [one.block.number for one in watched.judged]


def judged(clinic):
    return windows.judged(clinic.engine, "toy", clinic.champion.bundle)


def open_titles(clinic):
    return {episode.title for episode in alerts.open_episodes(clinic.engine, "toy")}


def seen(clinic, block):
    window, _ = windows.read(clinic.engine, block)
    return window


def judge(clinic, window):
    report = monitor.judge_window(clinic.predictor(clinic.champion.bundle), "a window", window, {})
    return {finding.code: finding for finding in report.findings}


def test_each_window_is_judged_once_and_again_when_an_outcome_comes(clinic):
    clinic.see(30).see(95)

    assert numbers(watch(clinic)) == [1, 2], "25 predictions fill no window yet"
    assert numbers(watch(clinic)) == []

    first = seen(clinic, judged(clinic)[0].block)
    with writing(clinic.engine) as connection:
        turned = Outcome(prediction_id(*first.places[3]), None, "toy", 1 - int(first.outcomes[3]), now())
        outcomes.record(connection, turned)

    assert numbers(watch(clinic)) == [1]
    assert numbers(watch(clinic)) == []
    assert [one.block.number for one in judged(clinic)] == [1, 2]


def test_of_a_ledger_with_far_more_than_one_look_can_judge_the_newest_is_judged(clinic, monkeypatch):
    monkeypatch.setattr(monitor, "MOST_AT_FIRST", 2)
    clinic.see(260)

    watched = watch(clinic)

    assert (len(watched.judged), watched.passed_over) == (2, 150)

    clinic.see(200)
    watched = watch(clinic)
    assert (numbers(watched), watched.passed_over) == ([3, 4, 5, 6], 0), "later looks pass over nothing"


def test_a_finding_that_goes_on_failing_begins_one_episode_and_it_ends_when_it_passes(clinic):
    clinic.see(50, more_events=-1.0)
    opened = watch(clinic).opened
    codes = {episode.code for episode in opened}
    assert codes & {"MW006", "MW007", "MW008"}, "nobody has an event"
    assert all("1 of" not in episode.text and "window 1" in episode.text for episode in opened)

    clinic.see(50, more_events=-1.0)
    assert not {episode.code for episode in watch(clinic).opened} & codes

    clinic.see(100)
    watch(clinic)
    assert not {episode.code for episode in alerts.open_episodes(clinic.engine, "toy")} & codes


def test_what_an_earlier_look_judged_and_died_before_it_told_is_told(clinic, monkeypatch):
    clinic.see(50, more_events=-1.0)
    with monkeypatch.context() as killed:
        killed.setattr(monitor, "failing", lambda *_: [][0] if judged(clinic) else [])
        with pytest.raises(IndexError):
            watch(clinic)
    assert alerts.waiting(clinic.engine) == 0 and len(judged(clinic)) == 1

    watched = watch(clinic)

    assert watched.judged == () and watched.opened
    assert alerts.waiting(clinic.engine) == len(watched.opened)


def test_a_newer_window_that_passes_ends_what_an_older_one_failed_whenever_its_outcomes_come(clinic):
    clinic.see(100)
    watch(clinic)
    before = {episode.code for episode in alerts.open_episodes(clinic.engine, "toy")}
    old = seen(clinic, judged(clinic)[0].block)
    with writing(clinic.engine) as connection:
        for place in old.places:
            outcomes.record(connection, Outcome(prediction_id(*place), None, "toy", 0, now()))

    watched = watch(clinic)

    assert numbers(watched) == [1]
    assert "MW008" not in {episode.code for episode in watched.opened} | before


def test_features_or_a_risk_that_come_out_otherwise_are_a_finding(clinic):
    clinic.see(50)
    watch(clinic)
    window = seen(clinic, judged(clinic)[0].block)
    assert judge(clinic, window)["MW005"].value == 0

    digests = ["0" * 64, *window.digests[1:]]
    risks = window.risks + np.where(np.arange(50) < 3, 1e-5, 0.0)

    assert judge(clinic, replace(window, digests=digests))["MW005"].value == 1
    assert judge(clinic, replace(window, risks=risks))["MW005"].value == 3
    assert judge(clinic, replace(window, risks=risks))["MW005"].verdict == "failed"


def test_a_record_that_does_not_keep_the_contract_any_more_is_a_finding_and_no_crash(clinic):
    clinic.see(50)
    watch(clinic)
    window = seen(clinic, judged(clinic)[0].block)
    records = [{**window.records[0], "pain": "of a kind nobody knew"}, *window.records[1:]]

    found = judge(clinic, replace(window, records=records))

    assert found["MW020"].verdict == "failed"
    assert "fewer than 10 of 50 predictions" in found["MW020"].explanation
    assert found["MW005"].value == 0 and "MW020" not in judge(clinic, window)


def test_at_most_200_predictions_are_computed_again_and_always_the_same(clinic):
    clinic.see(300)
    window = seen(clinic, windows.open_block(clinic.engine, "toy", 1, clinic.champion.bundle, 300))
    spoilt = replace(window, digests=["0" * 64] * 300)

    assert judge(clinic, spoilt)["MW005"].value == 200
    half = replace(window, digests=[digest if place % 2 else "0" * 64 for place, digest in enumerate(window.digests)])
    assert judge(clinic, half)["MW005"] == judge(clinic, half)["MW005"]


def test_an_empty_window_is_judged(clinic):
    window = monitor.predictions.laid_out((), {}, 0)

    assert judge(clinic, window)["MW001"].verdict == "failed"


def test_a_second_finding_of_a_code_that_fails_already_is_told_too(clinic):
    clinic.see(50)
    watch(clinic)
    (window, outcomes_to), bundle = windows.read(clinic.engine, judged(clinic)[0].block), clinic.champion.bundle
    report = monitor.judge_window(clinic.predictor(bundle), "a window", window, {})

    def failed(*titles):
        gone = tuple(Finding("MW002", title, "failed", 1.0, None, "missing in every record") for title in titles)
        block = replace(judged(clinic)[0].block, number=judged(clinic)[-1].block.number + 1)
        windows.keep(clinic.engine, block, window, outcomes_to, replace(report, findings=gone))
        return [episode.title for episode in watch(clinic).opened]

    assert failed("missing: smoker") == ["missing: smoker"]
    assert failed("missing: smoker", "missing: cholesterol_mg_dl") == ["missing: cholesterol_mg_dl"]


def test_a_field_that_is_refused_no_more_ends_its_episode(clinic):
    began = now()
    with at(began):
        refusals.put(clinic.engine, {("toy", "out_of_range", "rate"): 40})
    with at(began + MINUTE):
        clinic.see(50)
        watch(clinic)
    assert "out of range: rate" in open_titles(clinic)

    with at(began + 2 * MINUTE):
        clinic.see(50)
        watch(clinic)
    assert "out of range: rate" not in open_titles(clinic)


def test_two_looks_at_once_judge_each_window_once_and_tell_it_once(clinic):
    clinic.see(150, more_events=-1.0)
    clinic.predictor(clinic.champion.bundle)
    looks, ready = [], threading.Barrier(2)

    def look():
        ready.wait(10)
        looks.append(watch(clinic))

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert sorted(map(numbers, looks)) == [[], [1, 2, 3]]
    opened = [(episode.code, episode.title) for one in looks for episode in one.opened]
    assert opened and len(set(opened)) == len(opened)


def test_refusals_between_windows_are_in_the_next_and_each_is_counted_once(clinic):
    began = now()

    def refused(minute, n):
        with at(began + minute * MINUTE):
            refusals.put(clinic.engine, {("toy", "out_of_range", "rate"): n})

    def fill(minute):
        with at(began + minute * MINUTE):
            clinic.see(50)
            (one,) = watch(clinic).judged
        return [finding.explanation for finding in one.report.findings if finding.title == "out of range: rate"]

    assert fill(1) == []
    refused(5, 500)
    assert fill(10)[0].startswith("500 of 550")
    refused(10.02, 40)
    assert fill(10.1)[0].startswith("40 of 90")
    assert fill(10.2) == []


def test_where_every_record_is_refused_somebody_is_told_before_any_window_is_full(clinic):
    refusals.put(clinic.engine, {("toy", "out_of_range", "rate"): 9})
    assert watch(clinic).opened == (), "few records say little"

    refusals.put(clinic.engine, {("toy", "out_of_range", "rate"): 1000})
    (told,) = watch(clinic).opened
    assert (told.code, told.title) == ("MW015", "out of range: rate") and "1009 of 1009" in told.text
    assert watch(clinic).opened == ()


def test_silence_is_told_after_three_times_as_long_as_windows_take_and_ends_when_somebody_asks(clinic):
    began, day = now(), timedelta(days=1)
    for week in range(3):
        with at(began + 7 * week * day):
            clinic.see(50)
            watch(clinic)
    for days, silent in ((14 + 20, False), (14 + 22, True)):
        with at(began + days * day):
            watched = watch(clinic)
        assert ("MW001" in {episode.code for episode in watched.opened}) == silent

    with at(began + 37 * day):
        clinic.see(1)
        watch(clinic)
    assert "MW001" not in {episode.code for episode in alerts.open_episodes(clinic.engine, "toy")}


def test_a_window_that_was_purged_before_it_was_judged_is_no_silence(clinic):
    clinic.see(50)
    predictions.purge(clinic.engine, now() + MINUTE, "nurse.joy")

    (one,) = watch(clinic).judged

    (size,) = [finding for finding in one.report.findings if finding.code == "MW001"]
    assert size.verdict == "not applicable" and size.explanation.startswith("purged")
    assert alerts.open_episodes(clinic.engine, "toy") == []


def test_windows_of_a_model_with_signals_are_computed_again_and_compared_by_one_figure_a_signal(clinic_of_recordings):
    clinic = clinic_of_recordings().see(100)

    (first, second) = watch(clinic).judged

    for one in (first, second):
        findings = {finding.title: finding for finding in one.report.findings}
        recomputed = next(finding for finding in one.report.findings if finding.code == "MW005")
        assert recomputed.verdict == "passed", recomputed.explanation
        assert {findings[f"drift: {name}"].verdict for name in ("ecg", "scan", "age_years")} == {"passed"}


def test_a_waveform_in_another_unit_is_a_drift_of_its_figure(clinic_of_recordings, recordings_table):
    clinic = clinic_of_recordings()

    def in_tenths(n, seed):
        table = recordings_table(n, seed)
        waves = [np.frombuffer(base64.b64decode(text), "<f4") * np.float32(0.1) for text in table["ecg"]]
        return table | {"ecg": [base64.b64encode(wave.tobytes()).decode() for wave in waves]}

    clinic.table = in_tenths
    (judged,) = watch(clinic.see(50)).judged

    assert "drift: ecg" in {finding.title for finding in judged.report.failed}
