"""A patient's events over HTTP give the risk that they give in the cohort, to the bit, and again from the record."""

import asyncio
import json
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from queue import Queue
from time import monotonic
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from configs.spec import from_document
from evidence import probes
from features import build, cohort, histories
from features.columns import check_table, translate_table, whose_and_when
from features.synthetic import draw, edges
from ledger import confirmed, outcomes
from ledger.database import writing
from ledger.predictions import find, kept_features, purge
from ledger.promotions import promote
from ledger.replay import replay_with
from models import bundle as bundles
from models.predict import Predictor
from models.training import train
from pipelines import candidate
from pipelines import score as scoring
from serving import schemas
from serving.answers import Part
from serving.bodies import JSON
from serving.runtime import Counters, Runtime
from serving.scoring import Scored, Scorer
from serving.shadow import Shadow
from serving.versions import Version

ASKED = datetime(2026, 3, 29, 12, tzinfo=UTC)
"""The night before, the clocks of Berlin went from 02:00 to 03:00."""
BERLIN = timedelta(hours=2)
WARD = {
    "name": "sepsis",
    "title": "An invented disease of a ward",
    "patient_id": "id",
    "at": "asked",
    "source": {
        "csv": "ward.csv",
        "events": [
            {"csv": "lab.csv", "patient": "who", "time": "when", "code": "what", "value": "number", "unit": "in"}
        ],
    },
    "events": {
        "2524-7": {"from": "lactate", "type": "number", "unit": "mmol/L", "range": [0, 30], "loinc": "2524-7"},
        "2160-0": {
            "type": "number",
            "unit": "mg/dL",
            "accepts": ["umol/L"],
            "range": [0.1, 20],
            "loinc": "2160-0",
        },
        "fall": {"type": "boolean", "description": "a fall on the ward"},
    },
    "refused_events_at_most": 0,
    "columns": {
        "lactate_max_24h": {"event": "2524-7", "window": "24h", "reduce": "max", "unit": "mmol/L"},
        "lactate_slope_3d": {"event": "2524-7", "window": "3d", "reduce": "slope", "unit": "mmol/L/h"},
        "lactate_mean": {"event": "2524-7", "reduce": "mean", "unit": "mmol/L"},
        "age_years": {"type": "number", "unit": "a", "range": [18, 120], "required": True},
        "creatinine_last": {"event": "2160-0", "window": "7d", "reduce": "last", "unit": "mg/dL"},
        "creatinine_since": {"event": "2160-0", "reduce": "time_since", "unit": "h"},
        "falls": {"event": "fall", "window": "30d", "reduce": "count", "unit": "1"},
    },
    "outcome": {"column": "sick", "positive": "== 1", "values": [0, 1]},
    "attributes": ["demographics.age_band"],
    "split": {"test_fraction": 0.25, "seed": 17},
    "candidates": ["logistic"],
    "gates": {"auroc": ">= 0.60"},
}
FEATURES = [*WARD["columns"]]


@dataclass
class Ward:
    spec: object
    plan: object
    held: object
    records: object
    table: dict


def invented(document, n):
    """`n` patients; lactate tells who is sick. What is measured after the prediction would tell even more."""
    dice = np.random.default_rng(5)
    sick = dice.random(n) < 0.35
    table = {
        "id": [f"p{row:03d}" for row in range(n)],
        "asked": [(ASKED + timedelta(minutes=row)).isoformat() for row in range(n)],
        "age_years": dice.integers(30, 90, n).tolist(),
        "sick": sick.astype(int).tolist(),
    }
    long = {name: [] for name in ("who", "when", "what", "number", "in")}
    for row in range(n):
        at = ASKED + timedelta(minutes=row)
        for what, most, unit in (("lactate", 6, "mmol/L"), ("2160-0", 3, "umol/L"), ("fall", 2, None)):
            for hours in (dice.random(dice.integers(0, most, endpoint=True)) ** 2 * 200 - 4).tolist():
                value = {"lactate": 1.5 + sick[row] + dice.random() + (9 if hours < 0 and sick[row] else 0)}
                value |= {"2160-0": round(70 + 40 * dice.random(), 1), "fall": None}
                long["who"].append(table["id"][row])
                long["when"].append((at - timedelta(hours=hours)).isoformat())
                long["what"].append(what)
                long["number"].append(True if what == "fall" else round(value[what], 2))
                long["in"].append(unit)
    spec = from_document(document, "sepsis.yaml")
    patient, at = whose_and_when(spec, table)
    held = histories.check(spec, patient, at, [long])
    history = histories.history(spec, held, patient, at)
    records, refusals = check_table(spec, table, translate_table(spec, table), history)
    assert not refusals and not held.broken
    return Ward(spec, build.plan(spec), held, records, table)


