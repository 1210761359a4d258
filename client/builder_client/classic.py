"""What commands do where a server speaks the classic protocol alone: one table, for errors and for whoever wonders."""

from collections.abc import Mapping

from attrs import frozen


@frozen
class Classic:
    """A command: what of it the classic protocol has, and what to do instead of what that has not."""

    has: str
    instead: str = ""

    def added_to(self, error: object) -> str:
        """Return an error that says what there is, and what to do."""
        return f"{error}{self.has and f', but {self.has}'}: {self.instead}"


_ALL = Classic("all of it")
_NO_OPTIONS = Classic("jobs with --period", "leave them out")
_ON_THE_SERVER = "builder-inspect shows what the server keeps below DIR/JOB/UUID"

COMMANDS: Mapping[str, Classic] = {
    "schedule": _NO_OPTIONS,
    "orb-build": _NO_OPTIONS,
    "show": Classic("job, period, next run, script"),
    "next": Classic("the next run, and those that its period makes"),
    "edit": Classic("--period", "'unschedule' and 'schedule' make a new job"),
    "pause": Classic("", "'reschedule' it to a far year"),
    "resume": Classic("", "'reschedule' it to now"),
    "apply": Classic("", "'schedule' and 'unschedule' do it job by job"),
    "export": Classic("jobs, scripts and periods"),
    "reschedule": _ALL,
    "execute": Classic("single runs", "run it twice, and compare what builder-inspect shows of both"),
    "dequeue": Classic("", "'unschedule' takes it from queues and schedule"),
    "unschedule": _ALL,
    "info": Classic("all but what builds are expected to take"),
    "queue": Classic("the order"),
    "watch": Classic("", "'info' shows how things stand, 'observe-latest' follows a build"),
    "observe": _ALL,
    "history": Classic("", f"'info' shows what runs, and {_ON_THE_SERVER}"),
    "result": Classic("", _ON_THE_SERVER),
    "log": Classic("running builds, with --follow and without --tail", "'observe' shows one, too"),
    "fetch": Classic("", f"{_ON_THE_SERVER}, and writes it with --output"),
    "compare": Classic("", f"{_ON_THE_SERVER}"),
    "uploads": Classic("", "the server's log tells of each upload"),
    "retry-upload": Classic("", f"{_ON_THE_SERVER}, and curl posts it"),
    "drop-upload": Classic("", _ON_THE_SERVER),
    "cancel": Classic("", "end the worker that has it: the job is queued again"),
    "observe-latest": _ALL,
    "servers": Classic("", "a server of the original's protocol is alone"),
    "workers": Classic("", "'info' shows what runs, and the server's log who came and went"),
    "drain": Classic("", "stop the workers, each when its job has ended: ours with SIGHUP"),
    "drop-platform": _ALL,
    "undrop-platform": _ALL,
    "completion": Classic("all but uuids of finished builds"),
}
"""The commands, each with what it has there: nothing where that is empty."""
