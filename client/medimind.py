"""A client of one MediMind service: typed answers, and a call that is tried again is still one prediction."""

import json
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from random import SystemRandom
from time import monotonic, sleep, time
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx

from client import answers
from client.answers import Answer, Event, ModelState, Outcome, OutcomeRecorded, PredictionOnRecord, RecordRefused
from client.errors import ClientError, Refused, Unanswered
from client.npy import saved

FIRST_WAIT_S = 0.1
LONGEST_WAIT_S = 5.0

T = TypeVar("T")


class Client:
    """Asks the service at `url`. One client may be used by many threads; close it, or use it in a `with`.

    A call is tried again on 503 and on a broken connection, after a random wait that grows or what the service asks
    for: `tries` times at most, and not once `within_s` seconds are over. `timeout_s` is the longest silence of one try.
    Every call may raise Refused, Unanswered, or ClientError for what is no answer of MediMind's.
    """

    def __init__(self, url: str, *, tries: int = 5, within_s: float = 30.0, timeout_s: float = 10.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url {url!r}: http://host:port or https://host:port is expected.")
        if tries < 1:
            raise ValueError(f"tries {tries}: at least one is expected.")
        self._http = httpx.Client(base_url=url, trust_env=False)
        self._tries = tries
        self._within_s = within_s
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def predict(
        self,
        model: str,
        records: Sequence[Mapping[str, Any]] = (),
        *,
        array: Any = None,
        field: str | None = None,
        unit: str | None = None,
        sampling_hz: float | None = None,
        leads: Sequence[str] | None = None,
        explain: bool = False,
        deadline_ms: int | None = None,
        tag: str | None = None,
    ) -> Answer:
        """The risk of each record, whose `events` may be Events. A `deadline_ms` holds for each try; `tag` names a side
        of an A/B comparison.

        `array`: a waveform or an image, or several along the first axis, one a record, sent as .npy and not as JSON: a
        numpy array. `field` says which signal it is where the model has several, `unit` and `sampling_hz` what a
        waveform is in where that is not the contract's, `leads` the names of its leads, which the service then holds
        against the contract's. `records` hold the other fields then, or nothing.
        """
        if array is None:
            if (field, unit, sampling_hz, leads) != (None, None, None, None):
                raise ValueError("field, unit, sampling_hz and leads are said of an `array`, and none is given.")
            return self._predict(model, {"records": list(records)}, explain, deadline_ms, tag)
        told = {"X-Field": field, "X-Unit": unit, "X-Sampling-Hz": None if sampling_hz is None else str(sampling_hz)}
        told["X-Leads"] = None if leads is None else ",".join(leads)
        headers = {name: value for name, value in told.items() if value is not None}
        headers |= {"Content-Type": "application/x-npy"} | ({"X-Explain": "true"} if explain else {})
        if records:
            headers["X-Record"] = _encoded(list(records)).decode()  # ASCII: json escapes the rest
        headers |= _asked_with(deadline_ms, tag)
        return self._call(answers.answer, "POST", _predict_path(model), saved(array), headers)

    def columns(
        self,
        model: str,
        columns: Mapping[str, Sequence[Any]],
        *,
        explain: bool = False,
        deadline_ms: int | None = None,
        tag: str | None = None,
    ) -> Answer:
        """The same for records that stand in columns: a list for each field, with one value a record."""
        lists = {name: list(values) for name, values in columns.items()}
        return self._predict(model, {"columns": lists}, explain, deadline_ms, tag)

    def _predict(
        self, model: str, body: dict[str, Any], explain: bool, deadline_ms: int | None, tag: str | None
    ) -> Answer:
        sent = {**body, "explain": explain}
        return self._call(answers.answer, "POST", _predict_path(model), sent, _asked_with(deadline_ms, tag))

    def outcomes(self, outcomes: Sequence[Outcome]) -> tuple[OutcomeRecorded | RecordRefused, ...]:
        """Put on record what happened to patients later. An outcome that is told twice counts once, the later."""
        told = [
            {
                name: value
                for name, value in (
                    ("value", outcome.value),
                    ("observed_at", outcome.observed_at.isoformat()),
                    ("prediction_id", outcome.prediction_id),
                    ("reference", outcome.reference),
                    ("model", outcome.model),
                )
                if value is not None
            }
            for outcome in outcomes
        ]
        return self._call(answers.recorded, "POST", "/v1/outcomes", told)

    def models(self) -> tuple[ModelState, ...]:
        """The served models, ready or why not."""
        return self._call(answers.models, "GET", "/v1/models")

    def schema(self, model: str) -> dict[str, Any]:
        """The JSON Schema of one record, with examples."""
        return self._call(dict, "GET", f"/v1/models/{quote(model, safe='')}/schema")

    def prediction(self, prediction_id: str, *, replay: bool = False) -> PredictionOnRecord:
        """What a prediction saw and said; with `replay`, what it says when it is computed once more."""
        path = f"/v1/predictions/{quote(prediction_id, safe='')}{'?replay=true' if replay else ''}"
        return self._call(answers.on_record, "GET", path)

    def _call(
        self,
        read: Callable[[Any], T],
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """One call, in as many tries as it takes: the same bytes and the same key each time. A body that is no bytes
        goes as JSON."""
        content = body if body is None or isinstance(body, bytes) else _encoded(body)
        sent = {**(headers or {}), "Idempotency-Key": str(uuid4())}
        if content is not body:
            sent["Content-Type"] = "application/json"
        end = monotonic() + self._within_s
        for number in range(1, self._tries + 1):
            status, told_s = None, 0.0
            try:
                left_s = max(end - monotonic(), 0.001)
                response = self._http.request(
                    method, path, content=content, headers=sent, timeout=min(self._timeout_s, left_s)
                )
            except httpx.TransportError as exc:
                reason = f"{type(exc).__name__}: {exc}"
            else:
                if response.status_code != 503:
                    return _answer(read, response)
                reason, status, told_s = f"503 {_code(response)}", 503, _retry_after_s(response)
            wait_s = told_s + SystemRandom().uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (number - 1)))
            if number == self._tries or monotonic() + wait_s >= end:
                raise Unanswered(number, reason, status)  # not in the except: httpx's errors carry the request's bytes
            sleep(wait_s)
        raise AssertionError("a call ends in its last try")


