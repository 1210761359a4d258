"""The account: every job that was accepted has one end, every console is whole, every result has arrived."""

import json
from collections import defaultdict
from uuid import UUID

from attrs import define, field, frozen
from endpoints import Endpoint

from builder import codec
from builder.errors import ProtocolError
from builder.model import Execution, Exited
from chaos.crowd import CLASSIC_PLATFORM, Told
from chaos.database import Ask
from chaos.jobs import Work, own


@frozen(kw_only=True)
class Row:
    """A build, as the database has it."""

    uuid: UUID
    name: str
    platform: str
    state: str
    outcome: str | None
    result: bytes | None
    upload: str | None


@define(kw_only=True)
class Account:
    """What was found."""

    accepted: int = 0
    attempts: int = 0
    succeeded: int = 0
    cancelled: int = 0
    given_up: int = 0
    """Jobs of classic workers that were lost three times in a row: the server gives those up, and says so."""

    lost: int = 0
    doubled: int = 0
    wrong: list[str] = field(factory=list)

    def __str__(self) -> str:
        return json.dumps(
            {
                name: getattr(self, name)
                for name in ("accepted", "attempts", "succeeded", "cancelled", "given_up", "lost", "doubled")
            }
        )


def rows(ask: Ask) -> list[Row]:
    """Return all builds."""
    found = ask("select uuid, name, platform, state, outcome, result, upload from build")
    keys = ("name", "platform", "state", "outcome", "result", "upload")
    return [Row(uuid=UUID(uuid), **dict(zip(keys, values, strict=True))) for uuid, *values in found]


def open_ends(ask: Ask) -> dict[str, int]:
    """Return how much is still to be done at one moment, by what it is."""
    (found,) = ask("select " + ", ".join(f"(select count(*) from {where})" for where in OPEN.values()))
    return dict(zip(OPEN, found, strict=True))


OPEN = {
    "queued": "queue",
    "running": "build where state = 'running'",
    "to sign": "build where provenance = 'pending'",
    "to upload": "build where upload in ('pending', 'uploaded')",
}


def draw_up(ask: Ask, told: Told, receiver: Endpoint) -> Account:
    """Compare what peers were told, and what arrived, with what the database says."""
    account = Account(accepted=len(told.accepted), wrong=list(told.wrong))
    builds = rows(ask)
    account.attempts = len(builds)
    by_job: defaultdict[str, list[Row]] = defaultdict(list)
    for build in builds:
        by_job[build.name].append(build)
    arrived = _arrived(receiver, account)
    for name, work in {**told.unknown, **told.accepted}.items():
        ends = [build for build in by_job[name] if build.state == "finished"]
        if not ends and name in told.accepted:
            account.lost += 1
            account.wrong.append(f"{name} was accepted and has no end: {[(b.uuid, b.state) for b in by_job[name]]}")
        if len(ends) > 1:
            account.doubled += 1
            account.wrong.append(f"{name} has {len(ends)} ends")
        for build in ends:
            _check(account, build, work, told, arrived)
    recorded = {build.uuid for build in builds if build.state == "finished"}
    account.wrong += [f"{uuid} was recorded, a worker was told, and it is not" for uuid in told.recorded - recorded]
    account.wrong += [
        f"{build.uuid} still {build.state}" for build in builds if build.state not in ("finished", "lost")
    ]
    return account


def _arrived(receiver: Endpoint, account: Account) -> dict[UUID, Execution]:
    found: dict[UUID, Execution] = {}
    for request in receiver.requests:
        try:
            execution = request.execution
        except ProtocolError:
            continue  # it was cut off
        if found.setdefault(execution.uuid, execution) != execution:
            account.wrong.append(f"{execution.uuid} arrived twice, and not the same")
    return found


def _check(account: Account, build: Row, work: Work, told: Told, arrived: dict[UUID, Execution]) -> None:
    if build.upload not in ("done", None):
        account.wrong.append(f"{build.uuid} ({build.name}): its upload is {build.upload}")
    execution = arrived.get(build.uuid)
    if execution is None:
        account.wrong.append(f"{build.uuid} ({build.name}) has not arrived")
        return
    assert build.result is not None
    result = codec.decode_result(build.result)
    if result != execution.result:
        account.wrong.append(f"{build.uuid} ({build.name}): {result} was recorded and {execution.result} arrived")
    if build.outcome == "succeeded":
        account.succeeded += 1
        if result != Exited(code=0):
            account.wrong.append(f"{build.uuid} ({build.name}): {result}")
        lines = own([line.line for line in execution.console])
        if lines != work.says():
            account.wrong.append(f"{build.uuid} ({build.name}): {_where(lines, work.says())}")
        contents = {artifact.path: artifact.content for artifact in execution.artifacts}
        if contents != work.leaves:
            account.wrong.append(f"{build.uuid} ({build.name}): it left {sorted(contents)}")
    elif build.uuid in told.cancelled or "cancelled" in str(result):
        account.cancelled += 1
    elif work.platform == CLASSIC_PLATFORM and build.outcome == "lost":
        account.given_up += 1
    else:
        account.wrong.append(f"{build.uuid} ({build.name}) {build.outcome}: {result}")


def _where(found: list[bytes], expected: list[bytes]) -> str:
    """Say where a console is not what it should be."""
    for number, (one, other) in enumerate(zip(found, expected, strict=False)):
        if one != other:
            return f"line {number + 1} of {len(found)} is {one!r} and should be {other!r}"
    return f"{len(found)} lines in place of {len(expected)}"
