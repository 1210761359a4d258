"""What a back end says of one job: how it is started, looked at and removed. The supervisor does the rest."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from builder_worker.sandbox.processes import tools
from builder_worker.sandbox.processes.rlimits import of_job
from builder_worker.sandbox.processes.rlimits import oom_score as given_score


@frozen(kw_only=True)
class Launch:
    """One job to be started. ``command`` is the whole command line, ``environment`` what its first program sees."""

    command: Sequence[str]
    environment: Mapping[str, str] = tools.ENVIRONMENT
    directory: Path = Path("/")

    rlimits: Mapping[int, tuple[int, int]] = field(factory=of_job)
    """By the number of the resource: its soft and hard limit."""

    niceness: int | None = 0
    """None for the worker's own."""

    oom_score: int | None = field(factory=given_score)
    """None for the worker's own."""

    user: int | None = None
    """The host's user and group that the first program becomes, None for the worker's."""

    owner: int | None = None
    """The host's user who is the job's, who may open again what the job is handed. None for the worker's."""

    files: Sequence[bytes] = ()
    """What the command reads from ``supervisor.FIRST_FILE`` and the descriptors that follow."""

    has_notes: bool = False
    """Whether the standard error is not the job's: a shell says on it how the script ended, see ``inside``."""

    has_gate: bool = False
    """Whether that shell waits for a line on its standard input."""

    adopts: bool = True
    """Whether all processes that come of the command end with it, wherever they have gone."""

    end: Sequence[str] = ()
    """What removes the sandbox when its processes are gone; without ``adopts``, it ends them too."""

    end_environment: Mapping[str, str] = tools.ENVIRONMENT
