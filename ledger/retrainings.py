"""Where a model's retraining is: one chained row a step, each with its reason in words and its evidence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from ledger import chain, tables
from ledger.database import audit, deciding, now, reading, utc

Name = Literal["begun", "waits", "trial", "canary", "promoted", "kept", "refused", "offered", "rolled_back", "ended"]

OPEN = ("begun", "waits", "trial", "canary", "promoted")
"""Steps after which the same retraining goes on: one that `waits` does so for patients. The others end it; what is
`offered` is for a person to decide."""


@dataclass(frozen=True)
class Step:
    """One step of retraining `run` of a model. `version` and `bundle` are the candidate's, None before it has any."""

    model: str
    run: int
    step: Name
    version: int | None
    bundle: str | None
    at: datetime
    actor: str
    reason: str
    evidence: Mapping[str, Any]

    @property
    def open(self) -> bool:
        """Whether the retraining goes on from here."""
        return self.step in OPEN

    @property
    def told(self) -> str:
        who = f"{self.model}@{self.version}" if self.version is not None else self.model
        return f"{who} {self.step.replace('_', ' ')}: {self.reason}"


def put(engine: sa.Engine, step: Step) -> None:
    """Put the step on record."""
    row = {
        "model": step.model,
        "run": step.run,
        "step": step.step,
        "version": step.version,
        "bundle": step.bundle,
        "at": step.at,
        "actor": step.actor,
        "reason": step.reason,
        "evidence": json.dumps(step.evidence, ensure_ascii=False, allow_nan=False) if step.evidence else None,
    }
    with deciding(engine) as connection:
        chain.put(connection, tables.retrainings, row)
        audit(connection, step.actor, f"retrain: {step.step}", chain.about(row))


def first(model: str, before: Step | None, reason: str, evidence: Mapping[str, Any], actor: str) -> Step:
    """The first step of the model's next retraining."""
    return Step(model, before.run + 1 if before else 1, "begun", None, None, now(), actor, reason, evidence)


def newest(engine: sa.Engine, model: str) -> Step | None:
    """The model's newest step; None if it was never retrained."""
    found = steps(engine, model, 1)
    return found[-1] if found else None


def steps(engine: sa.Engine, model: str, last: int | None = None) -> list[Step]:
    """The model's steps, or the `last` of them, oldest first."""
    t = tables.retrainings
    query = sa.select(t).where(t.c.model == model).order_by(t.c.id.desc()).limit(last)
    with reading(engine) as connection:
        return [_step(row) for row in connection.execute(query)][::-1]


def _step(row: sa.Row[Any]) -> Step:
    evidence = json.loads(row.evidence) if row.evidence else {}
    return Step(row.model, row.run, row.step, row.version, row.bundle, utc(row.at), row.actor, row.reason, evidence)
