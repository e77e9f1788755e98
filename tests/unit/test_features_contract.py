"""The compiled contract says what the judge of values says: the same floats to the bit, the same words of an error."""

import base64
import json
import math
from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from configs.errors import RecordError
from configs.spec import Column, Detection, from_document
from features import synthetic
from features.columns import check_record
from features.contract import Contract
from features.events import Reducer
from ledger.predictions import records_of
from serving.bodies import JSON, decoder, read

NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)
WHO = "Zoë-4711"
"""Stands in every patient and reference that is a good one."""
ODD = (
    *(None, True, False, 0, -0.0, 1, 61, 5.2, -9, 1e-320, 17.999999999999996, 2**53 + 1, 10**30, 10**400),
    *(math.inf, -math.inf, "", "61", "female", "rest", "?", "NaN", "a" * 300, [], [61], {}, {"value": 61}),
    *({"value": 5.2, "unit": "mmol/L"}, {"value": 240, "unit": "mg/dL"}, {"value": 5, "unit": "stone"}),
    *({"value": 0, "unit": "mmol/L"}, {"value": -0.0, "unit": "a"}, {"value": 61, "unit": None}),
    *({"value": None, "unit": "mg/dL"}, {"value": None, "unit": "stone"}, {"value": True, "unit": "mg/dL"}),
    *({"value": "rest", "unit": None}, {"value": 10**400, "unit": "mmol/L"}, {"value": 61, "unit": "a", "x": 1}),
    {"value": {"value": 61, "unit": "a"}, "unit": "a"},
    *("<61", " < 61.0 ", "<60", ">61", ">100", "> 1e2", "<", "<-1", "<NaN", "<6_1", "<" + "9" * 400, "≤61"),
    *({"value": "<61", "unit": "a"}, {"value": ">100", "unit": "mmol/L"}, {"value": "<61", "unit": "stone"}),
    *({"value": "<2.5863183757920603", "unit": "mmol/L"}, {"value": 1e-3, "unit": "mmol/L"}, 60.999, 100.001, 100),
    *([61, 61.5], [61, -0.0, 100], [0, 10**400], [61, "61"], [61, None], [True, 61], [[61, 61], [61, 61]]),
    *({"value": [90, 90], "unit": "mg/dL"}, {"value": [5, 5.2, 5.4], "unit": "mmol/L"}, {"value": [61], "unit": "a"}),
)
TIMES = (
    *(None, "2026-03-03T09:30:00Z", "2025-12-24T18:00:00.25+01:00", "0001-01-01T00:00:00+00:00"),
    *("", "yesterday", "2026-03-03", "2026-03-03T09:30:00", "0001-01-01T00:00:00+14:00", 1_700_000_000, ["now"]),
)
TEXTS = (None, WHO, f"visit {WHO}", "", "x" * 201, "tab\there", "\x00", 17, False, ["p"], {"value": WHO})


