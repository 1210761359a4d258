"""The tables: those of the original as it makes them, and those of our own, whose names begin with ``web_``.

The original's are text, since another program reads them: schema version 18, word by word. What ours hold is derived from
them and from the files, and is made anew whenever the program starts or their form changes.

Times are days since 1970 and picoseconds of the day. A build without a main binary counts as failed.
"""

import sqlalchemy as sa

APPLICATION_ID = 1234839235
SCHEMA_VERSION = 18

ORIGINAL = (
    """CREATE TABLE user (
         id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
         username VARCHAR(255) NOT NULL UNIQUE,
         password_hash BLOB NOT NULL,
         password_salt BLOB NOT NULL,
         scrypt_n INTEGER NOT NULL,
         scrypt_r INTEGER NOT NULL,
         scrypt_p INTEGER NOT NULL,
         restricted BOOLEAN NOT NULL)""",
    """CREATE TABLE job (
         id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
         name VARCHAR(255) NOT NULL UNIQUE)""",
    """CREATE TABLE build (
         id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
         uuid VARCHAR(36) NOT NULL UNIQUE,
         start_d INTEGER NOT NULL,
         start_ps INTEGER NOT NULL,
         finish_d INTEGER NOT NULL,
         finish_ps INTEGER NOT NULL,
         result_code INTEGER NOT NULL,
         result_msg TEXT,
         console TEXT NOT NULL,
         script TEXT NOT NULL,
         platform TEXT NOT NULL,
         main_binary INTEGER,
         user INTEGER NOT NULL,
         job INTEGER NOT NULL,
         input_id BLOB,
         FOREIGN KEY(main_binary) REFERENCES build_artifact(id) DEFERRABLE INITIALLY DEFERRED,
         FOREIGN KEY(user) REFERENCES user(id),
         FOREIGN KEY(job) REFERENCES job(id))""",
    """CREATE TABLE build_artifact (
         id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
         filepath TEXT NOT NULL,
         sha256 BLOB NOT NULL,
         size INTEGER NOT NULL,
         build INTEGER NOT NULL,
         FOREIGN KEY(build) REFERENCES build(id),
         UNIQUE(build, filepath))""",
    """CREATE TABLE access_list (
         id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
         user INTEGER NOT NULL,
         job INTEGER NOT NULL,
         FOREIGN KEY(user) REFERENCES user(id),
         FOREIGN KEY(job) REFERENCES job(id),
         UNIQUE(user, job))""",
    """CREATE TABLE tag (
         id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
         tag VARCHAR(255) NOT NULL UNIQUE)""",
    """CREATE TABLE job_tag (
         id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
         tag INTEGER NOT NULL,
         value TEXT NOT NULL,
         job INTEGER NOT NULL,
         FOREIGN KEY(job) REFERENCES job(id),
         FOREIGN KEY(tag) REFERENCES tag(id),
         UNIQUE(tag, job))""",
    "CREATE INDEX idx_build_job_start ON build(job, start_d DESC, start_ps DESC)",
    "CREATE INDEX idx_build_failed ON build(job, start_d DESC, start_ps DESC) WHERE main_binary IS NULL",
    "CREATE INDEX idx_build_input_id ON build(input_id)",
    "CREATE INDEX idx_build_main_binary ON build(main_binary)",
    "CREATE INDEX idx_build_artifact_sha256 ON build_artifact(sha256)",
    "CREATE INDEX idx_build_artifact_build ON build_artifact(build)",
)
"""What makes the tables of an empty data directory."""


def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *(sa.column(column) for column in columns))


user = _table(
    "user", "id", "username", "password_hash", "password_salt", "scrypt_n", "scrypt_r", "scrypt_p", "restricted"
)
job = _table("job", "id", "name")
build = _table(
    "build",
    *("id", "uuid", "start_d", "start_ps", "finish_d", "finish_ps", "result_code", "result_msg", "console", "script"),
    *("platform", "main_binary", "user", "job", "input_id"),
)
artifact = _table("build_artifact", "id", "filepath", "sha256", "size", "build")
access = _table("access_list", "id", "user", "job")
tag = _table("tag", "id", "tag")
job_tag = _table("job_tag", "id", "tag", "value", "job")

OUR_VERSION = 4
"""Grows whenever a table of ours changes: they are made anew then."""

ours = sa.MetaData()

form = sa.Table("web_form", ours, sa.Column("version", sa.Integer, nullable=False))

