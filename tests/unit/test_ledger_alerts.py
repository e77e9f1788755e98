"""Each finding that fails is told once to everybody who is to be told, and nothing is lost on the way."""

import signal
import threading

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from configs.settings import Settings
from ledger import alerts, tables
from ledger.alerts import open_episodes, readdress, tried, undelivered, waiting
from ledger.database import connect

BOTH = ["log", "webhook 1a2b"]
DIES = """
import os, signal, sys
from pathlib import Path
from configs.settings import Settings
from ledger import alerts
from ledger.database import connect
engine = connect(Settings(home=Path(sys.argv[1]), ledger=sys.argv[2], user="nurse.joy"))
if sys.argv[3] == "before":
    real = alerts.tables.deliveries.insert
    def insert():
        os.kill(os.getpid(), signal.SIGKILL)
    alerts.tables.deliveries.insert = insert
alerts.failing(engine, "angina", 3, {("MW004", "it"): "it is off"}, [], ["log"])
((delivery, _),) = alerts.undelivered(engine, ["log"])
os.kill(os.getpid(), signal.SIGKILL)  # it was sent, perhaps; nobody can know
"""


def failing(engine, model, version, texts, passed, channels):
    """By code alone: each has one finding here."""
    return alerts.failing(
        engine,
        model,
        version,
        {(code, "it"): text for code, text in texts.items()},
        [(c, "it") for c in passed],
        channels,
    )


def codes(episodes):
    return [(episode.code, episode.ended_at is not None) for episode in episodes]


def test_a_finding_is_told_once_until_it_passes_and_fails_again(engine):
    (one,) = failing(engine, "angina", 3, {"MW004": "calibration is off"}, ["MW001"], BOTH)
    assert failing(engine, "angina", 3, {"MW004": "calibration is off, still"}, [], BOTH) == []
    assert open_episodes(engine, "angina") == [one]
    assert failing(engine, "angina", 3, {}, ["MW001"], BOTH) == [], "not judged is not passed"
    assert open_episodes(engine, "angina") == [one]

    assert failing(engine, "angina", 3, {}, ["MW004"], BOTH) == []
    assert open_episodes(engine, "angina") == []
    (two,) = failing(engine, "angina", 3, {"MW004": "again"}, [], BOTH)

    assert two.id != one.id
    assert len(undelivered(engine, BOTH)) == waiting(engine) == 4


def test_episodes_of_models_and_of_codes_are_each_their_own(engine):
    texts = {"MW004": "a", "MW006": "b"}
    assert codes(failing(engine, "angina", 3, texts, [], BOTH)) == [("MW004", False), ("MW006", False)]
    assert codes(failing(engine, "sepsis", 3, texts, [], BOTH)) == [("MW004", False), ("MW006", False)]
    failing(engine, "angina", 3, {}, ["MW004"], BOTH)
    assert codes(open_episodes(engine, "angina")) == [("MW006", False)]
    assert len(open_episodes(engine, "sepsis")) == 2


def test_findings_of_one_code_are_each_their_own(engine):
    smoker, cholesterol = ("MW002", "missing: smoker"), ("MW002", "missing: cholesterol")
    alerts.failing(engine, "angina", 3, {smoker: "missing"}, [cholesterol], BOTH)

    (second,) = alerts.failing(engine, "angina", 3, {smoker: "missing", cholesterol: "missing too"}, [], BOTH)
    assert (second.title, len(open_episodes(engine, "angina"))) == ("missing: cholesterol", 2)

    alerts.failing(engine, "angina", 3, {cholesterol: "missing too"}, [smoker], BOTH)
    assert open_episodes(engine, "angina") == [second]


def test_a_new_champion_s_failures_are_told_whatever_the_one_before_was_failing_at(engine):
    failing(engine, "angina", 3, {"MW004": "of the old one"}, [], BOTH)
    (new,) = failing(engine, "angina", 4, {"MW004": "of the new one"}, [], BOTH)
    assert (new.version, open_episodes(engine, "angina")) == (4, [new])


