"""What the live view shows: pure, from how things stand to what rich draws. All text from outside is made printable."""

from collections import deque
from uuid import UUID

from attrs import define, field
from rich.console import Group
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from builder.extension.watching import Looked, RunningState
from builder.history import Outcome
from builder.model import Instant, printable

from . import words
from .looking import start, title, why

MAX_LINES = 500
"""Console lines that are kept of the selected build: no screen is higher."""

_COLOURS = {Outcome.SUCCEEDED: "green", Outcome.FAILED: "red", Outcome.ABORTED: "yellow", Outcome.LOST: "magenta"}


@define
class Watched:
    """What is known, and what is selected."""

    server: str
    looked: Looked | None = None
    selected: UUID | None = None
    following: UUID | None = None
    """The build whose console these lines are."""
    lines: deque[str] = field(factory=lambda: deque(maxlen=MAX_LINES))
    trouble: str = ""

    @property
    def running(self) -> tuple[RunningState, ...]:
        """The running builds, the newest first."""
        return self.looked.running if self.looked else ()

    def select(self, step: int) -> None:
        """Select the build that many rows below."""
        uuids = [build.uuid for build in self.running]
        if uuids:
            at = uuids.index(self.selected) if self.selected in uuids else 0
            self.selected = uuids[min(max(at + step, 0), len(uuids) - 1)]

    def take(self, looked: Looked) -> None:
        """Take over how things stand; the newest build is selected if there is no other."""
        self.looked = looked
        if self.selected is None and looked.running:
            self.selected = looked.running[0].uuid


def draw(view: Watched, now: Instant, *, height: int) -> Layout:
    """Return the screen."""
    layout = Layout()
    console_height = max(4, height // 3)
    layout.split_column(
        Layout(_heading(view), size=1),
        Layout(_running(view, now), name="running", ratio=2),
        Layout(name="middle", ratio=2),
        Layout(_console(view, console_height - 2), size=console_height),
        Layout(Text("j/k or arrows select, q quits", style="dim"), size=1),
    )
    layout["middle"].split_row(Layout(_queues(view, now), ratio=3), Layout(_results(view, now), ratio=2))
    return layout


def _heading(view: Watched) -> Text:
    if view.trouble:
        return Text(printable(view.trouble), style="bold red", no_wrap=True)
    if view.looked is None:
        return Text(f"builder-server at {view.server}")
    queued = sum(platform.queued for platform in view.looked.platforms)
    return Text(
        f"builder-server at {view.server}: {words.count(view.looked.scheduled, 'job')}, {queued} queued, "
        f"{len(view.running)} running",
        style="bold",
        no_wrap=True,
    )


def _table(*ratios: int | None) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, expand=True)
    for ratio in ratios:
        table.add_column(ratio=ratio, no_wrap=True, overflow="ellipsis")
    return table


def _running(view: Watched, now: Instant) -> Panel:
    table = _table(None, 2, 1, None, None)
    uuids = [build.uuid for build in view.running]
    at = uuids.index(view.selected) if view.selected in uuids else 0
    for build in view.running[max(0, at - 2) :]:  # the selected one is always to be seen
        elapsed = now.ms - build.started.ms
        table.add_row(
            Text(">" if build.uuid == view.selected else " "),
            Text(printable(build.job)),
            Text(printable(build.platform)),
            Text(words.duration(elapsed) + (f" of {words.duration(build.expected)}" if build.expected else "")),
            Text(words.bar(elapsed, build.expected), style="green"),
            style="reverse" if build.uuid == view.selected else "",
        )
    return Panel(table, title="Running", title_align="left")


def _queues(view: Watched, now: Instant) -> Panel:
    parts: list[Text | Table] = []
    for platform in view.looked.platforms if view.looked else ():
        entries = [entry for entry in view.looked.queued if entry.platform == platform.name] if view.looked else []
        parts.append(Text(title(platform, len(entries)), style="bold cyan", no_wrap=True, overflow="ellipsis"))
        table = _table(2, None, 3)
        for entry in entries:
            table.add_row(Text(printable(entry.job)), Text(start(entry, now)), Text(why(entry)))
        parts.append(table)
    return Panel(Group(*parts), title="Queues", title_align="left")


def _results(view: Watched, now: Instant) -> Panel:
    table = _table(1, None, None, None)
    for result in view.looked.results if view.looked else ():
        outcome = result.outcome
        table.add_row(
            Text(printable(result.job)),
            Text(outcome.value if outcome else "", style=_COLOURS[outcome] if outcome else ""),
            Text(words.duration(result.finished.ms - result.started.ms)),
            Text(f"{words.duration(now.ms - result.finished.ms)} ago", style="dim"),
        )
    return Panel(table, title="Results", title_align="left")


def _console(view: Watched, height: int) -> Panel:
    lines = list(view.lines)[-height:] if height > 0 else []
    text = Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
    name = next((f" of {printable(build.job)}" for build in view.running if build.uuid == view.following), "")
    return Panel(text, title=Text(f"Console{name}"), title_align="left")
