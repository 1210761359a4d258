"""What servers tell each other of changes, in JSON.

One of another version understands what it knows; where it does not, anything may have changed.
"""

import json
from typing import Any
from uuid import UUID

from attrs import frozen

from builder.extension.watching import Changed, What
from builder.history import Outcome
from builder_server.store.waking import MAX_NOTED, Woken

CHANNEL = "builder"


@frozen(kw_only=True)
class Notice:
    """What one server tells the others. ``woken`` is None where anything may have changed; what is drained is not in it."""

    sender: str
    woken: Woken | None = None
    has_halts: bool = False


def encode(woken: Woken, sender: str, limit: int) -> str:
    """Return what others are told of a change, in at most so many bytes."""
    told = {
        "work": sorted(woken.work),
        "platforms": sorted(woken.platforms),
        "schedule": woken.schedule,
        "servers": woken.servers,
        "halts": woken.halts is not None,
        "changes": [_plain(each) for each in woken.changes],
        "moved": sorted(map(str, woken.moved)),
        "cancelled": {str(uuid): by for uuid, by in woken.cancelled.items()},
    }
    whole = json.dumps({"from": sender} | {name: value for name, value in told.items() if value})
    fits = len(whole) <= limit and len(woken.changes) <= MAX_NOTED
    return whole if fits else json.dumps({"from": sender, "all": True})


def decode(text: str) -> Notice:
    """Return what another server tells."""
    try:
        told = json.loads(text)
        if told.get("all"):
            return Notice(sender=str(told["from"]))
        woken = Woken(
            work={(str(platform), str(needs)) for platform, needs in told.get("work", ())},
            platforms={str(name) for name in told.get("platforms", ())},
            schedule=bool(told.get("schedule")),
            servers=bool(told.get("servers")),
            changes=[_change(each) for each in told.get("changes", ())],
            moved={UUID(uuid) for uuid in told.get("moved", ())},
            cancelled={UUID(uuid): str(by) for uuid, by in told.get("cancelled", {}).items()},
        )
        return Notice(sender=str(told["from"]), woken=woken, has_halts=bool(told.get("halts")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Notice(sender="")


def _plain(change: Changed) -> dict[str, Any]:
    told = {
        "what": change.what.value,
        "job": change.job,
        "platform": change.platform,
        "uuid": change.uuid and str(change.uuid),
        "outcome": change.outcome and change.outcome.value,
    }
    return {name: value for name, value in told.items() if value is not None}


def _change(told: dict[str, Any]) -> Changed:
    uuid, outcome = told.get("uuid"), told.get("outcome")
    return Changed(
        point=0,
        what=What(told["what"]),
        job=told.get("job"),
        platform=told.get("platform"),
        uuid=None if uuid is None else UUID(uuid),
        outcome=None if outcome is None else Outcome(outcome),
    )
