"""A draft says what the table can tell, TODO where it cannot, and never a value that may identify a patient."""

import string
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import SourceError, SpecError
from configs.spec import Column, from_document
from pipelines.draft import draft

AGES = [29, 34, 41, 45, 50, 52, 58, 63, 70, 77]
SEXES = ["Male", "Female"] * 5
NOT_GUESSED = {"column": "TODO", "positive": "== TODO", "values": ["TODO"]}


def drafted(tmp_path: Path, columns: dict[str, list[Any]], name: str = "toy") -> str:
    path = tmp_path / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    return draft(name, path, path)


def parsed(tmp_path: Path, columns: dict[str, list[Any]]) -> dict[str, Any]:
    document = yaml.safe_load(drafted(tmp_path, columns))
    assert isinstance(document, dict)
    return document


def column(tmp_path: Path, cells: list[Any], header: str = "x") -> dict[str, Any]:
    """The draft of one column that stands beside an outcome."""
    outcome = [int(row % 3 == 0) for row in range(len(cells))]
    (contract,) = parsed(tmp_path, {header: cells, "outcome": outcome})["columns"].values()
    assert isinstance(contract, dict)
    return contract


def test_a_plain_table_becomes_a_spec_that_validates(tmp_path):
    table = {
        "id": range(10),
        "age": AGES,
        "sex": SEXES,
        "smoker": ["TRUE", "FALSE"] * 5,
        "outcome": [0, 0, 1, 0, 1] * 2,
    }

    spec = from_document(parsed(tmp_path, {key: list(cells) for key, cells in table.items()}), "toy.yaml")

    assert spec.patient_id == "id"
    assert spec.features == ("age", "sex", "smoker")
    assert spec.attributes == ("sex",)
    assert spec.columns["age"].range == (10, 90)
    assert spec.columns["sex"].map == {"Female": "female", "Male": "male"}
    assert spec.columns["smoker"].type == "boolean"
    assert (spec.outcome.column, spec.outcome.positive) == ("outcome", "== 1")
    assert spec.source.csv == str(tmp_path / "table.csv")


def test_what_only_people_know_reads_todo(tmp_path):
    text = drafted(tmp_path, {"age": AGES, "sex": SEXES, "smoker": ["no", "yes"] * 5})

    assert "unit: TODO  # TODO clinician" in text
    assert "range: [10, 90]  # TODO clinician: plausible range, observed 29-77" in text
    assert "# patient_id: TODO owner" in text
    document = yaml.safe_load(text)
    assert [document[key] for key in ("title", "owner", "intended_use")] == ["TODO"] * 3
    assert document["columns"]["age"]["unit"] == "TODO"
    for key in (
        "gates",
        "operating_points",
        "split",
        "outcome",
        "attributes",
        "duplicate_rows",
        "refused_rows_at_most",
    ):
        assert any(line.startswith(f"{key}:") and "# TODO" in line for line in text.splitlines()), key


def test_headers_become_names_and_keep_the_sources_spelling_in_from(tmp_path):
    table = {"RestingBP (mmHg)": AGES, "HbA1c": AGES, "resting bp mmHg": AGES, "2nd %": AGES, "at": AGES, "age": AGES}

    columns = parsed(tmp_path, table)["columns"]

    assert {name: contract.get("from") for name, contract in columns.items()} == {
        "resting_bp_mm_hg": "RestingBP (mmHg)",
        "hba1c": "HbA1c",
        "resting_bp_mm_hg_2": "resting bp mmHg",
        "column_2nd_percent": "2nd %",
        "at_value": "at",
        "age": None,
    }


