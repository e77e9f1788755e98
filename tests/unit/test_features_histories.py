"""A source's events: each is used, or named by its code and counted by its reason; nothing is made up."""

from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import ContractError, SpecError
from configs.spec import from_document
from features import histories
from features.columns import check_table, translate_table, whose_and_when

AT = datetime(2026, 3, 3, 9, tzinfo=UTC)
LONG = {"csv": "lab.csv", "patient": "who", "time": "when", "code": "what", "value": "number", "unit": "in"}


@pytest.fixture
def ward(toy_document):
    """`ward(**keys)`: a ward's spec. Lactate and falls before 9:00 on 3 March 2026 tell of sepsis."""

    def make(**changed):
        document = {
            **toy_document,
            "at": "asked",
            "source": {"csv": "ward.csv", "events": [LONG]},
            "events": {
                "2524-7": {
                    "from": "lactate",
                    "type": "number",
                    "unit": "mmol/L",
                    "accepts": ["umol/L"],
                    "range": [0, 30],
                },
                "fall": {"type": "boolean"},
                "gcs": {"type": "number", "unit": "1", "range": [3, 15]},
            },
            "refused_events_at_most": 0.1,
            "columns": {
                "age_years": {"type": "number", "unit": "a", "range": [18, 120]},
                "lactate_max_24h": {"event": "2524-7", "window": "24h", "reduce": "max", "unit": "mmol/L"},
                "falls": {"event": "fall", "reduce": "count", "unit": "1"},
            },
            "features": ["age_years", "lactate_max_24h", "falls"],
            "attributes": [],
            "split": {"test_fraction": 0.25, "seed": 17},
        }
        document.pop("external")
        return from_document(document | changed, "toy.yaml")

    return make


PATIENTS = ("anna", "bert")


def patients(*names):
    n = len(names or PATIENTS)
    return {
        "id": [*(names or PATIENTS)],
        "asked": [AT.isoformat()] * n,
        "age_years": [50 + row for row in range(n)],
        "sick": [0] * n,
    }


def hours_before(hours):
    return (AT - timedelta(hours=hours)).isoformat()


def long_table(*rows):
    """(who, hours before the prediction, what, number, unit) as a long table."""
    who, when, what, number, unit = zip(*rows, strict=True) if rows else ((),) * 5
    times = [hours_before(hours) if isinstance(hours, int | float) else hours for hours in when]
    return {"who": [*who], "when": times, "what": [*what], "number": [*number], "in": [*unit]}


def checked(spec, *tables, table=None):
    table = patients() if table is None else table
    return histories.check(spec, *whose_and_when(spec, table), tables)


def test_a_value_beyond_detection_counts_as_the_contract_says_and_is_told(ward):
    lactate = {
        "from": "lactate",
        "type": "number",
        "unit": "mmol/L",
        "accepts": ["umol/L"],
        "range": [0, 30],
        "below_detection": {"limit": 0.5, "counts_as": 0.35},
        "above_detection": {"limit": 20, "counts_as": 20},
    }
    fall = {"type": "boolean"}
    spec = ward(events={"2524-7": lactate, "fall": fall})

    held = checked(
        spec,
        long_table(
            *(("anna", 5, "lactate", "<0.5", "mmol/L"), ("anna", 4, "lactate", "<500", "umol/L")),
            *(("anna", 3, "lactate", 0.2, "mmol/L"), ("bert", 2, "lactate", 400, "umol/L")),
            *(("bert", 1, "lactate", ">20", "mmol/L"), ("bert", 1, "lactate", 0.5, "mmol/L")),
            *(("bert", 1, "lactate", "<0.4", "mmol/L"), ("anna", 1, "fall", True, None)),
        ),
    )

    assert held.reasons == {"2524-7": {"detection limit": 1, "below detection": 4, "above detection": 1}}
    assert held.broken == {("2524-7", "detection limit"): 1}
    assert sorted(held.events.value.tolist()) == [0.35, 0.35, 0.35, 0.35, 0.5, 1, 20]


