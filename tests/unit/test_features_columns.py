"""The contract, applied: a float, a missing value, or a refusal that names the field and never repeats a text."""

import json
import math
import struct
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from configs.errors import ContractError, RecordError
from configs.settings import ROOT
from configs.spec import Column, from_document, load_spec
from features.columns import (
    MOST_EVENTS,
    as_arrays,
    check_record,
    check_table,
    check_value,
    is_missing,
    side,
    translate,
    translate_table,
)
from features.events import Reducer

CHOLESTEROL = Column.model_validate(
    {"type": "number", "unit": "mg/dL", "accepts": ["mmol/L"], "range": [80, 700], "missing_if": [0], "loinc": "2093-3"}
)
CHANGE = Column(type="number", unit="mm", range=(-5, 10))
AGE = Column(type="number", unit="a", range=(18, 120), required=True)
PAIN = Column(type="category", map={"none": "none", "on exertion": "exertion", 3: "rest"}, missing_if=("?",))
SMOKER = Column(type="boolean", missing_if=(-9,))
CA125 = Column.model_validate(
    {
        "type": "number",
        "unit": "k[iU]/L",
        "accepts": ["[iU]/L"],
        "range": [0, 6000],
        "missing_if": [-9],
        "below_detection": {"limit": 0.6, "counts_as": 0.42},
        "above_detection": {"limit": 5000, "counts_as": 5000},
    }
)
COLUMNS = {"cholesterol": CHOLESTEROL, "change": CHANGE, "age": AGE, "pain": PAIN, "smoker": SMOKER, "ca125": CA125}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
quantities = st.fixed_dictionaries({"value": json_values, "unit": st.sampled_from(["mg/dL", "mmol/L"]) | json_values})
ENORMOUS = 10**4400  # an integer that Python refuses to write out


def same_bits(one, other):
    return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))


def refusal(column, value):
    with pytest.raises(RecordError) as refused:
        check_value("field", column, value)
    assert refused.value.field == "field"
    assert str(refused.value).startswith("field: ")
    return refused.value.code, str(refused.value)


@pytest.fixture
def toy(toy_document):
    return from_document(toy_document, "toy.yaml")


@pytest.fixture
def checked(toy):
    """Check a source's table by the toy contract."""
    return lambda table: check_table(toy, table, translate_table(toy, table))


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        (CHOLESTEROL, 200, 200.0),
        (CHOLESTEROL, 80, 80.0),
        (CHOLESTEROL, 700.0, 700.0),
        (CHOLESTEROL, {"value": 200, "unit": "mg/dL"}, 200.0),
        (CHOLESTEROL, {"value": 200, "unit": None}, 200.0),
        (PAIN, "none", 0.0),
        (PAIN, "rest", 2.0),
        (SMOKER, False, 0.0),
        (SMOKER, {"value": True, "unit": None}, 1.0),
    ],
)
def test_an_allowed_value_becomes_its_float(column, value, expected):
    assert check_value("field", column, value) == expected


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (CHOLESTEROL, None),
        (CHOLESTEROL, 0),
        (CHOLESTEROL, 0.0),
        (CHOLESTEROL, {"value": None, "unit": "mmol/L"}),
        (CHOLESTEROL, {"value": 0, "unit": "mmol/L"}),
        (PAIN, "?"),
        (SMOKER, -9),
    ],
)
def test_missing_is_not_zero(column, value):
    assert math.isnan(check_value("field", column, value))


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        (CHOLESTEROL, 79.999, "out_of_range"),
        (CHOLESTEROL, math.nan, "not_finite"),
        (CHOLESTEROL, {"value": 0, "unit": "banana"}, "unit"),
        (CHOLESTEROL, {"value": None, "unit": "banana"}, "unit"),
        (CHOLESTEROL, 5.2, "out_of_range"),  # a mmol/L value sent as mg/dL
        (CHOLESTEROL, {"value": 200, "unit": "mmol/L"}, "out_of_range"),
        (CHOLESTEROL, {"value": 5.2, "unit": "mol/L"}, "unit"),
        (CHOLESTEROL, {"value": 5.2, "unit": ["mmol/L"]}, "unit"),
        (CHOLESTEROL, {"value": 5.2}, "malformed"),
        (CHOLESTEROL, {"value": 5.2, "unit": "mmol/L", "time": 1}, "malformed"),
        (CHOLESTEROL, {"value": {"value": 200, "unit": "mg/dL"}, "unit": "mg/dL"}, "not_a_number"),
        (CHOLESTEROL, "200", "not_a_number"),
        (CHOLESTEROL, True, "not_a_number"),
        (CHOLESTEROL, False, "not_a_number"),  # although False == 0, which would be missing
        (CHOLESTEROL, [200], "not_a_number"),
        (CHOLESTEROL, math.inf, "not_finite"),
        (CHOLESTEROL, -math.inf, "not_finite"),
        pytest.param(CHOLESTEROL, ENORMOUS, "not_finite", id="CHOLESTEROL-enormous"),
        (AGE, None, "missing_field"),
        (PAIN, "on exertion", "unknown_category"),  # the source's word, not ours
        (PAIN, "None", "unknown_category"),
        (PAIN, 3, "unknown_category"),
        (PAIN, ["none"], "unknown_category"),
        pytest.param(PAIN, ENORMOUS, "unknown_category", id="PAIN-enormous"),
        (PAIN, {"value": "none", "unit": "mm"}, "unit"),
        (SMOKER, 1, "not_a_boolean"),
        (SMOKER, "true", "not_a_boolean"),
        pytest.param(SMOKER, ENORMOUS, "not_a_boolean", id="SMOKER-enormous"),
        (SMOKER, {"value": True, "unit": ""}, "unit"),
    ],
)
def test_what_the_contract_does_not_allow_is_refused_by_its_code(column, value, code):
    assert refusal(column, value)[0] == code


