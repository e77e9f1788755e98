"""What people said of a version: validated, approved, rejected; each of exactly one bundle and one report.

Who said it is what MEDIMIND_USER held: asserted, not authenticated, until there is a login.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from configs.errors import LedgerError, PromotionError
from configs.spec import ChangeControl
from evidence.report import Report
from ledger import chain, tables
from ledger.database import audit, deciding, now, reading, utc, writing
from ledger.stops import refuse_retired

ASSERTED = "asserted, not authenticated"
"""How sure we are of who an actor is."""

Verdict = Literal["approved", "rejected"]


@dataclass(frozen=True)
class Review:
    """One person's newest verdict."""

    verdict: Verdict
    actor: str
    at: datetime
    reason: str


@dataclass(frozen=True)
class Standing:
    """Where a bundle and its report stand: each person's newest verdict, and who trained and who validated it."""

    reviews: tuple[Review, ...]
    trained_by: frozenset[str]
    validated_by: frozenset[str]

    @property
    def rejections(self) -> tuple[Review, ...]:
        return tuple(review for review in self.reviews if review.verdict == "rejected")

    def approvals(self, asked: ChangeControl) -> tuple[Review, ...]:
        """The approvals that count for a plan: of its approvers where it names them, and, where it asks for two or
        more, of nobody who trained or validated the version."""
        may = {person(approver) for approver in asked.approvers}
        own = self.trained_by | self.validated_by if asked.approvals >= 2 else frozenset()
        approved = (review for review in self.reviews if review.verdict == "approved")
        return tuple(
            review
            for review in approved
            if person(review.actor) not in own and (not may or person(review.actor) in may)
        )


def validated(engine: sa.Engine, version: int, report: Report, trained_by: tuple[str, ...], actor: str) -> None:
    """Put on record who validated the version, and who had trained it; once for each who did."""
    trained = json.dumps(sorted(trained_by))
    t = tables.reviews
    same = sa.select(t.c.id).where(
        *_exactly(report.name, version, report),
        t.c.verdict == "validated",
        t.c.actor == actor,
        t.c.trained_by == trained,
    )
    with deciding(engine) as connection:
        if connection.execute(same).first() is not None:
            return
        reason = "its report passes" if report.passed else "its report does not pass"
        _put(connection, version, report, "validated", reason, actor, trained)
        audit(connection, actor, "validate", f"{report.name}@{version} {report.bundle}")


def review(engine: sa.Engine, version: int, report: Report, verdict: Verdict, reason: str, actor: str) -> Standing:
    """Put a person's verdict on record, in the place of that person's earlier one; where the version stands now.

    A rejection ends whatever traffic led to the version; taken back, it does not bring that again. Raises
    PromotionError if the version is retired, or is to be approved without a passing report.
    """
    shown = f"{report.name}@{version}"
    if not reason.strip():
        raise LedgerError(f"{shown}: a reason is expected, and this one is empty.")
    if verdict == "approved" and not (report.kind in ("validation", "retraining") and report.passed):
        raise PromotionError(f"{shown}: its report does not pass, so there is nothing to approve.")
    from ledger.traffic import end_routes_to  # not above: traffic asks here whether a version is rejected

    with deciding(engine) as connection:
        refuse_retired(connection, report.name, version)
        _put(connection, version, report, verdict, reason, actor, None)
        if verdict == "rejected":
            end_routes_to(connection, report.name, version, f"{shown} is rejected by {actor}: {reason}", actor)
        action = {"approved": "approve", "rejected": "reject"}[verdict]
        audit(connection, actor, action, f"{shown} {report.bundle}")
        return standing_in(connection, version, report)


def standing(engine: sa.Engine, version: int, report: Report) -> Standing:
    """Where the version stands now, with exactly this bundle and report."""
    with reading(engine) as connection:
        return standing_in(connection, version, report)


def standing_in(connection: sa.Connection, version: int, report: Report) -> Standing:
    """The same, within the caller's transaction."""
    return _standing(connection, *_exactly(report.name, version, report))