@st.composite
def contracts(draw):
    """Columns of every kind, under names that Python and msgspec might trip over."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    return {name: draw(st.one_of(NUMBERS, CATEGORIES, BOOLEANS, ARRAYS)) for name in names}


NAMES = ("age_years", "class", "class_", "self", "value", "unit", "column_0", "cls", "x", "patient_", "at_")
CODES = st.lists(st.sampled_from([0, -9, 61, 61.0, True, "?", "", "rest", 10**30]), max_size=3).map(tuple)
BELOW = st.sampled_from([None, Detection(limit=61, counts_as=43.1), Detection(limit=61, counts_as=-0.0)])
ABOVE = st.sampled_from([None, Detection(limit=100, counts_as=100)])
UNITS = st.sampled_from([("mg/dL", ("mmol/L",), "2093-3"), ("a", (), None), ("mm[Hg]", ("kPa", "stone"), None)])
RANGES = st.sampled_from([(18.0, 120.0), (-1.0, 1.0), (-0.0, 1e40), (80.0, 700.0), (-0.5, 120.0)])
DETECTS = ((-0.5, 120.0), (-0.0, 1e40))
NUMBERS = st.builds(
    lambda unit, low_high, codes, required, below, above: Column(
        type="number",
        below_detection=below if low_high in DETECTS else None,
        above_detection=above if low_high in DETECTS else None,
        unit=unit[0],
        accepts=unit[1],
        loinc=unit[2],
        range=low_high,
        missing_if=codes,
        required=required,
    ),
    *(UNITS, RANGES, CODES, st.booleans(), BELOW, ABOVE),
)
CATEGORIES = st.builds(
    lambda values, codes, required: Column(type="category", values=values, missing_if=codes, required=required),
    st.sampled_from([("female", "male"), ("none", "rest", "female"), ("a", "b", "a"), ("NaN", "61")]),
    *(CODES, st.booleans()),
)
ARRAYS = st.builds(
    lambda unit, low_high, length, required: Column(
        type="array", unit=unit[0], accepts=unit[1], loinc=unit[2], range=low_high, length=length, required=required
    ),
    *(UNITS, RANGES, st.sampled_from([2, 3]), st.booleans()),
)
BOOLEANS = st.builds(
    lambda codes, required: Column(type="boolean", missing_if=codes, required=required), CODES, st.booleans()
)


@st.composite
def records(draw, columns):
    """A record that keeps these columns' contract, or one with something odd in it."""
    (record,) = synthetic.draw(columns, 1, draw(st.integers(0, 2**32 - 1)))
    odd = draw(st.integers(0, 3))
    for _ in range(odd):
        name = draw(st.sampled_from([*columns, *columns, "at", "patient", "reference", "events", "weight_kg"]))
        record[name] = draw(st.sampled_from(TIMES if name == "at" else TEXTS if name in TOLD else ODD))
    if draw(st.booleans()):
        record |= {"at": draw(st.sampled_from(TIMES[:4])), "patient": WHO, "reference": f"visit {WHO}"}
    return draw(st.sampled_from([record] * 12 + [None, 61, "record", [record]]))


TOLD = ("patient", "reference")


def body_of(records):
    """What a client sends; an infinite number as the literal that JSON has room for."""
    return json.dumps({"records": records}, ensure_ascii=False).replace("Infinity", "1e999").encode()


def judged(columns, record, events=None):
    """What the judge of values says: floats and identifiers, or the error."""
    try:
        found = check_record(columns, record, Reducer(columns, events or {}), NINE)
    except RecordError as exc:
        return exc.code, exc.field, str(exc)
    values = np.hstack(list(found.values.values()))
    return values.tobytes(), (found.at or NINE).timestamp(), found.patient, found.reference


def compiled(contract, sent):
    """What the contract says, one after the other."""
    checked = contract.check(sent, NINE)
    good = zip(checked.values, checked.at.tolist(), checked.patients, checked.references, strict=True)
    said = []
    for position in range(len(sent)):
        if error := checked.errors.get(position):
            said.append((error.code, error.field, str(error)))
        else:
            values, *told = next(good)
            said.append((values.tobytes(), *told))
    assert next(good, None) is None
    return said


def decoded(contract, records):
    """The records as the server decodes them: in one step with their check, and as plain JSON values."""
    body = body_of(records)
    return read(body, JSON, decoder(contract))[0], read(body, JSON, None)[0]


@pytest.fixture
def columns(toy_document):
    return from_document(toy_document, "toy.yaml").columns


def same_as_the_judge(columns, sent, events=None):
    contract = Contract(columns, events)
    typed, plain = decoded(contract, sent)
    expected = [judged(columns, record, events) for record in plain]

    assert compiled(contract, plain) == expected
    assert compiled(contract, typed) == expected


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_both_ways_of_decoding_are_judged_alike_to_the_bit_and_to_the_letter(columns, data):
    same_as_the_judge(columns, data.draw(st.lists(records(columns), min_size=1, max_size=6)))


@settings(max_examples=300)
@given(st.data())
def test_so_they_are_under_any_contract(data):
    columns = data.draw(contracts())
    same_as_the_judge(columns, data.draw(st.lists(records(columns), min_size=1, max_size=4)))


@pytest.mark.parametrize("odd", ODD, ids=lambda value: repr(value)[:40])
def test_one_odd_value_is_judged_alike_in_every_column(columns, odd):
    (good,) = synthetic.draw(columns, 1, seed=3)
    for name in columns:
        same_as_the_judge(columns, [{**good, name: odd}])
        same_as_the_judge(columns, [good, {**good, name: odd}, good])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
