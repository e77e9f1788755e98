"""Who is champion: the newest promotion row of a model. MLflow's alias is a copy of it."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from configs.errors import PromotionError
from evidence.report import Report
from ledger import tables
from ledger.database import audit, now, reading, utc, writing


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


def promote(engine: sa.Engine, version: int, report: Report, actor: str, reason: str) -> Promotion:
    """Make this version champion. Raises PromotionError unless its own validation report passes."""
    if report.kind != "validation":
        raise PromotionError(f"{report.name}@{version}: a validation report is needed, this is one of {report.kind}.")
    if not report.passed:
        failed = ", ".join(f"{finding.code} {finding.title}" for finding in report.failed) or "nothing was judged"
        raise PromotionError(f"{report.name}@{version}: its report does not pass ({failed}); it stays where it is.")
    row = {
        "model": report.name,
        "version": version,
        "bundle": report.bundle,
        "at": now(),
        "actor": actor,
        "reason": reason,
        "report": report.to_json(),
    }
    with writing(engine) as connection:
        connection.execute(tables.promotions.insert().values(row))
        audit(connection, actor, "promote", f"{report.name}@{version} {report.bundle}")
    champion = find_champion(engine, report.name)
    assert champion is not None
    return champion


def find_champion(engine: sa.Engine, model: str) -> Promotion | None:
    """The model's newest promotion; None if it never had one."""
    t = tables.promotions
    query = sa.select(t).where(t.c.model == model).order_by(t.c.id.desc()).limit(1)
    with reading(engine) as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    report = Report.from_json(row.report)
    return Promotion(row.model, row.version, row.bundle, utc(row.at), row.actor, row.reason, report)
