"""What became of each upload at each receiver, and which receivers are left alone for a while.

Which receiver a build of before was for is not known: the server that starts gives it to all that it has.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "upload",
        sa.Column("build", sa.Text, sa.ForeignKey("build.uuid", ondelete="CASCADE"), nullable=False),
        sa.Column("receiver", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", WIDE, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("tried", WIDE),
        sa.Column("next_attempt", WIDE),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("build", "receiver"),
        sa.CheckConstraint("state in ('pending', 'done', 'refused')", name="known_upload_state"),
    )
    op.create_index("upload_next", "upload", ["receiver", "state", "next_attempt", "since", "build"])
    op.create_index("upload_since", "upload", ["since", "build", "receiver"])
    op.create_table(
        "receiver",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("tried", WIDE, nullable=False),
        sa.Column("resume", WIDE, nullable=False),
    )


def downgrade() -> None:
    """What a release before is left with is the state of each build: it posts what is pending to its one receiver."""
    op.drop_table("receiver")
    op.drop_table("upload")
