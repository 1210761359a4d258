"""An index to remove a job from all queues: without it, to drop a platform read every queue for each of its jobs."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("queue_job", "queue", ["job_id"])


def downgrade() -> None:
    op.drop_index("queue_job", "queue")