@pytest.mark.parametrize(
    ("measured", "code"),
    [
        ([180, 199, 210, 233, 250, 286, 301, 0, 0], 0),  # nobody's cholesterol is 0
        ([80, 110, 115, 120, 130, 140, 145, 0], 0),  # one is enough where all others lie far off
        ([0, 1, 2, 3, 2, 1, -9, -9], -9),
        ([0, 1, 2, 3, 2, 1, -1, -1], -1),
        ([18, 22, 25, 31, 99, 99], 99),
        ([18, 22, 95, 40, 999, 999], 999),
        ([1.5, 2.5, 9.5, 3.5, 9999, 9999], 9999),
    ],
)
def test_a_code_that_stands_apart_is_suspected_to_mean_missing(tmp_path, measured, code):
    contract = column(tmp_path, measured)

    assert contract["missing_if"] == [code]
    rest = [value for value in measured if value != code]
    assert contract["range"][0] <= min(rest) and max(rest) <= contract["range"][1]
    assert not (code and contract["range"][0] <= code <= contract["range"][1])


@pytest.mark.parametrize(
    "measured",
    [
        [0, 0, 0, 1, 2, 3, 4, 5, 6, 8],  # pregnancies
        [0, 0, 0, 0.1, 0.2, 0.4, 0.5, 1.0],  # ST depression
        [-3, -2, -1, -1, 0, 1, 2, 4],  # base excess
        [60, 71, 83, 97, 98, 99, 99, 104],  # ages and weights reach 99
    ],
)
def test_a_number_among_its_like_is_no_missing_code(tmp_path, measured):
    assert "missing_if" not in column(tmp_path, measured)


def test_text_that_means_missing_leaves_a_number_a_number(tmp_path):
    contract = column(tmp_path, [5.1, "?", 6.2, "NA", 7.7, "unknown", 4.9, "None", 5.5, "", "null"])

    assert contract["type"] == "number"
    assert sorted(contract["missing_if"]) == ["?", "NA", "None", "null", "unknown"]
    assert contract["range"] == [4.2, 8.4]


def test_none_is_a_category_like_any_other_and_other_words_mean_missing(tmp_path):
    contract = column(tmp_path, ["None", "mild", "severe", "NA", "?", "unknown", ""] * 3, "pain")

    assert contract["map"] == {"None": "none", "mild": "mild", "severe": "severe"}
    assert sorted(contract["missing_if"]) == ["?", "NA", "unknown"]
    assert column(tmp_path, ["None", "mild"] * 3, "pain")["map"] == {"None": "none", "mild": "mild"}


def test_codes_that_the_reader_gets_as_text_are_written_as_they_stand(tmp_path):
    contract = column(tmp_path, ["1", "2", "-9", "NA", "1", "2", "-9"], "group")

    assert contract["map"] == {1: "code_1", 2: "code_2"}
    assert sorted(contract["missing_if"], key=str) == [-9, "-9", "NA"]
    assert column(tmp_path, ["1.0", "2.0", "NA"] * 3, "group")["map"] == {"1.0": "code_1", "2.0": "code_2"}


def test_text_among_numbers_is_counted_and_not_quoted(tmp_path):
    text = drafted(tmp_path, {"x": [*range(40, 58, 2), "Mrs Smith"], "age": AGES})

    assert "1 of 10 rows hold text that is no number" in text
    assert "Smith" not in text


def test_a_limit_of_detection_is_drafted_with_what_it_usually_counts_as(tmp_path):
    cells = ["<0.6", "< 0.6", "<0.6", "0.8", "12.5", ">5000", "4100", "77.1"]
    text = drafted(tmp_path, {"ca125": cells, "age": AGES[: len(cells)]})
    contract = column(tmp_path, cells, "ca125")

    assert contract["below_detection"] == {"limit": 0.6, "counts_as": 0.424}
    assert contract["above_detection"] == {"limit": 5000, "counts_as": 5000}
    assert contract["range"][0] <= 0.424 and contract["range"][1] >= 5000
    assert "hold text" not in text
    Column.model_validate({**contract, "unit": "1"})


def test_of_two_limits_none_is_chosen(tmp_path):
    cells = ["<0.6", "<0.5", "1.7", "2.4", "3.3", "8", "11.9", "7.1", "4", "2.2"]

    assert "several limits of detection" in drafted(tmp_path, {"ca125": cells, "age": AGES})
    assert "below_detection" not in column(tmp_path, cells, "ca125")