def test_a_refusal_says_the_number_its_unit_and_the_plausible_range():
    assert refusal(CHOLESTEROL, 5.2)[1] == "field: 5.2 mg/dL lies outside 80 to 700 mg/dL."
    assert refusal(CHOLESTEROL, {"value": 5.2, "unit": "furlong"})[1] == (
        "field: a text of 7 characters is not one of its units: mg/dL, mmol/L."
    )
    assert refusal(PAIN, "John Smith")[1] == "field: a text of 10 characters is not one of: none, exertion, rest."


@given(st.floats(min_value=80, max_value=700))
def test_mmol_and_mg_give_the_same_cholesterol(mg_dl):
    sent = {"value": mg_dl / 38.665, "unit": "mmol/L"}
    if not 80 <= sent["value"] * 38.665 <= 700:
        return  # rounding at the very edge

    assert check_value("field", CHOLESTEROL, sent) == pytest.approx(mg_dl, rel=1e-12)


@given(st.sampled_from(sorted(COLUMNS)), json_values | quantities)
@example("pain", ENORMOUS)
@example("cholesterol", {"value": ENORMOUS, "unit": "mmol/L"})
@example("cholesterol", {"value": 1e308, "unit": "mmol/L"})
@example("smoker", {"value": -ENORMOUS, "unit": None})
def test_any_json_at_all_is_a_float_or_a_refusal(name, value):
    try:
        found = check_value(name, COLUMNS[name], value)
    except RecordError as error:
        found = error

    if isinstance(found, RecordError):
        assert found.field == name
        assert found.code.isidentifier()
        assert len(str(found)) < 300
    else:
        assert type(found) is float
        assert not math.isinf(found)


@given(st.sampled_from(sorted(COLUMNS)), st.text(alphabet="ÄÖÜäöüß", min_size=3), st.booleans())
def test_a_text_is_never_repeated(name, text, as_unit):
    value = {"value": 200, "unit": text} if as_unit else text

    with pytest.raises(RecordError) as refused:
        check_value(name, COLUMNS[name], value)

    assert text not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(("<0.6", 0.42), (" < 0.60 ", 0.42), ("<6e-1", 0.42), (0, 0.42), (-0.0, 0.42), (0.5999, 0.42), (0.6, 0.6)),
        *((">5000", 5000.0), ("> 5000.0", 5000.0), (5000, 5000.0), (5000.5, 5000.0), (4999.9, 4999.9)),
        *(({"value": "<0.6", "unit": "k[iU]/L"}, 0.42), ({"value": "<600", "unit": "[iU]/L"}, 0.42)),
        *(({"value": 599, "unit": "[iU]/L"}, 0.42), ({"value": 700, "unit": "[iU]/L"}, 0.7)),
        ({"value": "<0.6", "unit": None}, 0.42),
    ],
)
def test_a_value_beyond_detection_counts_as_what_the_contract_says(value, expected):
    assert check_value("ca125", CA125, value) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        *(("<0.5", "detection_limit"), (">4000", "detection_limit"), ("<5000", "detection_limit")),
        ("<" + "9" * 400, "detection_limit"),
        ({"value": "<0.6", "unit": "[iU]/L"}, "detection_limit"),
        *(({"value": "<0.6", "unit": "ng/mL"}, "unit"), (-1, "out_of_range"), (6001, "out_of_range")),
        *(("0.6", "not_a_number"), ("<", "not_a_number"), ("<-0.6", "not_a_number"), ("≤0.6", "not_a_number")),
        *(("<0.6 U", "not_a_number"), ("<0,6", "not_a_number"), ("<٠.٦", "not_a_number")),
    ],
)
def test_what_is_beyond_another_limit_is_refused(value, code):
    assert refusal(CA125, value)[0] == code


