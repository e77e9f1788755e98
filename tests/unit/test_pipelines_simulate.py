"""History goes through the whole loop as it would have gone for real, in a home of its own, in a time of its own."""

import csv
import json
import random
from collections import Counter
from datetime import UTC, datetime

import pytest
import yaml

from configs.errors import MediMindError, SourceError, SpecError
from configs.spec import load_spec
from ledger import predictions
from ledger.chain import check
from ledger.confirmed import confirmed, newest_outcome
from ledger.database import connect, now
from ledger.promotions import find_champion
from pipelines.simulate import Asked, simulate
from pipelines.stream import stream


def write(path, table):
    with open(path, "w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(table)
        lines.writerows(zip(*table.values(), strict=True))
    return str(path)


@pytest.fixture
def spec_of(medimind_home):
    """`spec_of(change)`: the toy's YAML on that machine, changed."""
    path = medimind_home.configs / "diseases" / "toy.yaml"

    def change(change=lambda document: None):
        document = yaml.safe_load(path.read_text())
        document["candidates"] = ["logistic"]  # quick
        change(document)
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return load_spec("toy", medimind_home.configs)

    return change


@pytest.fixture
def watched(spec_of):
    """`watched(outcomes)`: the toy, retrained after so many outcomes, with a short trial and probation."""

    def change(document, outcomes):
        document["monitoring"] = {"window": 100, "min_outcomes": 20, "retrain_when": {"new_outcomes": outcomes}}
        document["change_control"]["retrain"] |= {
            "auroc_drop": 0.1,
            "trial": {"outcomes": 40},
            "probation": {"outcomes": 40},
        }

    return lambda outcomes: spec_of(lambda document: change(document, outcomes))


@pytest.fixture
def worse_times(tmp_path, toy_table):
    """`worse_times(n)`: a file of new patients, of whom many more have the event (`more`) than the model can know."""

    def made(n, more=0.6):
        table, dice = toy_table(n, 77), random.Random(5)
        table["sick"] = [1 if dice.random() < more else sick for sick in table["sick"]]
        table["id"] = [f"N{row}" for row in range(n)]
        return write(tmp_path / "later.csv", table)

    return made


def test_a_history_is_retrained_on_and_the_better_model_promotes_itself(medimind_home, watched, worse_times):
    watched(200)
    heard = []

    done = simulate(
        "toy",
        Asked(source=worse_times(420), per_day=30, outcomes_after_days=1),
        medimind_home,
        lambda day, what: heard.append((day, what)),
    )

    steps = [step.step for step in done.steps]
    begins = steps.index("trial")
    assert steps[begins - 1 : begins + 3] == ["begun", "trial", "promoted", "kept"]
    assert [champion.version for champion in done.champions] == [1, done.steps[begins].version]
    first = done.compared[0]
    assert (first.version, first.earlier) == (done.steps[begins].version, 1) and first.n >= 40
    assert first.paired["log_loss"]["high"] < 0, "the new champion is better on the patients who came after it"
    assert done.answered == 420 and done.windows >= 3
    assert {"MW006", "MW008"} & {found.code for found in done.found}, "the change in prevalence was found"
    assert len(heard) == len(done.steps) + 1
    told = json.loads((done.folder / "simulation.json").read_text())
    assert told["stream"]["patients"] == 420 and len(told["steps"]) == len(done.steps)


def test_what_happened_in_it_happened_when_the_patients_came_and_the_page_says_that_times_are_invented(
    medimind_home, watched, worse_times
):
    watched(60)
    before = now()

    done = simulate("toy", Asked(worse_times(120), per_day=30, outcomes_after_days=1), medimind_home)

    ledger = connect(medimind_home.model_copy(update={"home": done.folder.parents[1], "ledger": ""}))
    assert find_champion(ledger, "toy").at == datetime(2000, 12, 31, tzinfo=UTC)
    assert all(step.at.year == 2001 for step in done.steps) and done.steps
    assert done.stream.invented and "every day and hour here is invented" in done.timeline.read_text()
    assert not check(ledger).problems
    assert now() >= before, "the clock goes on as before"


def test_the_real_home_sees_nothing_of_it(medimind_home, watched, worse_times, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDIMIND_LEDGER", f"sqlite:///{tmp_path / 'real.db'}")
    monkeypatch.setenv("MEDIMIND_REGISTRY", f"sqlite:///{tmp_path / 'real-mlflow.db'}")
    monkeypatch.setenv("MEDIMIND_TRUST", str(tmp_path / "real-trusted.json"))
    untouched = {path: path.read_bytes() for path in medimind_home.data.rglob("*") if path.is_file()}

    watched(60)

    simulate("toy", Asked(worse_times(40), per_day=20), medimind_home)

    assert [path.name for path in medimind_home.home.iterdir()] == ["simulations"]
    assert not list(tmp_path.glob("real*"))
    assert {path: path.read_bytes() for path in medimind_home.data.rglob("*") if path.is_file()} == untouched
    assert medimind_home.home.stat().st_mode & 0o077 == 0


def test_a_planted_candidate_is_refused_and_by_force_promoted_rolled_back(medimind_home, watched, worse_times):
    watched(1000)  # nothing of its own: it is planted when half of them have come
    asked = Asked(worse_times(400, more=0), per_day=40, outcomes_after_days=1, plant=True)

    done = simulate("toy", asked, medimind_home)

    refused, forced, end = done.planted
    assert "refused" in refused and "refused again" in refused and "its report does not pass" in refused
    assert "promoted by force" in forced and "in its own ledger alone" in forced
    assert "rolled back" in end and "worse than the earlier champion's" in end
    versions = [(champion.version, champion.action) for champion in done.champions]
    bad = next(place for place, (version, _) in enumerate(versions) if f"toy@{version} promoted by force" in forced)
    assert versions[bad + 1] == (versions[bad - 1][0], "rollback"), "who was champion before is champion again"
    assert "A bad candidate was planted" in done.timeline.read_text()


def test_the_same_history_comes_out_the_same(medimind_home, watched, worse_times):
    watched(60)
    asked = Asked(worse_times(80), per_day=20, outcomes_after_days=1)

    one, other = (simulate("toy", asked, medimind_home) for _ in range(2))

    assert [(step.step, step.at, step.reason) for step in one.steps] == [
        (step.step, step.at, step.reason) for step in other.steps
    ]
    assert one.found == other.found and one.folder != other.folder


def test_the_external_part_comes_in_the_order_of_its_sites_and_of_the_rows(medimind_home, spec_of):
    def change(document):
        document["split"]["sites"], document["external"] = ["north"], {"sites": ["east", "south"]}

    spec = spec_of(change)

    coming = stream(spec, None, 10, None, medimind_home)

    sites = [arrival.record["site"] for arrival in coming.arrivals]
    assert sites == ["east"] * sites.count("east") + ["south"] * sites.count("south")
    numbers = [
        int(arrival.record["patient"].removeprefix("P"))
        for arrival in coming.arrivals
        if arrival.record["site"] == "east"
    ]
    assert numbers == sorted(numbers)
    assert coming.invented and coming.arrivals[0].at == datetime(2001, 1, 1, tzinfo=UTC)
    days = [arrival.at.date().day for arrival in coming.arrivals[:25]]
    assert days == [1] * 10 + [2] * 10 + [3] * 5
    assert [arrival.record for arrival in stream(spec, None, 10, 7, medimind_home).arrivals] == [
        arrival.record for arrival in coming.arrivals[:7]
    ]


def test_where_the_source_has_a_time_they_come_in_its_order_from_the_day_on(medimind_home, spec_of, toy_table):
    table = toy_table(400, 1) | {"seen": [(row * 7) % 40 for row in range(400)]}
    path = write(medimind_home.data / "raw" / "toy.csv", table)

    def change(document):
        del document["split"]["sites"]
        document |= {"source": {"csv": path}, "at": "seen", "day_zero": "2020-03-01"}
        document["external"] = {"after": "2020-03-31"}

    coming = stream(spec_of(change), None, None, None, medimind_home)

    times = [arrival.at for arrival in coming.arrivals]
    assert times == sorted(times) and times[0] == datetime(2020, 3, 31, tzinfo=UTC)
    assert len(times) == sum(seen >= 30 for seen in table["seen"]) and not coming.invented


def without_external(document):
    del document["external"]


def timed(document):
    document["at"] = "seen"


@pytest.mark.parametrize(
    ("name", "asked", "change", "said"),
    [
        ("tox", Asked(), None, "no disease 'tox'.*Did you mean"),
        ("toy", Asked(), without_external, "has no `external` part.*--source FILE"),
        ("toy", Asked(source="gone.csv"), None, "gone.csv: does not exist"),
        ("toy", Asked(per_day=0), None, "--per-day 0: at least one patient a day"),
        ("toy", Asked(per_day=5), timed, "--per-day: toy's source says itself when each came"),
        ("toy", Asked(limit=0), None, "--limit 0: at least one patient"),
        ("toy", Asked(outcomes_after_days=-1), None, "--outcomes-after -1: 0 days or more"),
        ("toy", Asked(outcomes_after_days=float("nan")), None, "--outcomes-after nan"),
    ],
)
def test_what_cannot_be_replayed_is_refused_before_anything_is_made(medimind_home, spec_of, name, asked, change, said):
    spec_of(change or (lambda document: None))

    with pytest.raises((SourceError, SpecError), match=f"(?s){said}"):
        simulate(name, asked, medimind_home)
    assert not medimind_home.home.exists()


@pytest.mark.parametrize(
    ("sick", "said"),
    [
        ([1] * 30, "the 30 patients are all events; both are needed"),
        ([0] * 30, "the 30 patients are all non-events"),
        ([None] * 30, "not one outcome is known"),
    ],
)
def test_a_stream_that_could_judge_no_model_is_refused(medimind_home, spec_of, tmp_path, toy_table, sick, said):
    spec_of()
    path = write(tmp_path / "later.csv", toy_table(30, 3) | {"sick": sick})

    with pytest.raises(SourceError, match=said):
        simulate("toy", Asked(source=path), medimind_home)


def test_a_source_without_the_outcome_is_refused_by_name(medimind_home, spec_of, tmp_path, toy_table):
    spec_of()
    table = toy_table(30, 3)
    del table["sick"]

    with pytest.raises(MediMindError, match="the source has no column 'sick'"):
        simulate("toy", Asked(source=write(tmp_path / "later.csv", table)), medimind_home)


def test_a_first_model_that_fails_its_gates_ends_it_with_the_gate(medimind_home, spec_of):
    spec_of(lambda document: document.update(gates={"auroc": ">= 0.999"}))

    with pytest.raises(MediMindError, match=r"toy@1: its report does not pass.*AUROC"):
        simulate("toy", Asked(per_day=50), medimind_home)


def test_patients_of_several_classes_come_in_and_their_outcomes_say_which_one(
    medimind_home, spec_of, classes_document, classes_table, tmp_path
):
    raw = medimind_home.data / "raw" / "toy.csv"
    write(raw, classes_table(600, 1))
    spec_of(lambda document: document.update(outcome=classes_document["outcome"]))
    later = write(tmp_path / "later.csv", classes_table(60, 77))

    done = simulate("toy", Asked(later, per_day=30, outcomes_after_days=1), medimind_home)

    came = Counter(arrival.label for arrival in done.stream.arrivals)
    assert set(came) == {"none", "colon", "lung"} and done.answered == 60
    ledger = connect(medimind_home.model_copy(update={"home": done.folder.parents[1], "ledger": ""}))
    found = confirmed(ledger, "toy", newest_outcome(ledger))
    assert Counter(found.labels) == came
    assert [label != "none" for label in found.labels] == (found.outcomes == 1).tolist()
    said = predictions.find(ledger, predictions.prediction_id(*found.places[0]))
    assert list(said.risks) == ["none", "colon", "lung"]
