"""The schema of a record: what it allows, the contract takes, an array as well as a number."""

import jsonschema
import pytest

from configs.settings import ROOT
from configs.spec import load_spec
from serving.schemas import record_schema

SCHEMA = record_schema(load_spec("cancer_origin_simulated", ROOT / "configs"))


def test_the_examples_of_a_contract_with_arrays_keep_its_schema():
    for record in SCHEMA["examples"]:
        jsonschema.validate(record, SCHEMA)


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ([0.5] * 90, True),
        ({"value": [0.5] * 90, "unit": "1"}, True),
        (None, True),
        ([0.5] * 89, False),
        ([0.5] * 91, False),
        ([0.5] * 89 + [1.5], False),
        ([0.5] * 89 + ["0.5"], False),
        (0.5, False),
    ],
)
def test_an_array_is_so_many_numbers_within_the_range(value, allowed):
    record = {**SCHEMA["examples"][0], "methylation_betas": value}

    assert jsonschema.Draft202012Validator(SCHEMA).is_valid(record) == allowed
