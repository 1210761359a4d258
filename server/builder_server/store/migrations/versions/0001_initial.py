"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# 64 bits everywhere: SQLite's own integers have them, and only a column of that type can count its ids
wide = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", wide, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("platform", sa.Text),
        sa.Column("script", sa.LargeBinary),
        sa.Column("opam_package", sa.Text),
        sa.Column("period", sa.Text, nullable=False),
        sa.Column("next_run", wide, nullable=False),
        sa.CheckConstraint("(opam_package is null) = (platform is not null and script is not null)", name="one_kind"),
        sqlite_autoincrement=True,
    )
    op.create_index("job_next_run", "job", ["next_run"])
    op.create_table(
        "platform",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("dropped", sa.Boolean, nullable=False),
    )
    op.create_table(
        "queue",
        sa.Column("id", wide, primary_key=True),
        sa.Column("platform", sa.Text, sa.ForeignKey("platform.name", ondelete="CASCADE"), nullable=False),
        sa.Column("job_id", wide, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", wide, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.UniqueConstraint("platform", "job_id"),
    )
    op.create_index("queue_order", "queue", ["platform", "position"])
    op.create_table(
        "build",
        sa.Column("uuid", sa.Text, primary_key=True),
        sa.Column("job_id", wide, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("script", sa.LargeBinary, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("started", wide, nullable=False),
        sa.Column("finished", wide),
        sa.Column("result", sa.LargeBinary),
        sa.Column("upload", sa.Text),
        sa.CheckConstraint("state in ('running', 'finished', 'lost')", name="known_state"),
        sa.CheckConstraint("upload in ('pending', 'uploaded', 'done', 'failed')", name="known_upload"),
    )
    op.create_index("build_state", "build", ["state"])
    op.create_index("build_upload", "build", ["upload"])


def downgrade() -> None:
    for table in ("build", "queue", "platform", "job"):
        op.drop_table(table)
