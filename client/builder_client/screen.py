"""What the live view shows: pure, from how things stand to the lines that are drawn. All text from outside is made printable."""

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from uuid import UUID

from attrs import define, field
from rich.console import Group
from rich.text import Text

from builder.extension.watching import Looked, PlatformState, QueuedState, RunningState
from builder.history import Outcome
from builder.model import Instant, printable

from . import halts, words
from .fitting import GAP, Column, fill, fit, share, shorten
from .looking import start, title, why

MAX_LINES = 500
"""Console lines that are kept of the selected build: no screen is higher."""

_BESIDE = 100
"""Columns from which on queues and results stand beside each other."""

_CONSOLE = 4
"""Least lines of the console, its title among them; it has a fourth of the screen, and all that is left."""

_COLOURS = {Outcome.SUCCEEDED: "green", Outcome.FAILED: "red", Outcome.ABORTED: "yellow", Outcome.LOST: "magenta"}

_BAR, _OUTCOME = Column("", rigid=True, spare=1), Column("", rigid=True)
_RUNNING = (Column("", rigid=True), Column(""), Column(""), Column("", rigid=True), _BAR)
"""The selected one, job, platform, how long it runs, how far it is."""

_QUEUED = (Column(""), Column("", rigid=True, spare=2), Column("", spare=1))
"""Job, when it starts, why it waits."""

_RESULTS = (Column(""), Column("", spare=1), _OUTCOME, Column("", rigid=True, spare=3), Column("", rigid=True, spare=2))
"""Job, platform, outcome, how long it took, how long ago it ended."""


@define
class Watched:
    """What is known, and what is selected."""

    server: str
    looked: Looked | None = None
    selected: UUID | None = None
    is_chosen: bool = False
    """The person has selected it: it stays, also when it has ended."""
    following: UUID | None = None
    """The build whose console these lines are."""
    followed: str = ""
    """What that is called."""
    lines: deque[str] = field(factory=lambda: deque(maxlen=MAX_LINES))
    trouble: str = ""

    @property
    def running(self) -> tuple[RunningState, ...]:
        """The running builds, the newest first."""
        return self.looked.running if self.looked else ()

    @property
    def place(self) -> int | None:
        """The selected one among the running builds."""
        return next((place for place, build in enumerate(self.running) if build.uuid == self.selected), None)

    def select(self, step: int) -> None:
        """Select the build that many rows below."""
        if self.running and step:
            self.selected = self.running[min(max((self.place or 0) + step, 0), len(self.running) - 1)].uuid
            self.is_chosen = True

    def take(self, looked: Looked) -> None:
        """Take over how things stand. The newest build is selected where the person has not chosen another one."""
        self.looked = looked
        if self.running and self.place is None and not self.is_chosen:
            self.selected = self.running[0].uuid

    def follow(self, uuid: UUID | None) -> bool:
        """Begin with the console of another build; return whether it is another one."""
        if uuid == self.following:
            return False
        self.following = uuid
        self.followed = next((_name(build) for build in self.running if build.uuid == uuid), "")
        self.lines.clear()
        return True


