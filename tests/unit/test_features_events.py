"""A patient's history as of a moment: what a plain loop says, whoever else is there, whatever comes later."""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.spec import Column
from features import events as module
from features.events import Events, Reducer

EVENTS = {
    "2524-7": Column(type="number", unit="mmol/L", range=(0, 50)),
    "8867-4": Column(type="number", unit="/min", range=(0, 300)),
    "fall": Column(type="boolean"),
}
H, D = 3600.0, 86400.0


def column(event, reduce, unit, window=None):
    return Column.model_validate({"event": event, "reduce": reduce, "unit": unit, "window": window})


COLUMNS = {
    "age_years": Column(type="number", unit="a", range=(18, 120)),
    "lactate_last": column("2524-7", "last", "mmol/L"),
    "lactate_first_24h": column("2524-7", "first", "mmol/L", "24h"),
    "lactate_max_24h": column("2524-7", "max", "mmol/L", "24h"),
    "lactate_max_3d": column("2524-7", "max", "mmol/L", "3d"),
    "lactate_min_24h": column("2524-7", "min", "mmol/L", "24h"),
    "lactate_mean": column("2524-7", "mean", "mmol/L"),
    "lactate_slope_3d": column("2524-7", "slope", "mmol/L/h", "3d"),
    "lactate_count_24h": column("2524-7", "count", "1", "24h"),
    "lactate_count_3d": column("2524-7", "count", "1", "3d"),
    "rate_mean_24h": column("8867-4", "mean", "/min", "24h"),
    "rate_slope": column("8867-4", "slope", "/min/d"),
    "rate_since": column("8867-4", "time_since", "h"),
    "falls": column("fall", "count", "1"),
    "fall_since": column("fall", "time_since", "d", "3d"),
    "fell_last": column("fall", "last", "1"),
}
REDUCED = {name: column for name, column in COLUMNS.items() if column.event}
CODES = list(EVENTS)
REDUCER = Reducer(COLUMNS, EVENTS)


def history(*told):
    """(patient, seconds, code, value) as Events."""
    patient, time, code, value = zip(*told, strict=True) if told else ((), (), (), ())
    places = [CODES.index(name) for name in code]
    return Events(
        np.array(patient, np.int64), np.array(time, float), np.array(places, np.int64), np.array(value, float)
    )


def reduced(told, at, patients=None, sent=None):
    """Each column's values for these patients at these times."""
    n = len(at)
    patients = np.arange(n) if patients is None else np.array(patients, np.int64)
    sent = np.ones(n, bool) if sent is None else np.array(sent)
    return REDUCER.reduce(history(*told), patients, np.array(at, float), sent)


def one(name, *told, at=10 * D, sent=True):
    return reduced([(0, *event) for event in told], [at], sent=[sent])[name][0]


def naive(told, patient, at, column):
    """The same by a loop over one patient's events."""
    begin = at - column.window_seconds
    rows = sorted({(t, v) for p, t, code, v in told if p == patient and code == column.event and begin <= t < at})
    if EVENTS[column.event].type == "boolean" and column.reduce in ("count", "time_since"):
        rows = [(t, v) for t, v in rows if v]
    values, times = [v for _, v in rows], [t for t, _ in rows]

    def moment(time):
        there = [v for t, v in rows if t == time]
        return sum(there) / len(there)

    if column.reduce == "count":
        return float(len(rows))
    if not rows:
        return math.nan
    if column.reduce == "slope":
        if times[0] == times[-1]:
            return math.nan
        t, v = np.array(times) - np.mean(times), np.array(values) - np.mean(values)
        return float((t * v).sum() / (t * t).sum()) * {"mmol/L/h": H, "/min/d": D}[column.unit]
    return {
        "last": lambda: moment(times[-1]),
        "first": lambda: moment(times[0]),
        "min": lambda: min(values),
        "max": lambda: max(values),
        "mean": lambda: sum(values) / len(values),
        "time_since": lambda: (at - times[-1]) / {"h": H, "d": D}.get(column.unit, 1),
    }[column.reduce]()