def test_two_numbers_are_codes_and_zero_and_one_are_no_and_yes(tmp_path):
    assert column(tmp_path, [0, 1, 1, 0, 1, 0], "smoker")["map"] == {0: "no", 1: "yes"}
    assert column(tmp_path, [0, 1, 1, 0, 1, 0], "sex")["map"] == {0: "code_0", 1: "code_1"}
    assert column(tmp_path, [1, 2, 1, 2, 2, -9, -9], "gender")["map"] == {1: "code_1", 2: "code_2"}


def test_awkward_categories_keep_their_spelling_and_get_distinct_names(tmp_path):
    cells = ["<65", ">65", "no", "1.5", "a: b", "male", " Male", "{x}", "#1"] * 3

    mapping = column(tmp_path, cells, "group")["map"]

    assert set(mapping) == set(cells)
    assert mapping["<65"] == "below_65" and mapping[">65"] == "above_65"
    assert mapping["male"] == mapping[" Male"]
    assert len(set(mapping.values())) == len(mapping) - 1


def test_categories_that_are_names_already_are_listed_as_values(tmp_path):
    contract = column(tmp_path, ["flat", "up", "down"] * 3, "slope")
    assert contract == {"type": "category", "values": ["down", "flat", "up"]}


def test_true_and_false_beside_other_words_are_a_category(tmp_path):
    # A CSV's reader makes booleans of a column only if nothing else stands in it.
    assert column(tmp_path, ["TRUE", "FALSE", ""] * 3, "angina") == {"type": "boolean"}
    assert column(tmp_path, ["TRUE", "FALSE", "?"] * 3, "angina")["type"] == "category"
    assert column(tmp_path, ["TRUE", "FALSE", "NA"] * 3, "angina")["missing_if"] == ["NA"]


@pytest.mark.parametrize(
    ("header", "cells", "reason"),
    [
        ("note", [f"Seen with {n} friends" for n in range(25)], "free text"),
        ("doctor", ["Ann Lee", "Bo Ray", "Cy Fox", "Di Orr"], "may identify patients"),
        ("nickname", ["Al", "Al", "Al", "Al", "Al", "Bo", "Cy", "Di"], "may identify patients"),
        ("contact", ["a@b.org", "c@d.org"] * 4, "may identify patients"),
        ("phone_home", [5551234, 5559876] * 4, "identifies people"),
        ("hospital_file", [481516, 234298, 777123, 901442], "may identify patients"),
        ("born", ["1961-02-03", "1970-11-30"] * 4, "dates or times"),
        ("visit_date", [20240131, 20240201, 20240201], "dates or times"),
        ("row", list(range(1, 13)), "counts the rows"),
        ("barcode", [9780201379624000, 9780201379624001] * 2, "too large"),
        ("ward", ["B", "B", "B"], "one value only"),
        ("empty", ["", "NA", "?"], "no value"),
    ],
)
def test_a_column_that_may_identify_or_says_nothing_is_named_without_its_values(tmp_path, header, cells, reason):
    text = drafted(tmp_path, {header: cells, "age": [AGES[row % 10] for row in range(len(cells))]})

    (line,) = [line for line in text.splitlines() if "# left out" in line]
    assert f'"{header}"' in line and reason in line
    body = text.replace(line, "")
    assert not any(
        len(str(cell)) > 1 and str(cell) in body for cell in cells if cell not in AGES and cell not in range(99)
    )


def test_the_patients_own_number_is_preferred_to_the_rows(tmp_path):
    visits = {
        "visit_id": list(range(44)),
        "MRN": [f"p{n // 2}" for n in range(44)],
        "age": [AGES[n % 10] for n in range(44)],
    }

    text = drafted(tmp_path, visits)

    assert yaml.safe_load(text)["patient_id"] == "MRN"
    assert "it repeats or is blank" in text
    assert list(yaml.safe_load(text)["columns"]) == ["age"]


