"""What a server takes, of all together, of one build and of one job: every limit that an operator may set.

Others are fixed, since both sides of a connection have to know them, as the size of a message of each kind.
"""

from typing import Any

from attrs import field, frozen

from builder.execution import MAX_ARTIFACTS
from builder.messages import GIB


def _limit(default: int, meaning: str, *, is_size: bool = False) -> Any:
    return field(default=default, metadata={"meaning": meaning, "is_size": is_size})


@frozen(kw_only=True)
class ServerLimits:
    """Each field is an option ``--max-…``. Sizes are in bytes."""

    connections: int = _limit(2000, "Connections at once, as far as there are descriptors: three for each.")
    connections_per_holder: int = _limit(500, "Connections at once of the holder of a certificate.")
    handshake: float = _limit(10, "Seconds in which a peer shows its certificate.")
    console: int = _limit(4 * GIB, "Bytes of a build's console; it is cut there, and the build goes on.", is_size=True)
    artifacts: int = _limit(MAX_ARTIFACTS, "Artifacts of a build; with more it fails.")
    artifact_bytes: int = _limit(64 * GIB, "Bytes of a build's artifacts; with more it fails.", is_size=True)
    jobs: int = _limit(50_000, "Jobs in the schedule, each of which is in the queue of a platform once at most.")
    queue: int = _limit(
        50_000, "Entries in the queue of a platform; a command that would add one is refused, what is due comes still."
    )
    attempts: int = _limit(300, "Attempts at one job on a platform in a minute; then it waits for the next one.")


DEFAULTS = ServerLimits()
