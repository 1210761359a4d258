"""What jobs need, with what their scripts say; how many different sets of needs there may be."""

from collections.abc import Iterable

import sqlalchemy as sa

from builder.errors import InvalidOptions
from builder.model import Job, ScriptJob
from builder.needs import InScript, of_script, text_of, together
from builder.planning import JobOptions
from builder_server.errors import CommandRefused
from builder_server.store.schema import job, queue

MAX_SETS = 1000
"""Most different sets of needs in the schedule: whoever asks for a job looks for the first entry of each."""


def each_of(column: sa.ColumnElement[str], where: sa.ColumnElement[bool]) -> sa.CTE:
    """Return the different values of an indexed column as rows of ``needs``, the last of them null.

    It goes from one to the next by the index: how many rows have the same does not matter.
    """
    least = sa.select(sa.func.min(column).label("needs")).where(where).cte(recursive=True)
    more = sa.select(sa.func.min(column)).where(where, column > least.c.needs).scalar_subquery()
    return least.union_all(sa.select(more).where(least.c.needs.is_not(None)))


_EACH = each_of(job.c.all_needs, sa.true())
_COUNT = sa.select(sa.func.count(_EACH.c.needs))

THERE = each_of(queue.c.needs, queue.c.platform == sa.bindparam("wanted", type_=queue.c.platform.type))
EACH_THERE = sa.select(THERE.c.needs).where(THERE.c.needs.is_not(None))
"""What the entries of a platform need, each set of needs once."""


def in_script(of: Job) -> InScript:
    """Return what the script of a job says that it needs; of an orb build that is its template's business."""
    return of_script(of.script) if isinstance(of, ScriptJob) else InScript()


def all_of(of: Job, options: JobOptions) -> str:
    """Return the text of what a job needs by its options and its script. Raises CommandRefused."""
    found = in_script(of)
    if found.mistakes:
        raise CommandRefused(found.mistakes[0])
    try:
        return text_of(together([*options.needs, *found.needs]))
    except InvalidOptions as error:
        raise CommandRefused(str(error)) from error


def check(connection: sa.Connection, changed: Iterable[str]) -> None:
    """Raise CommandRefused if there are too many different sets now, some of which have come."""
    if any(changed) and (connection.scalar(_COUNT) or 0) > MAX_SETS:
        raise CommandRefused(f"there are {MAX_SETS} different sets of needs already; have the job need what others do")