def test_a_number_that_json_has_no_word_for_is_judged_alike(columns, value):
    """Arrow has words for them."""
    (good,) = synthetic.draw(columns, 1, seed=3)
    for name in columns:
        sent = [good, {**good, name: value}]
        assert compiled(Contract(columns), sent) == [judged(columns, record) for record in sent]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_bad_record_costs_the_others_nothing(columns, data):
    good = data.draw(st.lists(records(columns).filter(lambda r: len(judged(columns, r)) == 4), min_size=1, max_size=4))
    bad = data.draw(records(columns).filter(lambda r: len(judged(columns, r)) == 3))
    contract = Contract(columns)
    place = data.draw(st.integers(0, len(good)))

    for sent in decoded(contract, [*good[:place], bad, *good[place:]]):
        alone, among = contract.check([*sent[:place], *sent[place + 1 :]], NINE), contract.check(sent, NINE)
        assert list(among.errors) == [place] and not alone.errors
        assert among.values.tobytes() == alone.values.tobytes()
        assert among.at.tobytes() == alone.at.tobytes()
        assert (among.patients, among.references) == (alone.patients, alone.references)
        assert contract.table(among.cells) == contract.table(alone.cells)


def on_record(contract, checked):
    """The good records as they are read from the ledger."""
    kept = contract.table(checked.cells)
    return records_of(SimpleNamespace(records=msgspec.json.decode(kept), received_at=NINE)), kept


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_ledger_gives_back_the_records_and_nobodys_name(columns, data):
    contract = Contract(columns)
    sent = data.draw(st.lists(records(columns), min_size=1, max_size=5))
    for decoding in decoded(contract, sent):
        checked = contract.check(decoding, NINE)

        back, kept = on_record(contract, checked)

        good = [record for place, record in enumerate(sent) if place not in checked.errors]
        for record, again, values, at in zip(good, back, checked.values, checked.at, strict=True):
            told = {name: cell for name, cell in record.items() if name in columns and cell is not None}
            assert {name: cell for name, cell in again.items() if name != "at"} == told
            assert judged(columns, again)[:2] == (values.tobytes(), at)
        assert WHO.encode() not in kept and b"patient" not in kept and b"reference" not in kept


def test_a_time_of_its_own_is_kept_in_utc_and_the_others_are_of_now(columns):
    (good,) = synthetic.draw(columns, 1, seed=3)
    contract = Contract(columns)
    checked = contract.check([{**good, "at": "2025-12-24T18:00:00+01:00"}, good], NINE)

    assert checked.at.tolist() == [datetime(2025, 12, 24, 17, tzinfo=UTC).timestamp(), NINE.timestamp()]
    back, _ = on_record(contract, checked)
    assert [record["at"] for record in back] == ["2025-12-24T17:00:00+00:00", NINE.isoformat()]


def test_no_records_are_no_rows(columns):
    checked = Contract(columns).check([], NINE)
    assert checked.values.shape == (0, len(columns)) and checked.errors == {}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_many_at_once_are_judged_as_each_alone_or_not_at_all(columns, data):
    contract = Contract(columns)
    sent = decoded(contract, data.draw(st.lists(records(columns), min_size=1, max_size=5)))[0]
    alone = [contract.check([record], NINE) for record in sent]

    whole = contract.quick(sent, NINE)

    if whole is None:
        assert any(one.errors for one in alone) or not all(isinstance(record, contract.record) for record in sent)
    else:
        assert whole.values.tobytes() == b"".join(one.values.tobytes() for one in alone)
        assert [whole.errors, *whole.cells] == [{}, *(cells for one in alone for cells in one.cells)]


# --- events


