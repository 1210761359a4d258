"""What a worker that comes later has to know of an attempt: files beside its spool, of which each is whole or not there."""

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from attrs import field, frozen

from builder import codec
from builder.endpoint import Servers
from builder.errors import BuilderError
from builder.extension.working import GiveJob
from builder.messages import JobFinished
from builder.model import Result
from builder_worker.sandbox.job_directory import ATTEMPT
from builder_worker.sandbox.owner import boot
from builder_worker.sandbox.processes import tools

OUTCOME, LINES = "outcome", "lines"
"""The names of files in the place of a job, beside ATTEMPT, what was given: how it ended, and the spool."""


class Illegible(BuilderError):
    """What was written down of an attempt is not what a worker writes."""


@frozen(kw_only=True)
class Handover:
    """An attempt as it was given: by one of the servers, for a platform, at ``begun`` nanoseconds of the monotonic
    clock of one start of the machine.
    """

    servers: Servers
    platform: str
    job: GiveJob
    begun: int = field(factory=time.monotonic_ns)
    boot: str | None = field(factory=boot)
    facts: Mapping[str, str] = field(factory=dict)
    """What the server is told of how it is run."""

    @property
    def elapsed(self) -> int:
        """Milliseconds since it was given; 0 if the machine was started anew since."""
        return (time.monotonic_ns() - self.begun) // 1_000_000 if self.boot == boot() else 0

    def write(self, place: Path) -> None:
        """Write it down. Nothing is synced: a crash of the machine takes the job with it. Raises OSError."""
        plain = {
            "address": str(self.servers),
            "tls": self.servers.tls and self.servers.tls.options(),
            "platform": self.platform,
            "job": codec.encode(self.job).hex(),
            "begun": self.begun,
            "boot": self.boot,
            "facts": dict(self.facts),
        }
        _write(place / ATTEMPT, json.dumps(plain).encode())

    @classmethod
    def read(cls, place: Path) -> Self:
        """Return what was written down. Raises FileNotFoundError if nothing was, other OSError, and Illegible."""
        data = (place / ATTEMPT).read_bytes()
        try:
            plain = json.loads(data)
            job = codec.decode(bytes.fromhex(plain.pop("job")))
            servers = Servers.of(plain.pop("address"), plain.pop("tls", None) or {})  # an earlier worker knew none
            record = cls(servers=servers, job=job, **plain)  # type: ignore[arg-type]  # what it is, is looked at below
        except (BuilderError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise Illegible(f"{place / ATTEMPT} is not what a worker writes") from error
        if not isinstance(job, GiveJob):
            raise Illegible(f"{place / ATTEMPT} is of no job")
        return record


def forget(place: Path) -> None:
    """Remove what was written down: nobody waits for the attempt any more."""
    with suppress(OSError):  # the place can be gone
        (place / ATTEMPT).unlink(missing_ok=True)


def write_outcome(place: Path, finished: JobFinished) -> None:
    """Write down how an attempt ended, without its artifacts. Raises OSError."""
    _write(place / OUTCOME, codec.encode(finished))


def read_outcome(place: Path) -> Result:
    """Return how an attempt ended. Raises FileNotFoundError while it has not, other OSError, and Illegible."""
    data = (place / OUTCOME).read_bytes()
    try:
        finished = codec.decode(data)
    except BuilderError as error:
        raise Illegible(f"{place / OUTCOME} is not what a worker writes") from error
    if not isinstance(finished, JobFinished):
        raise Illegible(f"{place / OUTCOME} is no result")
    return finished.result


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    tools.write_private(part, data)
    part.rename(path)
