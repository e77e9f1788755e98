"""Every prediction that was answered is found again; what patients said is gone after a purge, to the last byte."""

import dataclasses
import os
import stat
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from configs.errors import LedgerError, RecordError
from ledger import database, outcomes, predictions, tables
from ledger.database import connect, writing
from ledger.outcomes import Outcome
from ledger.predictions import (
    Entry,
    feature_digest,
    find,
    hash_patients,
    idempotency,
    keep_all,
    parse_id,
    patient_key,
    prediction_id,
    purge,
    reserve,
    since,
    window,
)

NINE = datetime(2026, 3, 3, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECRET = "Xylophon-Befund-4711"
KEYED = idempotency("k1", b"body")
KEY = "import sys; from pathlib import Path; from ledger.predictions import patient_key; patient_key(Path(sys.argv[1]))"


def said_of(answered, keyed=None, numbers=None):
    """A request whose answer is its number."""
    return Entry([answered], keyed, lambda given: str(given[0]).encode(), numbers)


def keep(engine, answered, keyed=None):
    """Put it on record; the number that was answered."""
    return int(predictions.keep(engine, said_of(answered, keyed)))


def tell(engine, prediction, value):
    with writing(engine) as connection:
        return outcomes.record(connection, Outcome(prediction, None, None, value, NINE + 24 * HOUR))


# --- one prediction


def test_what_was_said_is_found_again(ledger, answered):
    said = answered(3)
    request = keep(ledger, said)

    for position in range(3):
        stored = find(ledger, f"{request}-{position}")
        assert (stored.id, stored.model, stored.version) == (f"{request}-{position}", "angina", 3)
        assert (stored.bundle, stored.received_at) == (said.bundle, NINE)
        assert stored.record == {"age_years": 50 + position, "at": NINE.isoformat()}
        assert stored.band == said.bands[position]
        assert stored.risk == said.risks[position]
        assert_array_equal(stored.features, said.features[position])
        assert stored.feature_digest == feature_digest(said.features[position])


def test_what_was_said_by_class_is_found_again_to_the_bit(engine, answered, by_class):
    plain, said = answered(2), by_class(3, seed=4)
    keep(engine, plain)
    number = keep(engine, answered(3, risks=said.risks[:, 1:].sum(axis=1), by_class=said))

    found = [find(engine, prediction_id(number, position)) for position in range(3)]

    assert [list(each.risks.items()) for each in found] == [
        list(zip(["none", "colon", "lung"], row, strict=True)) for row in said.risks.tolist()
    ]
    assert [each.label for each in found] == said.labels
    assert (find(engine, "1-0").risks, find(engine, "1-0").label) == (None, None)


def test_requests_with_and_without_classes_go_on_record_together(ledger, answered, by_class):
    said = by_class(2)
    with writing(ledger) as connection:
        kept = keep_all(connection, [said_of(answered(1)), said_of(answered(2, by_class=said)), said_of(answered(1))])

    found = [find(ledger, prediction_id(number, 0)) for (number,) in kept]
    assert [each.risks and list(each.risks.values()) for each in found] == [None, said.risks[0].tolist(), None]


def test_a_row_without_classes_has_nothing_of_them(engine, answered):
    keep(engine, answered(2))
    with engine.connect() as connection:
        row = connection.execute(sa.text("SELECT classes, class_risks, labels FROM requests")).one()
    assert tuple(row) == (None, None, None)


def test_a_record_with_every_kind_of_value_comes_back_as_it_was(ledger, answered):
    record = {"age_years": 61, "chol": {"value": 5.2, "unit": "mmol/L"}, "pain": "Übelkeit", "smoker": True}
    told = {**record, "at": "2026-03-03T08:00:00+00:00"}
    request = keep(ledger, answered(2, records=[told, record]))

    assert find(ledger, f"{request}-0").record == told
    assert find(ledger, f"{request}-1").record == {**record, "at": NINE.isoformat()}


def test_a_record_as_earlier_releases_wrote_it_is_read(ledger, answered):
    request = keep(ledger, answered(1, records=b'[{"age_years": 61, "pain": null, "at": "2026-03-03T09:00:00+00:00"}]'))
    assert find(ledger, f"{request}-0").record == {"age_years": 61, "pain": None, "at": NINE.isoformat()}


def test_a_time_of_another_zone_is_kept_in_utc(ledger, answered):
    berlin = timezone(2 * HOUR)
    request = keep(ledger, answered(1, received_at=datetime(2026, 3, 3, 11, tzinfo=berlin)))
    assert find(ledger, f"{request}-0").received_at == NINE


@pytest.mark.parametrize("offset", ["1-2", "2-0", "0-0", "99999-0", "1-99999", "999999999999999-0"])
def test_a_prediction_that_was_never_made_is_not_found(ledger, answered, offset):
    keep(ledger, answered(2))
    with pytest.raises(LedgerError, match=f"no prediction '{offset}' is on record"):
        find(ledger, offset)


@given(st.integers(1, 10**15 - 1), st.integers(0, 65535))
def test_an_id_is_read_as_it_was_written(request, position):
    assert parse_id(prediction_id(request, position)) == (request, position)


@given(st.text(max_size=30) | st.from_regex(r"[0-9-]{1,40}", fullmatch=True) | st.from_regex(r"\d{1,25}-\d{1,25}"))
def test_a_text_is_an_id_only_if_it_is_written_like_one(text):
    try:
        request, position = parse_id(text)
    except LedgerError:
        return
    assert prediction_id(request, position) == text
    assert request < 2**63 and position < 2**63  # what a database takes


@pytest.mark.parametrize(
    "text", ["", "17", "-0", "17-", "17-0-0", "017-0", "17-00", "+1-0", "1 -0", "1-0\n", "１-0", "1-" + "9" * 30]
)
def test_what_is_no_id_is_refused(ledger, text):
    with pytest.raises(LedgerError, match="is no prediction's id"):
        find(ledger, text)


# --- the feature digest


def test_another_value_or_another_order_has_another_digest():
    rows = [[1, 2], [2, 1], [1, np.nan], [np.nan, 1], [1, np.nextafter(np.float32(2), np.float32(3))]]
    assert len({feature_digest(np.array(row, np.float32)) for row in rows}) == len(rows)


# --- windows


def fill(engine, answered, sizes=(2, 3, 1)):
    """Requests of these sizes, an hour apart."""
    return [
        keep(
            engine,
            answered(
                n, seed=number, received_at=NINE + number * HOUR, records=[{"n": f"{number}.{row}"} for row in range(n)]
            ),
        )
        for number, n in enumerate(sizes)
    ]


def names(found):
    return [record["n"] for record in found.records]


def test_a_window_holds_the_predictions_oldest_first(ledger, answered):
    fill(ledger, answered)

    found = window(ledger, "angina", "b" * 64, None, None)

    assert names(found) == ["0.0", "0.1", "1.0", "1.1", "1.2", "2.0"]
    assert len(found) == len(found.risks) == len(found.features) == len(found.digests) == len(found.outcomes) == 6
    assert (found.first, found.last, found.purged) == (NINE, NINE + 2 * HOUR, 0)
    assert_array_equal(found.risks, np.concatenate([answered(n, seed=s).risks for s, n in enumerate((2, 3, 1))]))
    assert_array_equal(found.features, np.concatenate([answered(n, seed=s).features for s, n in enumerate((2, 3, 1))]))
    assert found.digests == [feature_digest(row) for row in found.features]
    assert np.isnan(found.outcomes).all()


@pytest.mark.parametrize("last", [None, 3, 1])
def test_a_window_holds_what_was_said_by_class_and_which_class_came_true(ledger, answered, by_class, last):
    said = [by_class(2, seed=seed) for seed in (1, 2)]
    numbers = [keep(ledger, answered(2, received_at=NINE + n * HOUR, by_class=each)) for n, each in enumerate(said)]
    tell(ledger, prediction_id(numbers[1], 1), "lung")
    tell(ledger, prediction_id(numbers[1], 0), 1)

    found = window(ledger, "angina", "b" * 64, last, None)

    skip = 4 - (last or 4)
    assert list(found.by_class.events) == ["none", "colon", "lung"]
    assert_array_equal(found.by_class.risks, np.concatenate([each.risks for each in said])[skip:])
    assert found.by_class.labels == [label for each in said for label in each.labels][skip:]
    assert found.happened == [None, None, None, "lung"][skip:]
    assert_array_equal(found.outcomes, np.array([np.nan, np.nan, 1, 1])[skip:])


def test_a_window_of_a_model_without_classes_has_none(ledger, answered):
    keep(ledger, answered(2))
    assert window(ledger, "angina", "b" * 64, None, None).by_class is None


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (1, ["2.0"]),
        (2, ["1.2", "2.0"]),
        (4, ["1.0", "1.1", "1.2", "2.0"]),
        (5, ["0.1", "1.0", "1.1", "1.2", "2.0"]),
        (99, ["0.0", "0.1", "1.0", "1.1", "1.2", "2.0"]),
    ],
)
def test_the_last_predictions_are_the_newest(ledger, answered, last, expected):
    requests = fill(ledger, answered)
    tell(ledger, f"{requests[2]}-0", 1)

    found = window(ledger, "angina", "b" * 64, last, None)

    assert names(found) == expected
    assert len(found.risks) == len(found.features) == len(found.digests) == len(found.outcomes) == len(expected)
    assert found.outcomes[-1] == 1