def recorded(spec, *tables, table=None):
    """The records of the patients with these long tables."""
    table = patients() if table is None else table
    patient, at = whose_and_when(spec, table)
    held = histories.check(spec, patient, at, tables)
    told = histories.history(spec, held, patient, at)
    return check_table(spec, table, translate_table(spec, table), told)[0]


def test_events_become_columns_in_the_contracts_own_unit(ward):
    table = long_table(
        ("anna", 2, "lactate", 3.5, "mmol/L"),
        ("anna", 1, "lactate", 2500, "umol/L"),
        ("anna", 30, "lactate", 9.0, "mmol/L"),  # before the window
        ("anna", 48, "fall", True, None),
        ("bert", 5, "lactate", 1.0, "mmol/L"),
    )

    records = recorded(ward(), table)

    assert list(records.values) == ["age_years", "lactate_max_24h", "falls"]
    assert records.values["lactate_max_24h"].tolist() == [3.5, 1.0]
    assert records.values["falls"].tolist() == [1.0, 0.0]


BROKEN = {
    "no unit": ("anna", 1, "lactate", 2.0, None),
    "unit": ("anna", 1, "lactate", 2.0, "mg/dL"),
    "not a number": ("anna", 1, "lactate", "hemolysed", "mmol/L"),
    "out of range": ("anna", 1, "lactate", 31, "mmol/L"),
    "not finite": ("anna", 1, "lactate", float("inf"), "mmol/L"),
    "no time": ("anna", "yesterday", "lactate", 2.0, "mmol/L"),
    "of no patient in the table": ("cleo", 1, "lactate", 2.0, "mmol/L"),
    "without a value": ("anna", 1, "lactate", None, "mmol/L"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_an_event_that_cannot_be_used_is_named_and_counted_and_costs_the_others_nothing(ward, reason):
    good = ("anna", 2, "lactate", 1.5, "mmol/L")
    table = long_table(good, BROKEN[reason], ("bert", 2, "lactate", 4.0, "mmol/L"))

    held = checked(ward(), table)

    assert held.reasons == {"2524-7": {reason: 1}}
    assert held.first["2524-7", reason] == (1, 2)
    assert held.broken == ({} if reason == "without a value" else {("2524-7", reason): 1})
    assert recorded(ward(), table).values["lactate_max_24h"].tolist() == [1.5, 4.0]


def test_a_code_that_the_spec_does_not_name_is_not_read(ward):
    held = checked(ward(), long_table(("anna", 1, "sodium", 140, "mmol/L"), ("anna", 1, "fall", True, None)))

    assert (held.read, held.not_read, held.reasons) == (1, 1, {})


def test_a_plain_count_needs_no_unit(ward):
    held = checked(
        ward(), long_table(("anna", 1, "gcs", 14, None), ("anna", 2, "gcs", 13, ""), ("anna", 3, "gcs", 15, "1"))
    )

    assert held.reasons == {}
    assert sorted(held.events.value.tolist()) == [13, 14, 15]


def test_true_and_false_among_numbers_are_texts_in_a_csv_and_are_read(ward):
    table = long_table(("anna", 1, "fall", "True", ""), ("bert", 1, "fall", "FALSE", ""), ("bert", 2, "fall", "1", ""))

    held = checked(ward(), table)

    assert held.reasons == {"fall": {"not a boolean": 1}}
    assert held.events.value.tolist() == [1, 0]


def test_an_event_that_was_sent_twice_counts_once_even_from_two_tables(ward):
    spec = ward(source={"csv": "ward.csv", "events": [LONG, LONG]})
    event = ("anna", 1, "fall", True, None)
    lab = long_table(event, event, ("bert", 1, "lactate", 2, "mmol/L"), ("anna", 1, "lactate", 2, "mmol/L"))

    held = checked(spec, lab, long_table(event))

    assert held.reasons == {"fall": {"twice": 2}}
    assert held.broken == {}
    assert recorded(spec, lab, long_table(event)).values["falls"].tolist() == [1, 0]


def test_the_same_amount_in_two_units_at_one_moment_is_one_event(ward):
    table = long_table(("anna", 1, "lactate", 2, "mmol/L"), ("anna", 1, "lactate", 2000, "umol/L"))

    assert checked(ward(), table).reasons == {"2524-7": {"twice": 1}}


def test_an_event_at_or_after_the_prediction_is_counted_and_is_no_feature(ward):
    before = [("anna", 1, "lactate", 2, "mmol/L"), ("bert", 1, "lactate", 3, "mmol/L")]
    later = [("anna", 0, "lactate", 20, "mmol/L"), ("anna", -1, "fall", True, None), ("bert", -99, "fall", True, None)]

    held = checked(ward(), long_table(*before, *later))

    assert held.reasons == {
        "2524-7": {"at or after the time of prediction": 1},
        "fall": {"at or after the time of prediction": 2},
    }
    assert held.broken == {}
    told, alone = (recorded(ward(), long_table(*events)).values for events in ([*before, *later], before))
    assert [array.tolist() for array in told.values()] == [array.tolist() for array in alone.values()]


def test_who_is_asked_about_twice_has_his_events_as_of_each_time(ward):
    table = patients("anna", "anna")
    table["asked"] = [AT.isoformat(), (AT + timedelta(hours=10)).isoformat()]
    events = long_table(("anna", 1, "lactate", 2, "mmol/L"), ("anna", -5, "lactate", 7, "mmol/L"))

    assert recorded(ward(), events, table=table).values["lactate_max_24h"].tolist() == [2, 7]
    assert checked(ward(), events, table=table).reasons == {}, "before the second prediction it is not in the future"


def test_a_table_without_values_holds_occurrences_and_one_without_units_promises_them(ward):
    occurrences = {name: column for name, column in LONG.items() if name not in ("value", "unit")}
    plain = {name: column for name, column in LONG.items() if name != "unit"}
    spec = ward(source={"csv": "ward.csv", "events": [occurrences, plain]})
    falls = {"who": ["anna", "anna"], "when": [hours_before(1), hours_before(2)], "what": ["fall", "fall"]}
    lab = {"who": ["anna"], "when": [hours_before(1)], "what": ["lactate"], "number": ["2.5"]}

    records = recorded(spec, falls, lab)

    assert records.values["falls"].tolist() == [2, 0]
    assert str(records.values["lactate_max_24h"].tolist()) == "[2.5, nan]"


def test_an_occurrence_of_what_is_measured_has_no_value(ward):
    occurrences = {name: column for name, column in LONG.items() if name not in ("value", "unit")}
    spec = ward(source={"csv": "ward.csv", "events": [occurrences]})

    held = checked(spec, {"who": ["anna"], "when": [hours_before(1)], "what": ["lactate"]})

    assert held.reasons == {"2524-7": {"without a value": 1}}


def test_days_of_the_sources_own_count_are_days_of_the_patients_table(ward):
    spec = ward(day_zero="2020-03-01", landmark_day=0, at=None)
    events = long_table(("anna", "x", "lactate", 2, "mmol/L"))
    events["when"] = [-1]
    late, half = {**events, "when": [0]}, {**events, "when": [-0.5]}

    held = [checked(spec, table) for table in (events, late, half)]

    assert held[0].events.time.tolist() == [datetime(2020, 2, 29, tzinfo=UTC).timestamp()]
    assert held[1].reasons == {"2524-7": {"at or after the time of prediction": 1}}, "on the day itself is too late"
    assert held[2].reasons == {"2524-7": {"no time": 1}}


def test_a_column_that_is_not_there_is_named(ward):
    table = long_table()
    del table["in"]

    with pytest.raises(ContractError, match="a long table has no column 'in'"):
        checked(ward(), table)


def test_a_column_of_a_code_that_nobody_has_is_an_error_by_name(ward):
    with pytest.raises(ContractError, match="'lactate_max_24h' is missing in all 2 rows: no event '2524-7'"):
        recorded(ward(), long_table(("anna", 1, "fall", True, None)))


def test_patients_without_their_events_are_refused(ward):
    table = patients()

    with pytest.raises(ContractError, match="these patients come without any"):
        check_table(ward(), table, translate_table(ward(), table))


def test_messages_and_counts_hold_no_patient_and_no_text_of_the_source(ward):
    table = long_table(("MARKED", 1, "lactate", "SECRET", "SECRETUNIT"), ("anna", "SECRET", "SECRETCODE", 1, None))

    assert not any(word in str(checked(ward(), table).reasons) for word in ("MARKED", "SECRET"))


EVENTS = st.tuples(
    st.sampled_from(["anna", "bert", "cleo"]),
    st.sampled_from([-2.0, 0.0, 1.0, 5.0, "soon", None]),
    st.sampled_from(["lactate", "fall", "gcs", "sodium"]),
    st.sampled_from([True, 1, 2.5, 40, "7", "x", None]),
    st.sampled_from(["mmol/L", "umol/L", "mg/dL", "1", None]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the spec is the same for every example
@given(rows=st.lists(EVENTS, max_size=12), dice=st.randoms())
def test_every_event_is_kept_or_counted_once_in_any_order(ward, rows, dice):
    spec = ward()
    shuffled = dice.sample(rows, len(rows))

    held, again = checked(spec, long_table(*rows)), checked(spec, long_table(*shuffled))

    lost = [count for why in held.reasons.values() for reason, count in why.items() if reason != histories.LATER]
    assert held.read + held.not_read == len(rows)
    assert held.read == len(held.events) + sum(lost)
    assert held.reasons == again.reasons
    for name in ("patient", "time", "code", "value"):
        assert sorted(getattr(held.events, name).tolist()) == sorted(getattr(again.events, name).tolist())


def test_the_events_that_are_kept_can_be_read_by_people(ward, tmp_path):
    held = checked(ward(), long_table(("anna", 1, "lactate", 2500, "umol/L")))

    histories.save(held, ward(), tmp_path / "toy.events.parquet")

    rows = pq.read_table(tmp_path / "toy.events.parquet").to_pylist()
    assert rows == [{"patient": "anna", "time": AT.timestamp() - 3600, "code": "2524-7", "value": 2.5}]


DEATH = {"event": "death", "positive": "== true", "time": "last_seen", "horizon_days": 30, "gap_days": 2}


@pytest.fixture
def hospice(ward):
    """`hospice(*deaths, last_seen)`: the outcome and why it is unknown, of one patient who was seen for so many days
    after the prediction and died on these days of it."""
    events = {**ward().document["events"], "death": {"type": "boolean"}}
    spec = ward(events=events, outcome=DEATH)

    def asked(*deaths, last_seen=90.0):
        table = {**patients("anna"), "last_seen": [last_seen if last_seen is None else hours_before(-24 * last_seen)]}
        told = [("anna", 1, "lactate", 2, "mmol/L"), *(("anna", -24 * day, "death", True, None) for day in deaths)]
        records = recorded(spec, long_table(*told), table=table)
        return records.outcome.tolist()[0], records.why.tolist()[0]

    return asked


def test_the_first_occurrence_within_the_horizon_is_the_outcome(hospice):
    assert hospice(20) == (1, "")
    assert hospice(40, 20) == (1, "")
    assert hospice() == (0, "")
    assert hospice(40) == (0, "")


def test_a_first_occurrence_too_early_is_never_made_good_by_a_later_one(hospice):
    assert hospice(-5, 20)[1] == "the outcome before the time of prediction"
    assert hospice(1, 20)[1] == "the outcome within the gap"


def test_a_record_that_ends_before_its_horizon_or_nobody_knows_when_is_unknown_and_never_no(hospice):
    assert hospice(last_seen=20)[1] == "censored before the horizon"
    assert hospice(last_seen=None)[1] == "outcome missing"
    assert hospice(last_seen=-1)[1] == "no record after the time of prediction"


def test_an_occurrence_after_the_records_end_is_not_looked_at(hospice):
    assert hospice(20, last_seen=10)[1] == "censored before the horizon"


@pytest.mark.parametrize(
    ("deaths", "said"),
    [
        ([("soon", True)], (None, "outcome missing")),  # when is not known: it may be within the horizon
        ([(20, "perhaps")], (None, "outcome missing")),
        ([(20, "perhaps"), (25, True)], (None, "outcome missing")),
        ([(20, True), (25, "perhaps")], (1, "")),
        ([(40, "perhaps")], (0, "")),
        ([(20, False)], (0, "")),
    ],
)
def test_an_outcome_that_cannot_be_read_is_unknown_and_never_no(ward, deaths, said):
    spec = ward(events={**ward().document["events"], "death": {"type": "boolean"}}, outcome=DEATH)
    table = {**patients(), "last_seen": [hours_before(-24 * 90)] * 2}
    told = [("anna", day if day == "soon" else -24 * day, "death", value, None) for day, value in deaths]

    records = recorded(spec, long_table(("anna", 1, "lactate", 2, "mmol/L"), *told), table=table)

    outcome = records.outcome.tolist()
    assert (None if outcome[0] != outcome[0] else outcome[0], records.why.tolist()[0]) == said
    assert (outcome[1], records.why.tolist()[1]) == (0, ""), "another patient's is nothing to bert"


def test_a_diagnosis_in_a_table_of_measurements_has_a_blank_value_and_happened(ward):
    table = long_table(
        *(("anna", 5, "fall", None, None), ("anna", 4, "fall", " ", None), ("anna", 3, "fall", False, None)),
        ("bert", 1, "lactate", 2, "mmol/L"),
    )

    assert checked(ward(), table).reasons == {}
    assert recorded(ward(), table).values["falls"].tolist() == [2, 0]


def test_a_code_that_stands_for_missing_is_no_blank(ward):
    events = {**ward().document["events"], "fall": {"type": "boolean", "missing_if": ["?"]}}

    held = checked(ward(events=events), long_table(("anna", 5, "fall", "?", None)))

    assert held.reasons == {"fall": {"without a value": 1}}


def test_the_outcomes_events_are_no_feature(hospice, ward):
    events = {**ward().document["events"], "death": {"type": "boolean"}}
    columns = {**ward().document["columns"], "deaths": {"event": "death", "reduce": "count", "unit": "1"}}

    with pytest.raises(SpecError, match="a model would learn the answer"):
        ward(events=events, outcome=DEATH, columns=columns)


def test_a_patients_events_are_sent_as_they_were_read_and_come_back_the_same(ward):
    table = long_table(
        ("anna", 1, "lactate", 2500, "umol/L"), ("bert", 2, "lactate", 9, "mmol/L"), ("anna", 3, "fall", True, None)
    )
    held = checked(ward(), table)

    sent = histories.sent(ward(), held, "anna")

    assert sent == [
        {"time": "2026-03-03T06:00:00+00:00", "code": "fall", "value": True},
        {"time": "2026-03-03T08:00:00+00:00", "code": "2524-7", "value": 2.5, "unit": "mmol/L"},
    ]
    assert histories.sent(ward(), held, "cleo") == []


def test_a_patient_on_two_rows_that_no_time_tells_apart_is_refused(ward):
    spec = ward(day_zero="2020-03-01", landmark_day=0, at=None)

    with pytest.raises(ContractError, match="the same patient in rows 1 and 2"):
        whose_and_when(spec, patients("anna", "anna"))
