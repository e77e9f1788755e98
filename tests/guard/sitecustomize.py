"""Refuses every way off this machine, in pytest and in each Python that a test starts.

Python imports a `sitecustomize` that stands on PYTHONPATH; tests/conftest.py puts this folder there, and runs this file
for pytest's own process. The host of each refused try is one line in the file that MEDIMIND_GUARD_LOG names.
"""

import os
import sys

BY_NAME = {"socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"}
BY_ADDRESS = {"socket.connect", "socket.sendto", "socket.sendmsg"}
INTERNET = {2, 10}  # AF_INET, AF_INET6 of Linux; any other family of sockets stays on the machine
HERE = {None, "", "localhost", "::1", "::", "0.0.0.0"}  # no host and the unspecified addresses: for servers that bind


class LeavesTheMachine(ConnectionError):
    """A test, or something it started, tried to reach another machine."""


def guard(event, arguments):
    if event in BY_NAME:
        host = arguments[0]
    elif event in BY_ADDRESS and arguments[0].family in INTERNET and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if isinstance(host, bytes | bytearray):
        host = host.decode(errors="replace")
    if not is_here(host):
        refuse(host)


def is_here(host):
    if host in HERE:
        return True
    numbers = host.removeprefix("::ffff:").split(".")
    return numbers[0] == "127" and len(numbers) == 4 and all(number.isdecimal() for number in numbers)


def refuse(host):
    if log := os.environ.get("MEDIMIND_GUARD_LOG"):
        with open(log, "a", encoding="utf-8", errors="replace") as lines:
            lines.write(f"{host}\n")
    raise LeavesTheMachine(f"{host}: tests do not leave this machine (tests/guard/sitecustomize.py)")


def run_the_next_sitecustomize():
    """The environment may have one of its own, which this file now hides."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    mine = os.path.dirname(os.path.abspath(__file__))
    spec = PathFinder.find_spec("sitecustomize", [place for place in sys.path if os.path.abspath(place) != mine])
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


sys.addaudithook(guard)
if __name__ == "sitecustomize":
    run_the_next_sitecustomize()
