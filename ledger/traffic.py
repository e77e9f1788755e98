"""Which other version than the champion scores or answers whose records: shadow, canary, A/B by tag."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa

from configs.errors import NotOnRecordError, PromotionError
from ledger import chain, stops, tables
from ledger.database import audit, deciding, now, reading
from ledger.reviews import refuse_rejected_bundle

Kind = Literal["shadow", "canary", "ab"]

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
RESERVED_TAGS = ("shadow", "canary", "champion")
WHOLE = 2**64


@dataclass(frozen=True)
class Lane:
    """One way beside the champion's: a model has one shadow, one canary, and one A/B arm for each tag."""

    model: str
    kind: Kind
    tag: str | None = None

    def __str__(self) -> str:
        return self.kind if self.tag is None else self.tag


@dataclass(frozen=True)
class Target:
    """The version that a lane leads to, and the share of the patients whom a canary answers."""

    version: int
    bundle: str
    share: float | None = None


@dataclass(frozen=True)
class Route:
    """A lane as it is set. `id` is its row: what a request keeps that was sent there."""

    id: int
    version: int
    bundle: str
    share: float | None


@dataclass(frozen=True)
class Traffic:
    """Every lane of a model that is set and leads to a version that is not retired."""

    shadow: Route | None = None
    canary: Route | None = None
    tags: dict[str, Route] = field(default_factory=dict)

    @property
    def lanes(self) -> dict[str, Route]:
        """All of them, by what `--off` calls them."""
        named = {"shadow": self.shadow, "canary": self.canary, **self.tags}
        return {name: route for name, route in named.items() if route is not None}


def find(engine: sa.Engine, model: str) -> Traffic:
    """What is set for the model now."""
    with reading(engine) as connection:
        return _standing(connection, model)


def side(patient_hash: str, route: Route) -> bool:
    """Whether this patient (the ledger's keyed hash) is answered by the canary.

    The same bundle gives a patient the same side every time, and a share that grows keeps everybody who was in.
    """
    if route.share is None:
        raise ValueError(f"route {route.id} has no share: it is no canary")
    digest = hashlib.sha256((route.bundle + patient_hash).encode()).digest()
    return int.from_bytes(digest[:8], "big") < route.share * WHOLE


def set_route(engine: sa.Engine, lane: Lane, to: Target, reason: str, actor: str) -> Route:
    """Let the lane lead to this version from now on, in the place of what was set before.

    Raises PromotionError if the version is retired or the champion itself, is rejected where it would answer, or the
    share or the tag is none.
    """
    check(lane, to.share)
    with deciding(engine) as connection:
        stops.refuse_retired(connection, lane.model, to.version)
        if lane.kind != "shadow":
            refuse_rejected_bundle(connection, lane.model, to.version, to.bundle)
        if _champion(connection, lane.model) == to.version:
            raise PromotionError(
                f"{lane.model}@{to.version} is the champion: all that no other version gets is its own."
            )
        number = _put(connection, lane, to, reason, actor)
        share = "" if to.share is None else f" {to.share:g}"
        audit(connection, actor, "traffic", f"{lane.model}: {lane} to @{to.version}{share} {to.bundle}")
    return Route(number, to.version, to.bundle, to.share)


def check(lane: Lane, share: float | None) -> None:
    """Raise PromotionError if the lane cannot have this share, or its tag is none."""
    if (share is not None) != (lane.kind == "canary"):
        raise PromotionError(f"{lane.model}: a canary, and nothing else, has a share; {lane} got {share}.")
    if share is not None and not 0 < share <= 1:
        raise PromotionError(f"{lane.model}: share {share:g}: above 0 and at most 1 is expected, such as 0.1.")
    if (lane.tag is not None) != (lane.kind == "ab"):
        raise PromotionError(f"{lane.model}: an A/B arm, and nothing else, has a tag; {lane.kind} got {lane.tag!r}.")
    if lane.tag is not None and (TAG.fullmatch(lane.tag) is None or lane.tag in RESERVED_TAGS):
        raise PromotionError(
            f"{lane.model}: tag {lane.tag[:80]!r}: up to 64 letters, digits, '_', '.' and '-' are expected, and "
            f"none of {', '.join(RESERVED_TAGS)}."
        )


def end(engine: sa.Engine, lane: Lane, reason: str, actor: str) -> None:
    """Give the lane's records back to the champion. Raises NotOnRecordError if nothing is set for it."""
    with deciding(engine) as connection:
        found = _newest(connection, lane.model)
        if lane not in found:
            set_now = ", ".join(str(other) for other in found) or "nothing"
            raise NotOnRecordError(f"{lane.model}: no {lane} is set that could end. Set: {set_now}.")
        _end(connection, lane, reason, actor)


def end_routes_to(connection: sa.Connection, model: str, version: int, reason: str, actor: str) -> None:
    """End every lane to a version that becomes champion, or is rejected: later it would come back, unasked."""
    for lane, row in _newest(connection, model).items():
        if row.version == version:
            _end(connection, lane, reason, actor)


def _standing(connection: sa.Connection, model: str) -> Traffic:
    retired = stops.find_in(connection, model).retired
    routes = {
        lane: Route(row.id, row.version, row.bundle, row.share)
        for lane, row in _newest(connection, model).items()
        if row.version not in retired
    }
    return Traffic(
        shadow=routes.get(Lane(model, "shadow")),
        canary=routes.get(Lane(model, "canary")),
        tags={lane.tag: route for lane, route in routes.items() if lane.tag is not None},
    )


def _newest(connection: sa.Connection, model: str) -> dict[Lane, sa.Row[Any]]:
    """The row that counts of every lane that is set, whether its version is retired or not."""
    t = tables.traffic
    newest = sa.select(sa.func.max(t.c.id)).where(t.c.model == model).group_by(t.c.kind, t.c.tag)
    rows = connection.execute(sa.select(t).where(t.c.id.in_(newest), t.c.version.is_not(None)).order_by(t.c.id))
    return {Lane(model, row.kind, row.tag): row for row in rows}


def _champion(connection: sa.Connection, model: str) -> int | None:
    t = tables.promotions
    query = sa.select(t.c.version).where(t.c.model == model).order_by(t.c.id.desc()).limit(1)
    return connection.execute(query).scalar()


def _end(connection: sa.Connection, lane: Lane, reason: str, actor: str) -> None:
    _put(connection, lane, None, reason, actor)
    audit(connection, actor, "traffic", f"{lane.model}: {lane} off")


def _put(connection: sa.Connection, lane: Lane, to: Target | None, reason: str, actor: str) -> int:
    row = {
        "model": lane.model,
        "kind": lane.kind,
        "version": to.version if to else None,
        "bundle": to.bundle if to else None,
        "share": to.share if to else None,
        "tag": lane.tag,
        "at": now(),
        "actor": actor,
        "reason": reason,
    }
    return chain.put(connection, tables.traffic, row)
