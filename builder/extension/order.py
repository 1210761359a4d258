"""Whose turn it is in our own protocol; see ``builder.order``."""

from builder.extension import (
    VERSION,
    Reply,
    Request,
    Welcome,
    applying,
    builds,
    crew,
    halting,
    logs,
    provenance,
    provisioning,
    schedule,
    servers,
    uploads,
    watching,
)
from builder.extension.worker import WORKER
from builder.messages import Command, Failure, Kind, Output, Role, Success
from builder.order import PROTOCOLS, Protocol, Protocols, State, Turn, any_of, kinds_of

assert all((applying, builds, crew, halting, logs, provenance, provisioning, schedule, servers, uploads, watching)), (
    "their import makes their messages known"
)

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

ALL: Protocols = {**PROTOCOLS, (Role.CLIENT, VERSION): CLIENT, (Role.WORKER, VERSION): WORKER}
"""What a peer speaks that knows the extension."""
