"""The servers that work on the database, who of them keeps the schedule, and which versions of them may."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "server",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("incarnation", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("started", WIDE, nullable=False),
        sa.Column("expires", WIDE),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("crew", sa.Text, nullable=False, server_default="{}"),
    )
    op.create_table(
        "duty",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("server", sa.Text, nullable=False),
        sa.Column("looked", WIDE),
    )
    op.create_table(
        "left_behind",
        sa.Column("build", sa.Text, primary_key=True),
        sa.Column("server", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
    )
    op.create_table("program", sa.Column("oldest", sa.Text, primary_key=True))


def downgrade() -> None:
    """An earlier release is alone, and knows that."""
    op.drop_table("program")
    op.drop_table("left_behind")
    op.drop_table("duty")
    op.drop_table("server")
