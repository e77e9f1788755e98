"""What a client sent, decoded: records and columns as JSON, and tables as Arrow IPC; a list of records in the end."""

from collections.abc import Mapping
from typing import Any

import msgspec

from configs.spec import Column
from features.columns import LONGEST_TEXT
from features.contract import Contract
from serving import signals
from serving.refusals import Refused
from serving.signals import MOST_RECORDS

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
LARGEST_BODY = 8 * 1024 * 1024
"""Bytes, of a model that reads no signals."""
LARGEST_SIGNALS = 64 * 1024 * 1024
LARGEST_JSON = 32 * 1024 * 1024
"""As Python's own objects it takes many times as much."""
JSON_NUMBER = 25
"""Bytes of the longest float64 as JSON, and the comma behind it: -1.2345678901234567e-100."""
MOST_CELLS = 1_000_000
"""Of an Arrow stream, where a column of nulls takes no bytes: about what the largest body holds as JSON."""


class PredictBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a prediction request; each record is checked by its model's contract."""

    records: list[Any] | None = None
    columns: dict[str, list[Any]] | None = None
    explain: bool = False


def decoder(contract: Contract) -> msgspec.json.Decoder[Any]:
    """Decodes the usual body in one step: every record of the types that the contract asks for."""
    fields: list[Any] = [("records", list[contract.record]), ("explain", bool, False)]  # type: ignore[name-defined]
    return msgspec.json.Decoder(msgspec.defstruct("Typed", fields, forbid_unknown_fields=True))


def largest(columns: Mapping[str, Column], most: int, kind: str) -> int:
    """How many bytes a body of this kind may have: a signal by itself `most` times, or one record as JSON."""
    sizes = [column.size for column in columns.values() if column.signal and column.size]
    if kind in signals.PICTURES:
        return LARGEST_SIGNALS  # a picture may be larger than what is made of it
    if kind in signals.KINDS:
        return max(LARGEST_BODY, min(8 * max(sizes, default=0) * most, LARGEST_SIGNALS))
    return max(LARGEST_BODY, min(JSON_NUMBER * sum(sizes), LARGEST_JSON))


def read(body: bytes, kind: str, typed: msgspec.json.Decoder[Any] | None) -> tuple[list[Any], bool]:
    """The records of a body, and whether explanations are asked for. Raises Refused.

    With `typed` a record is of the contract's own type, if all of them are; else they are plain JSON values.
    """
    sent: list[Any] | None
    if kind == ARROW:
        sent, explain = _arrow(body), False
    elif kind == JSON:
        try:
            asked = decode(body, PredictBody) if typed is None else typed.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            asked = decode(body, PredictBody)
        sent, explain = getattr(asked, "records", None), asked.explain
        columns = getattr(asked, "columns", None)
        if columns is not None:
            if sent is not None:
                raise Refused(422, "malformed", "the body: `records` or `columns` is expected, not both.", "columns")
            sent = _rows(columns)
    else:
        raise Refused(415, "unsupported_media_type", f"Content-Type: {JSON} or {ARROW} is expected.", "Content-Type")
    if not sent:
        raise Refused(422, "malformed", "records: at least one record is expected.", "records")
    if len(sent) > MOST_RECORDS:
        raise _too_many(len(sent))
    return sent, explain


def decode(body: bytes, kind: Any) -> Any:
    """JSON as this type. Raises Refused."""
    try:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as exc:
            if "out of range" not in str(exc):
                raise
        # A number like 1e999 is JSON: it becomes infinite here, and costs its own record alone.
        return msgspec.convert(msgspec.json.Decoder(float_hook=float).decode(body), kind)
    except msgspec.ValidationError as exc:
        raise Refused(422, "malformed", f"the body: {exc}.") from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refused(
            400, "not_json", f"the body is not JSON: {exc}. NaN and Infinity are not JSON; missing is null."
        ) from exc