def test_another_laboratorys_limit_is_named():
    assert refusal(CA125, "<0.5")[1] == (
        "field: <0.5 k[iU]/L, but the contract's limit is 0.6 k[iU]/L; is it from another laboratory's kit?"
    )


def test_without_a_limit_in_the_contract_none_is_believed():
    assert refusal(CHANGE, "<0.5") == (
        "not_a_number",
        "field: a limit of detection is not a number; the contract has no `below_detection`.",
    )
    assert "no `above_detection`" in refusal(CHANGE, ">9")[1]
    assert math.isnan(check_value("field", CHANGE.model_copy(update={"missing_if": ("<0.5",)}), "<0.5"))


@given(st.floats(0, 6000))
def test_a_number_counts_as_itself_or_as_the_side_that_it_is_on(number):
    found = check_value("ca125", CA125, number)

    assert found == {"below": 0.42, "above": 5000.0}.get(side(CA125, number), number)


def test_a_source_tells_how_many_of_its_values_are_beyond_detection(toy_document, toy_table):
    rule = {"below_detection": {"limit": 100, "counts_as": 90}, "above_detection": {"limit": 300, "counts_as": 300}}
    toy_document["columns"]["cholesterol_mg_dl"] |= rule
    toy_document["columns"]["max_heart_rate_bpm"] |= {"below_detection": {"limit": 50, "counts_as": 45}}
    table = toy_table(8, 3)
    table["chol"] = ["<100", 99, 100, ">300", 301.5, 0, None, "<90"]
    table["rate"] = [60, 70, 80, 90, 100, 110, 120, 49]
    spec = from_document(toy_document, "toy.yaml")

    found, refusals = check_table(spec, table, translate_table(spec, table))

    assert [(refusal.row, refusal.column, refusal.code) for refusal in refusals] == [
        (8, "cholesterol_mg_dl", "detection_limit")  # and so the heart rate of that row counts for nothing
    ]
    assert found.beyond == {"cholesterol_mg_dl": {"below": 2, "above": 2}, "max_heart_rate_bpm": {"below": 0}}
    assert found.values["cholesterol_mg_dl"][:5].tolist() == [90, 90, 100, 300, 300]
    assert np.isnan(found.values["cholesterol_mg_dl"][5:7]).all()


def test_zero_has_one_sign():
    """Minus zero equals zero, but its bits, and so a digest of the features, would not."""
    assert same_bits(check_value("field", CHANGE, -0.0), 0.0)
    assert same_bits(check_value("field", CHANGE, {"value": -0.0, "unit": "mm"}), 0.0)


def test_a_checked_record_has_every_column_and_what_the_caller_said():
    record = {
        "age": 61,
        "pain": "rest",
        "patient": "p",
        "reference": "r",
        "at": "2026-11-23T09:30:00+01:00",
        "events": [],
    }

    found = check_record(COLUMNS, record)

    assert list(found.values) == list(COLUMNS)
    assert (found.values["age"], found.values["pain"]) == (61.0, 2.0)
    assert all(math.isnan(found.values[name]) for name in ("cholesterol", "change", "smoker"))
    assert (found.patient, found.reference) == ("p", "r")
    assert found.at == datetime(2026, 11, 23, 8, 30, tzinfo=UTC)


def test_a_caller_who_says_nothing_of_himself_is_heard():
    found = check_record(COLUMNS, {"age": 61, "patient": None, "at": None})

    assert (found.patient, found.reference, found.at) == (None, None, None)