def test_what_could_not_be_delivered_waits_and_is_delivered_later(engine):
    (episode,) = failing(engine, "angina", 3, {"MW004": "calibration"}, [], BOTH)
    ((log, told),) = undelivered(engine, ["log"])
    ((hook, _),) = undelivered(engine, ["webhook 1a2b"])
    assert told == episode

    tried(engine, log, True)
    tried(engine, hook, False)
    tried(engine, hook, False)
    failing(engine, "angina", 3, {}, ["MW004"], BOTH)

    ((again, late),) = undelivered(engine, BOTH)
    assert (again, late.id, waiting(engine)) == (hook, episode.id, 1)
    assert late.ended_at is not None, "it is told that it was, although it is over"
    tried(engine, hook, True)
    assert (undelivered(engine, BOTH), waiting(engine)) == ([], 0)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(tables.deliveries).order_by(tables.deliveries.c.id)).all()
    assert [(row.tries, row.delivered_at is not None) for row in rows] == [(1, True), (3, True)]


def test_a_channel_that_is_not_set_any_more_is_left_alone(engine):
    failing(engine, "angina", 3, {"MW004": "calibration"}, [], BOTH)
    assert len(undelivered(engine, ["log"])) == 1
    assert undelivered(engine, []) == []
    failing(engine, "angina", 3, {"MW006": "gaps"}, [], [])
    assert len(open_episodes(engine, "angina")) == 2, "an episode that nobody is told of is one"


def test_what_waits_for_a_channel_that_is_set_no_more_goes_to_those_that_are_once(engine):
    (one,) = failing(engine, "angina", 3, {"MW004": "calibration"}, [], ["log", "wrong", "old"])
    (two,) = failing(engine, "angina", 3, {"MW006": "gaps"}, [], ["log", "right"])
    for delivery, _ in undelivered(engine, ["log"]):
        tried(engine, delivery, True)

    for _ in range(2):
        readdress(engine, ["log", "right"])

    assert [episode.id for _, episode in undelivered(engine, ["right"])] == [two.id, one.id]
    assert (undelivered(engine, ["log"]), waiting(engine)) == ([], 2)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_process_that_dies_leaves_an_episode_with_its_deliveries_or_neither(child, machine, moment):
    process = child(DIES, machine.home, machine.ledger, moment)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    engine = connect(machine)

    if moment == "before":
        assert open_episodes(engine, "angina") == []
        assert len(failing(engine, "angina", 3, {"MW004": "calibration"}, [], ["log"])) == 1
    else:
        assert failing(engine, "angina", 3, {"MW004": "calibration"}, [], ["log"]) == []
    ((_, episode),) = undelivered(engine, ["log"])
    assert open_episodes(engine, "angina") == [episode]
    engine.dispose()


def test_two_monitors_at_once_open_one_episode(engine):
    ready, opened = threading.Barrier(4), []

    def one():
        ready.wait(10)
        opened.extend(failing(engine, "angina", 3, {"MW004": "calibration"}, [], BOTH))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(opened) == 1
    assert waiting(engine) == 2


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    engine = connect(Settings(home=tmp_path_factory.mktemp("alerts"), user="nurse.joy"))
    yield engine
    engine.dispose()


CODES = st.sampled_from(["MW001", "MW004", "MW006"])


@given(st.lists(st.tuples(st.sets(CODES), st.sets(CODES), st.lists(st.booleans(), max_size=4)), max_size=12))
def test_every_episode_is_delivered_once_on_every_channel_however_tries_fail(shared, happenings):
    with shared.begin() as connection:
        connection.execute(tables.deliveries.delete())
        connection.execute(tables.episodes.delete())
    told, opened, failing_now = [], [], set()

    def deliver(works):
        for (delivery, episode), up in zip(undelivered(shared, BOTH), works, strict=False):
            tried(shared, delivery, up)
            if up:
                told.append((delivery, episode.id))

    for failed, passed, works in happenings:
        found = failing(shared, "angina", 3, dict.fromkeys(sorted(failed - passed), "text"), passed, BOTH)
        assert {episode.code for episode in found} == (failed - passed) - failing_now
        failing_now = (failing_now - passed) | (failed - passed)
        opened += [episode.id for episode in found]
        deliver(works)
    deliver([True] * 1000)

    assert {episode.code for episode in open_episodes(shared, "angina")} == failing_now
    assert sorted(episode for _, episode in told) == sorted(opened * 2)
    assert len({delivery for delivery, _ in told}) == len(told)
    assert waiting(shared) == 0
