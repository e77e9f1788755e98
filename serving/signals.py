"""A signal that a client sends by itself, as bytes and not as JSON: .npy, raw numbers, one picture.

What the bytes cannot say stands in headers: `X-Field` which signal it is, where the model has several; `X-Shape` and
`X-Dtype` of raw numbers; `X-Unit`, `X-Sampling-Hz` and `X-Leads` of a waveform; `X-Record` the record's other fields,
as JSON; `X-Explain` whether an explanation is asked for.
Numbers stay where the body has them: an array here is a view of its bytes.
"""

import io
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from configs.spec import Column
from serving.refusals import Refused

NPY = "application/x-npy"
RAW = "application/octet-stream"
PNG = "image/png"
DICOM = "application/dicom"
KINDS = (NPY, RAW, PNG, DICOM)
PICTURES = {PNG: "png", DICOM: "dicom"}

HEADERS = ("X-Field", "X-Shape", "X-Dtype", "X-Unit", "X-Sampling-Hz", "X-Leads", "X-Record", "X-Explain")
"""They change what is answered: a body that comes again with its key is the same request only with the same of them."""
RAW_DTYPES: Mapping[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int16": np.dtype("<i2")}
NPY_DTYPES = ("float32", "float64", "float16", "int16", "int32", "uint8", "uint16")
LONGEST_HEADER = 10_000
"""Bytes of a .npy file's header, which is parsed as Python: numpy's own bound."""
MOST_RECORDS = 10_000
SHAPE = re.compile(r"[0-9]{1,9}(?:,[0-9]{1,9}){1,3}", re.ASCII)
RATE = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6})?", re.ASCII)
SAID = re.compile(r"[ -~]{1,40}", re.ASCII)


def read(
    body: bytes, kind: str, headers: Mapping[bytes, bytes], columns: Mapping[str, Column]
) -> tuple[list[dict[str, Any]], bool]:
    """The records of a body that is a signal, one or several, and whether explanations are asked for.

    A record is the signal and the fields that a header told. `columns`: those that the model is sent. Raises Refused.
    """
    name, column = _field(kind, headers, columns)
    if kind in PICTURES:
        if not body:
            raise Refused(400, "malformed", "the body is empty; one picture is expected.")
        cells: list[Any] = [{PICTURES[kind]: body}]
    else:
        numbers = _npy(body) if kind == NPY else _raw(body, headers)
        cells = _each(name, column, numbers)
    about = _about(column, headers)
    if about:
        cells = [{"value": cell, **about} for cell in cells]
    others = _told(headers, name, len(cells))
    return [{**told, name: cell} for told, cell in zip(others, cells, strict=True)], _explain(headers)


def identity(headers: Mapping[bytes, bytes]) -> bytes:
    """What beside the body makes one request of a signal another one than the next."""
    return b"\0".join(headers.get(name.lower().encode(), b"") for name in HEADERS)


def _header(headers: Mapping[bytes, bytes], name: str) -> str | None:
    sent = headers.get(name.lower().encode())
    return None if sent is None else sent.decode("latin-1").strip()


def _explain(headers: Mapping[bytes, bytes]) -> bool:
    told = _header(headers, "X-Explain")
    if told not in (None, "true", "false"):
        raise Refused(422, "malformed", "X-Explain: true or false is expected.", "X-Explain")
    return told == "true"


def _field(kind: str, headers: Mapping[bytes, bytes], columns: Mapping[str, Column]) -> tuple[str, Column]:
    """The signal that the body is."""
    types = ("image",) if kind in PICTURES else ("waveform", "image")
    known = [name for name, column in columns.items() if column.type in types]
    if not known:
        said = f"Content-Type: this model reads no {' and no '.join(types)} by itself; application/json is expected."
        raise Refused(415, "unsupported_media_type", said, "Content-Type")
    told = _header(headers, "X-Field")
    if told is None and len(known) > 1:
        raise Refused(422, "malformed", f"X-Field: which of {', '.join(known)} the body is, is expected.", "X-Field")
    name = known[0] if told is None else told
    if name not in known:
        said = f"X-Field: {name[:60]!r} is none of the signals that come so: {', '.join(known)}."
        raise Refused(422, "unknown_field", said, "X-Field")
    return name, columns[name]


