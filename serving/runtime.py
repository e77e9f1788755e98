"""The models in memory, and what is done with a request: checked, computed, put on record, answered."""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from time import monotonic
from typing import Any

import msgspec
import numpy as np

from configs.errors import BundleError, LedgerError, MediMindError, RecordError
from configs.settings import Settings
from features.columns import LONGEST_TEXT, is_text
from ledger import outcomes, predictions, promotions, stops, traffic
from ledger.database import BUSY_TIMEOUT_S, connect, utc, writing
from ledger.outcomes import Outcome
from ledger.predictions import Entry
from ledger.promotions import Promotion, find_champion
from ledger.replay import certainty, replay
from ledger.spool import Spool
from ledger.traffic import Route, Traffic
from ledger.writer import Kept, Ticket, Writer
from models.bundle import get
from models.device import Device, Watcher, open_device
from models.explain import LateError
from models.predict import Predictor
from serving import bodies, gauges, signals
from serving.answers import Call, Part
from serving.batcher import Gone
from serving.explanations import Explanations
from serving.refusals import Refused, Tally, error_body
from serving.schemas import OutcomeBody
from serving.shadow import Shadow
from serving.versions import Version, load

POLL_S = 0.5
"""How often the ledger is asked whether something was decided."""
GAUGES_S = 15.0
"""How often the ledger is asked what the monitor found; Prometheus asks about as often."""
RETRY_S = 5.0
"""How often a version that could not be loaded is tried again."""
SHORTEST_WAIT_S = 0.05
"""A ledger that another writer holds is waited for at least so long, however little of the deadline is left."""
MOST_WAITING = 8192
"""Requests between their arrival and their answer, in one worker."""
REQUEST_WEIGHT = 16
"""What a request costs beside its rows, in rows; measured, docs/benchmarks.md."""
MOST_BYTES = 512 * 1024 * 1024
"""Of the bodies of requests between arrival and answer: a signal by itself stays in its body's memory."""
HASHED_INLINE = 2**20
"""Bytes of a body that is hashed on the event loop, in about 2 ms; a larger one in a thread."""
KEPT_INLINE = 2**20
"""Bytes of what a request's records are made into: of more, as of signals, a thread makes the row that is kept."""
MOST_WEIGHT = 200_000
"""Rows and requests between arrival and answer, by weight."""
ALWAYS_WEIGHT = 2000
"""What may always wait: some batches, so that a rate that was low once is measured anew."""
RATE_FOR_S = 1.0
"""How long a measured rate says something of now."""
LONGEST_S = 600.0
"""No caller's deadline is later."""
RATE_OVER_S = 0.5
"""Of work, before the rate is known: the first group of a burst is small, and waited until the others were read."""
KEPT_IN_MEMORY = 2
"""Versions a model that nothing leads to any more, for an instant return."""

log = logging.getLogger("bentoml.medimind")


@dataclass(frozen=True)
class Model:
    """One served disease, as it was decided in the ledger. Without a version it does not answer, and `why` says so."""

    name: str
    champion: Promotion | None
    version: Version | None
    why: str | None
    refused: str | None
    """The code of the refusal where somebody decided that it does not answer: stopped, or retired."""
    lanes: Traffic
    others: dict[int, Version]
    """The loaded versions that `lanes` lead to, by their number."""

    def other(self, route: Route) -> "Version | None":
        """The version that answers this lane's records now; None: the champion does."""
        version = self.others.get(route.version)
        return None if version is None or version.expired else version

    @property
    def ailing(self) -> bool:
        """Whether something that was decided could not be loaded."""
        led = {route.version for route in self.lanes.lanes.values()}
        return self.refused is None and (self.why is not None or not led <= set(self.others))

    def state(self) -> dict[str, Any]:
        why = self.why
        if self.version is not None and self.version.expired:
            why = f"{self.name}@{self.version.number} expired at the end of {self.version.expires_on}."
        ready = self.version is not None and self.refused is None and not self.version.expired
        number = self.version.number if self.version else self.champion.version if self.champion else None
        told = {"name": self.name, "version": number, "ready": ready, "why": why}
        computed = self.version.predictor.computed if self.version is not None else None
        return told if computed is None else {**told, "computed": computed}


