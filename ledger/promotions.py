"""Who is champion: the newest promotion row of a model. MLflow's alias is a copy of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from configs.errors import PromotionError
from configs.spec import ChangeControl
from evidence.report import Report
from ledger import chain, tables
from ledger.database import audit, deciding, now, reading, utc
from ledger.reviews import missing, refuse_rejected, standing_in
from ledger.stops import refuse_retired
from ledger.traffic import end_routes_to

JUDGED = ("validation", "retraining")
"""The kinds of report by which a version may come to answer patients."""
COLUMNS = ("model", "version", "bundle", "at", "actor", "reason")


@dataclass(frozen=True)
class Promotion:
    """One version's way to the patients: by whom, why, and the report that allowed it."""

    model: str
    version: int
    bundle: str
    at: datetime
    actor: str
    reason: str
    report: Report


@dataclass(frozen=True)
class Grounds:
    """What a promotion was decided on. `instead_of`: the champion that the caller saw, None where there was none.

    `plans`: the change control plans whose approvals it needs. `evidence`: what is kept with it, as plain JSON.
    """

    instead_of: Promotion | None
    plans: tuple[ChangeControl, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


def promote(
    engine: sa.Engine, version: int, report: Report, actor: str, reason: str, grounds: Grounds | None = None
) -> Promotion:
    """Make this version champion; whatever traffic led to it ends.

    Raises PromotionError unless its own validation report passes, or if it is retired, rejected, or lacks an approval
    that its grounds ask for, or another version was promoted since the caller looked: nothing is changed then.
    """
    require_passed(report, version)
    shown = f"{report.name}@{version}"
    with deciding(engine) as connection:
        if grounds is not None:
            _still(connection, report.name, grounds.instead_of, shown)
            _against(grounds.instead_of, report, shown)
            refuse_rejected(connection, version, report)
            if why := missing(standing_in(connection, version, report), grounds.plans, shown):
                raise PromotionError(f"{shown} waits: {why}")
        made = Promotion(report.name, version, report.bundle, now(), actor, reason, report)
        _crown(connection, made, "promote", grounds.evidence if grounds else {})
        audit(connection, actor, "promote", f"{shown} {made.bundle}")
    return made


def rollback(engine: sa.Engine, present: Promotion, earlier: Promotion, actor: str, reason: str) -> Promotion:
    """Make an earlier champion champion again, by the report that made it one.

    Raises PromotionError if it is retired or rejected, or `present` is not champion any more.
    """
    with deciding(engine) as connection:
        champion = _champion(connection, present.model)
        if champion is None or (champion.version, champion.bundle) != (present.version, present.bundle):
            raise PromotionError(f"{present.model}@{present.version}: is not champion any more; nothing was changed.")
        made = replace(earlier, at=now(), actor=actor, reason=reason)
        _crown(connection, made, "rollback", {})
        audit(connection, actor, "rollback", f"{made.model}@{made.version} {made.bundle} after @{present.version}")
    return made


def ever(engine: sa.Engine, model: str, version: int, bundle: str) -> bool:
    """Whether this version was champion before, with this bundle."""
    t = tables.promotions
    query = sa.select(t.c.id).where(t.c.model == model, t.c.version == version, t.c.bundle == bundle).limit(1)
    with reading(engine) as connection:
        return connection.execute(query).first() is not None


def require_passed(report: Report, version: int) -> None:
    """Raise PromotionError unless this is a report of validation or retraining, and passes: what a version needs to
    answer patients."""
    if report.kind not in JUDGED:
        raise PromotionError(f"{report.name}@{version}: a validation report is needed, this is one of {report.kind}.")
    if not report.passed:
        failed = ", ".join(f"{finding.code} {finding.title}" for finding in report.failed) or "nothing was judged"
        raise PromotionError(f"{report.name}@{version}: its report does not pass ({failed}); it stays where it is.")


def find_champion(engine: sa.Engine, model: str) -> Promotion | None:
    """The model's newest promotion; None if it never had one."""
    with reading(engine) as connection:
        return _champion(connection, model)


def since(engine: sa.Engine, promotion: Promotion) -> datetime:
    """When this bundle was first promoted: a rollback makes nobody young."""
    t = tables.promotions
    same = t.c.model == promotion.model, t.c.bundle == promotion.bundle
    query = sa.select(t.c.at).where(*same).order_by(t.c.id).limit(1)
    with reading(engine) as connection:
        return utc(connection.execute(query).scalar_one())


def earlier(engine: sa.Engine, present: Promotion) -> list[Promotion]:
    """Who was champion before the present bundle first was, newest first, each version once.

    So a rollback after a rollback goes further back, never forth again.
    """
    t = tables.promotions
    first = sa.select(sa.func.min(t.c.id)).where(t.c.model == present.model, t.c.bundle == present.bundle)
    before = sa.select(t).where(t.c.model == present.model, t.c.id < first.scalar_subquery()).order_by(t.c.id.desc())
    with reading(engine) as connection:
        found = [_promotion(row) for row in connection.execute(before)]
    newest: dict[tuple[int, str], Promotion] = {}
    for promotion in found:
        newest.setdefault((promotion.version, promotion.bundle), promotion)
    return list(newest.values())


def head(engine: sa.Engine, promotion: Promotion) -> chain.Head:
    """The chain as it was when this was decided."""
    t = tables.promotions
    same = (t.c.model == promotion.model, t.c.version == promotion.version, t.c.bundle == promotion.bundle)
    with reading(engine) as connection:
        row = connection.execute(sa.select(sa.func.max(t.c.id)).where(*same)).scalar_one()
    return chain.find_link(engine, t.name, row) or chain.find_head(engine)


def mark(engine: sa.Engine) -> tuple[int, int, int]:
    """The newest numbers of promotions, stops and traffic: another mark says that something was decided since."""
    newest = [
        sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0)).scalar_subquery()
        for table in (tables.promotions, tables.stops, tables.traffic)
    ]
    with reading(engine) as connection:
        promotions, stops, traffic = connection.execute(sa.select(*newest)).one()
    return promotions, stops, traffic


