"""What was said of each of several classes, and which class came true."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, kind in (("classes", sa.JSON), ("class_risks", sa.LargeBinary), ("labels", sa.JSON)):
        op.add_column("requests", sa.Column(name, kind))
    op.add_column("outcomes", sa.Column("label", sa.String))