# Few distinct times and values, so that ties, duplicates and ends of windows are common.
TIMES = st.one_of(st.integers(0, 12).map(lambda n: n * 12 * H), st.floats(0, 6 * D))
VALUES = st.one_of(st.sampled_from([0.0, 1.0, 2.5, 4.0]), st.floats(0, 50).map(lambda value: value + 0.0))
KINDS = st.one_of(
    st.tuples(st.sampled_from(CODES[:2]), VALUES), st.tuples(st.just("fall"), st.sampled_from([0.0, 1.0]))
)
TOLD = st.lists(st.tuples(st.integers(0, 4), TIMES, KINDS).map(lambda event: (*event[:2], *event[2])), max_size=40)
ROWS = st.lists(st.tuples(st.integers(0, 5), TIMES), min_size=1, max_size=8)


def same(one, other):
    return {name: values.tobytes() for name, values in one.items()} == {
        name: values.tobytes() for name, values in other.items()
    }


@settings(max_examples=300)
@given(TOLD, ROWS)
def test_the_reducer_says_what_a_loop_over_one_patients_events_says(told, rows):
    patients, at = zip(*rows, strict=True)
    found = reduced(told, at, patients)

    assert list(found) == list(REDUCED)
    for name, column in REDUCED.items():
        expected = [naive(told, patient, time, column) for patient, time in rows]
        assert found[name] == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True), name


@settings(max_examples=200)
@given(TOLD, ROWS, st.randoms(use_true_random=False))
def test_one_patient_alone_gets_the_same_bits_as_in_a_cohort_of_all(told, rows, dice):
    patients, at = zip(*rows, strict=True)
    sent = [dice.random() < 0.7 for _ in rows]
    together = reduced(told, at, patients, sent)
    mixed = dice.sample(told, len(told))

    for row, (patient, time) in enumerate(rows):
        own = [(0, *event[1:]) for event in mixed if event[0] == patient]
        alone = reduced(own, [time], sent=[sent[row]])
        assert same(alone, {name: values[row : row + 1] for name, values in together.items()})


@settings(max_examples=200)
@given(TOLD, TOLD, st.integers(0, 4), TIMES)
def test_no_event_at_or_after_the_time_of_prediction_changes_anything(told, more, patient, at):
    future = [(who, at + time, code, value) for who, time, code, value in more]  # the first ones at that very moment

    assert same(reduced([*told, *future], [at], [patient]), reduced(told, [at], [patient]))


@settings(max_examples=200)
@given(TOLD, ROWS, st.randoms(use_true_random=False))
def test_neither_the_order_of_arrival_nor_a_second_sending_changes_a_bit(told, rows, dice):
    patients, at = zip(*rows, strict=True)
    again = [*told, *dice.choices(told, k=len(told))] if told else []
    dice.shuffle(again)

    assert same(reduced(again, at, patients), reduced(told, at, patients))


@settings(max_examples=200)
@given(TOLD, ROWS)
def test_a_longer_window_never_lowers_the_highest_value_or_the_count(told, rows):
    patients, at = zip(*rows, strict=True)
    found = reduced(told, at, patients)

    assert (found["lactate_count_3d"] >= found["lactate_count_24h"]).all()
    both = ~np.isnan(found["lactate_max_24h"])
    assert (found["lactate_max_3d"][both] >= found["lactate_max_24h"][both]).all()


@settings(max_examples=100)
@given(TOLD, ROWS, st.integers(1, 7))
def test_how_much_is_laid_out_at_once_changes_no_bit(told, rows, size):
    patients, at = zip(*rows, strict=True)
    expected = reduced(told, at, patients)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "AT_ONCE", size)
        assert same(reduced(told, at, patients), expected)


def test_a_window_begins_with_its_first_moment_and_ends_before_the_time_of_prediction():
    at = 10 * D
    assert one("lactate_max_24h", (at - 24 * H, "2524-7", 3.0)) == 3
    assert math.isnan(one("lactate_max_24h", (at - 24 * H - 1, "2524-7", 3.0)))
    assert math.isnan(one("lactate_max_24h", (at, "2524-7", 3.0)))
    assert one("lactate_last", (0.0, "2524-7", 3.0)) == 3


