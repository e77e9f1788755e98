"""Between uvicorn and the routes: what a client does while its request is answered is seen."""

import asyncio

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from serving.app import app

BODY = b'{"records": [' + b" " * 200_000 + b"{}]}"


class Transport(asyncio.Transport):
    """A connection of which only the reading is of interest."""

    reading = True

    def get_extra_info(self, name, default=None):
        return default

    def is_closing(self):
        return False

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def write(self, data):
        pass

    def close(self):
        pass


class Runtime:
    """Admits everything, and says what it saw of the client while it answered."""

    def __init__(self, transport):
        self.transport = transport
        self.seen = asyncio.get_running_loop().create_future()

    def admit(self, name, began, deadline):
        return began + 60

    def largest(self, name, kind):
        return 2 * len(BODY)

    async def predict(self, name, body, kind, key, tag, until, connection, headers):
        self.seen.set_result((body, self.transport.reading))
        return b"{}"

    class counters:
        took = refused = staticmethod(lambda *_: None)


async def saw(*pieces):
    """What the model's route received, and whether its client was still listened to, of a request in these pieces."""
    transport = Transport()
    runtime = Runtime(transport)
    config = Config(app(runtime), lifespan="off", log_config=None)
    config.load()
    protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(transport)
    head = b"POST /v1/models/toy/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    protocol.data_received(head + b"Content-Length: %d\r\n\r\n" % len(BODY))
    for piece in pieces:
        await asyncio.sleep(0.01)  # the route waits for more
        protocol.data_received(piece)
    return await asyncio.wait_for(runtime.seen, 5)


def test_a_client_is_listened_to_while_it_is_answered_however_its_body_came():
    """Uvicorn stops reading at 64 kB that nobody took yet: at the last piece, nobody would tell it to go on."""
    for pieces in ([BODY], [BODY[:1], BODY[1:]], [BODY[:-1], BODY[-1:]], [BODY[:100_000], BODY[100_000:]]):
        assert asyncio.run(saw(*pieces)) == (BODY, True)