@pytest.mark.parametrize(
    ("header", "cells", "outcome"),
    [
        ("num", [0, 2, 1, 0, 4], {"positive": "> 0", "values": [0, 1, 2, 4]}),
        ("num", [0, 2.5, "", 0, 4], {"positive": "== TODO", "values": [0, 2.5, 4]}),
        ("num", [0, 2, -9, 1, 0, -9], {"positive": "> 0", "values": [0, 1, 2], "missing_if": [-9]}),
        ("DEATH_EVENT", [0, 1, 1, 0, 0], {"positive": "== 1", "values": [0, 1]}),
        ("diagnosis", ["malignant", "benign"] * 3, {"positive": "== malignant", "values": ["benign", "malignant"]}),
        ("diagnosis", ["M", "B"] * 3, {"positive": "== TODO", "values": ["B", "M"]}),
        ("diagnosis", ["None", "case"] * 3, {"positive": "== case", "values": ["None", "case"]}),
        ("target", ["TRUE", "FALSE", ""] * 3, {"positive": "== True", "values": [False, True]}),  # as its reader spells
        ("died", ["yes", "no", "?"] * 3, {"positive": "== yes", "values": ["no", "yes"], "missing_if": ["?"]}),
        ("died", [1, 0, "NA"] * 3, {"positive": "== 1", "values": [0, 1], "missing_if": ["NA"]}),
        ("died", [0, 1, "maybe"] * 3, {"positive": "== TODO", "values": [0, 1, "maybe"]}),
        ("readmitted", ["no", "yes"] * 3, {"positive": "== yes", "values": ["no", "yes"]}),  # the only two-valued one
    ],
)
def test_the_outcome_is_guessed_from_name_and_values(tmp_path, header, cells, outcome):
    document = parsed(tmp_path, {"age": AGES[: len(cells)], header: cells} | {"age": [*AGES, *AGES][: len(cells)]})

    assert document["outcome"] == {"column": header, **outcome}
    assert header not in document["columns"]


def test_what_looks_like_no_outcome_is_not_guessed(tmp_path):
    document = parsed(tmp_path, {"age": AGES[:5], "weight": [61, 72, 83, 94, 70]})

    assert document["outcome"] == NOT_GUESSED
    assert "weight" in document["columns"]


def test_several_two_valued_columns_are_named_and_none_is_guessed(tmp_path):
    text = drafted(tmp_path, {"age": AGES, "smoker": [0, 1] * 5, "diabetic": [0, 0, 0, 1, 1] * 2})

    assert yaml.safe_load(text)["outcome"] == NOT_GUESSED
    assert '"smoker", "diabetic"' in text


def test_a_second_outcome_is_no_feature(tmp_path):
    document = parsed(tmp_path, {"age": AGES, "target": [0, 1] * 5, "death_in_30_days": [0, 0, 0, 1, 1] * 2})

    assert document["outcome"]["column"] == "target"
    assert "death_in_30_days" in document["columns"]
    assert document["features"] == ["age"]


def test_parquet_is_drafted_like_csv(tmp_path):
    path = tmp_path / "table.parquet"
    frame = pd.DataFrame(
        {"patient": [f"p{n}" for n in range(10)], "age": AGES, "sex": SEXES, "target": [True, False] * 5}
    )
    frame["seen"] = pd.Timestamp("2024-01-31")
    frame["labs"] = [[1.0, 2.0]] * 10
    frame["smoker"] = [True, None, False, True, False] * 2
    frame["children"] = [0.0, 1.0, 2.0, 3.0, None] * 2
    frame.to_parquet(path)

    text = draft("toy", path, path)
    spec = from_document(yaml.safe_load(text), "toy.yaml")

    assert spec.source.parquet == str(path)
    assert spec.patient_id == "patient"
    assert spec.features == ("age", "sex", "smoker", "children")
    assert spec.columns["smoker"].type == "boolean"
    assert spec.columns["children"].range == (0, 4)
    assert spec.outcome.positive == "== True"
    assert text.count("# left out") == 2


