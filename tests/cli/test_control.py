"""What decides who answers, as a person types it: promote, rollback, stop, retire, traffic, expiry."""

import csv
import shutil

import pytest
import sqlalchemy as sa
import yaml

from configs.settings import Settings
from ledger import stops, tables, traffic
from ledger.database import connect
from ledger.promotions import find_champion
from models.bundle import get
from models.predict import Predictor
from pipelines.ingest import ingest
from pipelines.prepare import prepare
from pipelines.train import train
from pipelines.validate import validate

SINCE_LONG = "2020-01-01"
VARIANTS = {
    1: {"candidates": ["logistic"]},
    2: {"candidates": ["boosted"]},
    3: {"candidates": ["logistic"], "split": {"sites": ["north", "south"], "test_fraction": 0.25, "seed": 18}},
    4: {"candidates": ["logistic"], "serving": {"max_batch": 16, "deadline_ms": 500, "expires_on": SINCE_LONG}},
    5: {"candidates": ["logistic"], "gates": {"auroc": ">= 0.999"}},
}
"""What each version of the toy promises: 4 expired long ago, the report of 5 does not pass."""


@pytest.fixture
def registered(memory, tmp_path_factory, toy_document, toy_table):
    """A machine on which the five versions are registered, and none is champion. Not to be changed."""
    if "registered" not in memory:
        base = tmp_path_factory.mktemp("registered")
        settings = Settings(home=base / "home", configs=base / "configs", data=base / "data")
        table = toy_table(400, 1)
        (settings.data / "raw").mkdir(parents=True)
        with open(settings.data / "raw" / "toy.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([table, *zip(*table.values(), strict=True)])
        (settings.configs / "diseases").mkdir(parents=True)
        (settings.configs / "enabled.yaml").write_text("enabled: [toy]\n")
        source = {"csv": str(settings.data / "raw" / "toy.csv")}
        for number, variant in VARIANTS.items():
            document = {**toy_document, "source": source, **variant}
            (settings.configs / "diseases" / "toy.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
            ingest("toy", settings)
            prepare("toy", settings)
            train("toy", settings)
            assert validate("toy", settings).version.number == number
        memory["registered"] = settings
    return memory["registered"]


@pytest.fixture
def machine(registered, tmp_path, monkeypatch):
    """A machine of its own with those versions, and this process on it."""
    home = shutil.copytree(registered.home, tmp_path / "home")
    settings = Settings(home=home, configs=registered.configs, data=registered.data, user="nurse.joy")
    for name in ("home", "configs", "data", "user"):
        monkeypatch.setenv(f"MEDIMIND_{name.upper()}", str(getattr(settings, name)))
    return settings


@pytest.fixture
def engine(machine):
    opened = connect(machine)
    yield opened
    opened.dispose()


@pytest.fixture
def say(machine, medimind):
    """`say(verb, …)`: the command with a reason; what it said on one line, and it succeeded."""

    def call(*words):
        said = medimind(*words, "--reason", "the board decided")
        assert said.code == 0, said.err
        return " ".join(said.out.split())

    return call


@pytest.fixture
def refused(machine, medimind, engine):
    """`refused(verb, …)`: the one line with which the command was refused; nothing was decided."""

    def call(*words):
        before = decided(engine)
        said = medimind(*words)
        assert said.code == 2
        (line,) = said.err.splitlines()
        assert line.startswith("medimind: ") and "error of our own" not in line
        assert decided(engine) == before
        return line

    return call


def decided(engine):
    """How many rows say who answers, and how many audit it."""
    counted = [tables.promotions, tables.stops, tables.traffic, tables.audit]
    with engine.connect() as connection:
        return [connection.execute(sa.select(sa.func.count()).select_from(table)).scalar() for table in counted]


def champion(engine):
    return find_champion(engine, "toy").version


# --- rollback


def test_rollback_goes_back_and_further_back_and_then_says_that_nobody_is_left(say, refused, engine, machine):
    for version in ("toy@1", "toy@2", "toy@3"):
        say("promote", version)

    assert "toy@2 is champion again: the board decided" in say("rollback", "toy")
    assert champion(engine) == 2
    say("rollback", "toy")
    assert champion(engine) == 1

    line = refused("rollback", "toy", "--reason", "more")
    assert "toy@1: there is no earlier champion to go back to." in line
    assert "medimind stop toy" in line
    Predictor(get(find_champion(engine, "toy").bundle, machine))


def test_rollback_passes_a_retired_version_over(say, refused, engine):
    for version in ("toy@1", "toy@2", "toy@3"):
        say("promote", version)
    say("retire", "toy@2")

    say("rollback", "toy")

    assert champion(engine) == 1
    say("promote", "toy@3")
    say("retire", "toy@1")
    assert "toy@1 is retired" in refused("rollback", "toy", "--reason", "more")


def test_rollback_needs_no_registry(say, engine, machine):
    say("promote", "toy@1")
    say("promote", "toy@2")
    shutil.rmtree(machine.home / "mlflow")
    (machine.home / "mlflow").write_text("gone")

    said = say("rollback", "toy")

    assert champion(engine) == 1
    assert "MLflow's champion alias could not be copied" in said


def test_rollback_to_a_bundle_that_was_damaged_in_the_store_is_refused_until_it_is_whole(say, refused, engine, machine):
    say("promote", "toy@1")
    bundle = find_champion(engine, "toy").bundle
    say("promote", "toy@2")
    (machine.store / bundle / "model.onnx").write_bytes(b"forged")

    line = refused("rollback", "toy", "--reason", "alarms")

    assert "model.onnx is not what the manifest says" in line
    assert "medimind promote toy@1" in line
    assert champion(engine) == 2


def test_without_a_champion_there_is_nobody_to_go_back_from(refused):
    assert "toy: has no champion" in refused("rollback", "toy", "--reason", "x")


# --- stop


def test_a_stopped_model_says_so_in_the_list_and_a_promotion_does_not_lift_it(say, medimind, engine):
    say("promote", "toy@1")
    assert "toy is stopped: the board decided" in say("stop", "toy")
    assert stops.find(engine, "toy").stopped == "the board decided"
    assert "champion toy@1" in medimind("list").out and "; stopped" in medimind("list").out

    promoted = say("promote", "toy@2")

    assert "toy is still stopped (the board decided)" in promoted and "--lift" in promoted
    assert stops.find(engine, "toy").stopped == "the board decided"
    say("stop", "toy", "--lift")
    assert stops.find(engine, "toy").stopped is None
    assert "stopped" not in medimind("list").out


def test_a_stop_waits_for_no_training_and_no_sound_yaml(registered, machine, engine, medimind, tmp_path, monkeypatch):
    from pipelines.files import alone

    configs = shutil.copytree(registered.configs, tmp_path / "configs")
    (configs / "diseases" / "toy.yaml").write_text("name: [")
    monkeypatch.setenv("MEDIMIND_CONFIGS", str(configs))

    with alone("toy", machine):
        said = medimind("stop", "toy", "--reason", "alarms")

    assert said.code == 0, said.err
    assert stops.find(engine, "toy").stopped == "alarms"


def test_a_reason_with_brackets_is_told_as_it_was_typed(machine, medimind):
    assert "toy is stopped: [bold]why[/bold] [x]" in medimind("stop", "toy", "--reason", "[bold]why[/bold] [x]").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stop", "toi", "--reason", "x"], "no disease 'toi': nothing was changed. Known: toy."),
        (["stop", "toy", "--reason", " "], "toy: a reason is expected"),
        (["stop", "toy", "--lift", "--reason", "x"], "toy is not stopped"),
        (["retire", "toy@99", "--reason", "x"], "toy@99 is not registered"),
        (["retire", "toy", "--reason", "x"], "'toy' is no version"),
    ],
)
def test_what_cannot_be_stopped_or_retired_is_told_in_one_line(refused, words, said):
    assert said in refused(*words)


