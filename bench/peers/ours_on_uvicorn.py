"""The server's own handler on bare uvicorn, without BentoML around it: `uvicorn --factory ours_on_uvicorn:build`."""

import os
import sys
from typing import Any


def build() -> Any:
    """The app that serving.service makes, with nothing behind it."""
    from configs.settings import settings
    from serving import app, runtime, service

    names = os.environ["MEDIMIND_SERVED"].split(",")
    sys.setswitchinterval(service.SWITCH_S)
    return app.front(runtime.Runtime(settings(), names, service._counters()), _nothing)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that only lives: what BentoML's would answer is not there."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