def _about(column: Column, headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The unit, the rate and the leads of what was sent, where they are told."""
    unit, rate = _header(headers, "X-Unit"), _header(headers, "X-Sampling-Hz")
    leads = _header(headers, "X-Leads")
    for header, value in (("X-Unit", unit), ("X-Sampling-Hz", rate), ("X-Leads", leads)):
        if value is not None and column.type != "waveform":
            raise Refused(422, "malformed", f"{header}: is of a waveform, and this is an {column.type}.", header)
    found: dict[str, Any] = {}
    if unit is not None:
        if SAID.fullmatch(unit) is None:
            raise Refused(422, "malformed", "X-Unit: a unit of 1 to 40 printable characters is expected.", "X-Unit")
        found["unit"] = unit
    if rate is not None:
        if RATE.fullmatch(rate) is None or float(rate) == 0:
            said = "X-Sampling-Hz: a positive number of samples a second is expected, such as 500."
            raise Refused(422, "malformed", said, "X-Sampling-Hz")
        found["sampling_hz"] = float(rate)
    if leads is not None:
        found["leads"] = [lead.strip() for lead in leads.split(",")]
    return found


def _told(headers: Mapping[bytes, bytes], name: str, n: int) -> list[dict[str, Any]]:
    """The other fields of each of the n records."""
    sent = headers.get(b"x-record")
    if sent is None:
        return [{}] * n
    try:
        told = msgspec.json.Decoder(float_hook=float).decode(sent)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refused(400, "not_json", f"X-Record: is not JSON: {exc}. Missing is null.", "X-Record") from exc
    records = told if isinstance(told, list) else [told]
    if not all(isinstance(record, dict) for record in records):
        said = "X-Record: an object of the record's other fields, or a list of them, is expected."
        raise Refused(422, "malformed", said, "X-Record")
    if len(records) != n:
        raise Refused(422, "malformed", f"X-Record: tells of {len(records)} records, the body holds {n}.", "X-Record")
    if any(name in record for record in records):
        raise Refused(422, "malformed", f"X-Record: {name} is in the body; it stands in one of them.", "X-Record")
    return records


def _each(name: str, column: Column, numbers: NDArray[Any]) -> list[Any]:
    """The numbers of each record: the array itself where it is one signal, else along its first axis."""
    shape = column.shape
    assert shape is not None  # of a waveform and an image the Spec knows it
    if numbers.size == 0:
        raise Refused(422, "malformed", f"{name}: the array is empty.", name)
    if numbers.ndim == len(shape) + 1:
        if len(numbers) > MOST_RECORDS:
            said = f"records: {len(numbers)} are more than the {MOST_RECORDS} of one request; send them in parts."
            raise Refused(413, "too_many_records", said, "records")
        return list(numbers)
    if numbers.ndim == len(shape) or (column.type == "image" and numbers.ndim == 2):
        return [numbers]
    expected = " x ".join(map(str, shape))
    said = f"{name}: an array of {numbers.ndim} axes; {expected} is expected, or several of that, one a record."
    raise Refused(422, "wrong_shape", said, name)


def _raw(body: bytes, headers: Mapping[bytes, bytes]) -> NDArray[Any]:
    """Little-endian numbers, row-major, in the shape that a header tells."""
    told, kind = _header(headers, "X-Shape"), _header(headers, "X-Dtype")
    dtype = RAW_DTYPES.get(kind or "")
    if dtype is None:
        expected = " or ".join(RAW_DTYPES)
        raise Refused(422, "malformed", f"X-Dtype: {expected} is expected, little-endian.", "X-Dtype")
    if told is None or SHAPE.fullmatch(compact := told.replace(" ", "")) is None:
        said = "X-Shape: 2 to 4 whole numbers are expected, such as 1,12,1000: records, leads, samples."
        raise Refused(422, "malformed", said, "X-Shape")
    shape = tuple(map(int, compact.split(",")))
    expected_bytes = math.prod(shape) * dtype.itemsize
    if expected_bytes != len(body):
        said = f"X-Shape: {told[:60]} of {kind} takes {expected_bytes} bytes, the body has {len(body)}."
        raise Refused(422, "malformed", said, "X-Shape")
    return np.frombuffer(body, dtype).reshape(shape)


def _npy(body: bytes) -> NDArray[Any]:
    """The array of a .npy file. Nothing is unpickled, and nothing is allocated before the header's bounds hold."""
    begin = _begin(body)
    shape, fortran, dtype = _head(body[:begin])
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(body) - begin:
        held = len(body) - begin
        raise _no_npy(f"its header tells of {expected} bytes of numbers, {held} are there")
    numbers = np.frombuffer(body, dtype, offset=begin)
    return numbers.reshape(shape[::-1]).T if fortran else numbers.reshape(shape)


def _begin(body: bytes) -> int:
    """Where a .npy file's numbers begin.

    Source: numpy.lib.format: the magic string, two bytes of version, the header's length in two bytes, in version 2 and
    3 in four.
    """
    if not body.startswith(npy.MAGIC_PREFIX):
        raise _no_npy("it does not begin as one")
    length = {b"\x01\x00": 2, b"\x02\x00": 4}.get(body[6:8])
    if length is None:
        raise _no_npy("its version is not 1.0 or 2.0")
    begin = 8 + length + int.from_bytes(body[8 : 8 + length], "little")
    if begin > min(len(body), LONGEST_HEADER):
        raise _no_npy(f"its header is cut off, or longer than {LONGEST_HEADER} bytes")
    return begin


@lru_cache(64)
def _head(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of a .npy file, from all that stands before its numbers. Callers send the same again."""
    file = io.BytesIO(head)
    try:
        version = npy.read_magic(file)
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = reader(file, max_header_size=LONGEST_HEADER)
    except Exception as exc:  # numpy's own, and whatever Python's parser raises on its way
        raise _no_npy(f"its header cannot be read ({type(exc).__name__})") from exc
    if dtype.name not in NPY_DTYPES or dtype.hasobject:
        named = dtype.name if SAID.fullmatch(dtype.name) else "this kind"
        said = f"the .npy file holds {named}; {', '.join(NPY_DTYPES)} are read."
        raise Refused(422, "unsupported_dtype", said, "Content-Type")
    if len(shape) > 4 or not all(0 <= length < 10**9 for length in shape):
        raise Refused(422, "wrong_shape", f"the .npy file has {len(shape)} axes; up to 4 are read.", "Content-Type")
    return shape, fortran, dtype


def _no_npy(why: str) -> Refused:
    return Refused(400, "not_npy", f"the body is no .npy file: {why}.")
