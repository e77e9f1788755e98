"""Great Expectations' judgement of a table: every breach is found and counted, and no patient's value comes out."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest

from configs.settings import settings
from configs.spec import Column, Detection, Spec, from_document
from pipelines.expectations import Judgement, judge, suite

settings()  # switches the phone-home of Great Expectations off before it is imported

MARKER = "MARKER-7731"

EXISTS = "expect_column_to_exist"
IS_NUMBER = "expect_column_values_to_be_in_type_list"
IN_RANGE = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
REQUIRED = "expect_column_values_to_not_be_null"
ROWS = "expect_table_row_count_to_be_between"

SPEC = cast(
    Spec,
    SimpleNamespace(
        fields={
            "age_years": Column(type="number", unit="a", range=(18, 120), required=True),
            "sex": Column(type="category", map={"Male": "male", "Female": "female"}, required=True),
            "chest_pain": Column(type="category", values=("typical", "none")),
            "smoker": Column(type="boolean"),
        }
    ),
)


def table(**changed: list[Any]) -> pd.DataFrame:
    clean = {
        "age_years": [18.0, 63.5, 120.0, 44.0],
        "sex": ["male", "female", "female", "male"],
        "chest_pain": ["typical", None, "none", "none"],
        "smoker": pd.Series([True, False, None, True], dtype=object),
    }
    return pd.DataFrame({**clean, **changed})


def failed(judgements: list[Judgement]) -> list[tuple[str, str | None, int, int]]:
    return [(j.expectation, j.column, j.unexpected, j.of) for j in judgements if not j.success]


def test_a_clean_table_passes_everything_that_is_expected():
    judgements = judge(SPEC, table())
    assert failed(judgements) == []
    assert [(j.expectation, j.column) for j in judgements] == [
        (e["type"], e["kwargs"].get("column")) for e in suite(SPEC)
    ]
    assert all(j.unexpected == 0 for j in judgements)


@pytest.mark.parametrize(
    ("changed", "breaches"),
    [
        ({"age_years": [17.9, 63.5, 120.1, 44.0]}, [(IN_RANGE, "age_years", 2, 4)]),
        ({"age_years": [float("inf"), 63.5, 50.0, 44.0]}, [(IN_RANGE, "age_years", 1, 4)]),
        ({"age_years": [63.5, None, 50.0, float("nan")]}, [(REQUIRED, "age_years", 2, 4)]),
        ({"age_years": ["old", 63.5, 50, 44.0]}, [(IS_NUMBER, "age_years", 1, 4)]),
        ({"age_years": [True, 63.5, 50.0, 44.0]}, [(IS_NUMBER, "age_years", 1, 4)]),
        ({"age_years": ["old", 63.5, 500.0, None]}, [
            (IS_NUMBER, "age_years", 1, 3),
            (IN_RANGE, "age_years", 1, 3),
            (REQUIRED, "age_years", 1, 4),
        ]),
        ({"sex": ["male", "Male", "F", None]}, [(IN_SET, "sex", 2, 3), (REQUIRED, "sex", 1, 4)]),
        ({"chest_pain": [None, None, 3.0, "none"]}, [(IN_SET, "chest_pain", 1, 2)]),
        ({"chest_pain": [["typical"], "none", "none", "none"]}, [(IN_SET, "chest_pain", 1, 4)]),
        ({"smoker": [True, "yes", None, 2]}, [(IN_SET, "smoker", 2, 3)]),
    ],
)  # fmt: skip
def test_every_kind_of_breach_is_found_with_its_count(changed, breaches):
    assert failed(judge(SPEC, table(**changed))) == breaches


@pytest.mark.parametrize("ages", [[18, 63, 120, 44], pd.Series([18, None, 120, 44], dtype="Int64")])
def test_whole_numbers_are_numbers(ages):
    assert (IS_NUMBER, "age_years") not in [
        (name, column) for name, column, _, _ in failed(judge(SPEC, table(age_years=ages)))
    ]


def test_a_value_beyond_detection_is_the_number_that_it_counts_as():
    rule = {"below_detection": Detection(limit=30, counts_as=21), "above_detection": Detection(limit=90, counts_as=90)}
    detects = Column(type="number", unit="a", range=(18, 120), **rule)
    spec = cast(Spec, SimpleNamespace(fields={"age_years": detects}))

    assert failed(judge(spec, pd.DataFrame({"age_years": ["<30", ">90", 44.0, None]}))) == []
    assert failed(judge(spec, pd.DataFrame({"age_years": ["<31", 44.0, 50, "<"]}))) == [(IS_NUMBER, "age_years", 2, 4)]
    assert failed(judge(SPEC, table(age_years=["<30", 44.0, 50, 60]))) == [(IS_NUMBER, "age_years", 1, 4)]


def test_no_value_of_a_patient_is_in_a_judgement_a_log_or_the_output(caplog, capfd):
    bad = table(age_years=[MARKER, 63.5, 50.0, 44.0], sex=[MARKER] * 4, smoker=[MARKER, True, None, [MARKER]])
    with caplog.at_level("INFO"):
        judgements = judge(SPEC, bad)
    assert {j.column for j in judgements if not j.success} == {"age_years", "sex", "smoker"}
    said = json.dumps([dataclasses.asdict(j) for j in judgements]) + caplog.text + "".join(capfd.readouterr())
    assert MARKER not in said


def test_judging_prints_nothing(capfd):
    judge(SPEC, table())
    assert capfd.readouterr() == ("", "")


def test_an_empty_table_is_a_failed_judgement_of_the_table_alone():
    assert failed(judge(SPEC, table().iloc[:0])) == [(ROWS, None, 1, 1)]
    assert failed(judge(SPEC, pd.DataFrame({name: [] for name in SPEC.fields}))) == [(ROWS, None, 1, 1)]


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_column_of_missing_values_fails_only_where_it_is_required(missing):
    blank = table(**{name: [missing] * 4 for name in SPEC.fields})
    assert failed(judge(SPEC, blank)) == [(REQUIRED, "age_years", 4, 4), (REQUIRED, "sex", 4, 4)]


def test_a_column_that_is_not_there_fails_and_nothing_else_is_asked_of_it():
    judgements = judge(SPEC, table().drop(columns=["sex", "smoker"]))
    assert failed(judgements) == [(EXISTS, "sex", 1, 1), (EXISTS, "smoker", 1, 1)]
    assert [j.expectation for j in judgements if j.column in ("sex", "smoker")] == [EXISTS, EXISTS]


def test_the_table_is_left_as_it_was():
    given = table(age_years=["old", 63, 50, None])
    before = given.copy(deep=True)
    judge(SPEC, given)
    pd.testing.assert_frame_equal(given, before)


def test_the_suite_is_plain_json_and_says_what_the_contract_says():
    said = json.loads(json.dumps(suite(SPEC)))
    assert {"type": IN_RANGE, "kwargs": {"column": "age_years", "min_value": 18, "max_value": 120}} in said
    assert {"type": IN_SET, "kwargs": {"column": "sex", "value_set": ["male", "female"]}} in said
    assert {"type": REQUIRED, "kwargs": {"column": "chest_pain"}} not in said


def test_of_an_array_only_its_presence_is_expected(toy_document):
    column = {"type": "array", "length": 2, "unit": "1", "range": [0, 1], "required": True}
    spec = from_document({**toy_document, "columns": {**toy_document["columns"], "bins": column}}, "toy.yaml")

    asked = [each["type"] for each in suite(spec) if each["kwargs"].get("column") == "bins"]

    assert asked == ["expect_column_to_exist", "expect_column_values_to_not_be_null"]
