"""The schema of a record: what it allows, the contract takes, an array as well as a number."""

import base64
import json
import math
from datetime import UTC, datetime

import jsonschema
import numpy as np
import pytest
import schemathesis

from configs.errors import RecordError
from configs.settings import ROOT
from configs.spec import from_document, load_spec
from features.columns import check_value
from features.contract import Contract
from serving.bodies import ARROW
from serving.schemas import contract as contract_of
from serving.schemas import openapi, record_schema
from serving.signals import HEADERS, KINDS, NPY, RAW

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


# --- signals


@pytest.fixture
def spec(recordings_document):
    columns = {**recordings_document["columns"], "note": {"type": "text", "length": 40}}
    return from_document({**recordings_document, "columns": columns}, "toy.yaml")


PACKED = base64.b64encode(bytes(400)).decode()


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("ecg", [[0.5] * 50] * 2, True),
        ("ecg", PACKED, True),
        ("ecg", {"value": PACKED, "unit": "uV", "sampling_hz": 500}, True),
        ("ecg", {"value": [[0.5] * 250] * 2, "sampling_hz": 500}, True),
        ("ecg", None, True),
        ("ecg", [[0.5] * 50], False),
        ("ecg", [[0.5] * 49] * 2, False),
        ("ecg", [0.5] * 100, False),
        ("ecg", {"value": PACKED, "unit": "stone"}, False),
        ("ecg", {"value": PACKED, "sampling_hz": 0}, False),
        ("ecg", {"unit": "uV"}, False),
        ("ecg", {"png": "iVBO"}, False),
        ("scan", [[[0.5] * 8] * 8], True),
        ("scan", [[0.5] * 8] * 8, True),
        ("scan", {"png": "iVBO"}, True),
        ("scan", {"dicom": "iVBO"}, True),
        ("scan", {"npz": "iVBO"}, True),
        ("scan", {"jpeg": "iVBO"}, False),
        ("scan", {"png": "iVBO", "dicom": "iVBO"}, False),
        ("scan", [[0.5] * 8] * 7, False),
        ("note", "pain in the left knee", True),
        ("note", "", False),
        ("note", "x" * 41, False),
        ("note", 61, False),
    ],
)
def test_a_signal_is_of_its_contracts_shape_in_any_of_its_ways(field, value, allowed, spec):
    schema = record_schema(spec)
    record = {**schema["examples"][0], field: value}

    assert jsonschema.Draft202012Validator(schema).is_valid(record) == allowed


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 8, 8), (8, 8, 1), (8, 8), (3, 8, 8), (8, 8, 3)])
def test_the_lists_of_a_picture_are_of_the_shapes_that_its_judge_reads(channels, shape, spec):
    scan = spec.columns["scan"].model_copy(update={"channels": channels})
    schema = record_schema(spec.model_copy(update={"columns": {**spec.columns, "scan": scan}}))
    pixels = np.linspace(0, 1, math.prod(shape)).reshape(shape).tolist()
    try:
        check_value("scan", scan, pixels)
        read = True
    except RecordError:
        read = False

    record = {**schema["examples"][0], "scan": pixels}
    assert jsonschema.Draft202012Validator(schema).is_valid(record) == read
    assert read == (channels in shape or (channels == 1 and len(shape) == 2))


def test_the_examples_of_a_contract_with_signals_are_valid_small_and_accepted(spec):
    schema = record_schema(spec)
    contract = Contract(spec.columns)

    assert len(schema["examples"]) == 3
    assert any(isinstance(example.get("ecg"), str) for example in schema["examples"])
    for example in schema["examples"]:
        jsonschema.validate(example, schema)
    assert not contract.check(schema["examples"], datetime.now(UTC)).errors
    assert len(json.dumps(schema["examples"])) < 3 * (4 * 4 * (100 + 64) / 3 + 500)  # base64, and no list of numbers


def test_a_signals_own_bodies_and_headers_are_described_where_a_model_reads_one(spec):
    document = openapi({"toy": spec})
    operation = document["paths"]["/v1/models/{name}/predict"]["post"]
    told = {parameter["name"] for parameter in operation["parameters"]}

    assert set(operation["requestBody"]["content"]) == {"application/json", ARROW, *KINDS}
    assert set(HEADERS) <= told
    schemathesis.openapi.from_dict(document).validate()

    without = openapi({"cancer": load_spec("cancer_origin_simulated", ROOT / "configs")})
    plain = without["paths"]["/v1/models/{name}/predict"]["post"]
    assert set(plain["requestBody"]["content"]) == {"application/json", ARROW}
    assert not set(HEADERS) & {parameter["name"] for parameter in plain["parameters"]}


def test_a_waveform_alone_is_sent_by_itself_but_in_no_pictures_file(spec):
    only = spec.model_copy(update={"columns": {k: c for k, c in spec.columns.items() if k != "scan"}})
    content = openapi({"toy": only})["paths"]["/v1/models/{name}/predict"]["post"]["requestBody"]["content"]
    assert set(content) & set(KINDS) == {NPY, RAW}


def test_a_column_is_described_without_the_folder_that_its_files_lie_in(spec):
    ecg = spec.columns["ecg"].model_copy(update={"folder": "data/raw/recordings"})
    told = contract_of({"ecg": ecg, "scan": spec.columns["scan"]})

    assert "data/raw" not in json.dumps(told)
    assert (told["ecg"]["leads"], told["ecg"]["sampling_hz"], told["scan"]["height"]) == (["I", "V1"], 100, 8)
    schema = {"components": openapi({})["components"], "$ref": "#/components/schemas/column"}
    for column in told.values():
        jsonschema.validate(column, schema)
