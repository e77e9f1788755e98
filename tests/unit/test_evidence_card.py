"""The card names every input with its unit and codes, and how much of it the assay could not tell."""

import json

import jsonschema
import pytest

from configs.spec import from_document
from evidence.card import card, inputs
from serving.schemas import openapi


@pytest.fixture
def columns(toy_document):
    columns = toy_document["columns"]
    columns["max_heart_rate_bpm"] |= {
        "loinc": "8867-4",
        "below_detection": {"limit": 60, "counts_as": 42},
        "above_detection": {"limit": 240, "counts_as": 240},
    }
    columns["smoker"] |= {"snomed": "77176002"}
    return columns


def test_each_input_has_its_unit_and_codes(invented_bundle, columns):
    told = {one.pop("name"): one for one in inputs(invented_bundle(columns=columns))}

    assert list(told) == list(columns)
    assert (told["cholesterol_mg_dl"]["unit"], told["cholesterol_mg_dl"]["loinc"]) == ("mg/dL", "2093-3")
    assert told["smoker"] == {
        "type": "boolean",
        "unit": None,
        "loinc": None,
        "snomed": "77176002",
        **dict.fromkeys(("below_detection", "above_detection")),
    }


def test_what_the_assay_could_not_tell_is_counted(invented_bundle, columns):
    counts = {"beyond_detection": {"max_heart_rate_bpm": {"below": 12, "above": 0}}}
    told = {one["name"]: one for one in inputs(invented_bundle(training=counts, columns=columns))}

    assert (told["max_heart_rate_bpm"]["below_detection"], told["max_heart_rate_bpm"]["above_detection"]) == (12, 0)
    assert told["cholesterol_mg_dl"]["below_detection"] is None


def test_a_reduction_of_events_has_its_events_codes(invented_bundle, toy_document):
    place = {"csv": "labs.csv", "patient": "id", "time": "at", "code": "code", "value": "value", "unit": "unit"}
    bundle = invented_bundle(
        source={"csv": "toy.csv", "events": [place]},
        at="seen_at",
        refused_events_at_most=0,
        events={"2524-7": {"type": "number", "unit": "mmol/L", "range": [0, 30], "loinc": "2524-7"}},
        columns=toy_document["columns"]
        | {"lactate": {"event": "2524-7", "window": "24h", "reduce": "max", "unit": "mmol/L"}},
    )

    (told,) = [one for one in inputs(bundle) if one["name"] == "lactate"]
    assert (told["unit"], told["loinc"]) == ("mmol/L", "2524-7")


def test_the_card_is_what_the_server_promises(invented_bundle, full_report, columns, toy_document):
    known = openapi({"toy": from_document(toy_document, "toy.yaml")})
    schema = {"$ref": "#/components/schemas/card", "components": known["components"]}

    for bundle in (invented_bundle(), invented_bundle(columns=columns)):
        jsonschema.validate(
            json.loads(json.dumps(card(bundle, 3, full_report))), schema, jsonschema.Draft202012Validator
        )
