"""Records and events are taken over together, or not at all; what is left out is named."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from configs.errors import ContractError
from configs.settings import Settings
from configs.spec import load_spec
from features import records
from pipelines.ingest import check_source, ingest

LONG = {"patient": "id", "time": "day", "code": "test", "value": "value", "unit": "unit"}


@pytest.fixture
def clinic(tmp_path, toy_document, toy_table):
    """`clinic(rows, **keys)`: a machine whose toy patients, asked on day 100, have these events: (id, day, test, value,
    unit)."""
    table = pd.DataFrame(toy_table(60, 1))
    settings = Settings(home=tmp_path / "home", configs=tmp_path / "configs", data=tmp_path / "data")
    (tmp_path / "configs" / "diseases").mkdir(parents=True)
    table.to_csv(tmp_path / "toy.csv", index=False)

    def lay(rows, **changed):
        frame = pd.DataFrame(rows, columns=pd.Index(["id", "day", "test", "value", "unit"]))
        frame.to_csv(tmp_path / "lab.csv", index=False)
        document = {
            **toy_document,
            "source": {
                "csv": str(tmp_path / "toy.csv"),
                "events": [{"csv": str(tmp_path / "lab.csv"), **LONG}],
            },
            "day_zero": "2020-03-01",
            "landmark_day": 100,
            "events": {"lactate": {"type": "number", "unit": "mmol/L", "range": [0, 30]}},
            "refused_events_at_most": 0.25,
            "columns": {
                **toy_document["columns"],
                "lactate_max": {"event": "lactate", "window": "7d", "reduce": "max", "unit": "mmol/L"},
            },
        }
        text = yaml.safe_dump(document | changed, sort_keys=False)
        (tmp_path / "configs" / "diseases" / "toy.yaml").write_text(text)
        return settings

    return lay


GOOD = [
    ("P0001", 99, "lactate", 2.5, "mmol/L"),
    ("P0002", 95, "lactate", 4.0, "mmol/L"),
    ("P0002", 101, "lactate", 9.0, "mmol/L"),
]
ODD = [("P0003", 99, "lactate", 44.0, "mmol/L"), ("P0003", 98, "lactate", 2.0, None)]


def files(settings):
    return {path.name: path.read_bytes() for path in sorted((settings.data / "records").iterdir())}


def test_events_are_kept_beside_the_records_and_what_is_left_out_is_counted(clinic):
    settings = clinic([*GOOD, ODD[0], ("P0004", 99, "sodium", 140.0, "mmol/L")])

    done = ingest("toy", settings)

    kept, _ = records.load(load_spec("toy", settings.configs), done.path)
    assert str(kept.values["lactate_max"][:4].tolist()) == "[2.5, 4.0, nan, nan]"
    events = pq.read_table(settings.data / "records" / "toy.events.parquet").to_pylist()
    assert [(event["patient"], event["value"]) for event in events] == [("P0001", 2.5), ("P0002", 4), ("P0002", 9)]
    assert json.loads((settings.data / "records" / "toy.events.json").read_text()) == {
        "read": 4,
        "not_read": 1,
        "kept": 3,
        "reasons": {"lactate": {"out of range": 1, "at or after the time of prediction": 1}},
    }


def test_too_many_broken_events_stop_the_ingest_and_the_earlier_one_stays_as_it_was(clinic):
    settings = clinic(GOOD)
    ingest("toy", settings)
    before = files(settings)
    clinic([*GOOD, *ODD])

    with pytest.raises(ContractError) as refused:
        ingest("toy", settings)

    assert str(refused.value) == (
        "toy: 2 of 5 events break the contract, at most 25.0% may: lactate: 1 with 'out of range', first in long table "
        "1, row 4; lactate: 1 with 'no unit', first in long table 1, row 5. Correct the source, or the contract "
        "(`events`: `unit`, `accepts`, `range`, `missing_if`), or write a larger `refused_events_at_most`. Nothing was "
        "changed."
    )
    assert files(settings) == before


def test_a_code_that_the_source_never_holds_stops_the_ingest_by_name(clinic, toy_document):
    events = {
        "lactate": {"type": "number", "unit": "mmol/L", "range": [0, 30]},
        "fall": {"from": "fell", "type": "boolean"},
    }
    columns = {
        **toy_document["columns"],
        "lactate_max": {"event": "lactate", "window": "7d", "reduce": "max", "unit": "mmol/L"},
        "falls": {"event": "fall", "reduce": "count", "unit": "1"},
    }
    settings = clinic([*GOOD, ("P0004", 99, "fall", None, None)], events=events, columns=columns)

    with pytest.raises(ContractError, match="no event of 'fall' that keeps the contract is in the source"):
        ingest("toy", settings)

    assert not (settings.data / "records" / "toy.parquet").exists()
    clinic([*GOOD, ("P0004", 99, "fell", None, None)], events=events, columns=columns)
    assert ingest("toy", settings).histories.reasons == {"lactate": {"at or after the time of prediction": 1}}


def test_a_disk_that_does_not_take_the_records_keeps_the_earlier_events_too(clinic, monkeypatch):
    settings = clinic(GOOD)
    ingest("toy", settings)
    before = files(settings)
    clinic(GOOD[:2])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records, "save", full)
    with pytest.raises(ContractError, match="No space left on device"):
        ingest("toy", settings)

    assert files(settings) == before


def test_another_horizon_window_or_day_of_prediction_makes_other_records(clinic):
    settings = clinic(GOOD)
    path = ingest("toy", settings).path
    spec = load_spec("toy", settings.configs)

    for changed in (
        {"landmark_day": 50},
        {"events": {"lactate": {**spec.document["events"]["lactate"], "range": [0, 9]}}},
    ):
        clinic(GOOD, **changed)
        with pytest.raises(ContractError, match="written under another contract"):
            records.load(load_spec("toy", settings.configs), path)


def test_the_same_source_is_read_alike_twice(clinic):
    settings = clinic([*GOOD, *GOOD])
    spec = load_spec("toy", settings.configs)

    one, two = check_source(spec, settings), check_source(spec, settings)

    assert one.histories is not None and two.histories is not None
    assert (
        one.histories.reasons
        == two.histories.reasons
        == {"lactate": {"twice": 3, "at or after the time of prediction": 1}}
    )
    assert one.records.values["lactate_max"].tobytes() == two.records.values["lactate_max"].tobytes()
