"""How jobs are to be run, why each build ran and what came of it, its artifacts, and the runs that were left out.

What became of builds of before follows from their results. What the scripts of orb-build jobs among them were made of,
a template and a package, is not known.

Of the runs that the server planned it was known that, and not when: it was a period before, or earlier.
"""

import sqlalchemy as sa
from alembic import op

from builder import codec
from builder.history import outcome_of

revision = "0004"
down_revision = "0003"

WIDE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

PERIODS = {"hourly": 3_600_000, "daily": 86_400_000, "weekly": 604_800_000}
"""Milliseconds."""

GROUP = 1000
"""Results of one statement: most builds share a few."""


def _columns() -> dict[str, list[sa.Column[object]]]:
    return {
        "job": [
            sa.Column("own_period", sa.Text),
            sa.Column("cron", sa.Text),
            sa.Column("zone", sa.Text),
            sa.Column("spread", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("missed", sa.Text, nullable=False, server_default="run-once"),
            sa.Column("priority", sa.Integer, nullable=False, server_default=sa.text("5")),
            sa.Column("retries", sa.Integer, nullable=False, server_default=sa.text("0")),
            sa.Column("time_limit", WIDE),
            sa.Column("max_silent", WIDE),
            sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("revision", WIDE, nullable=False, server_default=sa.text("1")),
            sa.Column("planned_at", WIDE),
        ],
        "queue": [
            sa.Column("due", WIDE),
            sa.Column("cause", sa.Text, nullable=False, server_default="due"),
            sa.Column("cause_of", sa.Text),
            sa.Column("retry", sa.Integer, nullable=False, server_default=sa.text("0")),
            sa.Column("not_before", WIDE),
            sa.Column("check_of", sa.Text),
        ],
        "build": [
            sa.Column("due", WIDE),
            sa.Column("cause", sa.Text, nullable=False, server_default="due"),
            sa.Column("cause_of", sa.Text),
            sa.Column("retry", sa.Integer, nullable=False, server_default=sa.text("0")),
            sa.Column("worker", sa.Text),
            sa.Column("outcome", sa.Text),
            sa.Column("ended_by", sa.Text),
            sa.Column("artifacts", WIDE),
            sa.Column("artifact_bytes", WIDE),
            sa.Column("main_hash", sa.Text),
            sa.Column("check_of", sa.Text),
            sa.Column("verdict", sa.Text),
            sa.Column("size", WIDE),
            sa.Column("template", sa.Text),
            sa.Column("opam_package", sa.Text),
        ],
    }


def upgrade() -> None:
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    op.execute("update job set own_period = period")
    _tell_outcomes()
    op.drop_index("job_planned", "job")
    job = sa.table("job", *(sa.column(name) for name in ("planned", "planned_at", "next_run", "period")))
    for period, length in PERIODS.items():
        planned = sa.and_(job.c.planned == sa.true(), job.c.period == period)
        op.execute(sa.update(job).where(planned).values(planned_at=job.c.next_run - length))
    op.drop_column("job", "planned")
    op.create_index("job_planned_at", "job", ["planned_at"])
    op.drop_index("queue_order", "queue")
    op.create_index("queue_order", "queue", ["platform", "position", "id"])
    op.create_index("queue_not_before", "queue", ["not_before"])
    op.create_index("queue_due", "queue", ["due"])
    op.drop_index("build_state", "build")
    op.create_index("build_state", "build", ["state", "job_id"])
    op.create_index("build_started", "build", ["started"])
    op.create_index("build_size", "build", ["state", "size"])
    op.create_index("build_job", "build", ["name", "platform", "started"])
    op.create_index("build_name", "build", ["name", "started"])
    op.create_index("build_platform", "build", ["platform", "started"])
    op.create_index("build_outcome", "build", ["outcome", "started"])
    op.create_index("build_success", "build", ["name", "platform", "outcome", "started"])
    op.create_index("build_finished", "build", ["finished"])
    op.create_table(
        "dependency",
        sa.Column("job_id", WIDE, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("on_job", sa.Text, nullable=False),
        sa.Column("on_platform", sa.Text, nullable=False),
        sa.Column("is_met", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("job_id", "on_job", "on_platform"),
    )
    op.create_index("dependency_on", "dependency", ["on_job"])
    key = ("job_id", "on_job", "on_platform")
    op.create_table(
        "met_there",
        sa.Column("job_id", WIDE, nullable=False),
        sa.Column("on_job", sa.Text, nullable=False),
        sa.Column("on_platform", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("is_met", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint(*key, "platform"),
        sa.ForeignKeyConstraint(key, [f"dependency.{column}" for column in key], ondelete="CASCADE"),
    )
    op.create_table(
        "artifact",
        sa.Column("build", sa.Text, sa.ForeignKey("build.uuid", ondelete="CASCADE"), nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("size", WIDE, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("build", "path"),
    )
    op.create_table(
        "skipped",
        sa.Column("id", WIDE, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("due", WIDE, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("cause_of", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("skipped_due", "skipped", ["due"])
    op.create_index("skipped_job", "skipped", ["name", "due"])


def _tell_outcomes() -> None:
    build = sa.table("build", sa.column("result"), sa.column("outcome"))
    results = op.get_bind().scalars(sa.select(build.c.result).distinct().where(build.c.result.is_not(None))).all()
    for begin in range(0, len(results), GROUP):
        outcomes = {result: outcome_of(codec.decode_result(result)).value for result in results[begin : begin + GROUP]}
        told = sa.case(outcomes, value=build.c.result)
        op.execute(sa.update(build).where(build.c.result.in_([*outcomes])).values(outcome=told))


def downgrade() -> None:
    """What is only known since is forgotten: a job with a cron rule keeps its nearest period."""
    for table in ("skipped", "artifact", "met_there", "dependency"):
        op.drop_table(table)
    for table, index in (
        ("build", "build_finished"),
        ("build", "build_success"),
        ("build", "build_outcome"),
        ("build", "build_platform"),
        ("build", "build_name"),
        ("build", "build_job"),
        ("build", "build_size"),
        ("build", "build_started"),
        ("build", "build_state"),
        ("queue", "queue_due"),
        ("queue", "queue_not_before"),
        ("queue", "queue_order"),
        ("job", "job_planned_at"),
    ):
        op.drop_index(index, table)
    op.add_column("job", sa.Column("planned", sa.Boolean, nullable=False, server_default=sa.false()))
    op.execute("update job set planned = planned_at is not null and cron is null")
    for table, columns in _columns().items():
        for column in columns:
            op.drop_column(table, column.name)
    op.create_index("job_planned", "job", ["planned", "period", "next_run"])
    op.create_index("queue_order", "queue", ["platform", "position"])
    op.create_index("build_state", "build", ["state"])