@pytest.fixture(scope="module")
def ward(document):
    kept = {name: value for name, value in document.items() if name not in ("external", "source")}
    return invented(json.loads(json.dumps(kept | WARD | {"features": FEATURES})), 240)


@pytest.fixture(scope="module")
def bundle(ward, tmp_path_factory):
    found = cohort.prepare(ward.spec, ward.plan, ward.records, {})
    return train(ward.spec, ward.plan, found, tmp_path_factory.mktemp("trained") / "sepsis")


@pytest.fixture(scope="module")
def sepsis(bundle):
    return Predictor(bundle)


@pytest.fixture
def ask(ledger, home, bundle, report_on, tmp_path):
    """`ask(*bodies)`: what a running worker answers, one after the other."""
    stored = bundles.put(bundles.sign(shutil.copytree(bundle.folder, tmp_path / "to be signed"), home), home)
    promote(ledger, 1, replace(report_on(stored.digest), name="sepsis"), "nurse.joy", "first")

    def run(*bodies):
        async def main():
            runtime = Runtime(home, ["sepsis"], Counters(*[lambda *_: None] * 4))
            runtime.open()
            try:
                said = []
                for body in bodies:
                    until = monotonic() + 60
                    sent = json.dumps(body).encode()
                    said.append(json.loads(await runtime.predict("sepsis", sent, JSON, None, None, until, None)))
                return said
            finally:
                await runtime.close()

        return asyncio.run(main())

    return run


def as_sent(ward, row, offset=timedelta()):
    """A patient's row as an app sends it, every time with that offset."""

    def written(text):
        return (datetime.fromisoformat(text) + offset).replace(tzinfo=None).isoformat() + (
            f"+{offset.seconds // 3600:02d}:00"
        )

    patient = ward.table["id"][row]
    events = histories.sent(ward.spec, ward.held, patient)
    return {
        "age_years": ward.table["age_years"][row],
        "at": written(ward.table["asked"][row]),
        "patient": patient,
        "events": [{**event, "time": written(event["time"]), "patient": patient} for event in events],
    }


def in_cohort(ward, sepsis):
    X = build.build(ward.plan, ward.records.values, ward.records.at)
    return X, sepsis.risk(X)


def test_the_same_events_over_http_give_the_risk_of_the_cohort_to_the_bit(ward, sepsis, ask):
    X, risk = in_cohort(ward, sepsis)
    rows = range(len(risk))
    records = [as_sent(ward, row, BERLIN * (row % 2)) for row in rows]

    together, *alone = ask({"records": records}, *({"records": [record]} for record in records[:40]))

    assert [said["risk"] for said in together["predictions"]] == risk.tolist()
    assert [answer["predictions"][0]["risk"] for answer in alone] == risk[:40].tolist()
    columns = {name: [record[name] for record in records] for name in records[0]}
    (by_column,) = ask({"columns": columns})
    assert [said["risk"] for said in by_column["predictions"]] == risk.tolist()
    assert len(set(risk.tolist())) > 200 and np.isnan(X).any()


def test_what_comes_later_is_ignored_and_said_to_be_so(ward, sepsis, ask):
    _, risk = in_cohort(ward, sepsis)
    later = [event for row in range(240) for event in as_sent(ward, row)["events"]]
    assert any(event["time"] > ward.table["asked"][0] for event in later)
    plain = as_sent(ward, 7)
    extra = {**plain["events"][0], "code": "2524-7", "value": 30, "unit": "mmol/L", "time": plain["at"]}
    (answer,) = ask({"records": [{**plain, "events": [*plain["events"], extra, {**extra, "code": "8310-5"}]}, plain]})

    told, untold = answer["predictions"]
    assert told["risk"] == untold["risk"] == risk[7]
    before = untold.get("ignored", {})
    reasons = ("at or after the time of prediction", "a code that the model does not read")
    assert told["ignored"] == {**before, **{reason: before.get(reason, 0) + 1 for reason in reasons}}