@pytest.mark.parametrize(
    ("record", "field", "code"),
    [
        (None, None, "malformed"),
        ([], None, "malformed"),
        ("age", None, "malformed"),
        pytest.param(ENORMOUS, None, "malformed", id="enormous"),
        ({}, "age", "missing_field"),
        ({"age": 61, "ages": 61}, "ages", "unknown_field"),
        ({"age": 61, "x" * 1000: 1}, "x" * 60, "unknown_field"),
        ({"age": 61, "events": [{}]}, "events", "unknown_field"),
        ({"age": 61, "patient": ""}, "patient", "malformed"),
        ({"age": 61, "patient": 7}, "patient", "malformed"),
        ({"age": 61, "patient": "p" * 201}, "patient", "malformed"),
        ({"age": 61, "patient": "\ud800"}, "patient", "malformed"),  # half a character: no database takes it
        ({"age": 61, "reference": "a\0b"}, "reference", "malformed"),
        ({"age": 61, "reference": ["r"]}, "reference", "malformed"),
        ({"age": 61, "at": "yesterday"}, "at", "malformed"),
        ({"age": 61, "at": "2026-11-23T09:30:00"}, "at", "malformed"),  # whose clock?
        ({"age": 61, "at": 1764000000}, "at", "malformed"),
        ({"age": 61, "at": "0001-01-01T00:00:00+14:00"}, "at", "malformed"),  # before the first year once in UTC
        ({"age": 61, "at": "9999-12-31T23:59:59-14:00"}, "at", "malformed"),
        ({"age": 61, "at": "\ud800"}, "at", "malformed"),
    ],
)
def test_a_record_that_breaks_the_contract_is_refused_by_field(record, field, code):
    with pytest.raises(RecordError) as refused:
        check_record(COLUMNS, record)

    assert (refused.value.field, refused.value.code) == (field, code)


@given(st.dictionaries(st.sampled_from([*COLUMNS, "patient", "at", "reference", "events", "x"]), json_values))
def test_any_json_object_at_all_is_a_record_or_a_refusal(record):
    try:
        found = check_record(COLUMNS, record)
    except RecordError:
        return

    assert list(found.values) == list(COLUMNS)


@pytest.mark.parametrize(
    ("column", "raw", "expected"),
    [
        (CHOLESTEROL, np.int64(0), None),
        (CHOLESTEROL, np.float64(250), 250.0),
        (CHOLESTEROL, math.nan, None),
        (CHOLESTEROL, "?", "?"),
        (CHOLESTEROL, False, False),
        (PAIN, "on exertion", "exertion"),
        (PAIN, 3, "rest"),
        (PAIN, 3.0, "rest"),  # a reader that met a gap makes whole numbers floats
        (PAIN, "3", "rest"),
        (PAIN, np.int64(3), "rest"),
        (PAIN, "?", None),
        (PAIN, "elsewhere", "elsewhere"),  # for check_value to refuse
        (SMOKER, np.bool_(True), True),
        (SMOKER, -9, None),
        (Column(type="category", values=("1", "2")), 1, "1"),
        (Column(type="category", values=("1", "2")), 2.0, "2"),
        (Column(type="category", map={True: "yes", False: "no"}), np.bool_(True), "yes"),
        (Column(type="category", map={True: "yes", False: "no"}), False, "no"),
        (Column(type="category", map={True: "yes", False: "no"}), "TRUE", "yes"),
        (CHOLESTEROL, " 250.5 ", 250.5),  # one "?" in a CSV's column makes text of all its numbers
        (CHOLESTEROL, "2_5", "2_5"),
        (CHOLESTEROL, "nan", "nan"),
    ],
)
def test_a_sources_cell_is_translated(column, raw, expected):
    found = translate(column, raw)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("raw", [True, False, "True", "FALSE", 1, 1.0, "1", "F", "x"])
@pytest.mark.parametrize("mapping", [{True: "yes", False: "no"}, {1: "yes", 0: "no"}, {"F": "female"}])
def test_a_contract_that_travelled_as_json_translates_alike(toy_document, mapping, raw):
    toy_document["columns"]["pain"]["map"] = mapping
    before = from_document(toy_document, "toy.yaml").columns["pain"]
    after = from_document(json.loads(json.dumps(toy_document)), "spec.json").columns["pain"]

    assert translate(after, raw) == translate(before, raw)


def test_a_table_becomes_records_and_keeps_its_order(checked, toy_table):
    table = toy_table(50, 3)

    found, refusals = checked(table)

    assert refusals == []
    assert len(found) == 50
    assert found.patient.tolist() == table["id"]
    assert found.values["age_years"].tolist() == table["age"]
    assert found.outcome.tolist() == table["sick"]
    assert np.isnan(found.at).all()


