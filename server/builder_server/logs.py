"""How the server's log names things."""

from builder.model import printable
from builder_server.store import Build, BuildHead, PendingUpload


def describe(build: Build | BuildHead | PendingUpload) -> str:
    """Return how a log names an attempt."""
    job = build.job if isinstance(build, Build) else build
    return f"build {build.uuid} of {printable(job.name)} on {printable(job.platform)}"