@pytest.mark.parametrize(
    ("begin", "expected"), [(NINE + HOUR, 4), (NINE + HOUR + timedelta(microseconds=1), 1), (NINE, 6)]
)
@pytest.mark.parametrize("zone", [UTC, timezone(5 * HOUR), timezone(-8 * HOUR)])
def test_since_a_time_whatever_its_zone(ledger, answered, begin, expected, zone):
    fill(ledger, answered)
    assert len(window(ledger, "angina", "b" * 64, None, begin.astimezone(zone))) == expected


def test_a_window_is_of_one_model_and_one_bundle(ledger, answered):
    keep(ledger, answered(2))
    keep(ledger, answered(2, model="sepsis"))
    keep(ledger, answered(2, bundle="c" * 64))
    assert len(window(ledger, "angina", "b" * 64, None, None)) == 2


def test_an_empty_window_has_no_times(ledger):
    found = window(ledger, "angina", "b" * 64, 50, None)
    assert (len(found), found.first, found.last, found.purged) == (0, None, None, 0)


def test_the_later_of_two_outcomes_counts(ledger, answered):
    (request,) = fill(ledger, answered, sizes=(3,))
    tell(ledger, f"{request}-0", 1)
    tell(ledger, f"{request}-2", 1)
    tell(ledger, f"{request}-0", 0)

    assert_array_equal(window(ledger, "angina", "b" * 64, None, None).outcomes, [0, np.nan, 1])