@given(st.lists(json_values, min_size=1, max_size=8), st.sampled_from(sorted(COLUMNS)))
@example([0.0, -0.0], "change")
@example([-0.0, 0.0], "change")
@example([1, True, 1.0, "1"], "smoker")
@example([0, False, 0.0, None, ""], "cholesterol")
def test_a_tables_check_and_a_records_check_agree_on_every_cell(cells, name):
    """What a table keeps, a request may send, to the bit; what a table refuses, a request may not send."""
    cells = [cell for cell in cells if not isinstance(cell, list | dict)]  # no table's cell
    spec = load_spec("heart_disease", ROOT / "configs").model_copy(
        update={"columns": {"age": AGE, name: COLUMNS[name]}, "patient_id": None}
    )
    table = {"num": [0] * (len(cells) + 1)}
    translated = {"age": [61] * (len(cells) + 1), name: [50 if name == "age" else None, *cells]}
    expected, codes = [], {}
    for row, cell in enumerate(translated[name], start=1):
        try:
            expected.append(check_record(spec.columns, {"age": 61, name: cell}).values[name])
        except RecordError as refused:
            codes[row] = refused.code
    if not codes and all(math.isnan(value) for value in expected):
        return  # refused as a whole: nothing there

    found, refusals = check_table(spec, table, translated)

    assert {refusal.row: refusal.code for refusal in refusals} == codes
    assert all(same_bits(one, other) for one, other in zip(found.values[name], expected, strict=True))


def test_a_refused_value_costs_its_row_and_is_told_by_row_without_the_value(checked, toy_table):
    table = toy_table(20, 3)
    table["age"][4] = 17
    table["pain"][4] = "John Smith"
    table["pain"][9] = "John Smith"

    found, refusals = checked(table)

    assert [(refusal.row, refusal.column, refusal.code) for refusal in refusals] == [
        (5, "age_years", "out_of_range"),
        (5, "pain", "unknown_category"),
        (10, "pain", "unknown_category"),
    ]
    assert len(found) == 18
    assert not {"P0005", "P0010"} & set(found.patient)
    assert not any("Smith" in refusal.message for refusal in refusals)


def test_an_empty_table_is_refused(checked, toy_table):
    table = {name: [] for name in toy_table(1, 1)}

    with pytest.raises(ContractError, match="toy: the source's table is empty"):
        checked(table)


def test_a_column_that_the_source_lacks_is_refused_with_what_it_has(checked, toy_table):
    table = toy_table(5, 1)
    del table["chol"], table["id"]

    with pytest.raises(ContractError) as refused:
        checked(table)

    assert str(refused.value) == (
        "toy: the source has no column 'chol', 'id'. It has: age, rate, sex, pain, smoker, site, sick."
    )


@pytest.mark.parametrize("nothing", [None, math.nan, 0])
def test_a_column_that_is_missing_everywhere_is_refused(checked, toy_table, nothing):
    table = toy_table(5, 1)
    table["chol"] = [nothing] * 5

    with pytest.raises(ContractError, match="column 'cholesterol_mg_dl' is missing in all 5 rows"):
        checked(table)


@pytest.mark.parametrize(("first", "again"), [("MRN777", "MRN777"), (777, "777"), (777.0, np.int64(777))])
def test_a_patient_on_two_rows_is_refused_by_rows_and_not_by_name(checked, toy_table, first, again):
    table = toy_table(5, 1)
    table["id"][1], table["id"][3] = first, again

    with pytest.raises(ContractError) as refused:
        checked(table)

    assert "rows 2 and 4" in str(refused.value)
    assert "777" not in str(refused.value)


@pytest.mark.parametrize("nobody", [None, math.nan, "", "  "])
def test_a_row_without_a_patient_is_refused(checked, toy_table, nobody):
    table = toy_table(5, 1)
    table["id"][2] = nobody

    with pytest.raises(ContractError, match="is missing in row 3"):
        checked(table)


def test_without_identifiers_every_row_is_a_patient_of_its_own(toy_document, toy_table):
    del toy_document["patient_id"]
    spec, table = from_document(toy_document, "toy.yaml"), toy_table(3, 1)

    found, _ = check_table(spec, table, translate_table(spec, table))

    assert found.patient.tolist() == ["row 1", "row 2", "row 3"]


def test_times_of_prediction_are_read_as_utc_unless_they_say_otherwise(toy_document, toy_table):
    toy_document["at"] = "seen"
    spec = from_document(toy_document, "toy.yaml")
    table = toy_table(3, 1) | {"seen": ["1970-01-02", "1970-01-02T00:00:00+01:00", datetime(1970, 1, 2, 12)]}

    found, _ = check_table(spec, table, translate_table(spec, table))

    assert found.at.tolist() == [86400, 82800, 129600]


