"""Has a worker wait less for a supervisor that does nothing: for jobs that keep theirs from all."""

from builder_worker.sandbox.processes import supervision


def begin() -> None:
    """Set it so in this process."""
    supervision._SLACK, supervision._PATIENCE = 0.3, 0.4
