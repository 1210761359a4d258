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
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
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
    # what classic peers are shown; with a cron rule the nearest one
    Column("period", Text, nullable=False),
    # what was asked for; null: nothing
    Column("own_period", Text),
    Column("cron", Text),
    Column("zone", Text),
    Column("spread", Boolean, nullable=False, server_default=false()),
    Column("missed", Text, nullable=False, server_default="run-once"),
    Column("priority", Integer, nullable=False, server_default=text("5")),
    Column("retries", Integer, nullable=False, server_default=text("0")),
    Column("time_limit", _WIDE),
    Column("max_silent", _WIDE),
    Column("paused", Boolean, nullable=False, server_default=false()),
    # the text of ``builder.needs``: its own, and those together with what its script says
    Column("needs", Text, nullable=False, server_default=""),
    Column("all_needs", Text, nullable=False, server_default=""),
    Column("revision", _WIDE, nullable=False, server_default=text("1")),
    Column("next_run", _WIDE, nullable=False),
    # when the server planned the next run; null if somebody has set it
    Column("planned_at", _WIDE),
    CheckConstraint("(opam_package is null) = (platform is not null and script is not null)", name="one_kind"),
    Index("job_next_run", "next_run"),
    Index("job_planned_at", "planned_at"),
    Index("job_all_needs", "all_needs"),
    sqlite_autoincrement=True,  # an id is never used again: a running build may outlive its job
)

