"""A signal that comes as bytes is the array that was sent, or is refused by name before it costs memory."""

import io
import json
import tracemalloc
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from configs.spec import Column
from serving.refusals import Refused
from serving.signals import DICOM, LONGEST_HEADER, MOST_RECORDS, NPY, PNG, RAW, identity, read

ECG = Column(
    type="waveform", leads=("I", "II", "V1"), sampling_hz=100, samples=5, unit="mV", accepts=("uV",), range=(-20, 20)
)
XRAY = Column(type="image", channels=1, height=4, width=6, unit="1", range=(0, 1))
AGE = Column(type="number", unit="a", range=(18, 120), required=True)
COLUMNS = {"ecg": ECG, "age_years": AGE}
BOTH = {"ecg": ECG, "xray": XRAY}
BEAT = np.linspace(-1, 1, 15, dtype=np.float32).reshape(3, 5)
SHAPED = {"X-Shape": "3,5", "X-Dtype": "float32"}


def saved(array, version=None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def headed(header: str, numbers: bytes = b"", version=(1, 0)) -> bytes:
    """A .npy file of this header, whatever it says."""
    length = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + header.encode() + numbers


def told(**headers: str) -> dict[bytes, bytes]:
    return {name.lower().encode(): value.encode() for name, value in headers.items()}


def records_of(body, kind=NPY, headers=MappingProxyType({}), columns=COLUMNS):
    return read(body, kind, headers, columns)[0]


def refusal(body, kind=NPY, headers=(), columns=COLUMNS):
    with pytest.raises(Refused) as caught:
        read(body, kind, told(**dict(headers)), columns)
    return caught.value.status, caught.value.code, caught.value.body["error"]["field"]


@given(arrays.arrays(st.sampled_from(["<f4", "<f8", ">f4", "<i2", ">i2", "u1"]), st.sampled_from([(3, 5), (2, 3, 5)])))
def test_an_npy_file_is_the_array_that_was_saved_whatever_its_order(sent):
    for array in (sent, np.asfortranarray(sent)):
        found = [record["ecg"] for record in records_of(saved(array))]
        assert np.array_equal(found, sent.reshape(-1, 3, 5), equal_nan=True)


def test_an_npy_file_of_version_2_is_read_too():
    (record,) = records_of(saved(BEAT, (2, 0)))
    assert np.array_equal(record["ecg"], BEAT)


@pytest.mark.parametrize("kind", ["<f4", "<i2"])
@pytest.mark.parametrize("shape", [(3, 5), (2, 3, 5)])
def test_raw_numbers_are_in_the_shape_that_was_told(kind, shape):
    sent = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    headers = told(**{"X-Shape": ", ".join(map(str, shape)), "X-Dtype": sent.dtype.name})

    found = [record["ecg"] for record in records_of(sent.tobytes(), RAW, headers)]

    assert np.array_equal(found, sent.reshape(-1, 3, 5))


def test_numbers_are_not_copied():
    body = BEAT.tobytes()
    (record,) = records_of(body, RAW, told(**SHAPED))
    assert np.shares_memory(record["ecg"], np.frombuffer(body, np.uint8))


def test_the_other_fields_stand_in_a_header():
    two = np.stack([BEAT, -BEAT])
    headers = told(**{"X-Record": json.dumps([{"age_years": 61}, {"age_years": 40, "reference": "visit-2"}])})

    first, second = records_of(saved(two), NPY, headers)

    assert first.pop("ecg").tobytes() == BEAT.tobytes() and second.pop("ecg").tobytes() == (-BEAT).tobytes()
    assert (first, second) == ({"age_years": 61}, {"age_years": 40, "reference": "visit-2"})


def test_a_unit_a_rate_and_the_leads_stand_beside_the_value():
    headers = told(**{"X-Unit": "uV", "X-Sampling-Hz": "500", "X-Leads": "I,II, V1"})
    (record,) = records_of(saved(BEAT), NPY, headers)

    assert np.array_equal(record["ecg"].pop("value"), BEAT)
    assert record["ecg"] == {"unit": "uV", "sampling_hz": 500.0, "leads": ["I", "II", "V1"]}


def test_a_picture_is_its_file():
    assert records_of(b"\x89PNG", PNG, {}, BOTH) == [{"xray": {"png": b"\x89PNG"}}]
    assert records_of(b"DICM", DICOM, told(**{"X-Record": "{}"}), BOTH) == [{"xray": {"dicom": b"DICM"}}]


@pytest.mark.parametrize(
    ("columns", "kind", "field", "expected"),
    [
        (BOTH, NPY, None, (422, "malformed", "X-Field")),
        (BOTH, NPY, "age_years", (422, "unknown_field", "X-Field")),
        (BOTH, PNG, "ecg", (422, "unknown_field", "X-Field")),
        ({"age_years": AGE}, NPY, None, (415, "unsupported_media_type", "Content-Type")),
        (COLUMNS, PNG, None, (415, "unsupported_media_type", "Content-Type")),
    ],
)
def test_which_signal_the_body_is_must_be_clear(columns, kind, field, expected):
    assert refusal(saved(BEAT), kind, {"X-Field": field} if field else {}, columns) == expected


def test_of_several_signals_a_header_names_one():
    picture = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    assert list(records_of(saved(picture), NPY, told(**{"X-Field": "xray"}), BOTH)[0]) == ["xray"]


@pytest.mark.parametrize(
    ("headers", "status", "code", "field"),
    [
        ({"X-Record": "{"}, 400, "not_json", "X-Record"),
        ({"X-Record": "[" * 60_000}, 400, "not_json", "X-Record"),
        ({"X-Record": '{"age_years": NaN}'}, 400, "not_json", "X-Record"),
        ({"X-Record": "61"}, 422, "malformed", "X-Record"),
        ({"X-Record": "[61]"}, 422, "malformed", "X-Record"),
        ({"X-Record": "[]"}, 422, "malformed", "X-Record"),
        ({"X-Record": "[{}, {}]"}, 422, "malformed", "X-Record"),
        ({"X-Record": '{"ecg": null}'}, 422, "malformed", "X-Record"),
        ({"X-Explain": "yes"}, 422, "malformed", "X-Explain"),
        ({"X-Unit": ""}, 422, "malformed", "X-Unit"),
        ({"X-Unit": "u" * 41}, 422, "malformed", "X-Unit"),
        ({"X-Unit": "µV"}, 422, "malformed", "X-Unit"),
        ({"X-Sampling-Hz": "0"}, 422, "malformed", "X-Sampling-Hz"),
        ({"X-Sampling-Hz": "-500"}, 422, "malformed", "X-Sampling-Hz"),
        ({"X-Sampling-Hz": "inf"}, 422, "malformed", "X-Sampling-Hz"),
        ({"X-Sampling-Hz": "1e3"}, 422, "malformed", "X-Sampling-Hz"),
        ({"X-Sampling-Hz": "9" * 400}, 422, "malformed", "X-Sampling-Hz"),
    ],
)
def test_a_header_that_says_nothing_clear_is_refused_by_its_name(headers, status, code, field):
    assert refusal(saved(BEAT), NPY, headers) == (status, code, field)


@pytest.mark.parametrize(("sent", "asked"), [("true", True), ("false", False), (None, False)])
def test_an_explanation_is_asked_for_in_a_header(sent, asked):
    assert read(saved(BEAT), NPY, {} if sent is None else told(**{"X-Explain": sent}), COLUMNS)[1] == asked


@pytest.mark.parametrize("header", ["X-Unit", "X-Sampling-Hz", "X-Leads"])
def test_a_picture_has_neither_unit_nor_rate_nor_leads(header):
    assert refusal(b"\x89PNG", PNG, {header: "1"}, BOTH) == (422, "malformed", header)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"X-Shape": "3,6"}, "X-Shape"),
        ({"X-Shape": "3,4"}, "X-Shape"),
        ({"X-Shape": "15"}, "X-Shape"),
        ({"X-Shape": "3,-5"}, "X-Shape"),
        ({"X-Shape": "3x5"}, "X-Shape"),
        ({"X-Shape": "1,1,1,3,5"}, "X-Shape"),
        ({"X-Shape": "9999999999,1"}, "X-Shape"),
        ({"X-Shape": "999999999,999999999,999999999,999999999"}, "X-Shape"),
        ({"X-Shape": "٣,٥"}, "X-Shape"),
        ({"X-Shape": ""}, "X-Shape"),
        ({"X-Dtype": "float64"}, "X-Dtype"),
        ({"X-Dtype": "object"}, "X-Dtype"),
        ({"X-Dtype": ""}, "X-Dtype"),
    ],
)
def test_raw_numbers_in_another_shape_or_kind_are_refused(changed, field):
    assert refusal(BEAT.tobytes(), RAW, SHAPED | changed) == (422, "malformed", field)


