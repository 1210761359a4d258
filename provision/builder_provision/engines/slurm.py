"""Slurm: a batch job for each worker, by its own programs.

A job bears the name of its worker, and in its comment what was asked for: both live in slurmctld for as long as the job does.
"""

import json
import re
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Any

from attrs import frozen

from builder.errors import InvalidOptions
from builder.model import printable
from builder.needs import of_text, text_of
from builder_provision.engines import Launch
from builder_provision.engines.programs import run
from builder_provision.fleet import Asked, EngineState, Ticket
from builder_provision.quantities import amount, memory

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a job looks for its programs: nothing of this program's own environment reaches it."""

STATES = "PENDING,CONFIGURING,RUNNING,SUSPENDED,STOPPED,RESIZING,SIGNALING"
"""Those of a job that is not over; one that is completing has no worker any more."""

FORMAT = "%j|%T|%S|%r|%k"
"""Name, state, start, reason and comment, which comes last since it may have any character."""

IN_LINE = frozenset({"None", "Priority", "Resources", "Licenses"})
"""Reasons of a job whose turn will come."""

_UNREAD = re.compile(r"(?:cannot stat|unable to status) file ([^:]*): ([^,]*), retrying")
"""What the programs of Slurm say then, of different releases."""


@frozen(kw_only=True)
class Slurm:
    """``label`` is what its jobs are marked with."""

    label: str

    async def ask(self, launch: Launch) -> str:
        """Submit a job. Raises EngineFailed."""
        # the worker takes the place of the shell, so that it gets the signals of the job
        await run(self.submission(launch), given=f"#!/bin/sh\nexec {launch.line}\n", hopeless=_without_configuration)
        return ""

    def submission(self, launch: Launch) -> list[str]:
        """Return the command that submits a job: what the operator says comes first, so that it gives way."""
        ticket = launch.ticket
        cores, mebibytes = amount(ticket.needs, "cores"), memory(ticket.needs)
        return [
            "sbatch",
            "--parsable",
            "--output=/dev/null",
            *launch.options,
            *([f"--mem={mebibytes}M"] if mebibytes else []),
            *([f"--cpus-per-task={cores}"] if cores else []),
            *([f"--constraint={'&'.join(launch.features)}"] if launch.features else []),
            f"--time={ceil(ticket.time_limit / 60)}",
            f"--job-name={ticket.name}",
            f"--comment={self._comment(ticket)}",
            f"--export=PATH={PATH}",
            "--ntasks=1",
            "--no-requeue",
            "--chdir=/",
        ]

    def _comment(self, ticket: Ticket) -> str:
        said = {
            "builder": self.label,
            "platform": ticket.platform,
            "needs": text_of(ticket.needs),
            "asked": round(ticket.asked_at),
            "limit": round(ticket.time_limit),
        }
        return json.dumps(said, separators=(",", ":"))

    async def list(self, known: Sequence[Ticket]) -> list[Asked]:
        """Return the workers whose jobs are not over. Raises EngineFailed."""
        del known  # slurmctld keeps all that has to be known
        told = await run(
            ["squeue", "--me", "--noheader", f"--states={STATES}", f"--format={FORMAT}"],
            env={"SLURM_TIME_FORMAT": "%s"},
            hopeless=_without_configuration,
        )
        return list(self._read(told))

    def _read(self, told: str) -> Iterator[Asked]:
        for line in told.splitlines():
            name, state, start, reason, comment = [*line.split("|", 4), "", "", "", ""][:5]
            ticket = self._ticket(name, comment)
            if ticket is not None:
                has_started = state != "PENDING"
                yield Asked(
                    name=name,
                    platform=ticket.platform,
                    needs=ticket.needs,
                    state=_state(state, reason),
                    reason="" if reason == "None" or has_started else printable(reason),
                    asked_at=ticket.asked_at,
                    started_at=float(start) if has_started and start.isdigit() else None,
                    time_limit=ticket.time_limit,
                )

    def _ticket(self, name: str, comment: str) -> Ticket | None:
        """Return what a job was asked for with; None of a job that is none of ours."""
        try:
            said: Any = json.loads(comment)
            if said["builder"] != self.label:
                return None
            return Ticket(
                name=name,
                platform=str(said["platform"]),
                needs=of_text(said["needs"]),
                asked_at=float(said["asked"]),
                time_limit=float(said["limit"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, InvalidOptions):
            return None

    async def remove(self, asked: Asked, *, may_have_begun: bool) -> None:
        """Cancel a job; slurmctld sees to it that one which has started goes on. Raises EngineFailed."""
        state = [] if may_have_begun else ["--state=PENDING"]
        await run(["scancel", "--me", *state, f"--name={asked.name}"], hopeless=_without_configuration)


def _without_configuration(complaint: str) -> str:
    """Return what is wrong where a program of Slurm tries for a minute to read a file that is not there."""
    found = _UNREAD.search(complaint)
    return f"can't read {found[1]}: {found[2]}; name the cluster's slurm.conf in SLURM_CONF" if found else ""


def _state(state: str, reason: str) -> EngineState:
    if state != "PENDING":
        return EngineState.STARTED
    is_limited = reason.startswith(("QOS", "Assoc")) and not reason.endswith(("NotAllowed", "Invalid"))
    return EngineState.QUEUED if reason in IN_LINE or is_limited else EngineState.HELD
