"""The HTTP routes of the contract, in front of BentoML's own."""

import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from configs.errors import LedgerError, MediMindError, NotOnRecordError, RecordError
from evidence.card import card
from features.columns import LONGEST_TEXT
from serving import schemas
from serving.runtime import MOST_RECORDS, Refused, Runtime, error_body
from serving.schemas import PredictBody

LARGEST_BODY = 8 * 1024 * 1024
RETRY_AFTER_S = "1"
BENTOML = {"/livez", "/metrics"}
"""The paths that are left to BentoML."""

log = logging.getLogger("bentoml.medimind")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def front(runtime: Runtime, inner: App) -> App:
    """Our routes. BentoML's app keeps two of its own and the life of the process; its pages are not served."""
    ours = routes(runtime)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in BENTOML:
            return await inner(scope, receive, send)
        try:
            await ours(scope, receive, send)
        except (
            Exception
        ) as exc:  # answered with a 500 already; the message may quote a record, so only the place is logged
            place = traceback.extract_tb(exc.__traceback__)[-1]
            log.error("%s in %s line %s", type(exc).__name__, place.name, place.lineno)

    return app


def routes(runtime: Runtime) -> App:
    """The contract as an ASGI app."""

    async def ready(request: Request) -> Response:
        states = {name: model.state() for name, model in runtime.models.items()}
        good = bool(states) and all(state["ready"] for state in states.values())
        return _json({"models": states}, 200 if good else 503)

    async def openapi(request: Request) -> Response:
        return _json(schemas.openapi({name: m.predictor.spec for name, m in runtime.models.items() if m.predictor}))

    async def models(request: Request) -> Response:
        return _json({"models": [model.state() for model in runtime.models.values()]})

    async def model(request: Request) -> Response:
        champion, predictor = runtime.model(request.path_params["name"])
        return _json(
            {
                "card": card(predictor.bundle, champion.version, champion.report),
                "contract": schemas.contract(predictor.spec),
                "operating_points": predictor.bundle.thresholds,
            }
        )

    async def schema(request: Request) -> Response:
        _, predictor = runtime.model(request.path_params["name"])
        return _json(schemas.record_schema(predictor.spec))

    async def predict(request: Request) -> Response:
        began = monotonic()
        name = request.path_params["name"]
        runtime.model(name)  # before anything is read
        key, deadline = _key(request), _deadline(request)
        body = await _body(request)
        asked = _decode(body, PredictBody)
        if asked.explain:
            raise Refused(
                422, "explain_unavailable", "explain: this release gives no contributions; leave it out.", "explain"
            )
        if not asked.records:
            raise Refused(422, "malformed", "records: at least one record is expected.", "records")
        if len(asked.records) > MOST_RECORDS:
            said = f"records: {len(asked.records)} are more than the {MOST_RECORDS} of one request; send them in parts."
            raise Refused(413, "too_many_records", said, "records")
        answer = await run_in_threadpool(runtime.predict, name, asked.records, body, key, began, deadline)
        return Response(answer, media_type="application/json")

    async def outcomes(request: Request) -> Response:
        sent = _decode(await _body(request), list[Any])
        if not 0 < len(sent) <= MOST_RECORDS:
            raise Refused(422, "malformed", f"a list of 1 to {MOST_RECORDS} outcomes is expected, not {len(sent)}.")
        return _json(await run_in_threadpool(runtime.record_outcomes, sent))

    async def prediction(request: Request) -> Response:
        again = request.query_params.get("replay", "false")
        if again not in ("true", "false"):
            raise Refused(422, "malformed", "replay: true or false is expected.", "replay")
        return _json(await run_in_threadpool(runtime.recall, request.path_params["id"], again == "true"))

    return Starlette(
        routes=[
            Route("/readyz", ready),
            Route("/openapi.json", openapi),
            Route("/v1/models", models),
            Route("/v1/models/{name}", model),
            Route("/v1/models/{name}/schema", schema),
            Route("/v1/models/{name}/predict", predict, methods=["POST"]),
            Route("/v1/outcomes", outcomes, methods=["POST"]),
            Route("/v1/predictions/{id}", prediction),
        ],
        exception_handlers={
            MediMindError: _explained,
            HTTPException: _no_route,
            ClientDisconnect: _gone,
            Exception: _our_fault,
        },
    )


async def _body(request: Request) -> bytes:
    """The body, read no further than its limit."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "unsupported_media_type", "Content-Type: application/json is expected.", "Content-Type")
    too_large = Refused(413, "too_large", f"the body is larger than {LARGEST_BODY} bytes; send it in parts.")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > LARGEST_BODY:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise too_large
    return bytes(body)


def _decode(body: bytes, kind: Any) -> Any:
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


def _key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= LONGEST_TEXT and key.isprintable()):
        raise Refused(
            422, "malformed", f"Idempotency-Key: 1 to {LONGEST_TEXT} characters are expected.", "Idempotency-Key"
        )
    return key


def _deadline(request: Request) -> int | None:
    text = request.headers.get("x-deadline-ms")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise Refused(422, "malformed", "X-Deadline-Ms: a whole number of milliseconds is expected.", "X-Deadline-Ms")
    return int(text)


def _json(document: Any, status: int = 200) -> Response:
    headers = {"Retry-After": RETRY_AFTER_S} if status == 503 else None
    return Response(msgspec.json.encode(document), status, headers, "application/json")


async def _explained(request: Request, exc: Exception) -> Response:
    if isinstance(exc, Refused):
        return _json(exc.body, exc.status)
    assert isinstance(exc, MediMindError)
    status = 404 if isinstance(exc, NotOnRecordError) else 422 if isinstance(exc, RecordError) else 503
    if isinstance(exc, LedgerError) and status == 503:
        return _json(
            {"error": {"code": "ledger", "message": "the ledger does not answer; ask again.", "field": None}}, 503
        )
    return _json(error_body(exc), status)


async def _no_route(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http")
    body = {
        "error": {
            "code": code,
            "message": f"{request.method}: no such path; GET /openapi.json lists them.",
            "field": None,
        }
    }
    return Response(msgspec.json.encode(body), exc.status_code, exc.headers, "application/json")


async def _gone(request: Request, exc: Exception) -> Response:
    return Response(status_code=400)  # nobody is left to read it


async def _our_fault(request: Request, exc: Exception) -> Response:
    body = {"error": {"code": "internal", "message": f"an error of our own ({type(exc).__name__}).", "field": None}}
    return Response(msgspec.json.encode(body), 500, None, "application/json")
