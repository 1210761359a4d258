"""An engine of the operator's own: three commands, told by variables what to do.

``ask`` starts the worker BUILDER_NAME by the command line BUILDER_WORKER, and may print what it is called there, its id.
``list`` prints a line for each worker that is not gone: its name or id; ``queued``, ``held`` or ``started``; and why, if it
likes. ``remove`` ends the worker BUILDER_NAME, or BUILDER_ID; where BUILDER_STARTED is ``no``, only if it has not started.
"""

import time
from collections.abc import Callable, Sequence

from attrs import define, field

from builder.model import printable
from builder.needs import text_of
from builder_provision.engines import Launch
from builder_provision.engines.programs import run
from builder_provision.errors import EngineFailed
from builder_provision.fleet import Asked, EngineState, Ticket
from builder_provision.quantities import amount, memory

MAX_WORD = 200
"""Characters of an id, and of a reason."""

_STATES = {state.value: state for state in EngineState}


@define(kw_only=True)
class Commands:
    """The commands, as words. ``now`` is the wall clock: that a worker has started is known from when it was listed so."""

    label: str
    ask_words: tuple[str, ...]
    list_words: tuple[str, ...]
    remove_words: tuple[str, ...]
    now: Callable[[], float] = time.time
    _started: dict[str, float] = field(init=False, factory=dict)

    async def ask(self, launch: Launch) -> str:
        """Have a worker started. Raises EngineFailed."""
        ticket = launch.ticket
        told = {
            **self._told(ticket.name, ticket.platform),
            "BUILDER_NEEDS": text_of(ticket.needs),
            "BUILDER_MEMORY_MIB": str(memory(ticket.needs) or ""),
            "BUILDER_CORES": str(amount(ticket.needs, "cores") or ""),
            "BUILDER_FEATURES": " ".join(launch.features),
            "BUILDER_TIME_LIMIT": str(round(ticket.time_limit)),
            "BUILDER_WORKER": launch.line,
        }
        said = (await run([*self.ask_words, *launch.options], env=told)).split()
        return said[0][:MAX_WORD] if said else ""

    async def list(self, known: Sequence[Ticket]) -> list[Asked]:
        """Return those of the known workers that are listed. Raises EngineFailed, also for a line that says nothing."""
        tickets = {key: ticket for ticket in known for key in (ticket.name, ticket.id) if key}
        found: dict[str, Asked] = {}
        for line in (await run(self.list_words, env={"BUILDER_LABEL": self.label})).splitlines():
            key, state, reason = [*line.split(None, 2), "", "", ""][:3]
            if key and state not in _STATES:
                raise EngineFailed(
                    f"{self.list_words[0]} lists {printable(line[:MAX_WORD])!r}: write NAME {'|'.join(_STATES)} WHY"
                )
            if (ticket := tickets.get(key)) is not None:
                found[ticket.name] = self._asked(ticket, _STATES[state], reason)
        self._started = {name: moment for name, moment in self._started.items() if name in found}
        return list(found.values())

    def _asked(self, ticket: Ticket, state: EngineState, reason: str) -> Asked:
        has_started = state is EngineState.STARTED
        return Asked(
            name=ticket.name,
            platform=ticket.platform,
            needs=ticket.needs,
            state=state,
            reason="" if has_started else printable(reason.strip()[:MAX_WORD]),
            asked_at=ticket.asked_at,
            started_at=self._started.setdefault(ticket.name, self.now()) if has_started else None,
            time_limit=ticket.time_limit,
            id=ticket.id,
        )

    async def remove(self, asked: Asked, *, may_have_begun: bool) -> None:
        """Have a worker ended. Raises EngineFailed."""
        told = self._told(asked.name, asked.platform)
        await run(
            self.remove_words,
            env={**told, "BUILDER_ID": asked.id or asked.name, "BUILDER_STARTED": "yes" if may_have_begun else "no"},
        )

    def _told(self, name: str, platform: str) -> dict[str, str]:
        return {"BUILDER_LABEL": self.label, "BUILDER_NAME": name, "BUILDER_PLATFORM": platform}
