"""Who has a build, and who planned a run; an index that finds the oldest upload without sorting them.

Of the runs that are there it is unknown who planned them: they count as set by somebody, and stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("build", sa.Column("owner", sa.Text))
    op.add_column("job", sa.Column("planned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("job_planned", "job", ["planned", "period", "next_run"])
    op.drop_index("build_upload", "build")
    op.create_index("build_upload", "build", ["upload", "finished"])


def downgrade() -> None:
    op.drop_index("build_upload", "build")
    op.create_index("build_upload", "build", ["upload"])
    op.drop_index("job_planned", "job")
    op.drop_column("job", "planned")
    op.drop_column("build", "owner")