def test_names_that_yaml_reads_as_something_else_round_trip(tmp_path):
    document = yaml.safe_load(
        drafted(tmp_path, {"yes": AGES, "null": AGES, "1.5": AGES, "a: b #c": AGES, "l\n2": AGES}, "no")
    )

    assert document["name"] == "no"
    assert list(document["columns"]) == ["yes", "null", "column_1_5", "a_b_c", "l_2"]
    assert [contract.get("from") for contract in document["columns"].values()] == [None, None, "1.5", "a: b #c", "l\n2"]


@pytest.mark.parametrize("name", ["", "Heart", "2nd", "a-b", "../x", "a\n"])
def test_a_name_that_cannot_be_a_disease_is_refused(tmp_path, name):
    with pytest.raises(SpecError, match="lower-case letters"):
        drafted(tmp_path, {"age": AGES}, name)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("table.xlsx", b"x", r"ends in \.csv or \.parquet"),
        ("table.csv", b"", "empty"),
        ("table.csv", b"age,sex\n", "empty"),
        ("table.csv", b"age,sex,age\n50,Secret,51\n", 'several columns are called "age"'),
        ("table.csv", b"age;sex\n50;Secret\n", "not separated by commas"),
        ("table.csv", b"age,sex\n50,\xff\n", "UTF-8"),
        ("table.csv", b"age,sex\n50,m\n51,f,Secret\n", "as many fields"),
        ("table.csv", b"age,sex\n50,m,Secret\n51,f,Secret\n", "more fields than the header"),
        ("table.csv", b"id,name\n1,Secret\n2,Hidden\n", "no usable column"),
        ("table.parquet", b"Secret", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_with_its_file_and_no_value(tmp_path, file, content, said):
    path = tmp_path / file
    path.write_bytes(content)

    with pytest.raises(SourceError, match=said) as refused:
        draft("toy", path, path)

    assert str(path) in str(refused.value)
    assert "Secret" not in str(refused.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        draft("toy", tmp_path / "none.csv", tmp_path / "none.csv")


AWKWARD = st.one_of(
    st.sampled_from(
        ["yes", "no", "null", "~", "1.5", "a: b", "#", "- x", "'", '"', "\t", " ", "\n", "µ", "Ünï", "{", "id"]
    ),
    st.text(string.printable.replace("\r", ""), min_size=1, max_size=8),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), min_size=1, max_size=8),
)
CELLS = st.one_of(
    st.lists(st.integers(-(10**18), 10**18), min_size=1, max_size=3),
    st.lists(st.sampled_from([0, 1, -9, 99, 999, 5, 6, 7]), min_size=1),
    st.lists(st.floats(), min_size=1, max_size=12),
    st.lists(AWKWARD, min_size=1, max_size=4),
    st.lists(st.sampled_from(["true", "FALSE", "NA", "?", "3", "2024-01-01"]), min_size=1),
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.dictionaries(AWKWARD, CELLS, min_size=1, max_size=5),
    rows=st.integers(1, 24),
    kind=st.sampled_from([".csv", ".parquet"]),
)
def test_any_table_drafts_to_yaml_that_holds_together(tmp_path, columns, rows, kind):
    path = tmp_path / f"table{kind}"
    frame = pd.DataFrame({header: (cells * rows)[:rows] for header, cells in columns.items()})
    frame["age 'in' years"] = [20 + row for row in range(rows - 1)] + [91.5]  # so that something is usable
    frame.to_csv(path, index=False) if kind == ".csv" else frame.to_parquet(path)
    if rows == 1:
        with pytest.raises(SourceError, match="no usable column"):
            draft("toy", path, path)
        return

    document = yaml.safe_load(draft("toy", path, path))

    from_document(document, "toy.yaml")
    headers = set(pd.read_csv(path, dtype=str).columns if kind == ".csv" else frame.columns)
    assert {contract.get("from", name) for name, contract in document["columns"].items()} <= headers
    assert document["outcome"]["column"] in headers | {"TODO"}
    assert document.get("patient_id", next(iter(headers))) in headers
    assert set(document["features"]) <= set(document["columns"])
