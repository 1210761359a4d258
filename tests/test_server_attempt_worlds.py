"""Whatever breaks, in whatever order: a worker that comes back in time has all its lines and its result recorded, once.

A worker, a disk and servers are played beside the state machine of an attempt. Connections break, the disk fails and works
again, servers stop and crash, other ones take over; what the machine says is carried out, or fails where it needs the disk.
"""

import math
from collections.abc import Callable

from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builder.model import Exited
from builder.outputs import TimedLines
from builder_server.actions import (
    Acknowledge,
    Action,
    AppendLines,
    BeginConsole,
    BeginRecord,
    DiscardRecord,
    OpenConsole,
    Record,
    Release,
    RemoveFiles,
    Resume,
    SendJob,
    TellUploader,
)
from builder_server.attempt import Attempt, Phase
from builder_server.events import (
    Attached,
    Detached,
    DiskFault,
    Event,
    Inherited,
    Lines,
    Moved,
    Recorded,
    ResultBegun,
    ResultEnded,
    Returned,
    Stopping,
    TimeCame,
)

GRACE = 60.0
NEED_THE_DISK = (BeginConsole, OpenConsole, AppendLines, BeginRecord, Record, DiscardRecord)


def new_attempt() -> Attempt:
    return Attempt(time_limit=math.inf, grace=GRACE)


@define
class World:
    """A job of some lines, its worker, and the server that has the attempt."""

    attempt: Attempt = field(factory=new_attempt)
    now: float = 0.0
    disk_works: bool = True
    said: int = 0  # lines of the job
    has_ended: bool = False
    sent: int | None = None  # lines that the worker has sent on this connection; None: it has none, or no answer yet
    delivers: bool = False
    console: list[int] = field(factory=list)
    begun: list[int] | None = None
    recorded: list[list[int]] = field(factory=list)
    is_stored: bool = False

    def happen(self, event: Event) -> None:
        """Have the server deal with an event, and with what comes of it."""
        self.now += 0.01
        todo: Event | None = event
        while todo:
            todo = self.carry_out([*self.attempt.handle(todo, self.now)])

    def carry_out(self, actions: list[Action]) -> Event | None:
        for number, action in enumerate(actions):
            if isinstance(action, NEED_THE_DISK) and not self.disk_works:
                return DiskFault(reason="it is full", undone=tuple(actions[number:]))
            match action:
                case SendJob():
                    self.sent = 0
                case Resume():
                    self.sent = len(self.console)
                case AppendLines(lines=lines):
                    self.console += [*map(int, lines.frames.split())]
                case BeginRecord():
                    self.begun = [*self.console]
                case DiscardRecord():
                    self.begun = None
                case Record():
                    assert self.begun is not None
                    self.recorded.append(self.begun)
                    return Recorded()
                case Acknowledge():
                    assert self.recorded
                    self.is_stored = True
                case Release():
                    self.lose_connection()
                case RemoveFiles():
                    self.console, self.begun = [], None
                case BeginConsole() | OpenConsole() | TellUploader():
                    pass
                case _:
                    raise AssertionError(f"nothing is to be thrown away: {action}")
        return None

    def lose_connection(self) -> None:
        self.sent = None
        self.delivers = False

    # --- what may happen; where it can't, nothing does ---

    def say(self) -> None:
        if not self.has_ended:
            self.said += 1

    def send(self) -> None:
        if self.sent is None or self.delivers or self.attempt.phase is Phase.HELD or self.sent == self.said:
            return
        numbers = range(self.sent, min(self.said, self.sent + 2))
        self.sent = numbers.stop
        text = " ".join(map(str, numbers)).encode()
        self.happen(Lines(lines=TimedLines(frames=text, count=len(numbers), encoded=0, last=0)))

    def end(self) -> None:
        self.has_ended = True

    def deliver(self) -> None:
        if self.has_ended and self.sent == self.said and not self.delivers and self.attempt.phase is Phase.RUNNING:
            self.delivers = True
            self.happen(ResultBegun(result=Exited(code=0), length=0))

    def deliver_rest(self) -> None:
        if self.delivers and self.attempt.phase is Phase.RECEIVING:
            self.happen(ResultEnded())

    def break_off(self) -> None:
        if self.sent is not None:
            self.lose_connection()
            self.happen(Detached())

    def vanish(self) -> None:
        self.lose_connection()  # and nobody notices

    def come_back(self) -> None:
        if not self.is_stored:
            self.lose_connection()
            self.happen(Returned(began=0.0, has_ended=self.has_ended))

    def fail(self) -> None:
        self.disk_works = False

    def work(self) -> None:
        self.disk_works = True

    def try_again(self) -> None:
        if self.attempt.phase is Phase.HELD:
            self.now = self.attempt.wake_at
            self.happen(TimeCame())

    def stop(self) -> None:
        if not self.is_stored:
            self.happen(Stopping())
            if self.attempt.phase is not Phase.ENDED:  # a result came, and was waited for in vain
                self.happen(Detached(counted=False))
            assert self.attempt.phase is Phase.ENDED
            self.start()

    def move(self) -> None:
        """Have another server take it over, which has nothing of it."""
        if not self.is_stored:
            self.happen(Moved())
            assert self.attempt.phase is Phase.ENDED
            self.start()

    def crash(self) -> None:
        if not self.is_stored:
            self.start()

    def start(self) -> None:
        self.lose_connection()
        self.attempt = new_attempt()
        self.happen(Inherited())


STEPS: dict[str, Callable[[World], None]] = {
    name: getattr(World, name)
    for name in (
        "say", "send", "end", "deliver", "deliver_rest", "break_off", "vanish", "come_back", "fail", "work", "try_again",
        "stop", "crash", "move",
    )
}  # fmt: skip
TO_THE_END = ["end", "work", "try_again", "come_back", "try_again", *["send"] * 60, "deliver", "deliver_rest"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*STEPS, "say", "send", "come_back"]), max_size=60))
@example(["say", "send", "say", "fail", "send", "vanish", "come_back", "work", "try_again"])
@example(["say", "send", "end", "deliver", "fail", "deliver_rest", "come_back", "stop", "work"])
def test_nothing_is_lost_and_nothing_comes_twice(steps: list[str]) -> None:
    world = World()
    world.happen(Attached())
    for step in [*steps, *TO_THE_END]:
        if world.is_stored:
            break
        STEPS[step](world)
    assert world.is_stored
    assert world.recorded == [[*range(world.said)]]