def test_no_events_told_is_unknown_and_an_empty_history_is_none():
    assert math.isnan(one("falls", sent=False))
    assert one("falls") == 0
    assert one("falls", (D, "2524-7", 2.0)) == 0
    assert math.isnan(one("lactate_max_24h"))


def test_what_did_not_happen_is_not_counted():
    no, yes = (8 * D, "fall", 0.0), (9 * D, "fall", 1.0)
    assert one("falls", no) == 0 and math.isnan(one("fall_since", no)) and one("fell_last", no) == 0
    assert one("falls", no, yes) == 1 and one("fall_since", no, yes) == 1
    assert one("fell_last", yes, (9.5 * D, "fall", 0.0)) == 0


def test_two_values_of_one_moment_are_their_mean_whichever_came_first():
    early, late = (D, "2524-7", 2.0), (D, "2524-7", 4.0)
    for told in ((early, late), (late, early)):
        assert one("lactate_last", *told) == 3
    assert one("lactate_max_3d", early, late, at=2 * D) == 4
    assert one("lactate_count_24h", early, late, at=2 * D) == 2


def test_the_same_event_twice_counts_once():
    twice = (9 * D + H, "2524-7", 2.0)
    assert one("lactate_count_24h", twice, twice) == 1
    assert one("lactate_mean", twice, twice, (9 * D + 2 * H, "2524-7", 5.0)) == 3.5


def test_a_slope_is_in_the_unit_that_it_is_written_in_and_needs_two_moments():
    rising = [(8 * D + hour * H, "2524-7", 1 + 0.25 * hour) for hour in range(5)]
    assert one("lactate_slope_3d", *rising) == pytest.approx(0.25, rel=1e-12)
    daily = [(day * D, "8867-4", 60 + 2 * day) for day in range(5)]
    assert one("rate_slope", *daily) == pytest.approx(2, rel=1e-12)
    assert math.isnan(one("lactate_slope_3d", (8 * D, "2524-7", 1.0), (8 * D, "2524-7", 5.0)))


def test_a_slope_keeps_its_digits_half_a_century_after_1970():
    begin = 1_777_777_777.0
    rising = [(begin + second, "2524-7", 2 + second * 1e-6) for second in range(10)]
    assert one("lactate_slope_3d", *rising, at=begin + 60) == pytest.approx(3600e-6, rel=1e-6)


def test_without_a_time_of_prediction_nothing_is_known():
    found = reduced([(0, D, "2524-7", 2.0)], [math.nan])
    assert all(math.isnan(values[0]) for values in found.values())


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Tokyo"])
def test_twenty_four_hours_are_as_long_when_the_clocks_change_and_any_offset_will_do(zone):
    at = datetime(2026, 3, 29, 12, tzinfo=ZoneInfo("Europe/Berlin"))  # in the night before, 02:00 became 03:00
    within, before = (at.astimezone(UTC) - timedelta(hours=hours) for hours in (24, 24.5))
    assert within.astimezone(ZoneInfo("Europe/Berlin")).hour == 11
    told = [(within, "2524-7", 2.0), (before, "2524-7", 7.0)]
    written = [(time.astimezone(ZoneInfo(zone)).isoformat(), code, value) for time, code, value in told]
    read = [(0, datetime.fromisoformat(text).timestamp(), code, value) for text, code, value in written]

    found = reduced(read, [at.timestamp()])

    assert found["lactate_max_24h"][0] == 2 and found["lactate_last"][0] == 2 and found["lactate_mean"][0] == 4.5


def test_patients_are_not_mixed():
    told = [(0, D, "2524-7", 2.0), (1, 2 * D, "2524-7", 9.0), (2, D, "8867-4", 80.0)]
    found = reduced(told, [3 * D] * 4)
    assert found["lactate_last"] == pytest.approx([2, 9, math.nan, math.nan], nan_ok=True)
    assert found["rate_mean_24h"] == pytest.approx([math.nan] * 4, nan_ok=True)
    assert found["rate_since"] == pytest.approx([math.nan, math.nan, 48, math.nan], nan_ok=True)
