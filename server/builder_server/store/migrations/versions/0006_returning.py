"""What a worker needs that comes back to its build, and the limits of each build: those of its job may have changed.

Nobody comes back to builds of before.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _columns() -> list[sa.Column[object]]:
    return [
        sa.Column("worker_name", sa.Text),
        sa.Column("secret_sha256", sa.LargeBinary),
        sa.Column("time_limit", WIDE),
        sa.Column("max_silent", WIDE),
    ]


def upgrade() -> None:
    for column in _columns():
        op.add_column("build", column)


def downgrade() -> None:
    """An earlier release puts back what runs, and has nobody come back."""
    for column in _columns():
        op.drop_column("build", column.name)