CODES_OF = {
    "2524-7": Column(type="number", unit="mmol/L", accepts=("mg/dL",), range=(0, 40), loinc="2524-7"),
    "2085-9": Column(
        type="number", unit="mg/dL", accepts=("mmol/L",), range=(5, 200), loinc="2085-9", missing_if=(-9,)
    ),
    "ph": Column(type="number", unit="1", range=(6.5, 8)),
    "fall": Column(type="boolean"),
}
WITH_EVENTS = {
    "lactate_max_24h": Column.model_validate({"event": "2524-7", "reduce": "max", "unit": "mmol/L", "window": "24h"}),
    "age_years": Column(type="number", unit="a", range=(18, 120), required=True),
    "hdl_last": Column.model_validate({"event": "2085-9", "reduce": "last", "unit": "mg/dL"}),
    "pain": Column(type="category", values=("none", "rest")),
    "ph_slope": Column.model_validate({"event": "ph", "reduce": "slope", "unit": "1/d"}),
    "falls_5a": Column.model_validate({"event": "fall", "reduce": "count", "unit": "1", "window": "5a"}),
}
MOMENTS = (
    *("2026-03-03T08:59:59Z", "2026-03-03T09:59:59+01:00", "2026-03-03T09:00:00Z", "2026-03-04T00:00:00Z"),
    *(
        "2026-03-02T09:00:00Z",
        "2026-03-02T08:59:59.999999Z",
        "2019-02-28T12:00:00.5-05:00",
        "2020-03-29T03:30:00+02:00",
    ),
)


@st.composite
def told_events(draw):
    """A list of events, some of which are odd, late, twice, or of codes that nobody reads."""
    events = [
        draw(
            st.one_of(
                st.fixed_dictionaries(
                    {"time": st.sampled_from(MOMENTS), "code": st.just("2524-7"), "unit": st.just("mmol/L")},
                    optional={"value": st.sampled_from([0.0, -0.0, 2.2, 3, 40]), "patient": st.just(WHO)},
                ),
                st.fixed_dictionaries(
                    {"time": st.sampled_from(MOMENTS), "code": st.just("2085-9")}
                    | {"value": st.sampled_from([60, 1.5, -9, None]), "unit": st.sampled_from(["mg/dL", "mmol/L"])}
                ),
                st.fixed_dictionaries(
                    {"time": st.sampled_from(MOMENTS), "code": st.sampled_from(["ph", "fall", "8310-5"])},
                    optional={
                        "value": st.sampled_from([7.4, 7, True, False, None]),
                        "unit": st.sampled_from(["1", None]),
                    },
                ),
            )
        )
        for _ in range(draw(st.integers(0, 6)))
    ]
    events += draw(st.lists(st.sampled_from(events), max_size=2)) if events else []
    for _ in range(draw(st.sampled_from([0, 0, 0, 1])) if events else 0):
        odd = dict(draw(st.sampled_from(events)))
        odd[draw(st.sampled_from(["time", "code", "value", "unit", "patient", "where"]))] = draw(
            st.sampled_from([*ODD, "2026-03-03T08:00:00", "yesterday"])
        )
        events.insert(draw(st.integers(0, len(events))), odd)
    return draw(st.sampled_from([events] * 12 + [None, 61, "events", [61], {"time": MOMENTS[0]}]))


@st.composite
def histories(draw):
    (record,) = synthetic.draw(WITH_EVENTS, 1, draw(st.integers(0, 2**32 - 1)))
    record |= {"events": draw(told_events())} if draw(st.integers(0, 5)) else {}
    record |= {"patient": WHO} if draw(st.booleans()) else {}
    return record | ({"at": draw(st.sampled_from(TIMES[:4]))} if draw(st.integers(0, 3)) == 0 else {})


@settings(max_examples=200)
@given(st.lists(histories(), min_size=1, max_size=4))
def test_events_are_judged_alike_both_ways_to_the_bit_and_to_the_letter(sent):
    same_as_the_judge(WITH_EVENTS, sent, CODES_OF)


@settings(max_examples=100)
@given(st.lists(histories(), min_size=1, max_size=4))
def test_both_ways_keep_the_same_events_and_ignore_the_same(sent):
    contract = Contract(WITH_EVENTS, CODES_OF)
    typed, plain = (contract.check(decoding, NINE) for decoding in decoded(contract, sent))
    whole = contract.quick(decoded(contract, sent)[0], NINE)

    for other in (plain, whole or plain):
        assert typed.ignored == other.ignored
        assert on_record(contract, typed)[0] == on_record(contract, other)[0]


