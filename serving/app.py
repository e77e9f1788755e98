"""The HTTP routes of the contract, in front of BentoML's own."""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from time import monotonic
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from configs.errors import LedgerError, MediMindError, NotOnRecordError, RecordError
from evidence import review as page
from evidence.card import card
from evidence.page import POLICY
from evidence.report import Report
from features.columns import LONGEST_TEXT, is_text
from serving import schemas, signals
from serving.batcher import Gone
from serving.bodies import ARROW, JSON, LARGEST_BODY, decode
from serving.refusals import Refused, error_body
from serving.runtime import Runtime
from serving.signals import MOST_RECORDS
from serving.versions import Version

MOST_IN_BODIES = 32 * LARGEST_BODY
"""Bytes of all the bodies that one worker is reading."""
BODY_WITHIN_S = 10.0
RETRY_AFTER = (b"retry-after", b"1")
PAGE_HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
AS_JSON = (b"content-type", b"application/json")
BENTOML = {"/livez", "/metrics"}
"""The paths that are left to BentoML."""
ALL_BUT_POST = ("GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE")
DECISIVE = ("Content-Type", "Idempotency-Key", "X-Deadline-Ms", "X-Traffic-Tag", *signals.HEADERS)
"""The headers that change what a prediction request is answered."""
BEFORE_NAME, BEHIND_NAME = "/v1/models/", "/predict"