@pytest.mark.parametrize("verb", [["stop", "toy"], ["retire", "toy@1"], ["rollback", "toy"], ["promote", "toy@1"]])
def test_nothing_is_decided_without_a_reason(machine, medimind, engine, verb):
    before = decided(engine)
    said = medimind(*verb)
    assert said.code == 2
    assert "--reason" in said.err
    assert decided(engine) == before


# --- retire


def test_a_retired_champion_is_named_with_the_way_on_and_never_comes_back(say, refused, medimind, engine):
    say("promote", "toy@1")
    said = say("retire", "toy@1")

    assert "toy@1 is retired, for good" in said
    assert "medimind rollback toy" in said
    assert "; retired" in medimind("list").out
    why = "toy@1 is retired, for good: the board decided"
    assert why in refused("promote", "toy@1", "--reason", "x")
    assert why in refused("retire", "toy@1", "--reason", "x")
    say("promote", "toy@2")
    for asked in (["--shadow", "toy@1"], ["--canary", "toy@1", "--share", "0.1"], ["--ab", "east=toy@1"]):
        assert why in refused("traffic", "toy", *asked, "--reason", "x")
    assert champion(engine) == 2


def test_what_answers_is_retired_even_while_the_registry_is_down(say, engine, machine):
    say("promote", "toy@1")
    shutil.rmtree(machine.home / "mlflow")
    (machine.home / "mlflow").write_text("gone")

    say("retire", "toy@1")

    assert stops.find(engine, "toy").retired == {1: "the board decided"}


# --- a version's last day


def test_a_version_past_its_last_day_does_not_answer(say, refused, engine):
    said = f"toy@4: its last day was {SINCE_LONG}"
    assert said in refused("promote", "toy@4", "--reason", "x")
    say("promote", "toy@1")
    assert said in refused("traffic", "toy", "--canary", "toy@4", "--share", "0.1", "--reason", "x")
    assert said in refused("traffic", "toy", "--ab", "east=toy@4", "--reason", "x")
    say("traffic", "toy", "--shadow", "toy@4")  # it never answers
    assert traffic.find(engine, "toy").shadow.version == 4


