"""How the server's log names things."""

from builder.model import printable
from builder_server.store import Build


def describe(build: Build) -> str:
    """Return how a log names an attempt."""
    return f"build {build.uuid} of {printable(build.job.name)} on {printable(build.job.platform)}"