log = logging.getLogger("bentoml.medimind")

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def front(runtime: Runtime, inner: App) -> App:
    """Our routes. BentoML's app keeps two of its own and the life of the process; its pages are not served."""
    ours = app(runtime)

    async def fronted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in BENTOML:
            await ours(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == "/metrics":
            await inner(scope, receive, _adding(send, runtime.gauges))
        elif scope["type"] == "lifespan":
            runtime.open()
            try:
                await inner(scope, receive, send)
            finally:
                await runtime.close()
        else:
            await inner(scope, receive, send)

    return fronted


def _adding(send: Send, more: bytes) -> Send:
    """Sends BentoML's metrics, and these behind them."""
    held: list[MutableMapping[str, Any]] = []

    async def added(message: MutableMapping[str, Any]) -> None:
        held.append(message)
        if message["type"] == "http.response.start" or message.get("more_body"):
            return  # its length is known when all of it is there
        start, *pieces = held
        body = b"".join(piece.get("body", b"") for piece in pieces)
        if start["status"] == 200:
            body += more
        headers = [header for header in start["headers"] if header[0] != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    return added


def app(runtime: Runtime) -> App:
    """The contract as an ASGI app: the route that is asked most by itself, the others by Starlette."""
    bodies = Bodies()
    others = routes(runtime, bodies)

    async def ours(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        try:
            if scope["method"] == "POST" and path.startswith(BEFORE_NAME) and path.endswith(BEHIND_NAME):
                await predict(path[len(BEFORE_NAME) : -len(BEHIND_NAME)], scope, receive, send)
            else:
                await others(scope, receive, send)
        except Exception as exc:  # answered with a 500; the message may quote a record, so only the place is logged
            place = traceback.extract_tb(exc.__traceback__)[-1]
            log.error("%s in %s line %s", type(exc).__name__, place.name, place.lineno)

    async def predict(name: str, scope: Scope, receive: Receive, send: Send) -> None:
        began = monotonic()
        status = 200
        try:
            headers = dict(scope["headers"])
            if len(headers) < len(scope["headers"]):
                _told_once(scope["headers"])
            until = runtime.admit(name, began, _deadline(headers))
            key, tag = _text(headers, "Idempotency-Key"), _text(headers, "X-Traffic-Tag")
            kind = _kind(headers, JSON, ARROW, *signals.KINDS)
            # Uvicorn's own knowledge of its client. It is private: tests/service notice if it goes.
            connection = getattr(receive, "__self__", None)
            largest = runtime.largest(name, kind)
            body = await bodies.read(headers, receive, getattr(connection, "more_body", True), largest)
            if connection is not None:  # a large last piece stopped the reading: unread, its leaving is unseen
                connection.flow.resume_reading()
            answer = await runtime.predict(name, body, kind, key, tag, until, connection, headers)
            runtime.counters.took(name, monotonic() - began)
        except Gone:
            return runtime.counters.refused(name, "gone")  # nobody is left to read an answer
        except MediMindError as exc:
            status, answer = _explained(exc)
            if status == 503:  # so the model is one that is served: no label of a caller's making
                runtime.counters.refused(name, exc.code)
        except Exception as exc:
            await _send(send, 500, _our_fault(exc))
            raise
        await _send(send, status, answer)

    return ours


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [AS_JSON, (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append(RETRY_AFTER)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Bodies:
    """Reads bodies: each no further than its limit and no longer than its time, all of them within their memory."""

    def __init__(self) -> None:
        self._held = 0

    async def read(
        self, headers: Mapping[bytes, bytes], receive: Receive, more: bool = True, largest: int = LARGEST_BODY
    ) -> bytes:
        """The body, of `largest` bytes at most; `more`: it is not all there yet.

        Raises Refused if it is too large or too slow, Gone if its client has left.
        """
        declared = headers.get(b"content-length", b"")
        if declared.isdigit() and int(declared) > largest:
            raise _too_large(largest)
        if not more:
            return await self._read(receive, largest)
        try:
            async with asyncio.timeout(BODY_WITHIN_S):
                return await self._read(receive, largest)
        except TimeoutError as exc:
            said = f"the body did not arrive within {BODY_WITHIN_S:g} s; send it again."
            raise Refused(408, "body_too_slow", said) from exc

    async def _read(self, receive: Receive, largest: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                piece = message.get("body", b"")
                pieces.append(piece)
                size += len(piece)
                self._held += len(piece)
                if size > largest:
                    raise _too_large(largest)
                if self._held > MOST_IN_BODIES:
                    raise Refused(503, "busy", "more bodies are being read than there is room for; ask again.")
                if not message.get("more_body"):
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        finally:
            self._held -= size


def routes(runtime: Runtime, bodies: Bodies) -> App:
    """Every route of the contract but the one above."""
    pages: dict[str, tuple[tuple[int, str], bytes]] = {}

    async def ready(request: Request) -> Response:
        states = {name: model.state() for name, model in runtime.models.items()}
        good = bool(states) and all(state["ready"] for state in states.values())
        return _json({"models": states}, 200 if good else 503)

    async def openapi(request: Request) -> Response:
        specs = {name: m.version.predictor.spec for name, m in runtime.models.items() if m.version}
        return _json(schemas.openapi(specs))

    async def models(request: Request) -> Response:
        return _json({"models": [model.state() for model in runtime.models.values()]})

    async def model(request: Request) -> Response:
        champion, version = runtime.model(request.path_params["name"])
        spec = version.predictor.spec
        return _json(
            {
                "card": card(version.predictor.bundle, version.number, champion.report),
                "contract": schemas.contract(spec.columns),
                **({"events": schemas.contract(spec.events)} if spec.events else {}),
                **({"classes": schemas.classes(spec.outcome)} if spec.outcome.classes else {}),
                "operating_points": version.predictor.bundle.thresholds,
            }
        )

    async def schema(request: Request) -> Response:
        _, version = runtime.model(request.path_params["name"])
        return _json(schemas.record_schema(version.predictor.spec))

    async def review(request: Request) -> Response:
        name = request.path_params["name"]
        champion, version = runtime.model(name)
        if champion.bundle != version.bundle:
            raise Refused(503, "not_ready", f"{name}@{champion.version} cannot be loaded, nor its page be made.")
        of = version.number, version.bundle
        if name not in pages or pages[name][0] != of:
            pages[name] = of, await run_in_threadpool(_page, version, champion.report)
        body = pages[name][1]
        return Response(body, headers=PAGE_HEADERS, media_type="text/html")

    async def outcomes(request: Request) -> Response:
        headers = dict(request.scope["headers"])
        _kind(headers, JSON)
        sent = decode(await bodies.read(headers, request.receive), list[Any])
        if not 0 < len(sent) <= MOST_RECORDS:
            raise Refused(422, "malformed", f"a list of 1 to {MOST_RECORDS} outcomes is expected, not {len(sent)}.")
        return _json(await run_in_threadpool(runtime.record_outcomes, sent))

    async def prediction(request: Request) -> Response:
        again = request.query_params.get("replay", "false")
        if again not in ("true", "false"):
            raise Refused(422, "malformed", "replay: true or false is expected.", "replay")
        return _json(await run_in_threadpool(runtime.recall, request.path_params["id"], again == "true"))

    async def never(request: Request) -> Response:
        raise HTTPException(405, headers={"Allow": "POST"})

    async def refused(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, MediMindError)
        status, body = _explained(exc)
        return _bytes(body, status)

    async def no_route(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(exc.status_code, "http")
        said = f"{request.method}: no such path; GET /openapi.json lists them."
        body = {"error": {"code": code, "message": said, "field": None}}
        return Response(msgspec.json.encode(body), exc.status_code, exc.headers, JSON)

    async def gone(request: Request, exc: Exception) -> Response:
        return Response(status_code=400)  # nobody is left to read it

    async def our_fault(request: Request, exc: Exception) -> Response:
        return _bytes(_our_fault(exc), 500)

    return Starlette(
        routes=[
            Route("/readyz", ready),
            Route("/openapi.json", openapi),
            Route("/v1/models", models),
            Route("/v1/models/{name}", model),
            Route("/v1/models/{name}/schema", schema),
            Route("/v1/models/{name}/review", review),
            Route("/v1/models/{name}/predict", never, methods=ALL_BUT_POST),
            Route("/v1/outcomes", outcomes, methods=["POST"]),
            Route("/v1/predictions/{id}", prediction),
        ],
        exception_handlers={MediMindError: refused, HTTPException: no_route, Gone: gone, Exception: our_fault},
    )


def _told_once(sent: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises Refused if a header that decides something is there twice: nobody could say which one was meant."""
    names = [name.decode("latin-1") for name, _ in sent]
    for name in DECISIVE:
        if names.count(name.lower()) > 1:
            raise Refused(422, "malformed", f"{name}: the header is there more than once; send it once.", name)


def _kind(headers: Mapping[bytes, bytes], *known: str) -> str:
    """The media type of the body. Raises Refused unless it is one of these."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if kind not in known:
        said = f"Content-Type: {' or '.join(known)} is expected."
        raise Refused(415, "unsupported_media_type", said, "Content-Type")
    return kind


def _text(headers: Mapping[bytes, bytes], name: str) -> str | None:
    """A header that a caller chooses freely."""
    sent = headers.get(name.lower().encode())
    if sent is None:
        return None
    text = sent.decode("latin-1")
    if not is_text(text):
        raise Refused(422, "malformed", f"{name}: 1 to {LONGEST_TEXT} printable characters are expected.", name)
    return text


def _deadline(headers: Mapping[bytes, bytes]) -> int | None:
    text = headers.get(b"x-deadline-ms")
    if text is None:
        return None
    if not (text.isdigit() and 0 < len(text) < 10 and int(text) > 0):
        raise Refused(422, "malformed", "X-Deadline-Ms: a whole number of milliseconds is expected.", "X-Deadline-Ms")
    return int(text)


def _too_large(largest: int) -> Refused:
    return Refused(413, "too_large", f"the body is larger than {largest} bytes; send it in parts.")


def _page(version: Version, report: Report) -> bytes:
    bundle = version.predictor.bundle
    return page.html(bundle, report, version.number, (version.number, bundle, report)).encode()


def _json(document: Any, status: int = 200) -> Response:
    return _bytes(msgspec.json.encode(document), status)


def _bytes(body: bytes, status: int) -> Response:
    headers = {"Retry-After": RETRY_AFTER[1].decode()} if status == 503 else None
    return Response(body, status, headers, JSON)


def _explained(exc: MediMindError) -> tuple[int, bytes]:
    """An error that can be explained, as status and body. What the ledger's own engine says stays in the log."""
    if isinstance(exc, Refused):
        return exc.status, msgspec.json.encode(exc.body)
    status = 404 if isinstance(exc, NotOnRecordError) else 422 if isinstance(exc, RecordError) else 503
    body = error_body(exc)
    if isinstance(exc, LedgerError) and status == 503:
        log.warning("%s", exc)
        body = {"error": {"code": "ledger", "message": "the ledger does not answer; ask again.", "field": None}}
    return status, msgspec.json.encode(body)


def _our_fault(exc: Exception) -> bytes:
    body = {"error": {"code": "internal", "message": f"an error of our own ({type(exc).__name__}).", "field": None}}
    return msgspec.json.encode(body)
