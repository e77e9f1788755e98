"""Who is told of a finding that failed: the only home of apprise.

What is to be told is on record before anybody is told (ledger/alerts.py): a channel that is down, or a process that is
killed between, delays an alert and loses none. A message holds what the finding's explanation holds: no patient, no
count under 10.
"""

import hashlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic

from configs.errors import BusyError
from configs.settings import Settings
from ledger import alerts, locks
from ledger.alerts import Episode
from ledger.database import Engine

LOG = "log"
"""The channel that is always there: Python's log, which is standard error unless somebody sends it elsewhere."""

SOCKET_WAIT_S = 4.0
"""How long a channel may be silent before it counts as down."""

ALL_WAIT_S = 10.0
"""How long all channels together may take; what was not told by then waits for the next try."""

MOST_TOGETHER = 20
"""Episodes of one version that one message tells of."""

OUTBOX = "-alerts"
"""The lock of whoever delivers; no disease has such a name."""

UNKNOWN = (
    "MEDIMIND_ALERTS: address %d is none that apprise knows, and nobody is told there; addresses separated by spaces "
    "are expected, such as json://host/path for a webhook, mailto://user:password@host?to=somebody@host for e-mail."
)

Send = Callable[[str, str], bool]
"""Tell a title and a text; whether they were taken."""


@dataclass(frozen=True)
class Told:
    """How many alerts this try delivered, and how many still wait. `unknown`: the places, from 1 on, of the addresses
    in MEDIMIND_ALERTS that apprise does not know."""

    delivered: int
    waiting: int
    unknown: tuple[int, ...] = ()


def channels(settings: Settings) -> dict[str, Send]:
    """Each channel by the name that it has on record: its kind and, as an address may hold a secret, a digest of it.

    An address that apprise does not know is none of them; `deliver` says which.
    """
    return _set(settings)[0]


def deliver(engine: Engine, settings: Settings) -> Told:
    """Tell every channel what it was not told yet, the oldest first, within ALL_WAIT_S for all of them together.

    One message tells of all that is new of a version. A channel that does not take one is left alone until the next
    call, and what waits for one that is set no more goes to those that are. Of two processes one delivers. An address
    that apprise does not know is warned of, by its place alone.
    """
    sends, unknown = _set(settings)
    for place in unknown:
        logging.getLogger("medimind").warning(UNKNOWN, place)
    try:
        with locks.alone(engine, settings, OUTBOX):
            if len(sends) > 1:  # or a run without the setting, by hand, would tell the log alone what waits for people
                alerts.readdress(engine, list(sends))
            delivered = _to_each(engine, settings, sends)
    except BusyError:
        delivered = 0
    return Told(delivered, alerts.waiting(engine), unknown)


def message(episodes: Sequence[Episode], settings: Settings) -> tuple[str, str]:
    """The title and the text that tell of one version's episodes."""
    first = episodes[0]
    codes = ", ".join(dict.fromkeys(episode.code for episode in episodes))
    lines = [f"{one.code}, since {one.began_at:%Y-%m-%d %H:%M} UTC: {one.text}" for one in episodes]
    page = settings.reports / first.model / "timeline.html"
    further = f"To look further: medimind monitor {first.model}; medimind history {first.model}; {page}"
    failed = " failed" if codes.startswith("MW") else ""
    return f"MediMind {first.model}@{first.version}: {codes}{failed}", "\n".join([*lines, further])


def _set(settings: Settings) -> tuple[dict[str, Send], tuple[int, ...]]:
    """The channels that can be told, and the places of the addresses that are none."""
    found: dict[str, Send] = {LOG: _to_log}
    unknown = []
    for place, address in enumerate(settings.alerts.get_secret_value().split(), start=1):
        kind, colon, _ = address.partition("://")
        send = _by_apprise(address) if colon else None
        if send is None:
            unknown.append(place)
        else:
            found[f"{kind.lower()}:{hashlib.sha256(address.encode()).hexdigest()[:8]}"] = send
    return found, tuple(unknown)


def _messages(found: Sequence[tuple[int, Episode]], settings: Settings) -> list[tuple[list[int], tuple[str, str]]]:
    """The messages that tell of all these, a version's together: the deliveries that each makes, title and text."""
    by_version: dict[tuple[str, int], list[tuple[int, Episode]]] = {}
    for delivery, episode in found:
        by_version.setdefault((episode.model, episode.version), []).append((delivery, episode))
    return [
        ([delivery for delivery, _ in part], message([episode for _, episode in part], settings))
        for of_version in by_version.values()
        for part in (of_version[start : start + MOST_TOGETHER] for start in range(0, len(of_version), MOST_TOGETHER))
    ]


def _to_each(engine: Engine, settings: Settings, sends: Mapping[str, Send]) -> int:
    """How many were delivered. Each channel has a thread, and what hangs there is left behind; all is recorded here."""
    done: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    over = threading.Event()
    left: dict[str, list[list[int]]] = {}
    for channel, send in sends.items():
        if found := _messages(alerts.undelivered(engine, [channel]), settings):
            left[channel] = [deliveries for deliveries, _ in found]
            told = [text for _, text in found]
            threading.Thread(target=_tell, args=(channel, send, told, done, over), daemon=True).start()
    delivered, until = 0, monotonic() + ALL_WAIT_S
    while left:
        try:
            channel, taken = done.get(timeout=max(until - monotonic(), 0))
        except queue.Empty:
            break
        for delivery in left[channel].pop(0):
            alerts.tried(engine, delivery, taken)
            delivered += taken
        if not (taken and left[channel]):
            del left[channel]
    over.set()
    for waiting in left.values():
        for delivery in waiting[0]:  # still under way
            alerts.tried(engine, delivery, False)
    return delivered


def _tell(
    channel: str,
    send: Send,
    told: Sequence[tuple[str, str]],
    done: "queue.SimpleQueue[tuple[str, bool]]",
    over: threading.Event,
) -> None:
    for title, text in told:
        if over.is_set():
            return
        try:
            taken = send(title, text)
        except Exception:  # whatever a channel's library raises, the alert was not taken
            taken = False
        done.put((channel, taken))
        if not taken:
            return


def _to_log(title: str, text: str) -> bool:
    logging.getLogger("medimind").warning("%s. %s", title, text)
    return True


def _by_apprise(address: str) -> Send | None:
    """How to tell this address, and nobody else; None if apprise does not know such an address."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it quotes addresses, and so does what it sends with
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    asset = apprise.AppriseAsset(
        async_mode=False,
        http_redirects=False,  # the address that was given, not one that its host names
        image_url_mask="",  # no picture to be fetched from apprise's own site
        image_url_logo="",
        app_id="MediMind",
        app_desc="MediMind",
        app_url="",
        pgp_autogen=False,
        pem_autogen=False,
        storage_mode="memory",
    )
    told = apprise.Apprise(asset=asset)
    if not told.add(address) or len(told) != 1:
        return None
    for service in told:
        service.socket_connect_timeout = service.socket_read_timeout = SOCKET_WAIT_S
        service.request_rate_per_sec = 0  # no pause of 5.5 s between two messages: there are few
    return lambda title, text: bool(told.notify(text, title=title, notify_type="failure", body_format="text"))