@settings(max_examples=100)
@given(st.lists(histories(), min_size=1, max_size=4))
def test_the_ledger_gives_back_the_events_that_count_and_nobodys_name(sent):
    contract = Contract(WITH_EVENTS, CODES_OF)
    for decoding in decoded(contract, sent):
        checked = contract.check(decoding, NINE)

        back, kept = on_record(contract, checked)

        for again, values, at in zip(back, checked.values, checked.at, strict=True):
            assert judged(WITH_EVENTS, again, CODES_OF)[:2] == (values.tobytes(), at)
            assert contract.check([again], NINE).ignored == [{}]
        assert WHO.encode() not in kept and b"patient" not in kept


def test_a_contract_without_events_keeps_its_rows_as_they_were(columns):
    (good,) = synthetic.draw(columns, 1, seed=3)
    contract = Contract(columns)
    head, _, _ = contract.table(contract.check([good], NINE).cells).partition(b',"rows"')
    assert json.loads(head + b"}")["fields"] == [*columns, "at"]


def test_what_did_not_count_is_told_by_its_reason():
    contract = Contract(WITH_EVENTS, CODES_OF)
    lactate = {"time": "2026-03-03T08:00:00Z", "code": "2524-7", "value": 2.0, "unit": "mmol/L"}
    events = [
        lactate,
        {**lactate, "time": "2026-03-03T09:00:00+01:00"},  # the same moment, written elsewhere
        {**lactate, "time": "2026-03-03T09:00:00Z"},
        {**lactate, "time": "2031-01-01T00:00:00Z"},
        {**lactate, "code": "8310-5", "unit": "a unit of its own"},
        {**lactate, "value": None},
    ]
    checked = contract.check([{"age_years": 61, "events": events}, {"age_years": 61}], NINE)

    assert checked.errors == {}
    assert checked.ignored == [
        {
            "twice": 1,
            "at or after the time of prediction": 2,
            "a code that the model does not read": 1,
            "without a value": 1,
        },
        {},
    ]
    assert checked.values[0, contract.starts["lactate_max_24h"]] == 2
    assert [*map(len, checked.cells[0][2:3])] == [1]


# --- on to the features


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_the_servers_way_to_the_features_gives_the_same_bits(predictor, seed, n):
    columns = predictor.spec.columns
    sent = [*synthetic.edges(columns), *synthetic.draw(columns, n, seed)]
    sent[0] = {**sent[0], "at": "2025-12-24T18:00:00+01:00"}
    expected = predictor.features([predictor.check(record) for record in sent])

    for decoding in decoded(predictor.contract, sent):
        checked = predictor.contract.check(decoding, NINE)
        assert predictor.matrix(checked.values, checked.at).tobytes() == expected.tobytes()


# --- signals

ECG = Column(
    type="waveform", leads=("I", "V1"), sampling_hz=100, samples=50, unit="mV", accepts=("uV",), range=(-20, 20)
)
SCAN = Column(type="image", channels=1, height=4, width=6, unit="1", range=(0, 1), required=True)
NOTE = Column(type="text", length=40)
SIGNALS = {
    "note": NOTE,
    "age_years": Column(type="number", unit="a", range=(18, 120), required=True),
    "ecg": ECG,
    "sex": Column(type="category", values=("female", "male")),
    "scan": SCAN,
    "counts": Column(type="array", unit="1", range=(0, 100), length=3),
}


def waves(seed=3):
    return np.random.default_rng(seed).normal(size=(2, 50))


def every_way(array):
    """The ways in which a client, or a body's reader, may hold the same float32."""
    rounded = array.astype(np.float32)
    packed = base64.b64encode(rounded.astype("<f4").tobytes()).decode()
    return [rounded, rounded.astype(">f4"), np.asfortranarray(rounded), rounded.tolist(), packed, rounded.astype(float)]


def signal_records(seed=3, n=1):
    return synthetic.draw(SIGNALS, n, seed)


@pytest.mark.parametrize("way", range(6))
def test_a_signal_has_the_same_bits_however_it_came(way):
    contract = Contract(SIGNALS)
    (good,) = signal_records()
    picture = np.random.default_rng(5).random((1, 4, 6))
    sent = {**good, "ecg": every_way(waves())[way], "scan": every_way(picture)[way]}

    checked = contract.check([sent], NINE)

    assert not checked.errors
    found = contract.by_column(checked.values)
    assert found["ecg"].tobytes() == waves().astype(np.float32).astype(float).tobytes()
    assert found["scan"].tobytes() == picture.astype(np.float32).astype(float).tobytes()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1))
