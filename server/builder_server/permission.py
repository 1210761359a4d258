"""Who is at the other end of a connection, and what it may ask for: one table for every kind of message."""

from collections.abc import Mapping

from attrs import frozen

from builder.extension.applying import Apply, ListJobs, TryApply
from builder.extension.builds import (
    CancelBuilds,
    Dequeue,
    FetchArtifacts,
    ListArtifacts,
    ShowBuild,
    ShowHistory,
    ShowScript,
)
from builder.extension.crew import ListWorkers
from builder.extension.halting import AwaitIdle, Halt, LiftHalt
from builder.extension.logs import ReadConsole
from builder.extension.provenance import ShowProvenance
from builder.extension.provisioning import TellProvision
from builder.extension.schedule import ChangeJob, CheckJob, NextRuns, PlanJob, ShowJob
from builder.extension.servers import ListServers, Relay
from builder.extension.uploads import CountUploads, DropUpload, ListUploads, RetryUploads
from builder.extension.watching import Look, Watch
from builder.extension.working import Alive, AskJob, BuildFacts, GiveUp, Return
from builder.messages import (
    DropPlatform,
    Execute,
    Hello,
    Info,
    JobFinished,
    JobRequested,
    Observe,
    Output,
    Reschedule,
    Schedule,
    ScheduleOrbBuild,
    UndropPlatform,
    Unschedule,
)
from builder.model import NEVER, printable
from builder.roles import HolderRole, Identity
from builder_server.errors import CommandRefused

_WORKER, _OPERATOR, _OBSERVER = HolderRole.WORKER, HolderRole.OPERATOR, HolderRole.OBSERVER

NEEDS: Mapping[type, HolderRole | None] = {
    Hello: None,  # it asks for nothing
    Relay: None,  # by a token, which only servers of the same database know
    # --- workers
    JobRequested: _WORKER,
    AskJob: _WORKER,
    Return: _WORKER,
    # and what only follows these
    Output: _WORKER,
    BuildFacts: _WORKER,
    JobFinished: _WORKER,
    GiveUp: _WORKER,
    Alive: _WORKER,
    # --- what changes something
    Schedule: _OPERATOR,
    ScheduleOrbBuild: _OPERATOR,
    Unschedule: _OPERATOR,
    Reschedule: _OPERATOR,
    Execute: _OPERATOR,
    DropPlatform: _OPERATOR,
    UndropPlatform: _OPERATOR,
    PlanJob: _OPERATOR,
    ChangeJob: _OPERATOR,
    CheckJob: _OPERATOR,
    Apply: _OPERATOR,
    CancelBuilds: _OPERATOR,
    Dequeue: _OPERATOR,
    RetryUploads: _OPERATOR,
    DropUpload: _OPERATOR,
    Halt: _OPERATOR,
    LiftHalt: _OPERATOR,
    # --- what a provisioner says
    TellProvision: HolderRole.PROVISIONER,
    # --- what changes nothing
    TryApply: _OBSERVER,
    AwaitIdle: _OBSERVER,
    ShowProvenance: _OBSERVER,
    Info: _OBSERVER,
    Observe: _OBSERVER,
    ShowJob: _OBSERVER,
    NextRuns: _OBSERVER,
    ListJobs: _OBSERVER,
    ShowHistory: _OBSERVER,
    ShowBuild: _OBSERVER,
    ShowScript: _OBSERVER,
    ListArtifacts: _OBSERVER,
    FetchArtifacts: _OBSERVER,
    ReadConsole: _OBSERVER,
    ListUploads: _OBSERVER,
    CountUploads: _OBSERVER,
    Watch: _OBSERVER,
    Look: _OBSERVER,
    ListWorkers: _OBSERVER,
    ListServers: _OBSERVER,
}
"""The role that the holder of a certificate needs for a kind of message. What is not in here nobody gets, see the tests."""


def relayed(request: Relay) -> "Peer":
    """Return the client of another server, which has shown that it may say who that is."""
    identity = Identity(
        name=request.holder,
        roles=frozenset({request.role}) - {_WORKER},
        platforms=frozenset(),
        serial=0,
        expires=NEVER,  # the other server sees to that
    )
    return Peer(address=f"{request.address} by {printable(request.server)}", name=request.holder, identity=identity)


class NotPermitted(CommandRefused):
    """The peer has not the role that its request needs."""


@frozen(kw_only=True)
class Peer:
    """Who is at the other end of a connection. Its text is what logs and replies call it.

    ``name`` is the holder of its certificate, or the user of this machine, as far as it is known. ``identity`` is None
    where whoever reaches a listener may ask for everything.
    """

    address: str
    name: str = ""
    identity: Identity | None = None

    def __str__(self) -> str:
        return f"{printable(self.name)} ({self.address})" if self.name else self.address

    def check(self, kind: type) -> None:
        """Raise NotPermitted, which says the role that is missing."""
        needed = NEEDS[kind]
        if self.identity and needed and not self.identity.may_be(needed):
            raise NotPermitted(f"{kind.__name__} needs the role {needed.value}; {self._has}")

    def check_worker(self, kind: type, platform: str) -> None:
        """The same for a worker of a platform."""
        self.check(kind)
        if self.identity and not self.identity.may_work_for(platform):
            given = ", ".join(sorted(self.identity.platforms or ()))
            raise NotPermitted(
                f"{kind.__name__} for {platform} needs the role worker for it; the certificate of {self.name} gives {given}"
            )

    @property
    def role(self) -> HolderRole:
        """The role in which another server asks for it: that of an operator where it may ask for everything."""
        if self.identity is None or self.identity.may_be(_OPERATOR):
            return _OPERATOR
        return _OBSERVER

    @property
    def _has(self) -> str:
        assert self.identity, "others may do everything"
        given = ", ".join(sorted(role.value for role in self.identity.roles)) or "none"
        return f"the certificate of {self.name} gives {given}"
