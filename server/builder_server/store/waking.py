"""Whom a change wakes: those who wait for a job of a platform, or until nothing keeps one from them, who waits for the next
run of any job, and who watches.

A step notes it in its Woken; what is noted is announced once the step's change is on the disk, and not before.
"""

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

from attrs import define, field

from builder.extension.halting import SERVER, HaltState, Scope, Target
from builder.extension.watching import Changed, What
from builder.runtime.changes import Change
from builder_server.store.changes import Changes

MAX_NOTED = 200
"""Changes of one step that are told one by one. More, such as a thousand jobs that are due together, are told as such."""


@define
class Woken:
    """What a step has changed for those who wait: work that came; an earlier next run.

    ``work`` are platforms and texts of needs: of each an entry can be taken. ``platforms`` are those where any may be.
    ``grown`` are those whose queues have new entries. ``changes`` are for those who watch; they have no points yet.
    """

    work: set[tuple[str, str]] = field(factory=set)
    platforms: set[str] = field(factory=set)
    grown: set[str] = field(factory=set)
    schedule: bool = False
    changes: list[Changed] = field(factory=list)
    halts: Mapping[Target, HaltState] | None = None
    """All that is drained, where that has changed."""
    moved: set[UUID] = field(factory=set)
    """Builds that run, and are another server's now."""
    cancelled: dict[UUID, str] = field(factory=dict)
    """Builds that run at other servers, and who has cancelled them here."""
    servers: bool = False
    """A server has come or gone."""

    def note(self, what: What, **of: Any) -> None:
        """Note a change, and of what it is."""
        self.changes.append(Changed(point=0, what=what, **of))

    def note_entries(self, what: What, entries: Iterable[Any]) -> None:
        """Note a change of entries of queues: their jobs and platforms."""
        for job, platform, *_ in itertools.islice(entries, MAX_NOTED + 1):
            self.note(what, job=job, platform=platform)

    def note_entered(self, entries: Sequence[Any]) -> None:
        """Note entries that are new."""
        self.grown.update(entry.platform for entry in entries)
        self.note_queued(entries)

    def note_queued(self, entries: Sequence[Any]) -> None:
        """Note entries that have come, or moved forward; those who can take one are woken."""
        self.work.update((entry.platform, entry.needs) for entry in entries if entry.not_before is None)
        self.note_entries(What.QUEUED, entries)


@define(eq=False)
class Work(Change):
    """Work of a platform. Besides the next change, ``on_work`` is called with the texts of needs of entries that came.

    None: there may be any.
    """

    on_work: Callable[[Collection[str] | None], None] = field(default=lambda _needs: None)

    def came(self, needs: Collection[str] | None) -> None:
        """Tell those who wait."""
        self.on_work(needs)
        self.announce()


def targets_of(server: str, platform: str, worker: str) -> tuple[Target, ...]:
    """Return what may be drained so that a worker of a platform gets no job at a server; all are known by these names."""
    return (
        SERVER,
        Target(scope=Scope.SERVER, name=server),
        Target(scope=Scope.PLATFORM, name=platform),
        Target(scope=Scope.WORKER, name=worker),
    )


@define(eq=False)
class Waking:
    """Take a change's ``next`` before looking at the store, then wait for it."""

    schedule: Change = field(factory=Change)
    """The next run of any job is earlier than it was. One that became later wakes nobody."""

    changes: Changes = field(factory=Changes)
    """What those see who watch."""

    halts: Mapping[Target, HaltState] = field(factory=dict)
    """All that is drained, as far as that is on the disk."""

    halted: Change = field(factory=Change)
    """Something is drained, or is no more."""

    on_moved: Callable[[Collection[UUID]], None] = field(default=lambda _uuids: None)
    """Is told of builds that other servers have taken over."""

    on_cancelled: Callable[[UUID, str], object] = field(default=lambda _uuid, _by: None)
    """Is told of each build that was cancelled at another server, and by whom."""

    keeps_schedule: bool = True
    """Whether this server queues what is due; ``schedule`` is announced when it begins to."""

    heard: int = 0
    """Grows with what other servers have changed."""

    _platforms: WeakValueDictionary[str, Work] = field(factory=WeakValueDictionary)

    def platform(self, name: str) -> Work:
        """Return what tells that a platform got work. Hold it while you wait: names are any, and none is kept."""
        return self._platforms.setdefault(name, Work())

    def is_halted(self, server: str, platform: str, worker: str) -> bool:
        """Return whether a worker of a platform gets no job at a server, as far as is known here: the store has the last word."""
        return any(target in self.halts for target in targets_of(server, platform, worker)) if self.halts else False

    def set_halts(self, halts: Mapping[Target, HaltState]) -> None:
        """Note what is drained."""
        self.halts = halts
        self.halted.announce()

    def hear(self, woken: Woken) -> None:
        """Wake them for what another server has changed."""
        self.heard += 1
        self.announce(woken)
        self.on_moved(woken.moved)
        for uuid, by in woken.cancelled.items():
            self.on_cancelled(uuid, by)

    def hear_anything(self) -> None:
        """Wake all of them, since others may have changed anything."""
        self.heard += 1
        self.schedule.announce()
        self.halted.announce()
        for work in [*self._platforms.values()]:
            work.came(None)
        self.changes.skip()

    def keep_schedule(self, *, keeps: bool) -> None:
        """Note whether this server queues what is due."""
        if keeps is not self.keeps_schedule:
            self.keeps_schedule = keeps
            self.schedule.announce()

    def announce(self, woken: Woken) -> None:
        """Wake them for what was changed here."""
        if woken.halts is not None:
            self.set_halts(woken.halts)
        if woken.schedule:
            self.schedule.announce()
        came: defaultdict[str, set[str]] = defaultdict(set)
        for name, needs in woken.work:
            came[name].add(needs)
        for name in woken.platforms | came.keys():
            if (work := self._platforms.get(name)) is not None:
                work.came(None if name in woken.platforms else came[name])
        if len(woken.changes) > MAX_NOTED:
            self.changes.skip()
        elif woken.changes:
            self.changes.add(woken.changes)