def test_a_champion_that_has_expired_since_is_listed_so_and_not_gone_back_to(
    say, refused, medimind, engine, monkeypatch
):
    from configs.spec import Serving

    with monkeypatch.context() as before_its_last_day:
        before_its_last_day.setattr(Serving, "expired", lambda *_: False)
        say("promote", "toy@4")
    assert f"expired after {SINCE_LONG}" in medimind("list").out

    say("promote", "toy@1")

    assert "toy@4 is past its last day" in refused("rollback", "toy", "--reason", "x")
    assert champion(engine) == 1


# --- traffic


def test_traffic_is_set_told_and_ended(say, medimind, engine, machine):
    say("promote", "toy@1")
    assert "no traffic is set" in medimind("traffic", "toy").out

    say("traffic", "toy", "--shadow", "toy@3")
    say("traffic", "toy", "--canary", "toy@2", "--share", "0.1")
    told = say("traffic", "toy", "--ab", "east=toy@2")

    assert "toy: champion toy@1" in told
    assert "shadow toy@3 scores the same records and never answers" in told
    assert "canary toy@2 answers 0.1 of the patients" in told
    assert "east toy@2 answers what is tagged east" in told
    found = traffic.find(engine, "toy")
    assert (found.shadow.version, found.canary.share, found.tags["east"].version) == (3, 0.1, 2)
    for route in found.lanes.values():
        Predictor(get(route.bundle, machine))

    for lane in ("shadow", "canary", "east"):
        told = say("traffic", "toy", "--off", lane)
    assert "no traffic is set" in told
    assert traffic.find(engine, "toy").lanes == {}


def test_a_shadow_may_fail_its_gates_and_what_answers_may_not(say, refused, engine):
    say("promote", "toy@1")
    say("traffic", "toy", "--shadow", "toy@5")
    assert traffic.find(engine, "toy").shadow.version == 5

    for asked in (["--canary", "toy@5", "--share", "0.1"], ["--ab", "east=toy@5"]):
        line = refused("traffic", "toy", *asked, "--reason", "x")
        assert "toy@5: its report does not pass (MM001 AUROC)" in line


def test_a_canary_that_is_promoted_ends_and_the_shadow_goes_on(say, engine):
    say("promote", "toy@1")
    say("traffic", "toy", "--canary", "toy@2", "--share", "0.1")
    say("traffic", "toy", "--shadow", "toy@3")

    said = say("promote", "toy@2")

    assert "canary to toy@2 has ended" in said
    assert "shadow to toy@3 goes on" in said
    assert list(traffic.find(engine, "toy").lanes) == ["shadow"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--canary", "toy@2"], "a canary, and nothing else, has a share"),
        (["--canary", "toy@2", "--share", "0"], "share 0: above 0 and at most 1"),
        (["--canary", "toy@2", "--share", "10"], "share 10: above 0 and at most 1"),
        (["--shadow", "toy@2", "--share", "0.1"], "a canary, and nothing else, has a share"),
        (["--off", "canary", "--share", "0.1"], "--share goes with --canary"),
        (["--shadow", "toy@1"], "toy@1 is the champion"),
        (["--shadow", "other@2"], "other@2 is no version of toy; toy@VERSION is expected"),
        (["--shadow", "toy@99"], "toy@99 is not registered"),
        (["--shadow", "toy"], "'toy' is no version"),
        (["--ab", "toy@2"], "'' is no version"),
        (["--ab", "a b=toy@2"], "tag 'a b'"),
        (["--ab", "shadow=toy@2"], "tag 'shadow'"),
        (["--off", "canary"], "toy: no canary is set that could end. Set: nothing."),
        (["--off", "east"], "toy: no east is set"),
        (["--shadow", "toy@2", "--canary", "toy@3", "--share", "0.1"], "one at a time"),
        ([], "--share and --reason go with"),
    ],
)
def test_traffic_that_means_nothing_clear_is_refused(say, refused, asked, said):
    say("promote", "toy@1")
    assert said in refused("traffic", "toy", *asked, "--reason", "x")


def test_traffic_needs_a_reason_a_champion_and_a_model(refused, say):
    assert "toy: has no champion" in refused("traffic", "toy", "--shadow", "toy@2", "--reason", "x")
    assert "no disease 'toi'" in refused("traffic", "toi")
    say("promote", "toy@1")
    assert "--shadow toy@2: a reason is expected" in refused("traffic", "toy", "--shadow", "toy@2")


def test_every_decision_says_who_took_it(say, engine):
    say("promote", "toy@1")
    say("promote", "toy@2")
    say("traffic", "toy", "--shadow", "toy@3")
    say("rollback", "toy")
    say("stop", "toy")
    say("stop", "toy", "--lift")
    say("retire", "toy@2")

    with engine.connect() as connection:
        noted = connection.execute(sa.select(tables.audit).order_by(tables.audit.c.id)).all()
    rows = [row for row in noted if row.action not in ("train", "validate")]  # by whoever made the versions
    assert {row.actor for row in rows} == {"nurse.joy"}
    actions = ["promote", "promote", "traffic", "rollback", "stop", "lift", "retire"]
    assert [row.action for row in rows] == actions