def test_the_outcomes_of_another_models_prediction_are_not_taken(ledger, answered):
    first = keep(ledger, answered(1))
    between = keep(ledger, answered(1, model="sepsis"))
    last = keep(ledger, answered(1))
    tell(ledger, f"{between}-0", 1)

    assert first < between < last
    assert np.isnan(window(ledger, "angina", "b" * 64, None, None).outcomes).all()


# --- several requests in one transaction


def put(engine, *entries):
    with writing(engine) as connection:
        return keep_all(connection, entries)


def test_requests_of_one_transaction_have_numbers_that_rise_and_rows_of_their_own(ledger, answered):
    """As many as one statement holds, and one more."""
    kept = put(ledger, *(said_of(answered(1, seed=n, references=[f"visit {n}"])) for n in range(33)))

    numbers = [number for (number,) in kept]
    assert numbers == sorted(set(numbers))
    found = window(ledger, "angina", "b" * 64, None, None)
    assert_array_equal(found.risks, np.concatenate([answered(1, seed=n).risks for n in range(33)]))
    with ledger.connect() as connection:
        named = connection.execute(sa.select(tables.references.c.request).order_by(tables.references.c.id)).scalars()
        assert list(named) == numbers


def test_a_request_that_two_versions_answered_has_a_number_for_each(ledger, answered):
    told = Entry(
        [answered(2), answered(1, version=4, bundle="c" * 64, traffic=7)], KEYED, lambda given: repr(given).encode()
    )
    ((first, second), again) = put(ledger, told, told)

    assert find(ledger, f"{first}-1").version == 3
    assert find(ledger, f"{second}-0").version == 4
    assert again == repr([first, second]).encode()
    with ledger.connect() as connection:
        rows = connection.execute(sa.select(tables.requests.c.traffic, tables.requests.c.body_digest))
        assert rows.all() == [(None, KEYED.body_digest), (7, None)]


def test_a_request_that_brings_its_number_is_on_record_under_it_once(ledger, answered):
    with writing(ledger) as connection:
        (number,) = reserve(connection, 1)

    for _ in range(2):
        assert put(ledger, said_of(answered(1, references=["visit 1"]), numbers=[number])) == [[number]]

    assert len(window(ledger, "angina", "b" * 64, None, None)) == 1
    with ledger.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.references)).scalar() == 1


