"""Who is told of a failed finding: once where it is taken, again where it is not, and never for longer than it may."""

import json
import logging
import socket
import socketserver
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from configs.settings import Settings
from ledger import alerts as outbox
from ledger import locks
from ledger.database import connect
from pipelines import alerts

FINDING = "AUROC: 0.61 (0.52 to 0.69) lies below 0.70"


class Webhook(ThreadingHTTPServer):
    """Answers with `status`, after `slow` seconds, and keeps what it took."""

    daemon_threads = True

    def __init__(self, port=0):
        self.status, self.slow, self.taken, self.asked = 200, 0.0, [], 0
        super().__init__(("127.0.0.1", port), Receiver)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        time.sleep(self.server.slow)
        if self.server.status == 200:
            self.server.taken.append(body)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.elsewhere.server_port}/")
        self.end_headers()

    def log_message(self, *_):
        pass


class Mailbox(socketserver.ThreadingTCPServer):
    """As much of SMTP as a client needs that sends a message."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self):
        self.taken = []
        super().__init__(("127.0.0.1", 0), Postman)


class Postman(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.taken.append(b"".join(lines).decode())
            self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                return


@contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def webhook():
    with running(Webhook()) as server:
        yield server


@pytest.fixture
def mailbox():
    with running(Mailbox()) as server:
        yield server


@pytest.fixture
def machine(machine, monkeypatch):
    """SQLite and Postgres; and nobody waits long."""
    monkeypatch.setattr(alerts, "SOCKET_WAIT_S", 0.4)
    monkeypatch.setattr(alerts, "ALL_WAIT_S", 1.0)
    monkeypatch.setattr(socket, "getfqdn", lambda *_: "ward.hospital.test")  # smtplib asks for this machine's own name
    return machine


def telling(machine, *addresses):
    return machine.model_copy(update={"alerts": Settings(alerts=" \n".join(addresses)).alerts})


def hook(webhook, path="secret-token"):
    return f"json://127.0.0.1:{webhook.server_port}/{path}"


def mail(mailbox):
    return f"mailto://127.0.0.1:{mailbox.server_address[1]}?from=ward@hospital.test&to=duty@hospital.test&mode=insecure"


def fail(engine, settings, *codes, passed=()):
    texts = {(code, "AUROC"): FINDING for code in codes or ["MW007"]}
    return outbox.failing(engine, "toy", 3, texts, passed, list(alerts.channels(settings)))


def test_a_failed_finding_is_told_once_on_every_channel(engine, machine, webhook, mailbox, caplog):
    settings = telling(machine, hook(webhook), mail(mailbox))
    fail(engine, settings)

    first = alerts.deliver(engine, settings)
    fail(engine, settings)  # the next window fails too
    second = alerts.deliver(engine, settings)

    assert (first.delivered, first.waiting) == (3, 0)
    assert (second.delivered, second.waiting) == (0, 0)
    (told,), (letter,) = webhook.taken, mailbox.taken
    assert told["title"] == "MediMind toy@3: MW007 failed"
    for what in (FINDING, "medimind monitor toy", str(machine.reports / "toy" / "timeline.html")):
        assert what in told["message"]
    assert "Subject: MediMind toy@3: MW007 failed" in letter and "To: duty@hospital.test" in letter
    assert FINDING in letter.replace("=\r\n", "")
    assert [record.levelname for record in caplog.records if "MW007" in record.message] == ["WARNING"]


def test_the_same_finding_is_told_again_once_it_had_passed(engine, machine, webhook):
    settings = telling(machine, hook(webhook))
    for _ in range(2):
        fail(engine, settings)
        alerts.deliver(engine, settings)
        outbox.failing(engine, "toy", 3, {}, [("MW007", "AUROC")], [])

    assert len(webhook.taken) == 2


def test_a_channel_that_is_down_is_told_once_it_is_up_and_no_other_waits_for_it(engine, machine, webhook, mailbox):
    webhook.status = 500
    settings = telling(machine, hook(webhook), mail(mailbox))
    fail(engine, settings, "MW003", "MW007")

    down = alerts.deliver(engine, settings)
    assert (down.delivered, down.waiting) == (4, 2)
    assert webhook.asked == 1, "a channel that does not answer is left alone until the next time"

    webhook.status = 200
    up = alerts.deliver(engine, settings)
    assert (up.delivered, up.waiting) == (2, 0)
    assert [told["title"] for told in webhook.taken] == ["MediMind toy@3: MW003, MW007 failed"]
    assert len(mailbox.taken) == 1


def test_a_server_that_is_not_there_loses_nothing(engine, machine):
    with running(Webhook()) as gone:
        port = gone.server_port
    settings = telling(machine, f"json://127.0.0.1:{port}/")
    fail(engine, settings)

    assert alerts.deliver(engine, settings).waiting == 1
    with running(Webhook(port)) as back:
        assert alerts.deliver(engine, settings).waiting == 0
        assert len(back.taken) == 1


@pytest.mark.parametrize("slow", [0.7, 5.0])
def test_a_channel_that_hangs_holds_nobody_up(engine, machine, webhook, slow, monkeypatch):
    monkeypatch.setattr(alerts, "SOCKET_WAIT_S", 0.4 if slow < 1 else 60.0)
    webhook.slow = slow
    settings = telling(machine, hook(webhook))
    fail(engine, settings)

    begin = time.monotonic()
    told = alerts.deliver(engine, settings)

    assert time.monotonic() - begin < 3
    assert (told.delivered, told.waiting) == (1, 1), "the log was told"


def test_an_alert_that_nobody_told_before_the_process_died_is_told_by_the_next(machine, engine, webhook):
    settings = telling(machine, hook(webhook))
    fail(engine, settings)  # and then the process is killed
    engine.dispose()

    again = connect(machine)
    try:
        assert alerts.deliver(again, settings).delivered == 2
    finally:
        again.dispose()


def test_of_two_processes_one_tells(engine, machine, webhook):
    settings = telling(machine, hook(webhook))
    fail(engine, settings)

    with locks.alone(engine, settings, alerts.OUTBOX):
        told = alerts.deliver(engine, settings)

    assert (told.delivered, told.waiting, webhook.taken) == (0, 2, [])


def test_an_alert_goes_to_no_other_address_than_the_one_given(engine, machine, webhook):
    with running(Webhook()) as other:
        webhook.status, webhook.elsewhere = 302, other
        settings = telling(machine, hook(webhook))
        fail(engine, settings)

        assert alerts.deliver(engine, settings).waiting == 1
        assert other.asked == 0


def test_an_address_is_told_to_nobody(engine, machine, webhook, caplog):
    webhook.status = 500
    settings = telling(machine, hook(webhook), "json://user:hunter2@127.0.0.1:1/token4711")
    caplog.set_level(logging.DEBUG)
    fail(engine, settings)
    alerts.deliver(engine, settings)

    said = caplog.text + repr(settings) + " ".join(alerts.channels(settings))
    assert not [secret for secret in ("secret-token", "hunter2", "token4711") if secret in said]


@pytest.mark.parametrize("address", ["nowhere", "what://host/token4711", "json://", "ht!tp://token4711"])
def test_an_address_that_apprise_does_not_know_keeps_nobody_else_from_being_told(
    engine, machine, webhook, caplog, address
):
    settings = telling(machine, hook(webhook), address)
    fail(engine, settings)

    told = alerts.deliver(engine, settings)

    assert told == alerts.Told(2, 0, (2,)) and len(webhook.taken) == 1
    assert "MEDIMIND_ALERTS: address 2 is none" in caplog.text
    assert "token4711" not in caplog.text


def test_an_address_that_was_corrected_is_told_what_the_wrong_one_was_not(engine, machine, webhook):
    with running(Webhook()) as gone:
        wrong = telling(machine, f"json://127.0.0.1:{gone.server_port}/")
    fail(engine, wrong)
    assert alerts.deliver(engine, wrong).waiting == 1

    told = alerts.deliver(engine, telling(machine, hook(webhook)))

    assert (told.delivered, told.waiting, len(webhook.taken)) == (1, 0, 1)


def test_without_a_setting_the_log_is_told(engine, machine, caplog):
    fail(engine, machine)

    assert alerts.deliver(engine, machine) == alerts.Told(1, 0)
    assert FINDING in caplog.text