def test_signals_are_judged_alike_both_ways_to_the_bit_and_to_the_letter(seed):
    same_as_the_judge(SIGNALS, signal_records(seed, 3))


@pytest.mark.parametrize("name", ["ecg", "scan", "note"])
@pytest.mark.parametrize(
    "odd", [*ODD, {"value": [[1.0]]}, [[0.5] * 50] * 2, [[0.5] * 6] * 4], ids=lambda o: repr(o)[:40]
)
def test_an_odd_signal_is_judged_alike_and_costs_the_others_nothing(name, odd):
    good, other = signal_records(n=2)
    same_as_the_judge(SIGNALS, [good, {**good, name: odd}, other])


@pytest.mark.parametrize("way", range(6))
@pytest.mark.parametrize("told", [{}, {"unit": "uV"}, {"unit": "mV", "sampling_hz": 100}, {"sampling_hz": 200}])
def test_the_ledger_gives_back_a_signal_of_which_the_judge_makes_the_same_bits(way, told):
    contract = Contract(SIGNALS)
    recorded = np.repeat(waves(4), told.get("sampling_hz", 100) // 100, axis=1)
    wave = every_way(recorded * 1000 if told.get("unit") == "uV" else recorded)[way]
    sent = {**signal_records()[0], "ecg": {"value": wave, **told} if told else wave, "note": "Schmerz im linken Knie"}
    checked = contract.check([sent], NINE)
    assert not checked.errors

    (back,), kept = on_record(contract, checked)

    assert contract.check([back], NINE).values.tobytes() == checked.values.tobytes()
    assert back["note"] == "Schmerz im linken Knie"
    assert isinstance(back["ecg"].pop("value"), str)
    assert back["ecg"] == {"unit": "mV", "sampling_hz": 100, "leads": [*ECG.leads]} | told
    assert len(kept) < 2000  # 400 and 96 bytes of float32 as base64, and no list of numbers


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sampling_hz": 200}, "wrong_duration"),
        ({"unit": "uV", "accepts": [], "range": [-20, 20]}, "unit"),
        ({"leads": [*reversed(ECG.leads)]}, "wrong_leads"),
    ],
)
def test_a_recording_on_record_is_not_taken_for_one_of_another_contracts_rate_unit_or_leads(change, code):
    contract = Contract(SIGNALS)
    (back,), _ = on_record(contract, contract.check([{**signal_records()[0], "ecg": waves().tolist()}], NINE))
    other = Column.model_validate({**SIGNALS["ecg"].model_dump(), **change})

    checked = Contract({**SIGNALS, "ecg": other}).check([back], NINE)

    assert [(error.field, error.code) for error in checked.errors.values()] == [("ecg", code)]


@pytest.mark.parametrize("name", ["ecg", "scan"])
def test_numbers_between_two_float32_are_judged_as_they_go_on_record(name):
    contract = Contract(SIGNALS)
    shape = SIGNALS[name].shape
    sent = {**signal_records()[0], name: np.random.default_rng(7).random(shape).tolist()}
    checked = contract.check([sent], NINE)

    (back,), _ = on_record(contract, checked)

    assert contract.check([back], NINE).values.tobytes() == checked.values.tobytes()


def test_records_with_arrays_are_taken_in_one_go():
    contract = Contract(SIGNALS)
    sent = [{**record, "ecg": waves(seed).astype(np.float32)} for seed, record in enumerate(signal_records(n=5))]

    typed = contract.typed(sent)
    whole = contract.quick(typed, NINE)

    assert whole is not None
    alone = [contract.check([record], NINE) for record in typed]
    assert whole.values.tobytes() == b"".join(one.values.tobytes() for one in alone)
    assert contract.table(whole.cells) == contract.table([cells for one in alone for cells in one.cells])


def test_what_the_client_holds_is_not_changed():
    contract, wave = Contract(SIGNALS), waves().astype(np.float32)
    before = wave.copy()
    wave.flags.writeable = False
    contract.check([{**signal_records()[0], "ecg": wave}], NINE)
    assert np.array_equal(wave, before)


def test_no_records_with_signals_are_no_rows():
    assert Contract(SIGNALS).check([], NINE).values.shape == (0, 40 + 1 + 100 + 1 + 24 + 3)