def _standing(connection: sa.Connection, *of: sa.ColumnElement[bool]) -> Standing:
    t = tables.reviews
    rows = connection.execute(sa.select(t).where(*of).order_by(t.c.id)).all()
    newest = {
        person(row.actor): Review(row.verdict, row.actor, utc(row.at), row.reason)
        for row in rows
        if row.verdict != "validated"
    }
    seen = [row for row in rows if row.verdict == "validated"]
    trained = {person(actor) for row in seen for actor in json.loads(row.trained_by)}
    return Standing(tuple(newest.values()), frozenset(trained), frozenset(person(row.actor) for row in seen))


def refuse_rejected(connection: sa.Connection, version: int, report: Report) -> None:
    """Raise PromotionError while anybody's rejection stands."""
    _refuse(standing_in(connection, version, report), f"{report.name}@{version}")


def refuse_rejected_bundle(connection: sa.Connection, model: str, version: int, bundle: str) -> None:
    """The same of a version whose report is not at hand: a registered version has one."""
    c = tables.reviews.c
    _refuse(_standing(connection, c.model == model, c.version == version, c.bundle == bundle), f"{model}@{version}")


def _refuse(standing: Standing, shown: str) -> None:
    if rejections := standing.rejections:
        first = rejections[0]
        raise PromotionError(
            f"{shown} is rejected by {first.actor} since {first.at:%Y-%m-%d %H:%M} UTC: {first.reason}. It stays so "
            f'until {first.actor} takes it back: `medimind approve {shown} --reason "…"`.'
        )


def missing(standing: Standing, plans: tuple[ChangeControl, ...], shown: str) -> str | None:
    """What a promotion still waits for under these plans, in a sentence with the next command; None: nothing."""
    if any(plan.approvals >= 2 for plan in plans):
        if not standing.validated_by:
            return f"who validated {shown} is not on record: `medimind validate` the same bundle again puts it there"
        if not standing.trained_by:
            return (
                f"who trained {shown} is not on record, and nobody may approve what they trained: `medimind train` and "
                "`medimind validate` with the same data, spec and code make the same bundle and put it there"
            )
    asked = max(plans, key=lambda plan: plan.approvals - len(standing.approvals(plan)), default=None)
    if asked is None or len(standing.approvals(asked)) >= asked.approvals:
        return None
    counted = [review.actor for review in standing.approvals(asked)]
    left_out = [
        review.actor for review in standing.reviews if review.verdict == "approved" and review.actor not in counted
    ]
    who = f" of {', '.join(asked.approvers)}" if asked.approvers else ""
    so_far = f"{len(counted)} ({', '.join(counted)})" if counted else "none"
    aside = f"; {', '.join(left_out)} trained or validated it, or is no approver" if left_out else ""
    return (
        f"it needs {asked.approvals} approval{'s' if asked.approvals > 1 else ''}{who} and has {so_far}{aside}: "
        f'`medimind approve {shown} --reason "…"`'
    )


def trained(engine: sa.Engine, name: str, bundle: str, actor: str) -> None:
    """Put on record who trained a bundle."""
    with writing(engine) as connection:
        audit(connection, actor, "train", f"{name} {bundle}")


def trainers(engine: sa.Engine, name: str, bundle: str) -> tuple[str, ...]:
    """Everybody on record as having trained this bundle; the same data, spec and code make the same one."""
    t = tables.audit
    query = sa.select(t.c.actor).where(t.c.action == "train", t.c.detail == f"{name} {bundle}").order_by(t.c.id)
    with reading(engine) as connection:
        return tuple(dict.fromkeys(connection.execute(query).scalars()))


def digest(report: Report) -> str:
    """SHA-256 of the report's JSON."""
    return hashlib.sha256(report.to_json().encode()).hexdigest()


def person(actor: str) -> str:
    """Who an actor is: one person counts once, however the name is written."""
    return actor.strip().casefold()


def _exactly(model: str, version: int, report: Report) -> tuple[Any, ...]:
    c = tables.reviews.c
    return c.model == model, c.version == version, c.bundle == report.bundle, c.report == digest(report)


def _put(
    connection: sa.Connection,
    version: int,
    report: Report,
    verdict: str,
    reason: str,
    actor: str,
    trained_by: str | None,
) -> None:
    row = {
        "model": report.name,
        "version": version,
        "bundle": report.bundle,
        "report": digest(report),
        "verdict": verdict,
        "at": now(),
        "actor": actor,
        "reason": reason,
        "trained_by": trained_by,
    }
    chain.put(connection, tables.reviews, row)