def draw(view: Watched, now: Instant, *, width: int, height: int) -> Group:
    """Return the screen: as many lines as it has, none of them wider."""
    console = max(_CONSOLE, height // 4)
    is_wide = width >= _BESIDE
    results = _results(view, now, (width - GAP) // 2 if is_wide else width)
    right = max((line.cell_len for line in results), default=width // 3)
    left = width - GAP - right if is_wide else width
    running, queues = _running(view, now, width), _Queues(view, now, left)
    needs = [len(running), len(queues), len(results)]
    if is_wide:
        needs = [needs[0], max(needs[1:])]
    shares = share(needs, height - 2 - console - len(needs))
    at_most = [*shares, shares[-1]][:3]
    first = max(0, min((view.place or 0) - at_most[0] // 2, len(running) - at_most[0]))
    parts = [
        _part(_count("Running", at_most[0], len(running)), running[first : first + at_most[0]], width),
        _part(_count("Queues", min(at_most[1], queues.number), queues.number), queues.lines(at_most[1]), left),
        _part("Results", results[: at_most[2]], right if is_wide else width),
    ]
    if is_wide:
        parts[1:] = [_beside(parts[1], parts[2], left)]
    lines = [_heading(view), *(line for part in parts for line in part)]
    lines += _part(f"Console{view.followed and f' of {view.followed}'}", _console(view, height - len(lines) - 2), width)
    lines += [Text()] * (height - 1 - len(lines))
    lines.append(Text("j/k or arrows select, q quits", style="dim"))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Group(*lines)


def _name(build: RunningState) -> str:
    return f"{printable(build.job)} on {printable(build.platform)}"


def _heading(view: Watched) -> Text:
    if view.trouble:
        return Text(printable(view.trouble), style="bold red")
    if view.looked is None:
        return Text(f"builder-server at {view.server}")
    queued = sum(platform.queued for platform in view.looked.platforms)
    counts = f"{words.count(view.looked.scheduled, 'job')}, {queued} queued, {len(view.running)} running"
    if drained := view.looked.halts:
        return Text(f"{counts}; {'; '.join(map(halts.sentence, drained))}", style="bold yellow")
    return Text(f"{counts} at {view.server}", style="bold")


def _count(name: str, shown: int, of: int) -> str:
    return f"{name} ({shown} of {of})" if shown < of else name


def _part(name: str, lines: Sequence[Text], width: int) -> list[Text]:
    """Return lines below their title."""
    begin = f"── {shorten([name], width - 4)[0]} "
    return [Text(begin + "─" * (width - len(begin)), style="cyan"), *lines]


def _beside(left: Sequence[Text], right: Sequence[Text], width: int) -> list[Text]:
    lines = []
    for one, other in zip_longest(left, right):
        line = Text() if one is None else one.copy()
        line.truncate(width, overflow="ellipsis", pad=True)
        lines.append(Text.assemble(line, " " * GAP, other or ""))
    return lines


def _table(
    columns: Sequence[Column],
    rows: Sequence[tuple[str, ...]],
    width: int,
    styles: Mapping[Column, Sequence[str]],
) -> list[Text]:
    """Return rows that fit; a column may have a style for each."""
    lines = []
    filled = fit(fill(columns, rows), width)
    for number in range(len(rows)):
        line = Text()
        for each in filled:
            line.append(" " * GAP if len(line) else "")
            line.append(
                each.pad(each.texts[number]), style=styles[each.column][number] if each.column in styles else ""
            )
        lines.append(line)
    return lines


def _running(view: Watched, now: Instant, width: int) -> list[Text]:
    rows = []
    for build in view.running:
        elapsed = now.ms - build.started.ms
        of = f" of {words.duration(build.expected)}" if build.expected else ""
        of += ", worker away" if build.away else ""
        rows.append(
            (
                ">" if build.uuid == view.selected else " ",
                printable(build.job),
                printable(build.platform),
                words.duration(elapsed) + of,
                words.bar(elapsed, build.expected),
            )
        )
    lines = _table(_RUNNING, rows, width, {_BAR: ["green"] * len(rows)})
    if view.place is not None:
        lines[view.place].truncate(width, pad=True)
        lines[view.place].stylize("reverse")
    return lines


class _Queues:
    """The queues, in as many lines as there are for them: those in which most waits come first."""

    def __init__(self, view: Watched, now: Instant, width: int) -> None:
        self._now, self._width = now, width
        self._halts = view.looked.halts if view.looked else ()
        platforms = view.looked.platforms if view.looked else ()
        queued = view.looked.queued if view.looked else ()
        self._queues: list[tuple[PlatformState, list[QueuedState]]] = [
            (platform, [entry for entry in queued if entry.platform == platform.name])
            for platform in sorted(platforms, key=lambda platform: -platform.queued)
        ]

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self._queues)

    def __len__(self) -> int:
        return sum(1 + len(entries) for _, entries in self._queues)

    def lines(self, room: int) -> list[Text]:
        """Return them in so many lines: a title for each platform, and its first entries."""
        shown = self._queues[:room]
        lines = []
        shares = share([len(entries) for _, entries in shown], room - len(shown))
        for (platform, entries), count in zip(shown, shares, strict=True):
            lines.append(Text(shorten([title(platform, count)], self._width)[0], style="bold"))
            rows = [
                (printable(entry.job), start(entry, self._now), why(entry, self._halts)) for entry in entries[:count]
            ]
            lines += [Text.assemble(" " * GAP, line) for line in _table(_QUEUED, rows, self._width - GAP, {})]
        return lines


def _results(view: Watched, now: Instant, width: int) -> list[Text]:
    results = view.looked.results if view.looked else ()
    rows = [
        (
            printable(result.job),
            printable(result.platform),
            result.outcome.value if result.outcome else "",
            words.duration(result.finished.ms - result.started.ms),
            f"{words.duration(now.ms - result.finished.ms)} ago",
        )
        for result in results
    ]
    return _table(
        _RESULTS, rows, width, {_OUTCOME: [_COLOURS[each.outcome] if each.outcome else "" for each in results]}
    )


def _console(view: Watched, height: int) -> list[Text]:
    return [Text(line) for line in [*view.lines][-height:]] if height > 0 else []
