"""Whose turn it is in our own protocol; see ``builder.order``."""

from builder.extension import VERSION, Reply, Request, Welcome, applying, builds, logs, schedule, uploads, watching
from builder.extension.working import Alive, AskJob, Continue, GiveJob, GiveUp, Gone, ResultStored, Return
from builder.messages import Command, Failure, JobFinished, Kind, Output, Role, Success
from builder.order import PROTOCOLS, Protocol, Protocols, State, Turn, any_of, kinds_of

assert all((applying, builds, logs, schedule, uploads, watching)), "their import makes their messages known"

_REPLIES: list[Kind] = kinds_of(Reply)

CLIENT = Protocol(
    peer={State.ASKING: any_of([*kinds_of(Request), *kinds_of(Command)], Turn(State.QUIET, State.ANSWERING))},
    server={
        State.GREETING: {Welcome: Turn(State.QUIET, State.ASKING)},
        State.ANSWERING: {
            **any_of([*_REPLIES, Output], Turn(State.ANSWERING)),
            Success: Turn(State.QUIET, State.ASKING),
            Failure: Turn(State.QUIET, State.ASKING),
        },
    },
)
"""Any number of requests, one after the other; the classic commands that only change something are among them."""

WORKER = Protocol(
    peer={
        State.REQUESTING: {
            AskJob: Turn(State.QUIET, State.OFFERING),
            Return: Turn(State.QUIET, State.RESUMING),
            Alive: Turn(State.REQUESTING),  # it has crossed with the end of the attempt
        },
        State.BUILDING: {
            **any_of([Output, Alive], Turn(State.BUILDING)),
            **any_of([JobFinished, GiveUp], Turn(State.DELIVERING)),
        },
        State.DELIVERING: {Alive: Turn(State.DELIVERING)},
    },
    server={
        State.GREETING: {Welcome: Turn(State.QUIET, State.REQUESTING)},
        State.OFFERING: {GiveJob: Turn(State.FOLLOWING, State.BUILDING)},
        State.RESUMING: {
            Continue: Turn(State.FOLLOWING, State.BUILDING),
            ResultStored: Turn(State.QUIET, State.REQUESTING),
            Gone: Turn(State.QUIET, State.REQUESTING),
        },
        State.FOLLOWING: {
            Alive: Turn(State.FOLLOWING),
            ResultStored: Turn(State.QUIET, State.REQUESTING),
            Gone: Turn(State.QUIET),  # what the worker has sent meanwhile is not read: both close
        },
    },
)
"""Any number of jobs, one after the other, and what is left of earlier ones. Both sides of a build say that they live."""

ALL: Protocols = {**PROTOCOLS, (Role.CLIENT, VERSION): CLIENT, (Role.WORKER, VERSION): WORKER}
"""What a peer speaks that knows the extension."""
