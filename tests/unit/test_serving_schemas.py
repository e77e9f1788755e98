"""What a client may send by the schema is what the contract takes."""

import jsonschema
import pytest

from configs.spec import from_document
from features.columns import check_record
from serving.schemas import contract, record_schema

RULES = {"below_detection": {"limit": 60.5, "counts_as": 43}, "above_detection": {"limit": 240, "counts_as": 240}}


@pytest.fixture
def spec(toy_document):
    toy_document["columns"]["max_heart_rate_bpm"] |= RULES
    return from_document(toy_document, "toy.yaml")


def allowed(spec, value):
    record = {**record_schema(spec)["examples"][0], "max_heart_rate_bpm": value}
    found = jsonschema.Draft202012Validator(record_schema(spec)).is_valid(record)
    if found:
        check_record(spec.columns, record)  # what the schema allows, the contract takes
    return found


@pytest.mark.parametrize("value", ["<60.5", ">240", 50, 249.5, None, {"value": "<60.5", "unit": "/min"}])
def test_a_value_beyond_detection_may_be_sent_as_the_laboratory_writes_it(spec, value):
    assert allowed(spec, value)


@pytest.mark.parametrize("value", ["<60", ">24", "60.5", "below", "<", {"value": ">60.5", "unit": "/min"}])
def test_another_text_may_not(spec, value):
    assert not allowed(spec, value)


def test_without_limits_no_text_may_be_sent(toy_document):
    assert not allowed(from_document(toy_document, "toy.yaml"), "<60.5")


def test_a_client_reads_the_limits_in_the_contract(spec):
    assert contract(spec.columns)["max_heart_rate_bpm"]["below_detection"] == RULES["below_detection"]