listed = sa.Table(
    "web_build",
    ours,
    sa.Column("build", sa.Integer, primary_key=True),
    sa.Column("job", sa.Integer, nullable=False),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("start_d", sa.Integer, nullable=False),
    sa.Column("start_ps", sa.Integer, nullable=False),
    sa.Column("failed", sa.Boolean, nullable=False),
    sa.Column("output", sa.LargeBinary),
    sa.Column("input", sa.LargeBinary),
    sa.Index("web_build_started", "start_d", "start_ps", "platform"),
    sa.Index("web_build_failed", "failed", "start_d", "start_ps", "platform"),
    sa.Index("web_build_job", "job", "start_d", "start_ps", "platform", "output"),
    sa.Index("web_build_output", "output", "job", "start_d", "start_ps", "input"),
    sa.Index("web_build_input", "input", "start_d", "start_ps", "output"),
)
"""All builds, in the orders in which lists have them: when each began, whether it failed, the SHA-256 of its main binary, and
its input id. The rows of the original are far longer, and some of those orders it has not."""

place = sa.Table(
    "web_place",
    ours,
    sa.Column("job", sa.Integer, nullable=False),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("newest", sa.Integer, nullable=False),
    sa.Column("built", sa.Integer),
    sa.Column("past", sa.Text, nullable=False),
    sa.PrimaryKeyConstraint("job", "platform"),
    sqlite_with_rowid=False,
)
"""A job on a platform: its newest build, the newest successful one, and the last ones as ``summaries.states`` writes them."""

output = sa.Table(
    "web_output",
    ours,
    sa.Column("job", sa.Integer, nullable=False),
    sa.Column("platform", sa.Text, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("build", sa.Integer, nullable=False),
    sa.Column("started", sa.Integer, nullable=False),
    sa.Column("alike", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("job", "platform", "sha256"),
    sa.Index("web_output_started", "job", "platform", "started", "build", "alike"),
    sqlite_with_rowid=False,
)
"""The different main binaries of a job on a platform, and on all of them where the platform is empty: the newest build that
has it, when that began in milliseconds since 1970, and how many builds have it."""

binary = sa.Table(
    "web_binary",
    ours,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("solo5", sa.Text, nullable=False),
)
"""What main binaries say of themselves, as a JSON object: ``solo5_manifest`` and ``solo5_abi`` as they stand in answers, or
``damage``, a sentence, or none of them for a binary that is no unikernel."""

console = sa.Table(
    "web_console",
    ours,
    sa.Column("build", sa.Integer, primary_key=True),
    sa.Column("lines", sa.LargeBinary, nullable=False),
)
"""Where the lines of a build's console are: see ``console_index``."""

file = sa.Table(
    "web_file",
    ours,
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("artifact", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("path", "artifact"),
    sqlite_with_rowid=False,
)
"""All artifacts by their paths, close together: a search for a part of a path goes through all of them."""

switch = sa.Table(
    "web_switch",
    ours,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sha256", sa.LargeBinary, nullable=False, unique=True),
)
"""The opam-switch files that were read, also those that say nothing."""

package = sa.Table(
    "web_package",
    ours,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.UniqueConstraint("name", "version"),
)
"""Packages that a switch has, or had."""

installed = sa.Table(
    "web_installed",
    ours,
    sa.Column("package", sa.Integer, nullable=False),
    sa.Column("switch", sa.Integer, nullable=False),
    sa.PrimaryKeyConstraint("package", "switch"),
    sa.Index("web_installed_switch", "switch"),
    sqlite_with_rowid=False,
)
"""Which packages a switch has."""

kept = sa.MetaData()

removing = sa.Table("web_removing", kept, sa.Column("path", sa.Text, primary_key=True))
"""Files and directories, relative to the data directory, whose rows are gone and which go next. Whoever removes rows notes
them here in the same transaction: after a crash the next one knows what is left to do."""

received = sa.Table(
    "web_received",
    kept,
    sa.Column("build", sa.Integer, primary_key=True),
    sa.Column("main_position", sa.Integer, nullable=False),
    sa.Column("readme_position", sa.Integer),
    sa.Column("readme", sa.LargeBinary),
)
"""How a build looked when it was uploaded, where rows do not say it: the place of its main binary among its artifacts, and
the README.md that is none of them. Nothing else tells it, so this table is never made anew."""

provenance = sa.Table(
    "web_provenance",
    kept,
    sa.Column("build", sa.Integer, primary_key=True),
    sa.Column("envelope", sa.LargeBinary, nullable=False),
)
"""What the server that built it has signed of a build, as it came. Nothing else tells it."""
