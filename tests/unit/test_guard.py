"""Nothing that a test starts leaves this machine, and every try is on record."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

TEST_NET = "192.0.2.1"  # RFC 5737: never routed
NO_NAME = "nowhere.invalid"  # RFC 2606: never resolves


@pytest.fixture
def taken_back(guard_log):
    """The lines that this test added to the guard's log, taken out again."""
    before = guard_log.read_text(encoding="utf-8")

    def take():
        after = guard_log.read_text(encoding="utf-8")
        guard_log.write_text(before, encoding="utf-8")
        return after.removeprefix(before).split()

    return take


def child(code):
    return subprocess.run(
        [sys.executable, "-c", f"import socket; {code}"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("code", "host"),
    [
        (f"socket.create_connection(('{TEST_NET}', 80), timeout=1)", TEST_NET),
        (f"socket.socket().connect(('{TEST_NET}', 80))", TEST_NET),
        (f"socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('{TEST_NET}', 53))", TEST_NET),
        (f"socket.socket(type=socket.SOCK_DGRAM).sendmsg([b'x'], [], 0, ('{TEST_NET}', 53))", TEST_NET),
        ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))", "2001:db8::1"),
        (f"socket.getaddrinfo('{NO_NAME}', 80)", NO_NAME),
        (f"socket.gethostbyname('{NO_NAME}')", NO_NAME),
        ("socket.getaddrinfo('127.nowhere.invalid', 80)", "127.nowhere.invalid"),
    ],
)
def test_a_child_that_tries_to_leave_is_refused_and_on_record(code, host, taken_back):
    done = child(code)

    assert taken_back() == [host]
    assert done.returncode != 0
    assert "LeavesTheMachine" in done.stderr


def test_a_try_that_the_code_forgives_is_on_record_all_the_same(taken_back):
    done = child(f"import contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('{NO_NAME}', 80)")

    assert done.returncode == 0, done.stderr
    assert taken_back() == [NO_NAME]


def test_pytests_own_process_is_guarded_too(taken_back):
    with pytest.raises(ConnectionError, match=NO_NAME):
        socket.getaddrinfo(NO_NAME, 80)

    assert taken_back() == [NO_NAME]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_works_across_processes(host, taken_back):
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = child(f"socket.create_connection(('{host}', {server.getsockname()[1]}), timeout=5)")

    assert done.returncode == 0, done.stderr
    assert taken_back() == []


def test_a_socket_file_works(tmp_path, taken_back):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as caller:
        server.bind(str(tmp_path / "s"))
        server.listen()
        caller.connect(str(tmp_path / "s"))

    assert taken_back() == []


def test_the_environments_own_sitecustomize_still_runs(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.seen = True")
    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"] + os.pathsep + str(tmp_path))

    done = child("import sys; print(sys.seen)")

    assert done.stdout.strip() == "True", done.stderr


def test_an_unexpected_try_fails_the_whole_session(tmp_path):
    """A session of its own, with this conftest, whose only test forgives the refusal."""
    here = Path(__file__).parents[1]
    for name in ("conftest.py", "guard"):
        (tmp_path / name).symlink_to(here / name)
    (tmp_path / "test_forgiving.py").write_text(
        "import contextlib, socket\n"
        "def test_passes():\n"
        f"    with contextlib.suppress(OSError): socket.gethostbyname('{NO_NAME}')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]

    done = subprocess.run(
        [*command, "-o", f"pythonpath={here.parent}", "--rootdir", tmp_path, tmp_path / "test_forgiving.py"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "1 passed" in done.stdout
    assert f"1 refused tries to leave this machine: {NO_NAME}" in done.stdout
    assert done.returncode == 1
