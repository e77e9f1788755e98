"""What may not answer, which version answers whom, and what a shadow said."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


NUMBERS = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite's INTEGER has 64 bits


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":  # 2^31 requests are five days at 5,000 a second
        for table, column in (
            *(("requests", "id"), ("references", "id"), ("references", "request")),
            *(("outcomes", "id"), ("outcomes", "request")),
        ):
            op.alter_column(table, column, type_=sa.BigInteger)
        for table in ("requests", "references", "outcomes"):
            op.execute(f"ALTER SEQUENCE {table}_id_seq AS BIGINT")
    op.add_column("requests", sa.Column("traffic", sa.Integer))
    op.create_table(
        "stops",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("stopped", sa.Integer, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("stops_by_model", "stops", ["model", "id"])
    op.create_table(
        "traffic",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("bundle", sa.String),
        sa.Column("share", sa.Float),
        sa.Column("tag", sa.String),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("traffic_by_model", "traffic", ["model", "id"])
    op.create_table(
        "shadows",
        sa.Column("id", NUMBERS, primary_key=True),
        sa.Column("request", NUMBERS, sa.ForeignKey("requests.id"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("bundle", sa.String, nullable=False),
        sa.Column("risks", sa.LargeBinary, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("shadows_by_request", "shadows", ["request"])
    op.create_index("shadows_by_bundle", "shadows", ["bundle", "id"])
