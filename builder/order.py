"""Whose turn it is: which messages each side may send next, as tables, one pair for each role and version. No I/O.

Each side has a state of its own, and a table says what it may send in it: a message, the state after it, and, where the
message makes it the other side's turn, the state of that one. Nothing else couples the sides. So messages that cross
on their way are no error where a table lets both be sent, and one side's silence never keeps the other from speaking.

A peer's hello chooses the table by its role and version.
"""

import enum
from collections.abc import Iterable, Mapping

from attrs import frozen

from builder.messages import (
    CLIENT_VERSION,
    KINDS,
    WORKER_VERSION,
    Command,
    Failure,
    Hello,
    Info,
    InfoReply,
    JobFinished,
    JobRequested,
    JobSchedule,
    Kind,
    Observe,
    Output,
    Role,
    ServerHello,
    Success,
)


class Side(enum.Enum):
    """Who sends: the program that opened the connection, or the server."""

    PEER = enum.auto()
    SERVER = enum.auto()


class State(enum.Enum):
    """What a side is about to do."""

    QUIET = enum.auto()
    """Nothing: it waits for the other side, or all is said."""

    OPENING = enum.auto()
    GREETING = enum.auto()
    ASKING = enum.auto()
    ANSWERING = enum.auto()
    INFORMING = enum.auto()
    SHOWING = enum.auto()
    REQUESTING = enum.auto()
    WAITING = enum.auto()
    """A worker that has asked for a job, in our own protocol: it may say meanwhile whether it takes one."""

    OFFERING = enum.auto()
    BUILDING = enum.auto()
    DELIVERING = enum.auto()
    """A worker whose result is sent, and waits to be recorded."""

    RESUMING = enum.auto()
    FOLLOWING = enum.auto()
    """A server that has given a job, in our own protocol."""


@frozen
class Turn:
    """What a message changes: the state of the side that sends it, and the other's if that is not None."""

    own: State
    other: State | None = None


Table = Mapping[State, Mapping[Kind, Turn]]
"""What a side may send in each of its states; in one that is missing, nothing."""


@frozen(kw_only=True)
class Protocol:
    """The order of messages for one role in one version."""

    peer: Table
    server: Table

    result_gap: float = 0.0
    """Seconds that a worker leaves between its last line and the result."""

    def allowed(self, side: Side, state: State) -> Mapping[Kind, Turn]:
        """Return what a side may send in a state."""
        return (self.peer if side is Side.PEER else self.server).get(state, {})


def any_of(kinds: Iterable[Kind], turn: Turn) -> dict[Kind, Turn]:
    """Return the entries of a table for kinds that change the same."""
    return dict.fromkeys(kinds, turn)


_END = Turn(State.QUIET)

OPENING = Protocol(peer={State.OPENING: {Hello: Turn(State.QUIET, State.GREETING)}}, server={})
"""The order up to the hello, which all roles and versions share."""


def kinds_of(base: Kind) -> list[Kind]:
    """Return the kinds of message that are of a kind, among those that are known so far."""
    return [kind for kind in dict.fromkeys(KINDS.values()) if issubclass(kind, base)]


CLASSIC_CLIENT = Protocol(
    peer={
        State.ASKING: {
            **any_of(kinds_of(Command), Turn(State.QUIET, State.ANSWERING)),
            Info: Turn(State.QUIET, State.INFORMING),
            Observe: Turn(State.QUIET, State.SHOWING),
        },
    },
    server={
        State.GREETING: {ServerHello: Turn(State.QUIET, State.ASKING)},
        State.ANSWERING: {Success: _END, Failure: _END},
        State.INFORMING: {InfoReply: Turn(State.ANSWERING), Failure: _END},
        State.SHOWING: {Output: Turn(State.SHOWING), Success: _END, Failure: _END},
    },
)
"""One command, and its answer."""

CLASSIC_WORKER = Protocol(
    peer={
        State.REQUESTING: {JobRequested: Turn(State.QUIET, State.OFFERING)},
        State.BUILDING: {Output: Turn(State.BUILDING), JobFinished: _END},
    },
    server={
        State.GREETING: {ServerHello: Turn(State.QUIET, State.REQUESTING)},
        State.OFFERING: {JobSchedule: Turn(State.QUIET, State.BUILDING)},
    },
    # The original's server loses the end for whoever observes when it comes in the same instant as the last line. Of 8
    # observers none saw the end of what came in two writes back to back, and all of them with 2 ms between the writes.
    result_gap=0.02,
)
"""One job."""

Protocols = Mapping[tuple[Role, int], Protocol]

PROTOCOLS: Protocols = {
    (Role.CLIENT, CLIENT_VERSION): CLASSIC_CLIENT,
    (Role.WORKER, WORKER_VERSION): CLASSIC_WORKER,
}
"""The classic protocol."""

NEGOTIATED = 100
"""From this version on both sides speak the lower one of theirs; one of before is spoken as it is, or not at all."""


def spoken(role: Role, version: int, protocols: Protocols) -> int:
    """Return the version that is spoken after a hello, if there is a protocol for it."""
    ours = [known for known_role, known in protocols if known_role is role and known >= NEGOTIATED]
    return min(version, max(ours)) if ours and version >= NEGOTIATED else version