def test_a_number_that_was_reserved_is_given_to_nobody_else(ledger, answered):
    first = keep(ledger, answered(1))
    with writing(ledger) as connection:
        mine = reserve(connection, 1000)
    others = [keep(ledger, answered(1)) for _ in range(3)]

    assert len({first, *mine, *others}) == 1004


# --- idempotency


def test_a_key_brings_back_the_answer_it_got(ledger, answered):
    first = keep(ledger, answered(1), KEYED)

    assert keep(ledger, answered(1), KEYED) == first
    assert put(ledger, said_of(answered(1), KEYED)) == [str(first).encode()]
    assert len(window(ledger, "angina", "b" * 64, None, None)) == 1


def test_a_key_with_another_body_is_refused(ledger, answered):
    keep(ledger, answered(1), KEYED)
    with pytest.raises(RecordError, match="used with another body"):
        keep(ledger, answered(1), idempotency("k1", b"other"))
    assert len(window(ledger, "angina", "b" * 64, None, None)) == 1


def test_a_key_is_one_models_own(ledger, answered):
    assert keep(ledger, answered(1), KEYED) != keep(ledger, answered(1, model="sepsis"), KEYED)


def test_requests_without_a_key_never_collide(ledger, answered):
    assert keep(ledger, answered(1)) != keep(ledger, answered(1))


def test_a_key_itself_is_not_kept(ledger, home, answered):
    keep(ledger, answered(1), idempotency(SECRET, SECRET.encode()))
    assert SECRET.encode() not in bytes_of_the_ledger(home)


def test_a_key_whose_answer_was_purged_says_so(ledger, answered):
    keep(ledger, answered(1), KEYED)
    purge(ledger, NINE + HOUR, "nurse.joy")

    with pytest.raises(RecordError, match="its answer has been purged"):
        keep(ledger, answered(1), KEYED)


def test_two_answers_of_one_key_that_both_left_are_both_on_record(ledger, answered):
    """One of them while the ledger was away: its id is with its caller, so it is found."""
    with writing(ledger) as connection:
        (number,) = reserve(connection, 1)
    first = keep(ledger, answered(1), KEYED)

    put(ledger, said_of(answered(1, seed=2), KEYED, [number]))

    assert find(ledger, f"{number}-0").risk == answered(1, seed=2).risks[0]
    assert keep(ledger, answered(1), KEYED) == first


def test_a_transaction_that_fails_leaves_no_prediction(ledger, answered):
    def half():
        with writing(ledger) as connection:
            keep_all(connection, [said_of(answered(2, references=["r", None]))])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert len(window(ledger, "angina", "b" * 64, None, None)) == 0


# --- purge


def secretive(answered, at=NINE, **changed):
    return answered(
        40,
        received_at=at,
        records=[{"note": f"{SECRET} record {row} " + "x" * 300} for row in range(40)],
        references=[f"{SECRET} reference {row}" for row in range(40)],
        patients=[f"{SECRET} patient {row}" for row in range(40)],
        **changed,
    )


def bytes_of_the_ledger(settings):
    return b"".join(path.read_bytes() for path in sorted(settings.home.glob("ledger.db*")))


def test_a_purge_leaves_no_byte_of_what_patients_said(ledger, home, answered):
    said = secretive(answered)
    predictions.keep(ledger, Entry([said], KEYED, lambda _: f"{SECRET} answer".encode() * 500))
    newer = keep(ledger, answered(2, received_at=NINE + 3 * HOUR))
    assert SECRET.encode() in bytes_of_the_ledger(home)
    assert said.features.tobytes() in bytes_of_the_ledger(home)

    assert purge(ledger, NINE + HOUR, "nurse.joy") == 40

    left = bytes_of_the_ledger(home)
    assert SECRET.encode() not in left
    assert said.features.tobytes() not in left
    assert find(ledger, f"{newer}-1").record is not None


def test_a_purge_keeps_digests_risks_bands_labels_and_outcomes(ledger, answered, by_class):
    said = dataclasses.replace(secretive(answered), by_class=by_class(40))
    request = keep(ledger, said)
    tell(ledger, f"{request}-1", "colon")

    purge(ledger, NINE + HOUR, "nurse.joy")

    stored = find(ledger, f"{request}-1")
    assert (list(stored.risks.values()), stored.label) == (said.by_class.risks[1].tolist(), said.by_class.labels[1])
    assert (stored.record, stored.features) == (None, None)
    assert (stored.risk, stored.band) == (said.risks[1], said.bands[1])
    assert stored.feature_digest == feature_digest(said.features[1])
    with ledger.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.outcomes)).scalar() == 1
        assert connection.execute(sa.select(sa.func.count()).select_from(tables.references)).scalar() == 0
        assert connection.execute(sa.select(tables.requests.c.patients)).scalar() is None


