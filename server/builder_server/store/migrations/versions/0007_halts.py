"""What is drained, with who wanted it and why."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "halt",
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("since", WIDE, nullable=False),
        sa.Column("set_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("until", WIDE),
        sa.PrimaryKeyConstraint("scope", "name"),
        sa.CheckConstraint("scope in ('server', 'platform', 'worker')", name="known_scope"),
    )


def downgrade() -> None:
    """An earlier release hands out jobs again."""
    op.drop_table("halt")