@pytest.mark.parametrize("time", ["soon", None, 5, math.nan])
def test_a_time_of_prediction_that_is_none_is_refused_by_row(toy_document, toy_table, time):
    toy_document["at"] = "seen"
    spec = from_document(toy_document, "toy.yaml")
    table = toy_table(2, 1) | {"seen": ["2026-01-01", time]}

    with pytest.raises(ContractError, match="no ISO 8601 time in row 2"):
        check_table(spec, table, translate_table(spec, table))


@pytest.mark.parametrize("cell", [[1], {"a": 1}, np.zeros(2)])
def test_a_cell_that_is_no_plain_value_is_refused(checked, toy_table, cell):
    table = toy_table(3, 1)
    table["age"][1] = cell

    with pytest.raises(ContractError, match="column 'age_years', row 2: holds a"):
        checked(table)


def test_a_count_of_days_is_the_day_that_it_counts_to(toy_document, toy_table):
    toy_document |= {"at": "seen", "day_zero": "2020-03-01"}
    spec = from_document(toy_document, "toy.yaml")
    table = toy_table(3, 1) | {"seen": [0, 31, 107.0]}

    found, _ = check_table(spec, table, translate_table(spec, table))

    days = [datetime.fromtimestamp(seconds, UTC).isoformat() for seconds in found.at]
    assert days == ["2020-03-01T00:00:00+00:00", "2020-04-01T00:00:00+00:00", "2020-06-16T00:00:00+00:00"]


@pytest.mark.parametrize("cell", [1.5, math.nan, None, "soon", True, 1e300])
def test_what_is_no_count_of_days_is_refused_by_its_row(toy_document, toy_table, cell):
    toy_document |= {"at": "seen", "day_zero": "2020-03-01"}
    spec = from_document(toy_document, "toy.yaml")
    table = toy_table(3, 1) | {"seen": [0, cell, 2]}

    with pytest.raises(ContractError, match="no count of days since 2020-03-01 in row 2"):
        check_table(spec, table, translate_table(spec, table))


def test_a_patient_may_come_again_where_the_source_has_a_time(toy_document, toy_table):
    toy_document["at"] = "seen"
    spec = from_document(toy_document, "toy.yaml")
    table = toy_table(3, 1) | {"id": [7, 8, 7], "seen": ["2020-03-01", "2020-03-01", "2020-03-09"]}

    found, _ = check_table(spec, table, translate_table(spec, table))

    assert found.patient.tolist() == ["7", "8", "7"]


BINS = Column(type="array", length=3, unit="mg/dL", accepts=("mmol/L",), loinc="2093-3", range=(0, 1000))


def test_an_array_is_its_numbers_in_their_order():
    assert check_value("bins", BINS, [1, 2.5, -0.0]).tolist() == [1, 2.5, 0]
    assert not np.signbit(check_value("bins", BINS, [1, 2.5, -0.0])).any()
    assert check_value("bins", BINS, {"value": [1, 2, 3], "unit": "mmol/L"})[0] == pytest.approx(38.665)
    assert np.isnan(check_value("bins", BINS, None)).tolist() == [True] * 3


@pytest.mark.parametrize(
    ("value", "code", "told"),
    [
        ([1, 2], "wrong_length", "a list of 2; 3 numbers are expected, in this order."),
        ([1, 2, 3, 4], "wrong_length", "a list of 4; 3 numbers"),
        ([1, 2, 1001], "out_of_range", "at place 3 of 3: 1001 mg/dL lies outside 0 to 1000 mg/dL."),
        ([1, math.nan, 3], "not_finite", "at place 2 of 3: the number is not finite."),
        ([1, 10**400, 3], "not_finite", "at place 2 of 3"),
        ([1, None, 3], "not_a_number", "at place 2 of 3: a NoneType is not a number."),
        ([True, 1, 3], "not_a_number", "at place 1 of 3: True is not a number."),
        (["secret", 1, 3], "not_a_number", "at place 1 of 3: a text of 6 characters is not a number."),
        (7, "not_an_array", "7 is not a list of 3 numbers."),
        ("[1, 2, 3]", "not_an_array", "a text of 9 characters is not a list of 3 numbers."),
        ({"value": [1, 2, 3], "unit": "stone"}, "unit", "is not one of its units: mg/dL, mmol/L."),
    ],
)
def test_an_array_that_breaks_the_contract_is_refused_by_its_place(value, code, told):
    found, message = refusal(BINS, value)

    assert found == code
    assert told in message


def test_a_required_array_is_never_missing():
    required = BINS.model_copy(update={"required": True})

    assert refusal(required, None)[0] == "missing_field"


