"""Which commands there are. Their modules are imported when they are needed: the program's help needs none of them."""

import importlib
from typing import Any

import click

from .errors import TooOld

SECTIONS = {
    "Schedule": {
        "schedule": "Run the script FILE on PLATFORM periodically, first now.",
        "orb-build": "Build the opam package OPAM on every platform periodically.",
        "show": "Show all that the job NAME has.",
        "next": "Show when the job NAME will run, or all jobs.",
        "edit": "Change how the job NAME is run, or what it runs.",
        "pause": "Have a job or a queue run no more until it is resumed.",
        "resume": "Let what was paused, or drained, have jobs run again.",
        "apply": "Make the schedule equal to the file FILE.",
        "export": "Write the schedule to the folder DIR, as apply reads it.",
        "reschedule": "Set the next run of the job NAME to the time NEXT.",
        "execute": "Run the job NAME as soon as a worker is free.",
        "dequeue": "Take the job NAME from the queues; it stays scheduled.",
        "unschedule": "Remove the job NAME from the schedule and the queues.",
    },
    "Builds": {
        "info": "Show schedule, queues, running builds, dropped platforms.",
        "queue": "Show what waits on each platform, why, and for how long.",
        "watch": "Watch queues, running builds and results as they change.",
        "observe": "Show the console of the build ID, and follow it to its end.",
        "history": "Show what became of builds, and why they ran.",
        "result": "Show what became of the build ID, and its artifacts.",
        "log": "Show the console of the build ID, finished or running.",
        "fetch": "Write the artifacts of the build ID below DIR.",
        "compare": "Compare two builds: their scripts and their artifacts.",
        "uploads": "Show which uploads are pending or refused, and why.",
        "retry-upload": "Try the upload of the build ID again now, or all.",
        "drop-upload": "Give the upload of the build ID up, pending or refused.",
        "cancel": "End a running build, or all of a job.",
        "observe-latest": "Observe the running build that started last; see observe.",
    },
    "Servers, platforms and workers": {
        "servers": "Show the servers of the farm, and what they do.",
        "workers": "Show the workers: what they do, and what they are.",
        "drain": "Hand out no job until it is resumed; builds go on.",
        "drop-platform": "Remove PLATFORM with its queue and its script jobs.",
        "undrop-platform": "Let workers of a dropped PLATFORM have jobs again.",
    },
    "Shell": {
        "completion": "Print a script that lets the Tab key complete names.",
    },
}
"""The commands as the help lists them, and the line with which the help of each begins."""


def load(name: str) -> click.Command:
    """Import a command: ``command`` in the module of its name in ``commands``."""
    module = importlib.import_module(f"{__package__}.commands.{name.replace('-', '_')}")
    command: click.Command = module.command
    return command


class LazyGroup(click.Group):
    """A group of all commands that imports the one which is run, or completed."""

    def __init__(self, **attributes: object) -> None:
        lines = {name: line for section in SECTIONS.values() for name, line in section.items()}
        stand_ins = {name: click.Command(name, short_help=line) for name, line in lines.items()}
        super().__init__(commands=stand_ins, **attributes)  # type: ignore[arg-type]  # they are click's own

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command itself in place of its stand-in. Raises UsageError, which may say what was meant."""
        try:
            name, _, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"{error.message}{hint}", ctx) from error
        return name, load(name) if name else None, rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. What is refused, or what the server is too old for, is told with what to do instead.

        So is that there is no answer.
        """
        from .errors import Refused, Unreachable

        try:
            return super().invoke(ctx)
        except TooOld as error:
            from .classic import COMMANDS

            assert ctx.invoked_subcommand is not None, "the overview is classic"
            raise TooOld(COMMANDS[ctx.invoked_subcommand].added_to(error)) from error
        except (Refused, Unreachable) as error:
            from . import advice

            raise advice.advised(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections."""
        del ctx
        width = max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])
