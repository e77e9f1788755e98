"""Windows and their judgements, retrainings step by step, alerts and their delivery, counts of what was refused."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NUMBERS = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_index("requests_by_bundle", "requests", ["model", "bundle", "id", "n"])
    op.create_table(
        "windows",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("bundle", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("first_request", NUMBERS, nullable=False),
        sa.Column("first_position", sa.Integer, nullable=False),
        sa.Column("last_request", NUMBERS, nullable=False),
        sa.Column("last_position", sa.Integer, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("begins_at", TIME, nullable=False),
        sa.Column("ends_at", TIME, nullable=False),
        sa.Column("outcomes", sa.Integer, nullable=False),
        sa.Column("outcomes_to", NUMBERS, nullable=False),
        sa.Column("judged_at", TIME, nullable=False),
        sa.Column("report", sa.Text, nullable=False),
    )
    op.create_index("windows_by_bundle", "windows", ["model", "bundle", "number", "id"])
    op.create_table(
        "retrainings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("step", sa.String, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("bundle", sa.String),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("evidence", sa.Text),
    )
    op.create_index("retrainings_by_model", "retrainings", ["model", "id"])
    op.create_table(
        "episodes",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("began_at", TIME, nullable=False),
        sa.Column("ended_at", TIME),
    )
    op.create_index("episodes_by_model", "episodes", ["model", "id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("episode", sa.Integer, sa.ForeignKey("episodes.id"), nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("tried_at", TIME),
        sa.Column("delivered_at", TIME),
    )
    op.create_index("deliveries_by_episode", "deliveries", ["episode", "channel"], unique=True)
    op.create_table(
        "refusals",
        sa.Column("id", NUMBERS, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("code", sa.String, nullable=False),
        sa.Column("field", sa.String, nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("at", TIME, nullable=False),
    )
    op.create_index("refusals_by_model_and_time", "refusals", ["model", "at"])
