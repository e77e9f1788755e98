"""A patient's events over a real server: the risk that the cohort has of the same events, to the bit."""

import csv
import random
from datetime import UTC, datetime

import pytest

from configs.spec import load_spec
from features import cohort, histories
from ledger.database import connect
from ledger.promotions import find_champion
from models.bundle import get
from models.predict import Predictor
from pipelines.ingest import check_source

DAYS = 40


@pytest.fixture
def followed(once, champion_of, tmp_path_factory, toy_document, toy_table):
    """A machine whose champion reads lactate and falls from a long table, in days and in two units."""
    base = tmp_path_factory.mktemp("followed")
    table, dice = toy_table(400), random.Random(7)
    table["asked"] = [dice.randint(0, DAYS) for _ in table["id"]]
    with open(base / "events.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "day", "test", "value", "unit"])
        for patient in table["id"]:
            for _ in range(dice.randint(0, 9)):
                amount, day = dice.uniform(0.5, 12), dice.randint(-30, DAYS + 5)
                rows.writerow([patient, day, "LACT", amount * 1000, "umol/L"] if amount > 6 else
                              [patient, day, "LACT", amount, "mmol/L"])  # fmt: skip
            rows.writerows([[patient, dice.randint(-30, DAYS), "fall", True, ""]] * dice.randint(0, 2))
    long = {"csv": str(base / "events.csv"), "patient": "id", "time": "day", "code": "test", "value": "value"}
    lactate = {"from": "LACT", "type": "number", "unit": "mmol/L", "accepts": ["umol/L"], "range": [0, 30]}
    made = {
        f"lactate_{how}": {"event": "lactate", "window": "30d", "reduce": how, "unit": "mmol/L"}
        for how in ("last", "max", "mean")
    }
    made |= {
        "lactate_slope": {"event": "lactate", "reduce": "slope", "unit": "mmol/L/d"},
        "lactate_since": {"event": "lactate", "reduce": "time_since", "unit": "d"},
        "falls": {"event": "fall", "reduce": "count", "unit": "1"},
    }
    document = {
        **toy_document,
        "at": "asked",
        "day_zero": "2020-03-01",
        "candidates": ["boosted"],
        "source": {"events": [{**long, "unit": "unit"}]},
        "events": {"lactate": lactate, "fall": {"type": "boolean"}},
        "refused_events_at_most": 0,
        "columns": {**toy_document["columns"], **made},
        "features": [*toy_document["features"], *made],
    }
    return once("followed", lambda _: champion_of(base, document, table))


def test_a_patients_events_give_the_cohorts_risk_to_the_bit(followed, serve):
    spec = load_spec("toy", followed.configs)
    read = check_source(spec, followed)
    engine = connect(followed)
    champion = find_champion(engine, "toy")
    engine.dispose()
    predictor = Predictor(get(champion.bundle, followed))
    learned = cohort.load(followed.data / "cohorts" / "toy.parquet")
    risk_of = dict(zip(learned.patient.tolist(), predictor.risk(learned.X).tolist(), strict=True))
    records = []
    for row, patient in enumerate(read.records.patient[:60].tolist()):
        told = {name: cells[row] for name, cells in read.cells.items() if cells[row] is not None}
        at = datetime.fromtimestamp(read.records.at[row], UTC).isoformat()
        records.append(told | {"at": at, "patient": patient, "events": histories.sent(spec, read.histories, patient)})

    with serve(followed, "toy").client() as client:
        answer = client.post("/v1/models/toy/predict", json={"records": records}, headers={"X-Deadline-Ms": "60000"})

    assert answer.status_code == 200, answer.text
    said = answer.json()["predictions"]
    assert [one["risk"] for one in said] == [risk_of[record["patient"]] for record in records]
    later = [one["ignored"]["at or after the time of prediction"] for one in said if one.get("ignored")]
    assert later, "some of what was sent lies after the prediction, and is told"
    assert len({one["risk"] for one in said}) > 50
