"""What a client sends becomes records, or is refused by name before it costs memory."""

import json
import time
import tracemalloc

import pyarrow as pa
import pytest

from configs.spec import Column
from features.contract import Contract
from serving.bodies import ARROW, JSON, decoder, largest, read
from serving.refusals import Refused
from serving.signals import MOST_RECORDS, NPY, PNG, RAW

AGES = {"age_years": Column(type="number", unit="a", range=(18.0, 120.0), required=True)}


def sent(document):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return read(body, JSON, None)


def stream(table, **options):
    """The table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(table)
    return sink.getvalue().to_pybytes()


def refusal(body, kind=ARROW):
    with pytest.raises(Refused) as caught:
        read(body, kind, None)
    return caught.value


# --- JSON


def test_records_come_as_they_were_sent():
    records = [{"age_years": 61, "sex": "male"}, {}, None, 7]
    assert sent({"records": records}) == (records, False)
    assert sent({"records": records, "explain": True}) == (records, True)


@pytest.mark.parametrize("typed", [True, False])
def test_columns_become_records(typed):
    body = json.dumps({"columns": {"age_years": [61, None], "pain": ["rest", "none"]}, "explain": True}).encode()

    found = read(body, JSON, decoder(Contract(AGES)) if typed else None)

    assert found == ([{"age_years": 61, "pain": "rest"}, {"age_years": None, "pain": "none"}], True)


def test_records_of_the_contracts_types_are_decoded_as_such_and_others_are_not():
    typed = decoder(Contract(AGES))
    (good,), _ = read(b'{"records": [{"age_years": 61}]}', JSON, typed)
    records, _ = read(b'{"records": [{"age_years": 61}, {"age_years": "61"}]}', JSON, typed)

    assert good.column_0 == 61.0
    assert records == [{"age_years": 61}, {"age_years": "61"}]


@pytest.mark.parametrize(
    ("document", "status", "code", "field"),
    [
        ({"columns": {"age_years": [1, 2], "pain": ["rest"]}}, 422, "malformed", "pain"),
        ({"columns": {"age_years": [], "pain": ["rest"]}}, 422, "malformed", "pain"),
        ({"columns": {"a": [1]}, "records": [{"a": 1}]}, 422, "malformed", "columns"),
        ({"columns": {"a": [1]}, "records": []}, 422, "malformed", "columns"),
        ({"columns": {}}, 422, "malformed", "records"),
        ({"columns": {"a": []}}, 422, "malformed", "records"),
        ({"columns": {"a": 1}}, 422, "malformed", None),
        ({"records": []}, 422, "malformed", "records"),
        ({"records": None}, 422, "malformed", "records"),
        ({}, 422, "malformed", "records"),
        ({"records": {}}, 422, "malformed", None),
        ({"record": []}, 422, "malformed", None),
        ({"records": [{}], "explain": "yes"}, 422, "malformed", None),
        ([], 422, "malformed", None),
        ({"columns": {"a": [0] * (MOST_RECORDS + 1)}}, 413, "too_many_records", "records"),
        ({"records": [0] * (MOST_RECORDS + 1)}, 413, "too_many_records", "records"),
        (b"", 400, "not_json", None),
        (b"{", 400, "not_json", None),
        (b'{"records": [NaN]}', 400, "not_json", None),
        (b'{"records": ["\xff"]}', 400, "not_json", None),
        (b'{"records": ["\\ud800"]}', 400, "not_json", None),
        (b'{"records": ' + b"[" * 100_000, 400, "not_json", None),
    ],
    ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize("typed", [None, decoder(Contract(AGES))], ids=["plain", "typed"])
def test_what_is_no_request_is_refused_whatever_decodes_it(document, status, code, field, typed):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    with pytest.raises(Refused) as caught:
        read(body, JSON, typed)

    assert (caught.value.status, caught.value.code, caught.value.body["error"]["field"]) == (status, code, field)


@pytest.mark.parametrize("number", [b"1e999", b"-1e999", b"1" + b"0" * 400])
@pytest.mark.parametrize("typed", [None, decoder(Contract(AGES))], ids=["plain", "typed"])
def test_a_number_beyond_all_floats_is_its_records_own_fault(number, typed):
    found, _ = read(b'{"records": [{"age_years": 61}, {"age_years": %s}]}' % number, JSON, typed)
    assert found[0] == {"age_years": 61}


def test_as_many_records_as_are_allowed_are_read():
    assert len(sent({"records": [0] * MOST_RECORDS})[0]) == MOST_RECORDS


@pytest.mark.parametrize("kind", ["", "text/plain", "application/vnd.apache.arrow.file"])
def test_another_kind_of_body_is_refused(kind):
    assert refusal(b'{"records": [{}]}', kind).status == 415


# --- Arrow


def test_a_stream_becomes_records():
    table = pa.table(
        {
            "age_years": pa.array([61, None, 40], pa.int16()),
            "cholesterol_mg_dl": pa.array([240.5, None, 0.0], pa.float64()),
            "smoker": pa.array([True, None, False]),
            "pain": pa.array(["rest", None, "rest"]).dictionary_encode(),
            "site": pa.array(["north", "süd", None], pa.large_string()),
            "sex": pa.nulls(3),
            "bins": pa.array([[1.0, 2.5], None, [3.0, 4.0]]),
        }
    )

    found, explain = read(stream(table), ARROW, None)

    assert not explain
    assert [record.pop("bins") for record in found] == [[1.0, 2.5], None, [3.0, 4.0]]
    assert found == [
        {"age_years": 61, "cholesterol_mg_dl": 240.5, "smoker": True, "pain": "rest", "site": "north", "sex": None},
        {"age_years": None, "cholesterol_mg_dl": None, "smoker": None, "pain": None, "site": "süd", "sex": None},
        {"age_years": 40, "cholesterol_mg_dl": 0.0, "smoker": False, "pain": "rest", "site": None, "sex": None},
    ]


def test_several_batches_are_one_request():
    table = pa.table({"age_years": list(range(7)), "pain": pa.array(["rest", "none", None] * 2 + ["x"])})
    table = table.set_column(1, "pain", table["pain"].dictionary_encode())
    body = stream(pa.concat_tables([table.slice(0, 3), table.slice(3)]))

    assert read(body, ARROW, None)[0] == table.to_pylist()


def test_a_stream_without_rows_is_no_request():
    assert refusal(stream(pa.table({"age_years": pa.array([], pa.int16())}))).body["error"]["field"] == "records"


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("column", [pa.array([7.0] * 1000), pa.array(["x"] * 1000).dictionary_encode()])
def test_a_compressed_stream_is_refused(codec, column):
    error = refusal(stream(pa.table({"x": column}), compression=codec))
    assert (error.status, error.code) == (422, "malformed") and "compressed" in str(error)


@pytest.mark.parametrize("kind", [pa.null(), pa.bool_(), pa.int64()])
def test_too_many_rows_are_refused_before_they_are_unpacked(kind):
    """A column of nulls takes no byte of the body, whatever its length."""
    n = 2_000_000
    body = stream(pa.table({"age_years": pa.nulls(n, kind)}))
    tracemalloc.start()
    before = pa.total_allocated_bytes()

    error = refusal(body)

    assert (error.status, error.code) == (413, "too_many_records")
    assert tracemalloc.get_traced_memory()[1] < 2 * len(body) + 1_000_000  # as Python objects they are 16 MB at least
    assert pa.total_allocated_bytes() == before
    tracemalloc.stop()


def test_too_many_rows_in_many_batches_are_refused():
    table = pa.table({"age_years": pa.nulls(MOST_RECORDS // 2)})
    assert refusal(stream(pa.concat_tables([table, table, table]))).code == "too_many_records"
    assert len(read(stream(pa.concat_tables([table, table])), ARROW, None)[0]) == MOST_RECORDS


def test_more_columns_than_any_contract_has_cost_neither_memory_nor_time():
    """An empty column takes some 60 bytes of the body, however many rows it has."""
    names = [f"{place:x}" for place in range(20_000)]
    wide = stream(pa.table([pa.nulls(1)] * len(names), names=names))
    long_as_well = stream(pa.table([pa.nulls(MOST_RECORDS)] * 500, names=names[:500]))

    began = time.monotonic()
    (record,), _ = read(wide, ARROW, None)

    assert len(record) == len(names)
    assert time.monotonic() - began < 2
    assert refusal(long_as_well).code == "too_many_records"


def test_two_columns_of_one_name_are_refused():
    table = pa.table([pa.array([1]), pa.array([2])], names=["age_years", "age_years"])
    assert refusal(stream(table)).body["error"] == {
        "code": "malformed",
        "message": "the Arrow stream has two columns 'age_years'.",
        "field": "age_years",
    }


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["61"], None]),
        pa.array([[[1.0]], None]),
        pa.array([[1.0], [2.0]], pa.list_view(pa.float64())),
        pa.array([{"value": 5.2, "unit": "mmol/L"}] * 2),
        pa.array([b"61", b"x"]),
        pa.array([1, 2], pa.timestamp("s")),
        pa.array([1, 2], pa.duration("s")),
        pa.array([1, 2], pa.decimal128(5)),
        pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int8())),
        pa.array([1, 2]).dictionary_encode(),
        pa.array([b"a", b"b"]).dictionary_encode(),
        pa.RunEndEncodedArray.from_arrays([2], ["rest"]),
        pa.array(["a", "b"], pa.string_view()),
        pa.array([1, 2], pa.time32("s")),
    ],
    ids=lambda column: str(column.type)[:40],
)
def test_a_column_that_holds_no_plain_values_is_refused_by_name(column):
    error = refusal(stream(pa.table({"age_years": column})))
    assert (error.status, error.code, error.body["error"]["field"]) == (422, "malformed", "age_years")


def test_one_huge_text_that_ten_thousand_rows_point_to_is_refused():
    """A megabyte of body would be ten gigabytes of text in the ledger and the messages."""
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * MOST_RECORDS, pa.int8()), pa.array(["x" * 1_000_000]))
    error = refusal(stream(pa.table({"pain": huge})))
    assert (error.status, error.code, error.body["error"]["field"]) == (422, "malformed", "pain")


GOOD = stream(pa.table({"age_years": [61, 40], "pain": pa.array(["rest", "none"]).dictionary_encode()}))


def damaged():
    """The stream cut off everywhere but at its end marker, and with every byte turned over."""
    yield from (GOOD[:end] for end in range(len(GOOD) - 8))
    yield from (GOOD[:at] + bytes([GOOD[at] ^ 0xFF]) + GOOD[at + 1 :] for at in range(len(GOOD)))


def test_a_damaged_stream_is_refused_or_read_and_never_an_error_of_ours():
    found, refused = [], []
    for body in damaged():
        try:
            found.append(read(body, ARROW, None)[0])
        except Refused as exc:
            refused.append(exc.status)

    assert set(refused) == {400, 413, 422}
    assert all(isinstance(record, dict) for records in found for record in records)
    assert len(refused) > len(found) > 0


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff" * 64, b"ARROW1\0\0" + b"\0" * 64, GOOD[: len(GOOD) // 2]])
def test_what_is_no_stream_is_told_so(body):
    error = refusal(body)
    assert (error.status, error.code) == (400, "not_arrow")


def test_a_file_is_no_stream():
    table = pa.table({"age_years": [61]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write(table)
    assert refusal(sink.getvalue().to_pybytes()).code == "not_arrow"


def test_a_text_that_is_no_utf_8_is_refused():
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    assert refusal(stream(pa.table({"pain": texts}))).code == "not_arrow"


def test_events_do_not_come_as_arrow_and_it_says_so():
    table = pa.table({"age_years": [61], "events": [[{"time": "2026-03-03T09:00:00Z", "code": "fall"}]]})
    with pytest.raises(Refused, match="events: Arrow list<item: struct") as refused:
        read(stream(table), ARROW, None)
    assert refused.value.body["error"]["field"] == "events"


def test_events_in_columns_are_a_list_of_each_records_own():
    events = [[{"time": "2026-03-03T09:00:00Z", "code": "fall"}], None]
    body = json.dumps({"columns": {"age_years": [61, 40], "events": events}}).encode()
    assert read(body, JSON, None)[0] == [{"age_years": 61, "events": events[0]}, {"age_years": 40, "events": None}]


# --- how large

MIB = 1024 * 1024


def ecg(samples):
    return {"ecg": Column(type="waveform", leads=("I",), sampling_hz=100, samples=samples, unit="mV", range=(-20, 20))}


@pytest.mark.parametrize(
    ("columns", "kind", "expected"),
    [
        (AGES, JSON, 8 * MIB),
        (AGES, NPY, 8 * MIB),
        (ecg(5000), JSON, 8 * MIB),
        (ecg(5000), NPY, 8 * MIB),
        (ecg(50_000), RAW, 64 * 8 * 50_000),
        (ecg(1_000_000), NPY, 64 * MIB),
        (ecg(400_000), JSON, 25 * 400_000),
        (ecg(10_000_000), JSON, 32 * MIB),
        (AGES, PNG, 64 * MIB),
    ],
)
def test_a_body_may_be_as_large_as_the_contracts_signals_ask_for(columns, kind, expected):
    assert largest(columns, 64, kind) == expected


def test_one_record_as_json_fits_however_its_numbers_are_written():
    columns = ecg(400_000)
    body = json.dumps({"records": [{"ecg": [[-1.2345678901234567e-100] * 400_000]}]}, separators=(",", ":"))
    assert len(body) - len('{"records":[{"ecg":[[]]}]}') < largest(columns, 64, JSON)
