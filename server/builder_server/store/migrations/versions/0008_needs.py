"""What a job needs of a worker, and the place in a queue among those that need the same.

A script of before says nothing of it: what looks like a need there was a comment.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for table, name in (("job", "needs"), ("job", "all_needs"), ("queue", "needs")):
        op.add_column(table, sa.Column(name, sa.Text, nullable=False, server_default=""))
    op.create_index("job_all_needs", "job", ["all_needs"])
    op.create_index("queue_needs", "queue", ["platform", "needs", "position", "id"])


def downgrade() -> None:
    """An earlier release gives any job to any worker of its platform."""
    op.drop_index("queue_needs", "queue")
    op.drop_index("job_all_needs", "job")
    for table, name in (("queue", "needs"), ("job", "all_needs"), ("job", "needs")):
        op.drop_column(table, name)