@pytest.mark.parametrize("cell", [[1, 2, 3], np.array([1.0, 2, 3]), "[1, 2, 3]"])
def test_a_sources_list_array_or_json_text_is_an_array(cell):
    assert check_value("bins", BINS, translate(BINS, cell)).tolist() == [1, 2, 3]


@pytest.mark.parametrize("cell", [None, math.nan])
def test_a_sources_empty_cell_is_a_missing_array(cell):
    assert translate(BINS, cell) is None


def test_a_table_with_arrays_keeps_its_good_rows_and_names_the_bad_ones(toy_document, toy_table):
    toy_document["columns"]["bins"] = {"type": "array", "length": 3, "unit": "1", "range": [0, 10]}
    spec = from_document(toy_document, "toy.yaml")
    table = {**toy_table(4, 1), "bins": [[1, 2, 3], [1, 2], None, "[4, 5, 6]"]}

    found, refusals = check_table(spec, table, translate_table(spec, table))

    assert [(each.row, each.column, each.code) for each in refusals] == [(2, "bins", "wrong_length")]
    np.testing.assert_array_equal(found.values["bins"], [[1, 2, 3], [math.nan] * 3, [4, 5, 6]])


def test_an_array_that_is_missing_in_every_row_stops_the_ingest(toy_document, toy_table):
    toy_document["columns"]["bins"] = {"type": "array", "length": 3, "unit": "1", "range": [0, 10]}
    spec = from_document(toy_document, "toy.yaml")
    table = {**toy_table(4, 1), "bins": [None] * 4}

    with pytest.raises(ContractError, match="column 'bins' is missing in all 4 rows"):
        check_table(spec, table, translate_table(spec, table))


def test_records_become_arrays_and_one_that_is_not_there_is_missing(toy_document):
    columns = {"bins": BINS, "age": AGE}
    record = check_record(columns, {"bins": [1, 2, 3], "age": 61})

    found = as_arrays(columns, [record, None])

    np.testing.assert_array_equal(found["bins"], [[1, 2, 3], [math.nan] * 3])
    np.testing.assert_array_equal(found["age"], [61, math.nan])
    assert is_missing(found["bins"]).tolist() == is_missing(found["age"]).tolist() == [False, True]
    assert as_arrays(columns, [])["bins"].shape == (0, 3)


# --- the events of one record

EVENTS = {
    "2524-7": Column(type="number", unit="mmol/L", range=(0, 50)),
    "2085-9": Column.model_validate(
        {"type": "number", "unit": "mg/dL", "accepts": ["mmol/L"], "range": [5, 200], "loinc": "2085-9"}
    ),
    "7459-8": Column(type="number", unit="1", range=(0, 20)),
    "fall": Column(type="boolean"),
}
OF_EVENTS = {
    "age_years": Column(type="number", unit="a", range=(18, 120), required=True),
    "lactate_max_24h": Column.model_validate({"event": "2524-7", "reduce": "max", "unit": "mmol/L", "window": "24h"}),
    "hdl_last": Column.model_validate({"event": "2085-9", "reduce": "last", "unit": "mg/dL"}),
    "falls": Column.model_validate({"event": "fall", "reduce": "count", "unit": "1"}),
}
AT = datetime(2026, 3, 3, 9, tzinfo=UTC)
LACTATE = {"time": "2026-03-03T08:00:00+00:00", "code": "2524-7", "value": 2.5, "unit": "mmol/L"}


def with_events(events, **said):
    return check_record(OF_EVENTS, {"age_years": 61, "events": events, **said}, Reducer(OF_EVENTS, EVENTS), AT)


def refused_event(events, **said):
    with pytest.raises(RecordError) as refused:
        with_events(events, **said)
    assert str(refused.value).startswith(f"{refused.value.field}: ")
    return refused.value.code, refused.value.field


@pytest.mark.parametrize(
    ("odd", "code", "field"),
    [
        ({"unit": None}, "unit", "unit"),
        ({"unit": "mg/dL"}, "unit", "unit"),  # lactate's molar mass was not asked for
        ({"unit": "stone"}, "unit", "unit"),
        ({"code": "fall", "value": True, "unit": "1"}, "unit", "unit"),
        ({"value": 51}, "out_of_range", "value"),
        ({"value": "high"}, "not_a_number", "value"),
        ({"value": True}, "not_a_number", "value"),
        ({"value": {"value": 2.5, "unit": "mmol/L"}}, "not_a_number", "value"),
        ({"code": "fall", "value": 1, "unit": None}, "not_a_boolean", "value"),
        ({"time": None}, "missing_field", "time"),
        ({"time": "2026-03-03T08:00:00"}, "malformed", "time"),
        ({"time": "yesterday"}, "malformed", "time"),
        ({"time": 1772524800}, "malformed", "time"),
        ({"code": None}, "malformed", "code"),
        ({"code": 25247}, "malformed", "code"),
        ({"patient": "somebody else"}, "two_patients", "patient"),
        ({"patient": ""}, "malformed", "patient"),
        ({"ward": "7b"}, "malformed", None),
    ],
)
def test_a_wrong_event_is_refused_by_its_place_and_what_is_wrong_with_it(odd, code, field):
    told = [LACTATE, LACTATE, {**LACTATE, **odd}]
    assert refused_event(told, patient="p") == (code, f"events[2].{field}" if field else "events[2]")