dependency = Table(
    "dependency",
    metadata,
    Column("job_id", _WIDE, ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    # by name, so that a job may be removed and come back
    Column("on_job", Text, nullable=False),
    Column("on_platform", Text, nullable=False),  # empty: any
    # whether it has succeeded since the job ran last
    Column("is_met", Boolean, nullable=False, server_default=false()),
    PrimaryKeyConstraint("job_id", "on_job", "on_platform"),
    Index("dependency_on", "on_job"),
)

met_there = Table(
    "met_there",
    metadata,
    Column("job_id", _WIDE, nullable=False),
    Column("on_job", Text, nullable=False),
    Column("on_platform", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("is_met", Boolean, nullable=False),  # on this platform, whatever the dependency says of all
    PrimaryKeyConstraint("job_id", "on_job", "on_platform", "platform"),
    ForeignKeyConstraint(
        ["job_id", "on_job", "on_platform"],
        ["dependency.job_id", "dependency.on_job", "dependency.on_platform"],
        ondelete="CASCADE",
    ),
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
    Column("position", _WIDE, nullable=False),  # the smallest is next: see queues.rank
    Column("losses", Integer, nullable=False),  # workers lost in a row while they had this job
    Column("due", _WIDE),  # when this run was to begin; null: an entry of before this was noted
    Column("cause", Text, nullable=False, server_default="due"),
    Column("cause_of", Text),  # who or what that was
    Column("retry", Integer, nullable=False, server_default=text("0")),  # which one; 0: the run itself
    Column("not_before", _WIDE),
    # the build that this run is compared with; empty: it is run to be compared; null: neither
    Column("check_of", Text),
    Column("needs", Text, nullable=False, server_default=""),  # all that its job needs
    UniqueConstraint("platform", "job_id"),
    Index("queue_order", "platform", "position", "id"),
    Index("queue_needs", "platform", "needs", "position", "id"),  # the first entry of each set of needs
    Index("queue_not_before", "not_before"),
    Index("queue_due", "due"),
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
    # of an orb-build job: what its script was made of, the SHA-256 of the template and the package
    Column("template", Text),
    Column("opam_package", Text),
    Column("state", Text, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("started", _WIDE, nullable=False),
    Column("finished", _WIDE),
    Column("result", LargeBinary),  # DER
    # what is still to come: pending (a receiver is to get it), failed (one has refused it), uploaded (all have it, and
    # its record goes), done (that is gone); null: it is to go nowhere
    Column("upload", Text),
    Column("owner", Text),  # the server that has or had it; null: one of before there could be several
    Column("due", _WIDE),
    Column("cause", Text, nullable=False, server_default="due"),
    Column("cause_of", Text),
    Column("retry", Integer, nullable=False, server_default=text("0")),
    Column("worker", Text),  # its address
    Column("worker_name", Text),  # null: it can't come back
    Column("secret_sha256", LargeBinary),  # of whoever may come back, and ask for what became of its result
    # of the job when it was taken
    Column("time_limit", _WIDE),
    Column("max_silent", _WIDE),
    Column("outcome", Text),  # null while it runs
    Column("ended_by", Text),  # who cancelled it: also while it still runs
    Column("artifacts", _WIDE),  # how many; null: not counted
    Column("artifact_bytes", _WIDE),
    Column("main_hash", Text),
    Column("check_of", Text),  # as in a queue
    Column("verdict", Text),  # "reproducible", or the path of the first artifact that differs
    Column("size", _WIDE),  # bytes of its files; null: to be looked at
    Column("facts", Text),  # what its worker has said of it: JSON, texts by their names
    # pending (it is to be signed), signed; null: it is not, since it runs, was lost, or this server does not know it
    Column("provenance", Text),
    CheckConstraint("state in ('running', 'finished', 'lost')", name="known_state"),
    CheckConstraint("upload in ('pending', 'uploaded', 'done', 'failed')", name="known_upload"),
    Index("build_state", "state", "job_id"),
    Index("build_upload", "upload", "finished"),
    Index("build_started", "started"),
    Index("build_size", "state", "size"),
    Index("build_job", "name", "platform", "started"),
    Index("build_name", "name", "started"),
    Index("build_platform", "platform", "started"),
    Index("build_outcome", "outcome", "started"),
    Index("build_success", "name", "platform", "outcome", "started"),  # the newest that succeeded
    Index("build_finished", "finished"),
    Index("build_provenance", "provenance", "finished"),
)

artifact = Table(
    "artifact",
    metadata,
    Column("build", Text, ForeignKey("build.uuid", ondelete="CASCADE"), nullable=False),
    Column("path", LargeBinary, nullable=False),
    Column("size", _WIDE, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    PrimaryKeyConstraint("build", "path"),
)

upload = Table(
    "upload",
    metadata,
    # only as long as the record of the build is on the disk: what all have, or nobody is to have, needs no row
    Column("build", Text, ForeignKey("build.uuid", ondelete="CASCADE"), nullable=False),
    Column("receiver", Text, nullable=False),  # its URL without user, password and query
    Column("state", Text, nullable=False),
    Column("since", _WIDE, nullable=False),  # when the build ended: the oldest goes first
    Column("attempts", Integer, nullable=False, server_default=text("0")),  # that failed or were refused
    Column("tried", _WIDE),
    Column("next_attempt", _WIDE),  # null: nothing is wrong with this one, it goes as soon as anything does
    Column("reason", Text),  # why the last attempt failed
    PrimaryKeyConstraint("build", "receiver"),
    CheckConstraint("state in ('pending', 'done', 'refused')", name="known_upload_state"),
    Index("upload_next", "receiver", "state", "next_attempt", "since", "build"),
    Index("upload_since", "since", "build", "receiver"),
)

receiver = Table(
    "receiver",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False),  # in a row
    Column("tried", _WIDE, nullable=False),
    Column("resume", _WIDE, nullable=False),  # no sooner is anything posted to it
)

halt = Table(
    "halt",
    metadata,
    Column("scope", Text, nullable=False),
    Column("name", Text, nullable=False),  # of a platform or a worker, which may be unknown; empty: the server
    Column("since", _WIDE, nullable=False),
    Column("set_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("until", _WIDE),
    PrimaryKeyConstraint("scope", "name"),
    CheckConstraint("scope in ('server', 'platform', 'worker')", name="known_scope"),
)

skipped = Table(
    "skipped",
    metadata,
    Column("id", _WIDE, primary_key=True),
    Column("name", Text, nullable=False),
    Column("platform", Text, nullable=False),
    Column("due", _WIDE, nullable=False),
    Column("cause", Text, nullable=False),
    Column("cause_of", Text),
    Column("reason", Text, nullable=False),
    Index("skipped_due", "due"),
    Index("skipped_job", "name", "due"),
)

server = Table(
    "server",
    metadata,
    Column("name", Text, primary_key=True),
    Column("incarnation", Text, nullable=False),  # a new one with each start, and whenever it was counted as dead
    Column("address", Text),  # where other servers reach it; null: nowhere
    Column("version", Text, nullable=False),
    # both by the clock of the database
    Column("started", _WIDE, nullable=False),
    Column("expires", _WIDE),  # null: it has its database for itself, and nobody asks
    Column("token", Text, nullable=False),  # whoever shows it may relay
    Column("crew", Text, nullable=False, server_default="{}"),  # what its workers do: JSON
)

left_behind = Table(
    "left_behind",
    metadata,
    # what has moved from a server, whose disk may still have files of it
    Column("build", Text, nullable=False),
    Column("server", Text, nullable=False),
    Column("name", Text, nullable=False),
    PrimaryKeyConstraint("build", "server"),
)

duty = Table(
    "duty",
    metadata,
    Column("name", Text, primary_key=True),
    Column("server", Text, nullable=False),  # who has it, or had it last
    Column("looked", _WIDE),  # when that one did it last, by the clock of the database
)

program = Table(
    "program",
    metadata,
    # the oldest revision whose programs may work on this database: see builder.runtime.migrations
    Column("oldest", Text, primary_key=True),
)