@pytest.mark.parametrize("lacking", ["X-Shape", "X-Dtype"])
def test_raw_numbers_need_their_shape_and_their_kind(lacking):
    headers = {name: value for name, value in SHAPED.items() if name != lacking}
    assert refusal(BEAT.tobytes(), RAW, headers) == (422, "malformed", lacking)


@pytest.mark.parametrize("shape", [(15,), (1, 1, 3, 5), (0, 3, 5), (3, 0)])
def test_an_array_that_is_no_signal_nor_several_is_refused(shape):
    status, _, field = refusal(saved(np.zeros(shape, np.float32)))
    assert (status, field) == (422, "ecg")


def test_more_signals_than_a_request_may_hold_are_refused():
    many = np.zeros((MOST_RECORDS + 1, 3, 5), np.int16)
    assert refusal(saved(many)) == (413, "too_many_records", "records")


@pytest.mark.parametrize(
    "array",
    [
        np.array([{"age": 61}], object),
        np.zeros((3, 5), [("x", "f4")]),
        np.full((3, 5), "x"),
        np.zeros((3, 5), complex),
        np.zeros((3, 5), bool),
        np.zeros((3, 5), "M8[s]"),
        np.zeros((3, 5), np.int64),
    ],
    ids=lambda array: array.dtype.str[:12],
)
def test_an_npy_file_of_another_kind_of_numbers_is_refused_and_nothing_is_unpickled(array):
    assert refusal(saved(array)) == (422, "unsupported_dtype", "Content-Type")


