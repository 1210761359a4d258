"""How the server's log names builds."""

from contextlib import AbstractContextManager

from builder.runtime.logs import about, note
from builder_server.store import Build, BuildHead, PendingUpload

_Named = Build | BuildHead | PendingUpload


def about_build(build: _Named) -> AbstractContextManager[None]:
    """Have what is logged in a block name a build."""
    return about(**_fields(build))


def note_build(build: _Named) -> None:
    """Have what the task logs from now on name a build."""
    note(**_fields(build))


def _fields(build: _Named) -> dict[str, object]:
    job = build.job if isinstance(build, Build) else build
    return {"uuid": build.uuid, "job": job.name, "platform": job.platform}
