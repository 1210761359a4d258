"""Whose turn it is between a server and a worker in our own protocol; see ``builder.order``.

It stands alone, since a worker needs none of what clients ask for.
"""

from builder.extension import VERSION, Welcome
from builder.extension.working import (
    Alive,
    AskJob,
    BuildFacts,
    Continue,
    GiveJob,
    GiveUp,
    Gone,
    NoJob,
    ResultStored,
    Return,
)
from builder.messages import Failure, JobFinished, Output, Role
from builder.order import PROTOCOLS, Protocol, Protocols, State, Turn, any_of

WORKER = Protocol(
    peer={
        State.REQUESTING: {
            AskJob: Turn(State.WAITING, State.OFFERING),
            Return: Turn(State.QUIET, State.RESUMING),
            Alive: Turn(State.REQUESTING),  # it has crossed with the end of the attempt
        },
        State.WAITING: {Alive: Turn(State.WAITING)},
        State.BUILDING: {
            **any_of([Output, BuildFacts, Alive], Turn(State.BUILDING)),
            **any_of([JobFinished, GiveUp], Turn(State.DELIVERING)),
        },
        State.DELIVERING: {Alive: Turn(State.DELIVERING)},
    },
    server={
        State.GREETING: {Welcome: Turn(State.QUIET, State.REQUESTING)},
        State.OFFERING: {
            GiveJob: Turn(State.FOLLOWING, State.BUILDING),
            NoJob: Turn(State.QUIET, State.REQUESTING),
            Failure: Turn(State.QUIET),
        },
        State.RESUMING: {
            Alive: Turn(
                State.RESUMING
            ),  # how far the console is may take a while to find out, and the disk may be in the way
            Continue: Turn(State.FOLLOWING, State.BUILDING),
            ResultStored: Turn(State.QUIET, State.REQUESTING),
            Gone: Turn(State.QUIET, State.REQUESTING),
            Failure: Turn(State.QUIET),  # it may not work here: both close
        },
        State.FOLLOWING: {
            Alive: Turn(State.FOLLOWING),
            ResultStored: Turn(State.QUIET, State.REQUESTING),
            Gone: Turn(State.QUIET),  # what the worker has sent meanwhile is not read: both close
        },
    },
)
"""Any number of jobs, one after the other, and what is left of earlier ones. Both sides of a build say that they live."""

WORKERS: Protocols = {**PROTOCOLS, (Role.WORKER, VERSION): WORKER}
"""What a worker speaks that knows the extension."""