def test_a_record_whose_events_all_count_says_nothing_of_them(ask, ward):
    (answer,) = ask({"records": [{**as_sent(ward, 3), "events": []}, {"age_years": 61}]})
    empty, untold = answer["predictions"]
    assert "ignored" not in empty and "ignored" not in untold
    assert "falls" not in empty["missing"] and "falls" in untold["missing"]
    assert {"lactate_max_24h", "creatinine_last"} <= set(empty["missing"])


def test_a_broken_event_costs_its_own_record_alone(ask, ward):
    good = as_sent(ward, 3)
    bad = {**good, "events": [*good["events"], {"time": good["at"], "code": "2524-7", "value": 2}]}
    (answer,) = ask({"records": [bad, good]})
    refused, said = answer["predictions"]
    assert refused["error"]["field"] == f"events[{len(good['events'])}].unit"
    assert 0 < said["risk"] < 1


def test_a_prediction_on_record_is_computed_again_from_its_events(ask, ward, sepsis, ledger):
    records = [as_sent(ward, row) for row in range(30)]
    (answer,) = ask({"records": records})
    for said, record in zip(answer["predictions"], records, strict=True):
        stored = find(ledger, said["id"])
        again = replay_with(sepsis, stored)
        assert (again.agrees, again.same_features) == ("to the bit", True)
        assert record["patient"] not in json.dumps(stored.record)
        assert len(stored.record["events"]) == len(record["events"]) - sum(said.get("ignored", {}).values())


def test_a_shadow_computes_again_from_the_events(ward, sepsis):
    sent = [as_sent(ward, row) for row in range(30)]
    version = Version("sepsis", 1, sepsis, None, None)
    said = Part(version, sent, range(30))
    said.scored, said.received = Scorer(sepsis).alone(sent, ASKED), ASKED
    done, rows = Queue(), []
    shadow = Shadow(SimpleNamespace(shadow=lambda row: rows.append(row) or True), lambda *told: done.put(told))
    try:
        shadow.offer(version, 17, said)
        assert done.get(timeout=20) == ("sepsis", "scored", 30)
    finally:
        shadow.close()

    assert rows[0]["risks"] == said.scored.risks.tobytes()


def test_a_retraining_reads_the_events_of_confirmed_predictions(ask, ward, sepsis, ledger):
    X, _ = in_cohort(ward, sepsis)
    (answer,) = ask({"records": [as_sent(ward, row) for row in range(30)]})
    with writing(ledger) as connection:
        for said in answer["predictions"]:
            outcomes.record(connection, outcomes.Outcome(said["id"], None, None, 1, ASKED + timedelta(days=900)))
    found = confirmed.confirmed(ledger, "sepsis", confirmed.newest_outcome(ledger))

    every = dict.fromkeys(found.bundles, frozenset(ward.spec.events))
    records, places, refused = candidate._records(ward.spec, found, every)

    assert not any(refused.values()) and [position for _, position in places] == list(range(30))
    assert build.build(ward.plan, records.values, records.at).tobytes() == X[:30].tobytes()

    earlier = dict.fromkeys(found.bundles, frozenset(ward.spec.events) - {"fall"})
    records, _, refused = candidate._records(ward.spec, found, earlier)
    assert (len(records), refused["of a contract with fewer events"]) == (0, 30), "no fall on record is not none at all"


def test_a_purge_takes_the_events_along(ask, ward, ledger):
    (answer,) = ask({"records": [as_sent(ward, 3)]})
    purge(ledger, datetime.now(UTC) + timedelta(days=1), "nurse.joy")
    assert find(ledger, answer["predictions"][0]["id"]).record is None