@pytest.mark.parametrize("odd", ["2524-7", {}, {"0": LACTATE}, 7, False])
def test_what_is_no_list_of_events_is_refused(odd):
    assert refused_event(odd) == ("malformed", "events")


def test_an_event_is_an_object():
    assert refused_event([LACTATE, "lactate"]) == ("malformed", "events[1]")


def test_too_many_events_are_refused_before_they_are_looked_at():
    assert refused_event([{"no": "event"}] * (MOST_EVENTS + 1)) == ("too_many_events", "events")


def test_two_patients_among_the_events_are_refused_whoever_the_record_is_of():
    one, other = {**LACTATE, "patient": "one"}, {**LACTATE, "patient": "other"}
    assert refused_event([one, other]) == ("two_patients", "events[1].patient")
    assert refused_event([other], patient="one") == ("two_patients", "events[0].patient")
    assert with_events([one, LACTATE], patient="one").values["lactate_max_24h"] == 2.5


def test_a_refusal_names_neither_the_patient_nor_a_text_that_was_sent():
    with pytest.raises(RecordError) as refused:
        with_events([{**LACTATE, "patient": "Jane Doe"}], patient="John Doe")
    assert "Doe" not in str(refused.value)


def test_a_column_of_events_cannot_be_sent_and_is_said_to_be_computed():
    with pytest.raises(RecordError) as refused:
        check_record(OF_EVENTS, {"age_years": 61, "lactate_max_24h": 2.5}, Reducer(OF_EVENTS, EVENTS), AT)
    assert (refused.value.code, refused.value.field) == ("unknown_field", "lactate_max_24h")
    assert str(refused.value) == "lactate_max_24h: is computed from `events`. Known: age_years."


def test_events_of_a_model_that_reads_none_are_refused():
    columns = {"age_years": OF_EVENTS["age_years"]}
    for reducer in (None, Reducer(columns, {})):
        with pytest.raises(RecordError, match="this model reads no events"):
            check_record(columns, {"age_years": 61, "events": [LACTATE]}, reducer)


def test_events_need_a_time_of_prediction():
    with pytest.raises(RecordError) as refused:
        check_record(OF_EVENTS, {"age_years": 61, "events": [LACTATE]}, Reducer(OF_EVENTS, EVENTS))
    assert (refused.value.code, refused.value.field) == ("missing_field", "at")


def test_an_event_is_read_in_its_own_unit_and_as_of_the_records_own_time():
    hdl = {"time": "2025-01-01T00:00:00+01:00", "code": "2085-9", "value": 1.5, "unit": "mmol/L"}
    then = with_events([LACTATE, hdl, {"time": "2026-03-01T12:00:00Z", "code": "fall"}])
    assert then.values == {"age_years": 61, "lactate_max_24h": 2.5, "hdl_last": pytest.approx(58, abs=0.1), "falls": 1}
    earlier = with_events([LACTATE, hdl], at="2026-03-03T08:00:00Z")
    assert math.isnan(earlier.values["lactate_max_24h"]) and earlier.values["falls"] == 0
    assert earlier.told.ignored == {"at or after the time of prediction": 1}


def test_no_events_told_is_unknown_and_an_empty_list_says_that_there_were_none():
    for nothing in ({}, {"events": None}):
        record = check_record(OF_EVENTS, {"age_years": 61, **nothing}, Reducer(OF_EVENTS, EVENTS), AT)
        assert record.told is None and math.isnan(record.values["falls"])
    assert with_events([]).values["falls"] == 0


def test_a_plain_ratio_needs_no_unit():
    ratio = {"time": "2026-03-03T08:00:00Z", "code": "7459-8", "value": 2}
    assert with_events([ratio]).told.value == with_events([{**ratio, "unit": "1"}]).told.value == [2.0]