def _still(connection: sa.Connection, model: str, seen: Promotion | None, shown: str) -> None:
    champion = _champion(connection, model)
    if champion != seen:
        who = f"{model}@{champion.version}, by {champion.actor}" if champion else "nobody"
        raise PromotionError(
            f"{shown}: another was promoted meanwhile ({who}); nothing was changed. Compare it with that one, and "
            "promote again if it is still the better one."
        )


def _against(champion: Promotion | None, report: Report, shown: str) -> None:
    """A retrained version was judged against one champion, and takes no other's place by that."""
    if report.kind != "retraining":
        return
    judged = report.figures["retraining"]
    if champion is None or champion.bundle != judged["bundle"]:
        raise PromotionError(
            f"{shown}: was judged against {report.name}@{judged['version']}, which is not champion any more; nothing "
            f"was changed. `medimind retrain {report.name}` judges against the present one."
        )


def _crown(
    connection: sa.Connection, made: Promotion, action: Literal["promote", "rollback"], evidence: Mapping[str, Any]
) -> None:
    refuse_retired(connection, made.model, made.version)
    refuse_rejected(connection, made.version, made.report)
    row = {
        **{name: getattr(made, name) for name in COLUMNS},
        "report": made.report.to_json(),
        "action": action,
        "evidence": json.dumps(evidence, ensure_ascii=False, allow_nan=False) if evidence else None,
    }
    chain.put(connection, tables.promotions, row)
    end_routes_to(connection, made.model, made.version, f"{made.model}@{made.version} is now champion", made.actor)


def _champion(connection: sa.Connection, model: str) -> Promotion | None:
    t = tables.promotions
    query = sa.select(t).where(t.c.model == model).order_by(t.c.id.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _promotion(row)


def _promotion(row: sa.Row[Any]) -> Promotion:
    report = Report.from_json(row.report)
    return Promotion(row.model, row.version, row.bundle, utc(row.at), row.actor, row.reason, report)
