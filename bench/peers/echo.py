"""The limit: an ASGI app without a model. It reads the body, and answers as many bytes as ours would."""

import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

SIZES = {path: b"x" * size for path, size in json.loads(os.environ["BENCH_ANSWER_BYTES"]).items()}


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    body = SIZES[scope["path"]]
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