def test_purged_predictions_are_counted_and_left_out_of_a_window(ledger, answered):
    fill(ledger, answered)
    assert purge(ledger, NINE + HOUR, "nurse.joy") == 2

    found = window(ledger, "angina", "b" * 64, None, None)
    assert names(found) == ["1.0", "1.1", "1.2", "2.0"]
    assert found.purged == 2


def test_a_purge_is_on_record_and_done_once(ledger, answered):
    fill(ledger, answered)
    assert [purge(ledger, NINE + HOUR, "nurse.joy") for _ in range(2)] == [2, 0]
    with ledger.connect() as connection:
        row = connection.execute(sa.select(tables.audit)).first()
    assert (row.actor, row.action) == ("nurse.joy", "purge")
    assert row.detail == f"2 predictions before {(NINE + HOUR).isoformat()}"


@pytest.mark.parametrize("zone", [UTC, timezone(5 * HOUR), timezone(-8 * HOUR)])
def test_a_purge_means_its_moment_whatever_the_zone(ledger, answered, zone):
    fill(ledger, answered)
    assert purge(ledger, (NINE + HOUR).astimezone(zone), "nurse.joy") == 2


def test_a_purge_that_a_reader_keeps_from_the_log_says_so(home, answered, monkeypatch):
    """The reader still needs the write-ahead log, and with it what was purged; after it, a second try clears it."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    engine = connect(home)
    keep(engine, secretive(answered))
    reader = engine.connect()
    reader.exec_driver_sql("BEGIN")
    reader.execute(sa.select(tables.requests.c.id)).all()

    with pytest.raises(LedgerError, match="is still being read"):
        purge(engine, NINE + HOUR, "nurse.joy")
    assert find(engine, "1-0").record is None

    reader.close()
    purge(engine, NINE + HOUR, "nurse.joy")
    assert SECRET.encode() not in bytes_of_the_ledger(home)


# --- patients' hashes


def test_the_same_patient_has_the_same_hash_and_another_home_another(tmp_path):
    key, other = patient_key(tmp_path / "a"), patient_key(tmp_path / "b")

    first, nobody, again, second = hash_patients(key, ["Joy", None, "Joy", "joy"])
    assert first == again != second
    assert nobody is None
    assert "Joy" not in first
    assert hash_patients(other, ["Joy"]) != [first]


def test_the_key_is_made_once_and_private(tmp_path):
    key = patient_key(tmp_path / "home")
    path = tmp_path / "home" / "keys" / "patient.key"

    assert patient_key(tmp_path / "home") == key == path.read_bytes()
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [file.name for file in path.parent.iterdir()] == ["patient.key"]


def test_a_key_that_is_damaged_is_refused_and_not_replaced(tmp_path):
    patient_key(tmp_path)
    (tmp_path / "keys" / "patient.key").write_bytes(b"short")
    with pytest.raises(LedgerError, match=r"patient\.key: is not a key of 32 bytes"):
        patient_key(tmp_path)
    assert (tmp_path / "keys" / "patient.key").read_bytes() == b"short"


def test_a_disk_that_is_full_leaves_no_empty_key(child, tmp_path):
    child(KEY, tmp_path, largest_file=0).communicate(timeout=60)
    assert len(patient_key(tmp_path)) == 32


def test_two_that_make_the_key_at_once_agree(tmp_path, monkeypatch):
    """The other process has made its key between our look and our write."""
    real = os.urandom

    def slowly(n):
        monkeypatch.setattr(os, "urandom", real)
        other.append(patient_key(tmp_path))
        return real(n)

    other = []
    monkeypatch.setattr(os, "urandom", slowly)

    assert patient_key(tmp_path) == other[0]


# --- times as people type them


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-03", datetime(2026, 3, 3, tzinfo=UTC)),
        ("2026-03-03T09:00:00Z", NINE),
        ("2026-03-03T11:00:00+02:00", NINE),
        ("2026-03-03T09:00", NINE),
    ],
)
def test_a_time_as_it_is_typed(text, expected):
    assert since(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01", "03/03/2026", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(LedgerError, match="is no ISO 8601 time"):
        since(text)
