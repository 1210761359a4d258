"""What the server remembers: the schedule, the queues, the builds and the pending uploads, in a database.

Nothing but this room knows SQL. A method that changes something is one transaction, and when it returns its change is on
the disk, and those whom it concerns are woken. What can't be done is raised as CommandRefused, whose text is the reply
for the client; what the disk does, as StoreError.
"""

from builder.runtime.database import StoreError, Undecided
from builder_server.store.builds import Expand
from builder_server.store.load import PlatformLoad
from builder_server.store.records import (
    AfterLoss,
    Attempted,
    Build,
    BuildHead,
    Due,
    Expanded,
    Holder,
    LeftBuild,
    OldBuild,
    PendingUpload,
    PlannedJob,
    Signable,
    StoredArtifact,
    Taken,
    Timing,
    is_secret,
    split_peer,
)
from builder_server.store.servers import ServerIdentity, ServerState
from builder_server.store.store import Store

__all__ = [
    "AfterLoss",
    "Attempted",
    "Build",
    "BuildHead",
    "Due",
    "Expand",
    "Expanded",
    "Holder",
    "LeftBuild",
    "OldBuild",
    "PendingUpload",
    "PlannedJob",
    "PlatformLoad",
    "ServerIdentity",
    "ServerState",
    "Signable",
    "Store",
    "StoreError",
    "StoredArtifact",
    "Taken",
    "Timing",
    "Undecided",
    "is_secret",
    "split_peer",
]