def _uncounted(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class Counters:
    """Where the service counts."""

    answered: Callable[[str, int, int], None]
    """Model, version, predictions that were answered and are on record."""
    refused: Callable[[str, str], None]
    """Model and code: records and requests that were refused, and those whose client had gone."""
    took: Callable[[str, float], None]
    """Model, seconds from a request to its answer."""
    shadowed: Callable[[str, str, int], None]
    """Model, what became of them, records that a shadow was to score."""
    formed: Callable[[str, int, float], None] = _uncounted
    """Model, records of a batch that a thread computes, and the seconds that the first of them waited."""
    device: Watcher = field(default_factory=lambda: Watcher(_uncounted, _uncounted))
    held: Callable[[str, int, int], None] = _uncounted
    """Model, bytes of its network's weights on the device, and of its largest batch there."""


class Runtime:
    """Everything that one worker holds. It belongs to the event loop; what waits for a disk does so in threads."""

    def __init__(self, settings: Settings, names: Sequence[str], counters: Counters) -> None:
        """Opens the ledger and loads what it names; a version that cannot be loaded is not ready, the others serve."""
        self.settings = settings
        self.names = list(names)
        self.counters = counters
        self.engine = connect(settings)
        self._key = predictions.patient_key(settings.home)
        self._loaded: dict[tuple[str, int, str], Version] = {}
        self._used: dict[tuple[str, int, str], float] = {}
        self._mark: tuple[int, ...] = ()
        self._tried = 0.0
        self.models: dict[str, Model] = {}
        self._refused = Tally()
        self.gauges = b""
        """What the monitor found last, in Prometheus' text format."""
        self._tickets: list[Ticket] = []
        self._waiting = 0
        self._weight = 0
        self._bytes = 0
        self._rate = 0.0  # of weight a second, while requests wait
        self._done = self._took_s = 0.0  # weight, and the time that it took, lately
        self._told_at = 0.0
        self._behind = False
        self._turn_began: float | None = None
        self._opened: Device | None = None
        self._held: Set[str] = frozenset()
        """The models whose network was told to hold something there."""
        self._opening = Lock()
        self._turn_s = 0.0  # how long the event loop took to hear everybody out, the last time
        self.refresh()

    def open(self) -> None:
        """Begin to serve, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(self.engine, Spool(self.settings.home / "spool"), self._deliver, self._ahead)
        self._shadow = Shadow(self._writer, self.counters.shadowed)
        self._explaining = ThreadPoolExecutor(1, "explain")
        self._explained = Explanations()
        self._watching = asyncio.create_task(self._watch())
        self._recording = asyncio.create_task(self._record())

    async def close(self) -> None:
        """Settle what waits."""
        for task in (self._watching, self._recording):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._shadow.close()
        await asyncio.to_thread(self._writer.close)
        await self._put_refusals()
        self._explaining.shutdown(wait=False, cancel_futures=True)
        self.engine.dispose()

    def _device(self) -> Device:
        """Where networks are computed, opened for the first of them: a table needs none, nor torch."""
        with self._opening:
            if self._opened is None:
                self._opened = open_device(self.settings, self.counters.device)
            return self._opened

    def _count_held(self) -> None:
        if self._opened is not None:
            held = self._opened.held
            for name, (weights, batch) in (held | dict.fromkeys(self._held - held.keys(), (0, 0))).items():
                self.counters.held(name, weights, batch)
            self._held = held.keys()

    @property
    def _ahead(self) -> bool:
        """Whether an answer may leave before its row is on record."""
        versions = [v for model in self.models.values() for v in (model.version, *model.others.values()) if v]
        specs = [version.predictor.spec.ledger for version in versions]
        return any(spec.on_failure == "spool" or spec.commit == "may_lose_answers" for spec in specs)

    def model(self, name: str) -> tuple[Promotion, Version]:
        """The champion and its loaded version. Raises Refused if the model is not served, or does not answer."""
        found = self.models.get(name)
        if found is None:
            raise Refused(
                404, "unknown_model", f"no model {name[:60]!r} is served here: {', '.join(self.models)}.", "name"
            )
        if found.refused is not None:
            raise Refused(503, found.refused, f"{name}: {found.why}")
        if found.version is None or found.champion is None:
            raise Refused(503, "not_ready", f"{name} is not ready: {found.why}")
        if found.version.expired:
            raise Refused(503, "expired", f"{name}: {found.state()['why']}")
        return found.champion, found.version

    def admit(self, name: str, began: float, deadline_ms: int | None) -> float:
        """When this request's deadline passes, by time.monotonic().

        Raises Refused if the model does not answer, or so much waits that the deadline would be half over before the
        request's turn: it is told at once, and those who wait are not held up.
        """
        _, version = self.model(name)
        allowed_s = min((deadline_ms or version.predictor.spec.serving.deadline_ms) / 1000, LONGEST_S)
        if self._turn_began is None:
            self._turn_began = began
            self._loop.call_soon(self._turn_over)
        full = self._waiting >= MOST_WAITING or self._weight >= MOST_WEIGHT or self._bytes >= MOST_BYTES
        # What a request waits for: its turn on the event loop, which took as long as the last one, and those before it.
        slow = self._waiting > 0 and self._turn_s > allowed_s / 2
        behind = self._weight > ALWAYS_WEIGHT and self._rate > 0 and self._weight / self._rate > allowed_s / 2
        if full or slow or (behind and began - self._told_at < RATE_FOR_S):
            raise _busy()
        return began + allowed_s

    def _turn_over(self) -> None:
        assert self._turn_began is not None
        self._turn_s, self._turn_began = monotonic() - self._turn_began, None

    def largest(self, name: str, kind: str) -> int:
        """How many bytes a body of this kind may have. Raises Refused if the model does not answer."""
        _, version = self.model(name)
        return bodies.largest(version.predictor.spec.fields, version.predictor.spec.serving.max_batch, kind)

    async def predict(
        self,
        name: str,
        body: bytes,
        kind: str,
        key: str | None,
        tag: str | None,
        until: float,
        connection: Any,
        headers: Mapping[bytes, bytes] | None = None,
    ) -> bytes:
        """The answer's bytes for the records of one request, durable in the ledger before they are returned.

        `headers`: of a signal that comes by itself, what its bytes do not say.

        Raises Refused; a record that breaks the contract gets its error in its place and costs the others nothing.
        """
        model = self.models[name]
        _, version = self.model(name)
        routed = model.lanes.canary is not None or tag in model.lanes.tags
        typed = None if routed else version.typed
        told = (tag or "").encode()
        if kind in signals.KINDS:
            contract, about = version.predictor.contract, headers or {}
            told += signals.identity(about)
            sent, explain = signals.read(body, kind, about, contract.sent)
            if typed is not None:
                sent = list(contract.typed(sent))
        elif kind == bodies.ARROW:  # unpacking a table takes long enough to be in others' way
            sent, explain = await asyncio.to_thread(bodies.read, body, kind, typed)
        else:
            sent, explain = bodies.read(body, kind, typed)
        parts = _parts(model, version, sent, tag, self._key)
        if any(part.version.batcher.behind(len(part.sent), until) for part in parts):
            raise _busy()
        version = parts[0].version if len(parts) == 1 else version
        call = Call(version, parts, len(sent), self._key, self._loop.create_future())
        weight = 0 if explain else REQUEST_WEIGHT + len(sent)  # an explanation has a thread of its own
        self._waiting += 1
        self._weight += weight
        self._bytes += len(body)
        try:
            if key:
                call.idempotency = await self._idempotency(key, body, told)
            if explain:
                for part in parts:
                    await self._explainable(part.version, until)
                await self._explain(call, until, connection)
                weight = REQUEST_WEIGHT + len(sent)
                self._weight += weight
                self._keep(call, until)
                self._flush()
            else:
                call.compute(until, connection, lambda call: self._keep(call, until))
            kept = await call.settled
        finally:
            self._waiting -= 1
            self._weight -= weight
            self._bytes -= len(body)
            for error in call.errors:
                self.counters.refused(name, error.code)
            if len(call.errors) == call.total:  # no row of its own will say that it was asked
                self._tally(name, call)
        if isinstance(kept, bytes):
            return kept
        if isinstance(kept, MediMindError):
            raise kept
        answer = call.answer(kept)
        self._tally(name, call)
        self._count(model, call, kept)
        return answer

    @staticmethod
    async def _idempotency(key: str, body: bytes, told: bytes) -> predictions.Idempotency:
        if len(body) < HASHED_INLINE:
            return predictions.idempotency(key, body + told)
        return await asyncio.to_thread(lambda: predictions.idempotency(key, body + told))

    def _keep(self, call: Call, until: float) -> None:
        """Let the call's predictions go on record with the next group."""
        if sum(part.scored.features.nbytes for part in call.parts) < KEPT_INLINE:
            return self._put(call, call.entry(), until)

        def made(done: "asyncio.Future[Entry]") -> None:
            try:
                self._put(call, done.result(), until)
            except Exception as exc:  # of one request
                call.fail(exc)
            self._flush()

        self._loop.run_in_executor(None, call.entry).add_done_callback(made)

    def _put(self, call: Call, entry: Entry, until: float) -> None:
        ledger = call.version.predictor.spec.ledger
        now_s = monotonic()
        left_s = min(max(until - now_s, SHORTEST_WAIT_S), BUSY_TIMEOUT_S)
        if ledger.commit == "may_lose_answers" and entry.idempotency is None:  # a key's answer is given again
            with suppress(LedgerError):  # no numbers in hand: it goes on record first, like any other
                numbers = self._writer.numbers(len(entry.rows))
                self._tickets.append(Ticket(replace(entry, numbers=numbers), math.inf, True, call.settle))
                return call.settle(numbers)
        spool = ledger.on_failure == "spool"
        wait_s = left_s / 2 if spool else left_s  # the spool needs its time too
        self._tickets.append(Ticket(entry, now_s + wait_s, spool, call.settle))

    def _flush(self) -> None:
        """Hand what a batch answered to the writing thread, in one piece."""
        if self._tickets:
            tickets, self._tickets = self._tickets, []
            self._writer.submit(tickets)

    def _deliver(self, settled: Sequence[tuple[Ticket, Kept]]) -> None:
        """In the writing thread: what was settled is told on the event loop."""
        with suppress(RuntimeError):  # the loop has ended, and its callers with it
            self._loop.call_soon_threadsafe(self._told, settled)

    def _told(self, settled: Sequence[tuple[Ticket, Kept]]) -> None:
        now_s = monotonic()
        weight = sum(REQUEST_WEIGHT + sum(len(row.risks) for row in ticket.entry.rows) for ticket, _ in settled)
        if now_s - self._told_at > RATE_FOR_S:
            self._rate = self._done = self._took_s = 0.0
        elif self._behind:
            self._done, self._took_s = self._done + weight, self._took_s + now_s - self._told_at
            if self._took_s > RATE_OVER_S:
                self._rate = self._done / self._took_s
                self._done, self._took_s = self._done / 2, self._took_s / 2
        for ticket, kept in settled:
            ticket.settle(kept)
        self._told_at = now_s
        self._behind = self._weight > weight  # others wait: the time until the next group is time at work

    def _count(self, model: Model, call: Call, numbers: list[int]) -> None:
        shadow = model.lanes.shadow
        given = iter(numbers)
        for part in call.parts:
            if n := len(part.scored):
                number = next(given)
                self.counters.answered(model.name, part.version.number, n)
                if shadow is not None and (version := model.others.get(shadow.version)):
                    self._shadow.offer(version, number, part)

    def _tally(self, name: str, call: Call) -> None:
        """For the record: which field broke the contract, and how. An answer that is given again is not counted again,
        nor one that never came: what is sent once more would count twice."""
        if call.errors:
            fields = {field for part in call.parts for field in part.version.predictor.contract.fields}
            self._refused.add(name, call.errors, fields)

    async def _explainable(self, version: Version, until: float) -> None:
        await self._explaining_of(until, lambda: version.explainer)

    async def _explaining_of(self, until: float, work: Callable[[], Any]) -> Any:
        """What the explaining thread makes, which others' work may hold up. Raises Refused when the deadline passes."""
        try:
            return await asyncio.wait_for(
                self._loop.run_in_executor(self._explaining, work), max(until - monotonic(), 0)
            )
        except (LateError, TimeoutError) as exc:
            said = "the deadline passed before the explanation was done; what was done is kept: ask again."
            raise Refused(503, "deadline", said, "X-Deadline-Ms") from exc
        except BundleError as exc:
            raise Refused(422, "explain_unavailable", f"explain: {exc}", "explain") from exc

    async def _explain(self, call: Call, until: float, connection: Any) -> None:
        """Compute the call's risks, and then their explanations, some rows at a time, within the deadline."""
        computed = asyncio.Event()
        call.settled.add_done_callback(lambda _: computed.set())
        call.compute(until, connection, lambda _: computed.set())
        await computed.wait()
        if call.settled.done():
            call.settled.result()  # raises what failed

        def late() -> bool:
            return monotonic() > until or (connection is not None and bool(connection.disconnected))

        for part in call.parts:
            part.explanations = []
            step = part.version.explainer.at_once  # then another caller gets its turn
            for start in range(0, len(part.scored), step):
                X = part.scored.features[start : start + step]
                try:
                    work = partial(self._explained.of, part.version, X, late)
                    part.explanations += await self._explaining_of(until, work)
                except Refused:
                    if connection is not None and connection.disconnected:
                        raise Gone from None
                    raise

    async def _watch(self) -> None:
        """Follow what is decided in the ledger, as long as this worker serves."""
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await asyncio.to_thread(self.refresh)
                if self._ahead:
                    self._writer.draw_ahead()
            except LedgerError as exc:
                log.warning("the ledger was not read: %s", exc)
            except Exception:
                log.exception("what was decided could not be followed")

    async def _record(self) -> None:
        """Put on record what is counted, and read what the monitor found, as long as this worker serves.

        It is in nobody's way, nor in that of a stop, which `_watch` follows.
        """
        read_at = -GAUGES_S
        while True:
            if monotonic() - read_at >= GAUGES_S:
                read_at = monotonic()
                await self._read_gauges()
            await asyncio.sleep(POLL_S)
            self._count_held()
            await self._put_refusals()

    async def _read_gauges(self) -> None:
        champions = [model.champion for model in self.models.values() if model.champion is not None]
        try:
            self.gauges = await asyncio.to_thread(gauges.read, self.engine, champions)
        except LedgerError as exc:  # what was read last still says when it was judged
            log.warning("what the monitor found was not read: %s", exc)
        except Exception:
            log.exception("what the monitor found could not be told")

    async def _put_refusals(self) -> None:
        try:
            await asyncio.to_thread(self._refused.put, self.engine)
        except LedgerError as exc:  # they are counted on, and the next time is soon
            log.warning("refusals are not on record yet: %s", exc)
        except Exception:
            log.exception("refusals could not be put on record")

    def refresh(self) -> None:
        """Load what was decided since the last time: the new beside the old, then one takes the other's place."""
        mark = promotions.mark(self.engine)
        ailing = any(model.ailing for model in self.models.values())
        if mark == self._mark and not (ailing and monotonic() - self._tried > RETRY_S):
            return
        for name, model in self.models.items():  # a stop waits for no other model's loading
            refused, why = _halted(name, model.champion, stops.find(self.engine, name))
            if refused is not None:
                self.models = {**self.models, name: replace(model, refused=refused, why=why)}
        with ThreadPoolExecutor(max(len(self.names), 1)) as pool:
            models = dict(zip(self.names, pool.map(self._model, self.names), strict=True))
        for name, model in models.items():
            before = self.models.get(name)
            if before is None or before.state() != model.state():
                log.info("%s", model.state())
        self.models = models
        self._mark, self._tried = mark, monotonic()
        self._forget()

    def _model(self, name: str) -> Model:
        """What the ledger says of a model, its versions loaded. Raises LedgerError if it cannot be read."""
        champion = find_champion(self.engine, name)
        halts = stops.find(self.engine, name)
        lanes = traffic.find(self.engine, name)
        before = self.models.get(name)
        if champion is None:
            return Model(name, None, None, f"it has no champion; `medimind run {name}` makes one.", None, lanes, {})
        version, why = None, None
        try:
            version = self._version(name, champion.version, champion.bundle)
        except MediMindError as exc:
            why = str(exc)
            kept = before.version if before is not None else None
            if kept is not None and kept.number not in halts.retired:
                version, why = kept, f"{name}@{champion.version} cannot be loaded, {name}@{kept.number} answers: {exc}"
        refused, said = _halted(name, champion, halts)
        why = said or why
        others = {}
        for lane, route in lanes.lanes.items():
            try:
                others[route.version] = self._version(name, route.version, route.bundle)
            except MediMindError as exc:  # its records go to the champion
                log.error("%s: %s leads to %s@%s, which cannot be loaded: %s", name, lane, name, route.version, exc)
        return Model(name, champion, version, why, refused, lanes, others)

    def _version(self, name: str, number: int, digest: str) -> Version:
        key = name, number, digest
        if key not in self._loaded:
            try:
                formed = partial(self.counters.formed, name)
                self._loaded[key] = load(name, number, digest, self.settings, self._flush, self._device, formed)
            except MediMindError:
                raise
            except Exception as exc:  # a fault of one bundle is no fault of the other models
                raise BundleError(f"{name}@{number}: cannot be loaded ({type(exc).__name__}).") from exc
        self._used[key] = monotonic()
        return self._loaded[key]

    def _forget(self) -> None:
        """Let go of versions that nothing leads to, but for the ones used last: a rollback finds them in memory."""
        led = {version for model in self.models.values() for version in (model.version, *model.others.values())}
        idle = sorted((key for key, version in self._loaded.items() if version not in led), key=self._used.__getitem__)
        for key in idle[: -KEPT_IN_MEMORY * len(self.names)]:
            del self._loaded[key], self._used[key]

    def record_outcomes(self, sent: Sequence[Any]) -> dict[str, Any]:
        """Put outcomes on record; each gets its prediction's id or an error in its place.

        Raises Refused if none could be recorded.
        """
        told: list[dict[str, Any]] = []
        first: dict[str, Any] | None = None
        with writing(self.engine) as connection:
            for item in sent:
                try:
                    told.append({"prediction_id": outcomes.record(connection, _outcome(item))})
                except MediMindError as exc:
                    told.append(error_body(exc))
                    first = first or told[-1]["error"]
        if first and all("error" in item for item in told):
            known = all(item["error"]["code"] == "not_on_record" for item in told)
            raise Refused(404 if known else 422, first["code"], first["message"], first["field"], outcomes=told)
        return {"outcomes": told}

    def recall(self, prediction_id: str, again: bool) -> dict[str, Any]:
        """What a prediction saw and said; with `again`, what it says when it is computed once more."""
        stored = predictions.find(self.engine, prediction_id)
        told = {
            "id": stored.id,
            "model": stored.model,
            "version": stored.version,
            "bundle": stored.bundle,
            "received_at": stored.received_at.isoformat(),
            "record": stored.record,
            "features": None
            if stored.features is None
            else [None if np.isnan(v) else float(v) for v in stored.features],
            "feature_digest": stored.feature_digest,
            "risk": stored.risk,
            "band": stored.band,
            **self._certainty(stored),
            **({} if stored.risks is None else {"risks": stored.risks, "class": stored.label}),
        }
        if again:
            done = replay(self.engine, self.settings, prediction_id)
            told["replay"] = {"risk": done.risk, "agrees": done.agrees, "same_features": done.same_features}
            told["replay"] |= {} if done.risks is None else {"risks": done.risks}
        return told

    def _certainty(self, stored: predictions.Stored) -> dict[str, Any]:
        """Nothing where the bundle is gone: what is on record is told without it."""
        loaded = [version.predictor for version in list(self._loaded.values()) if version.bundle == stored.bundle]
        try:
            return certainty(loaded[0] if loaded else Predictor(get(stored.bundle, self.settings)), stored)
        except BundleError:
            return {}


def _busy() -> Refused:
    return Refused(503, "busy", "more requests wait than can be answered in time; ask again.")


def _halted(name: str, champion: Promotion | None, halts: stops.Stops) -> tuple[str | None, str | None]:
    """The code and the reason, if somebody decided that the model does not answer."""
    if halts.stopped is not None:
        return "stopped", f"it is stopped: {halts.stopped}"
    if champion is not None and champion.version in halts.retired:
        return "retired", f"{name}@{champion.version} is retired: {halts.retired[champion.version]}"
    return None, None


def _parts(model: Model, version: Version, sent: list[Any], tag: str | None, key: bytes) -> list[Part]:
    """The request's records by the version that answers each: its tag's, or for some patients the canary's.

    A record without a patient is the champion's: nobody could say that it stays on one side.
    """
    lanes = model.lanes
    if tag is not None and (arm := lanes.tags.get(tag)) and (other := model.other(arm)):
        return [Part(other, sent, range(len(sent)), arm.id)]
    canary = lanes.canary
    other = model.other(canary) if canary else None
    if canary is None or other is None:
        return [Part(version, sent, range(len(sent)))]
    aside: list[int] = []
    for place, record in enumerate(sent):
        patient = record.get("patient") if isinstance(record, dict) else getattr(record, "patient", None)
        if isinstance(patient, str) and traffic.side(predictions.hash_patients(key, [patient])[0] or "", canary):
            aside.append(place)
    chosen = set(aside)
    stay = [place for place in range(len(sent)) if place not in chosen]
    parts = [Part(version, [sent[place] for place in stay], stay)] if stay else []
    if aside:
        parts.append(Part(other, [sent[place] for place in aside], aside, canary.id))
    return parts


def _outcome(item: Any) -> Outcome:
    """One outcome of a body, checked. Raises RecordError."""
    try:
        body = msgspec.convert(item, OutcomeBody)
    except msgspec.ValidationError as exc:
        raise RecordError("malformed", None, f"an outcome: {exc}.") from exc
    for name, text in (("reference", body.reference), ("model", body.model)):
        if text is not None and not is_text(text):
            raise RecordError("malformed", name, f"{name}: 1 to {LONGEST_TEXT} printable characters are expected.")
    if (body.prediction_id is None) == (body.reference is None):
        raise RecordError("malformed", "prediction_id", "an outcome names either `prediction_id` or `reference`.")
    named = isinstance(body.value, str) and is_text(body.value)  # a class: whether the model has it, its row knows
    if not named and body.value not in (0, 1):
        said = "value: true or false, 1 or 0, is expected: did the event happen; or the name of the class that did."
        raise RecordError("malformed", "value", said)
    value = body.value if isinstance(body.value, str) else int(body.value)
    try:
        observed = datetime.fromisoformat(body.observed_at)
        told = utc(observed)
    except (ValueError, OverflowError):  # overflow: in UTC it is before year 1
        observed = None
    if observed is None or observed.tzinfo is None:
        raise RecordError("malformed", "observed_at", "observed_at: an ISO 8601 time with its offset is expected.")
    if told > datetime.now(UTC):
        raise RecordError("malformed", "observed_at", "observed_at: lies in the future; an outcome has been observed.")
    return Outcome(body.prediction_id, body.reference, body.model, value, told)