def _predict_path(model: str) -> str:
    return f"/v1/models/{quote(model, safe='')}/predict"


def _asked_with(deadline_ms: int | None, tag: str | None) -> dict[str, str]:
    told = {"X-Deadline-Ms": None if deadline_ms is None else str(deadline_ms), "X-Traffic-Tag": tag}
    return {name: value for name, value in told.items() if value is not None}


def _encoded(body: Any) -> bytes:
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":"), default=_event).encode()
    except (TypeError, ValueError) as exc:
        raise ClientError(f"what is to be sent is no JSON: {exc}. None is missing; NaN is no number.") from None


def _event(value: Any) -> dict[str, Any]:
    """An Event as it is sent."""
    if not isinstance(value, Event):
        raise TypeError(f"a {type(value).__name__} cannot be written")
    told = {"value": value.value, "unit": value.unit}
    return {"time": value.time.isoformat(), "code": value.code} | {k: v for k, v in told.items() if v is not None}


def _answer(read: Callable[[Any], T], response: httpx.Response) -> T:
    try:
        said = response.json()
        if response.status_code == 200:
            return read(said)
        error = said["error"]
        each = said.get("predictions") or said.get("outcomes") or ()
        refused = Refused(
            response.status_code,
            error["code"],
            error["field"],
            error["message"],
            [answers.refused(one) for one in each],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        status = response.status_code
        raise ClientError(f"status {status}, with a body that is none of MediMind's ({type(exc).__name__}).") from None
    raise refused


def _code(response: httpx.Response) -> str:
    """What a 503 says for itself; a proxy's has no such body."""
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return "without a reason"


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds, or a date; 0 if neither stands there."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - time(), 0.0)
    except ValueError:
        return 0.0