def test_the_self_test_has_events_and_holds(sepsis):
    cases = [case["record"] for case in sepsis.bundle.selftest["cases"]]
    assert sum(bool(case.get("events")) for case in cases) > len(cases) / 2
    assert any("events" not in case for case in cases)


def test_the_schema_tells_the_codes_and_its_examples_are_answered(ask, ward):
    schema = schemas.record_schema(ward.spec)
    assert "lactate_max_24h" not in schema["properties"]
    assert "2524-7: in mmol/L, LOINC 2524-7" in schema["properties"]["events"]["description"]
    assert any(example.get("events") for example in schema["examples"])
    (answer,) = ask({"records": schema["examples"]})
    assert all("risk" in said for said in answer["predictions"])


def test_a_table_of_events_is_scored_as_the_cohort_is(ward, sepsis, home, tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "champion", lambda name, settings: (sepsis, 1))
    _, risk = in_cohort(ward, sepsis)
    rows = []
    for row in range(20):
        record = as_sent(ward, row)
        events = [
            {**event, "time": pd.Timestamp(event["time"]), "value": None if event["code"] == "fall" else event["value"]}
            for event in record["events"]
        ]
        rows.append({"age_years": record["age_years"], "at": pd.Timestamp(record["at"]), "events": events})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "ward.parquet")
    text = [{**as_sent(ward, row), "events": json.dumps(as_sent(ward, row)["events"])} for row in range(20)]
    pd.DataFrame(text).to_csv(tmp_path / "ward.csv", index=False)
    (tmp_path / "ward.json").write_text(json.dumps([as_sent(ward, row) for row in range(20)]))

    for source in ("ward.parquet", "ward.csv"):
        assert scoring.score("sepsis", tmp_path / source, tmp_path / "out.csv", home) == (20, 0)
        assert pd.read_csv(tmp_path / "out.csv", float_precision="round_trip").risk.tolist() == risk[:20].tolist()
    told = scoring.predict("sepsis", tmp_path / "ward.json", home)["predictions"]
    assert [said["risk"] for said in told] == risk[:20].tolist()
    assert any("at or after the time of prediction" in said.get("ignored", {}) for said in told)


def test_a_unit_slip_of_what_is_taken_of_events_is_probed_in_their_units(ward, sepsis):
    found = cohort.prepare(ward.spec, ward.plan, ward.records, {})
    slips = {change.name for change in probes.unit_slip(sepsis, found)}
    assert any(name.startswith("2160-0 (") for name in slips)
    assert not any(name.startswith(("falls", "creatinine_since", "lactate_slope")) for name in slips)
    assert np.isfinite(probes.noise(sepsis, found).change)


@pytest.mark.parametrize("n", [1, 2, 7, 16])
def test_invented_records_with_events_keep_the_contract_in_any_batch(sepsis, n):
    spec = sepsis.spec
    records = [*edges(spec.columns, spec.events), *draw(spec.columns, 40, 3, spec.events)]
    whole = sepsis.contract.check(records, ASKED)
    assert not whole.errors and whole.ignored == [{}] * len(records)
    parts = [sepsis.contract.check(records[start : start + n], ASKED).values for start in range(0, len(records), n)]
    assert np.concatenate(parts).tobytes() == whole.values.tobytes()


def test_what_the_ledger_keeps_of_signals_is_the_same_in_pieces_in_parts_and_at_once(reader, recording):
    sent = [{"age_years": 61, "sex": "female", "ecg": recording(seed)} for seed in range(5)]
    sent[1]["ecg"] = None
    whole = Scorer(reader).alone(sent, ASKED)
    kept, digests = kept_features(reader.plan, whole.features)
    assert whole.kept.shape == (5, len(reader.plan.names)) and whole.features.shape[1] > 5 * whole.kept.shape[1]

    joined = Scored.join([Scorer(reader).alone(sent[:2], ASKED), Scorer(reader).alone(sent[2:], ASKED)])
    parts = [whole.part(0, 3), whole.part(3, 5)]

    for found in (whole, joined, Scored.join(parts)):
        assert (found.kept.tobytes(), found.digests) == (kept.tobytes(), digests)
    assert [len(part.digests) for part in parts] == [3 * 32, 2 * 32]
