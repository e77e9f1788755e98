"""Every decision chained to the one before, approvals and rejections, and what a promotion was grounded on."""

import sqlalchemy as sa
from alembic import op

from ledger.chain import BEGINNING, link
from ledger.database import utc

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

DECIDED = ("promotions", "stops", "traffic")


def upgrade() -> None:
    op.add_column("promotions", sa.Column("action", sa.String, nullable=False, server_default="promote"))
    op.add_column("promotions", sa.Column("evidence", sa.Text))
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("bundle", sa.String, nullable=False),
        sa.Column("report", sa.String, nullable=False),
        sa.Column("verdict", sa.String, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("trained_by", sa.Text),
    )
    op.create_index("reviews_by_model", "reviews", ["model", "id"])
    op.create_table(
        "chain",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("about", sa.String, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("previous", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False),
    )
    op.create_index("chain_by_row", "chain", ["kind", "row"])
    connection = op.get_bind()
    known = sa.MetaData()
    known.reflect(connection, only=[*DECIDED, "audit", "chain"])
    _name_rollbacks(connection, known.tables["promotions"], known.tables["audit"])
    _chain(connection, known)


def _name_rollbacks(connection: sa.Connection, promotions: sa.Table, audit: sa.Table) -> None:
    """The audit's rows of promotions and rollbacks came one with each promotion, in the same order."""
    query = sa.select(audit).where(audit.c.action.in_(("promote", "rollback"))).order_by(audit.c.id)
    noted = list(connection.execute(query))
    for row in connection.execute(sa.select(promotions).order_by(promotions.c.id)).all():
        detail = f"{row.model}@{row.version} {row.bundle}"
        place = next((place for place, note in enumerate(noted) if note.detail.startswith(detail)), None)
        if place is None:
            continue  # the audit does not know it: what is not known to be a rollback stays a promotion
        if noted[place].action == "rollback":
            connection.execute(promotions.update().where(promotions.c.id == row.id).values(action="rollback"))
        del noted[: place + 1]


def _chain(connection: sa.Connection, known: sa.MetaData) -> None:
    """Link what was decided before there was a chain, in the order of time."""
    rows = [(kind, row._mapping) for kind in DECIDED for row in connection.execute(sa.select(known.tables[kind])).all()]
    previous = BEGINNING
    for number, (kind, row) in enumerate(sorted(rows, key=lambda one: (utc(one[1]["at"]), one[0], one[1]["id"])), 1):
        made = link(number, previous, kind, row)
        connection.execute(known.tables["chain"].insert().values(made))
        previous = made["hash"]