def _rows(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Columns as records. Raises Refused unless all are equally long."""
    lengths = {name: len(values) for name, values in columns.items()}
    first, n = next(iter(lengths.items()), ("", 0))
    for name, length in lengths.items():
        if length != n:
            shown = name[:60]
            raise Refused(422, "malformed", f"columns: {shown} has {length} values, {first[:60]} has {n}.", shown)
    if n > MOST_RECORDS:
        raise _too_many(n)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _arrow(body: bytes) -> list[dict[str, Any]]:
    """The rows of an Arrow IPC stream. Raises Refused, before it is unpacked, for what could fill the memory."""
    import pyarrow as pa

    try:
        rows = 0
        for message in pa.ipc.MessageReader.open_stream(body):
            if message.type == "schema":
                continue
            n, compressed = _batch(message)
            if compressed:
                raise Refused(422, "malformed", "the Arrow stream is compressed; send it without compression.")
            rows += n if message.type == "record batch" else 0
            if rows > MOST_RECORDS:
                raise _too_many(rows)
        with pa.ipc.open_stream(body) as stream:
            table = stream.read_all()
        if table.num_rows * table.num_columns > MOST_CELLS:
            said = f"records: {table.num_rows} of {table.num_columns} columns are too many; send them in parts."
            raise Refused(413, "too_many_records", said, "records")
        table.validate(full=True)
        seen: set[str] = set()
        for name, column in zip(table.column_names, table.columns, strict=True):
            if name in seen:
                raise Refused(422, "malformed", f"the Arrow stream has two columns {name[:60]!r}.", name[:60])
            seen.add(name)
            if not _plain(column):
                read = "numbers, lists of them, booleans and short texts are"
                said = f"{name[:60]}: Arrow {column.type!s:.60} is not read; {read}."
                raise Refused(422, "malformed", said, name[:60])
        names = table.column_names
        return [dict(zip(names, row, strict=True)) for row in zip(*map(_values, table.columns), strict=True)]
    except Refused:
        raise
    except Exception as exc:  # pyarrow's own errors, and what its values raise on their way to Python
        raise Refused(400, "not_arrow", f"the body is no Arrow IPC stream ({type(exc).__name__}).") from exc


def _batch(message: Any) -> tuple[int, bool]:
    """Rows of a record batch or dictionary, and whether its buffers are compressed, from the message's head alone.

    Source: Message.fbs of the Arrow format 1.5 (Message.header, DictionaryBatch.data, RecordBatch.length and
    .compression); the field of number i lies at 4 + 2 i in a flatbuffer table's index.
    """
    from flatbuffers.number_types import Int64Flags
    from flatbuffers.table import Table

    content = message.metadata.to_pybytes()
    root = Table(content, int.from_bytes(content[:4], "little"))
    batch = Table(content, root.Indirect(root.Pos + root.Offset(8)))
    if message.type == "dictionary":
        batch = Table(content, batch.Indirect(batch.Pos + batch.Offset(6)))
    length = batch.Offset(4)
    return (int(batch.Get(Int64Flags, batch.Pos + length)) if length else 0), bool(batch.Offset(10))


def _values(column: Any) -> list[Any]:
    """A column's values; of a dictionary each text once, however often it stands there."""
    import pyarrow as pa

    if not pa.types.is_dictionary(column.type):
        return list(column.to_pylist())
    found: list[Any] = []
    for chunk in column.chunks:
        texts = chunk.dictionary.to_pylist()
        found += [None if index is None else texts[index] for index in chunk.indices.to_pylist()]
    return found


def _plain(column: Any) -> bool:
    """Whether a column holds plain values, and none that a few bytes of the body could repeat into gigabytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        if not pa.types.is_string(kind.value_type):
            return False
        longest = max((pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks), default=0)
        return bool(longest <= 4 * LONGEST_TEXT)
    if pa.types.is_list(kind):  # of an array: its numbers all stand in the body, and no two lists share them
        kind = kind.value_type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(test(kind) for test in (*tests, pa.types.is_string, pa.types.is_large_string))


def _too_many(n: int) -> Refused:
    said = f"records: {n} are more than the {MOST_RECORDS} of one request; send them in parts."
    return Refused(413, "too_many_records", said, "records")
