"""The tables of the database, as SQLAlchemy sees them. Their history is in ``migrations``.

Times are milliseconds since 1970, as ``Instant`` holds them: 64 bits wide. A job is a script (platform, script) or an opam package;
the other columns are null.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

_WIDE = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits everywhere: SQLite's own integers have them, and only a column of that type can count its ids."""

job = Table(
    "job",
    metadata,
    Column("id", _WIDE, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("platform", Text),
    Column("script", LargeBinary),
    Column("opam_package", Text),
    Column("period", Text, nullable=False),
    Column("next_run", _WIDE, nullable=False),
    # whether the next run is one that the server planned itself; else somebody has set it
    Column("planned", Boolean, nullable=False, server_default=false()),
    CheckConstraint("(opam_package is null) = (platform is not null and script is not null)", name="one_kind"),
    Index("job_next_run", "next_run"),
    Index("job_planned", "planned", "period", "next_run"),
    sqlite_autoincrement=True,  # an id is never used again: a running build may outlive its job
)

platform = Table(
    "platform",
    metadata,
    Column("name", Text, primary_key=True),
    Column("dropped", Boolean, nullable=False),
)

queue = Table(
    "queue",
    metadata,
    Column("id", _WIDE, primary_key=True),
    Column("platform", Text, ForeignKey("platform.name", ondelete="CASCADE"), nullable=False),
    Column("job_id", _WIDE, ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("position", _WIDE, nullable=False),  # the smallest is next
    Column("losses", Integer, nullable=False),  # workers lost in a row while they had this job
    UniqueConstraint("platform", "job_id"),
    Index("queue_order", "platform", "position"),
    Index("queue_job", "job_id"),  # to remove a job from all queues
)

build = Table(
    "build",
    metadata,
    Column("uuid", Text, primary_key=True),
    Column("job_id", _WIDE, nullable=False),  # no foreign key: history outlives the schedule
    Column("name", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("script", LargeBinary, nullable=False),
    Column("state", Text, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("started", _WIDE, nullable=False),
    Column("finished", _WIDE),
    Column("result", LargeBinary),  # DER
    Column("upload", Text),
    Column("owner", Text),  # the server that has or had it; null: one of before there could be several
    CheckConstraint("state in ('running', 'finished', 'lost')", name="known_state"),
    CheckConstraint("upload in ('pending', 'uploaded', 'done', 'failed')", name="known_upload"),
    Index("build_state", "state"),
    Index("build_upload", "upload", "finished"),
)