GOOD = saved(BEAT)
HEAD = "{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\x93NUMP",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00",
        b"PK\x03\x04" + GOOD,
        GOOD[:-1],
        GOOD + b"\0",
        GOOD[:40],
        b"\x93NUMPY\x03\x00" + GOOD[8:],
        b"\x93NUMPY\x09\x00" + GOOD[8:],
        headed("{}\n", BEAT.tobytes()),
        headed("(" * 9000, BEAT.tobytes()),
        headed("[" * 9000 + "]" * 900, BEAT.tobytes()),
        headed("__import__('os').system('true')\n", BEAT.tobytes()),
        headed(HEAD.format(descr="'<f4'", order="1", shape="(3, 5)"), BEAT.tobytes()),
        headed(HEAD.format(descr="'<f4'", order="False", shape="(3.0, 5)"), BEAT.tobytes()),
        headed(HEAD.format(descr="'<f4'", order="False", shape="(-3, -5)"), BEAT.tobytes()),
        headed(HEAD.format(descr="'<f4'", order="False", shape=f"({10**40}, {10**40})"), BEAT.tobytes()),
        headed(HEAD.format(descr="'no such'", order="False", shape="(3, 5)"), BEAT.tobytes()),
        headed(" " * LONGEST_HEADER, BEAT.tobytes()),
        headed(" " * 200_000, BEAT.tobytes(), (2, 0)),
    ],
    ids=lambda body: repr(body)[:60],
)
def test_what_is_no_npy_file_is_told_so(body):
    status, code, _ = refusal(body)
    assert (status, code) in {(400, "not_npy"), (422, "wrong_shape")}


def test_a_header_that_promises_gigabytes_costs_no_memory():
    body = headed(HEAD.format(descr="'<f8'", order="True", shape="(1000, 1000, 5000)"), b"\0" * 64)
    tracemalloc.start()
    status, code, _ = refusal(body)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (status, code) == (400, "not_npy")
    assert most < 1_000_000


def damaged():
    """The file cut off everywhere, and with every byte turned over."""
    yield from (GOOD[:end] for end in range(len(GOOD)))
    yield from (GOOD[:at] + bytes([GOOD[at] ^ 0xFF]) + GOOD[at + 1 :] for at in range(len(GOOD)))


def test_a_damaged_file_is_refused_or_read_and_never_an_error_of_ours():
    found, refused = 0, set()
    for body in damaged():
        try:
            (record,) = records_of(body)
            found += record["ecg"].shape == (3, 5)
        except Refused as exc:
            refused.add(exc.status)

    assert refused <= {400, 422} and 400 in refused
    assert found == BEAT.nbytes  # a number that was turned over is another number


def test_a_body_with_other_headers_is_another_request():
    headers = told(**{"X-Unit": "uV", "X-Record": '{"age_years": 61}'})
    others = [headers | told(**{"X-Unit": "mV"}), headers | told(**{"X-Record": '{"age_years": 16}'}), {}]
    assert len({identity(each) for each in (headers, *others)}) == 4
    assert identity(headers | told(**{"X-Deadline-Ms": "50"})) == identity(headers)
