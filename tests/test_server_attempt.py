"""What becomes of an attempt: transcripts of events and the actions they lead to, and what each event does in each phase."""

import math
from collections.abc import Iterable

import pytest

from builder.execution import ArtifactData
from builder.extension.working import Fact
from builder.model import Aborted, Exited
from builder.outputs import TimedLines
from builder_server import aborts, events
from builder_server.aborts import FAULT, LOST, could_not_record
from builder_server.actions import (
    Acknowledge,
    Action,
    AddArtifacts,
    AppendLines,
    BeginConsole,
    BeginRecord,
    ClearConsole,
    DiscardRecord,
    Dismiss,
    KeepFacts,
    NoteCancel,
    OpenConsole,
    PutBack,
    Record,
    RecordAborted,
    Release,
    RemoveFiles,
    Resume,
    SendJob,
    TellUploader,
)
from builder_server.attempt import OVER, RETRY, Attempt, Phase, UnexpectedEvent
from builder_server.events import (
    Artifacts,
    Attached,
    Detached,
    DiskFault,
    EndAsked,
    Event,
    FactsTold,
    Inherited,
    Lines,
    Moved,
    NotPutBack,
    NotRunning,
    OurFault,
    PutBackDone,
    Recorded,
    ResultBegun,
    ResultEnded,
    ResultRefused,
    Returned,
    Stopping,
    TimeCame,
)

LIMIT = 100.0
GRACE = 60.0
TIMEOUT = Aborted(message="timeout after 1m40s (--job-timeout of the server)")
DONE = Exited(code=0)
CANCELLED = Aborted(message="cancelled")
NO_SPACE = DiskFault(reason="No space left on device")
NOT_BEGUN = DiskFault(reason="No space left on device", undone=(BeginConsole(), SendJob()))
PIECES = (ArtifactData(data=b"x"),)

TEXT = TimedLines(frames=b"one two", count=2, encoded=9, last=7)
LINES = Lines(lines=TEXT)
APPEND = AppendLines(lines=TEXT)
TOLD = FactsTold(facts=(Fact(name="sandbox", value="none"),))
KEEP = KeepFacts(facts=TOLD.facts)
NOT_APPENDED = DiskFault(reason="No space left on device", undone=(APPEND,))
BACK = Returned(began=0.0, has_ended=False)
RESUME: list[Action] = [OpenConsole(), Resume()]
BEGUN = ResultBegun(result=DONE, length=9)
BEGIN = BeginRecord(result=DONE, length=9)
MORE = Artifacts(pieces=PIECES)
ADD = AddArtifacts(pieces=PIECES)
LOSS = PutBack(reason=LOST, counted=True)
NO_LOSS = PutBack(reason=LOST, counted=False)
DISK_LOSS = PutBack(reason=could_not_record("No space left on device"), counted=False)
FILLED = DiskFault(reason="No space left on device", counted=True)
FILL_LOSS = PutBack(reason=could_not_record("No space left on device"), counted=True)
OUR_LOSS = PutBack(reason=FAULT, counted=True)

CANCEL = EndAsked(result=CANCELLED, by="a:1")
NOTE = NoteCancel(by="a:1")
LOSE = Dismiss(reason="worker lost")
END = Dismiss(reason="cancelled")
ALREADY = Dismiss(reason=OVER.message)
UNRECORDED = Dismiss(reason=could_not_record("No space left on device").message)
OUT_OF_TIME = Dismiss(reason=TIMEOUT.message)
FAILED = Dismiss(reason=FAULT.message)
BAD = Dismiss(reason="bad")
STAYS_CANCELLED = NotPutBack(result=CANCELLED, by="a:1")
RECORD_CANCELLED = RecordAborted(result=CANCELLED, by="a:1")

Step = tuple[float, Event, list[Action], Phase]


def play(steps: Iterable[Step], *, grace: float = 0.0) -> Attempt:
    """Hand in the events at their times, and compare what they lead to."""
    found = Attempt(time_limit=LIMIT, grace=grace)
    for number, (now, event, actions, phase) in enumerate(steps):
        assert [*found.handle(event, now)] == actions, f"step {number}: {event}"
        assert found.phase is phase, f"step {number}: {event}"
    return found


BEGUN_AT_0: Step = (0, Attached(), [BeginConsole(), SendJob()], Phase.RUNNING)

TRANSCRIPTS: dict[str, list[Step]] = {
    "a build": [
        BEGUN_AT_0,
        (1, LINES, [APPEND], Phase.RUNNING),
        (2, LINES, [APPEND], Phase.RUNNING),
        (3, BEGUN, [BEGIN], Phase.RECEIVING),
        (4, MORE, [ADD], Phase.RECEIVING),
        (5, ResultEnded(), [Record()], Phase.RECORDING),
        (6, Recorded(), [Acknowledge(), TellUploader()], Phase.ENDED),
        (7, Detached(), [], Phase.ENDED),
    ],
    "the worker had gone when the job was taken": [
        (0, Detached(counted=False), [NO_LOSS], Phase.RETURNING),
        (0, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "it was interrupted by a crash of the server": [
        (0, Detached(), [LOSS], Phase.RETURNING),
        (0, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "a worker is lost while its job runs": [
        BEGUN_AT_0,
        (1, Detached(), [LOSS], Phase.RETURNING),
        (2, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "a worker is lost while its result comes": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, Detached(), [LOSS], Phase.RETURNING),
        (3, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "the third worker is lost": [
        BEGUN_AT_0,
        (1, Detached(), [LOSS], Phase.RETURNING),
        (2, NotPutBack(result=LOST), [RecordAborted(result=LOST)], Phase.RECORDING),
        (3, Recorded(), [LOSE, TellUploader()], Phase.ENDED),
    ],
    "a job takes too long": [
        BEGUN_AT_0,
        (99, LINES, [APPEND], Phase.RUNNING),
        (100, TimeCame(), [OUT_OF_TIME, RecordAborted(result=TIMEOUT)], Phase.RECORDING),
        (101, Recorded(), [OUT_OF_TIME, TellUploader()], Phase.ENDED),
        (102, LINES, [], Phase.ENDED),  # under way meanwhile
        (103, Detached(), [], Phase.ENDED),
    ],
    "somebody ends it": [
        BEGUN_AT_0,
        (1, CANCEL, [END, NOTE, RECORD_CANCELLED], Phase.RECORDING),
        (2, Recorded(), [END, TellUploader()], Phase.ENDED),
    ],
    "somebody ends it when it has ended by itself": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, EndAsked(result=CANCELLED), [], Phase.RECEIVING),
        (3, ResultEnded(), [Record()], Phase.RECORDING),
        (4, Recorded(), [Acknowledge(), TellUploader()], Phase.ENDED),
    ],
    "somebody ends it, and it can't be recorded for long": [
        BEGUN_AT_0,
        (1, CANCEL, [END, NOTE, RECORD_CANCELLED], Phase.RECORDING),
        (2, NO_SPACE, [ClearConsole(), DISK_LOSS], Phase.RETURNING),
        (3, STAYS_CANCELLED, [RECORD_CANCELLED], Phase.RECORDING),
        (4, NO_SPACE, [END], Phase.RETURNING),
        (4 + RETRY, TimeCame(), [DISK_LOSS], Phase.RETURNING),
        (20, STAYS_CANCELLED, [RECORD_CANCELLED], Phase.RECORDING),
        (21, Recorded(), [END, TellUploader()], Phase.ENDED),
    ],
    "somebody ends it when it has ended by itself, and its worker is lost": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, CANCEL, [NOTE], Phase.RECEIVING),
        (3, Detached(), [LOSS], Phase.RETURNING),
        (4, STAYS_CANCELLED, [RECORD_CANCELLED], Phase.RECORDING),
        (5, Recorded(), [END, TellUploader()], Phase.ENDED),
    ],
    "somebody ends it while it waits for the disk": [
        BEGUN_AT_0,
        (1, Detached(), [LOSS], Phase.RETURNING),
        (2, NO_SPACE, [LOSE], Phase.RETURNING),
        (3, CANCEL, [NOTE], Phase.RETURNING),
        (2 + RETRY, TimeCame(), [LOSS], Phase.RETURNING),
        (20, STAYS_CANCELLED, [RECORD_CANCELLED], Phase.RECORDING),
        (21, Recorded(), [END, TellUploader()], Phase.ENDED),
    ],
    "artifacts that must not be stored": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, MORE, [ADD], Phase.RECEIVING),
        (3, ResultRefused(reason="bad"), [BAD, RecordAborted(result=Aborted(message="bad"))], Phase.RECORDING),
        (4, Recorded(), [BAD, TellUploader()], Phase.ENDED),
    ],
    "the disk fails when it begins": [
        BEGUN_AT_0,
        (1, NOT_BEGUN, [ClearConsole(), DISK_LOSS], Phase.RETURNING),
        (2, PutBackDone(), [UNRECORDED], Phase.ENDED),
    ],
    "the job fills the disk": [
        BEGUN_AT_0,
        (1, LINES, [APPEND], Phase.RUNNING),
        (2, FILLED, [ClearConsole(), FILL_LOSS], Phase.RETURNING),
        (3, NotPutBack(result=FILL_LOSS.reason), [RecordAborted(result=FILL_LOSS.reason)], Phase.RECORDING),
        (4, FILLED, [UNRECORDED], Phase.RETURNING),
        (4 + RETRY, TimeCame(), [FILL_LOSS], Phase.RETURNING),
        (20, PutBackDone(), [UNRECORDED], Phase.ENDED),
    ],
    "the result can't be recorded": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, ResultEnded(), [Record()], Phase.RECORDING),
        (70, DiskFault(reason="database is locked"),
         [ClearConsole(), PutBack(reason=could_not_record("database is locked"), counted=False)], Phase.RETURNING),
        (71, PutBackDone(), [Dismiss(reason=could_not_record("database is locked").message)], Phase.ENDED),
    ],
    "the disk fails for long": [
        BEGUN_AT_0,
        (2, NOT_BEGUN, [ClearConsole(), DISK_LOSS], Phase.RETURNING),
        (3, NO_SPACE, [UNRECORDED], Phase.RETURNING),
        (4, Detached(), [], Phase.RETURNING),
        (3 + RETRY, TimeCame(), [DISK_LOSS], Phase.RETURNING),
        (20, NO_SPACE, [UNRECORDED], Phase.RETURNING),
        (20 + RETRY, TimeCame(), [DISK_LOSS], Phase.RETURNING),
        (40, PutBackDone(), [UNRECORDED], Phase.ENDED),
    ],
    "the disk does not take lines for a while": [
        BEGUN_AT_0,
        (1, LINES, [APPEND], Phase.RUNNING),
        (2, NOT_APPENDED, [], Phase.HELD),
        (2 + RETRY, TimeCame(), [APPEND], Phase.RUNNING),
        (13, NOT_APPENDED, [], Phase.HELD),
        (13 + RETRY, TimeCame(), [APPEND], Phase.RUNNING),
        (24, LINES, [APPEND], Phase.RUNNING),
        (25, BEGUN, [BEGIN], Phase.RECEIVING),
        (26, ResultEnded(), [Record()], Phase.RECORDING),
        (27, Recorded(), [Acknowledge(), TellUploader()], Phase.ENDED),
    ],
    "a job takes too long while the disk does not take its lines": [
        BEGUN_AT_0,
        (95, LINES, [APPEND], Phase.RUNNING),
        (96, NOT_APPENDED, [], Phase.HELD),
        (100, TimeCame(), [OUT_OF_TIME, RecordAborted(result=TIMEOUT)], Phase.RECORDING),
    ],
    "a worker is lost while the disk does not take its lines": [
        BEGUN_AT_0,
        (1, LINES, [APPEND], Phase.RUNNING),
        (2, NOT_APPENDED, [], Phase.HELD),
        (3, Detached(), [LOSS], Phase.RETURNING),
        (4, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "the result can't be recorded, for the third time": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, ResultEnded(), [Record()], Phase.RECORDING),
        (3, FILLED, [ClearConsole(), FILL_LOSS], Phase.RETURNING),
        (4, NotPutBack(result=FILL_LOSS.reason), [RecordAborted(result=FILL_LOSS.reason)], Phase.RECORDING),
        (5, Recorded(), [UNRECORDED, TellUploader()], Phase.ENDED),  # its worker has not delivered
    ],
    "the disk fails for long, and it was the third loss": [
        BEGUN_AT_0,
        (1, Detached(), [LOSS], Phase.RETURNING),
        (2, NotPutBack(result=LOST), [RecordAborted(result=LOST)], Phase.RECORDING),
        (3, NO_SPACE, [LOSE], Phase.RETURNING),
        (3 + RETRY, TimeCame(), [LOSS], Phase.RETURNING),
        (20, NotPutBack(result=LOST), [RecordAborted(result=LOST)], Phase.RECORDING),
        (21, Recorded(), [LOSE, TellUploader()], Phase.ENDED),
    ],
    "a fault of ours": [
        BEGUN_AT_0,
        (1, LINES, [APPEND], Phase.RUNNING),
        (2, OurFault(), [OUR_LOSS], Phase.RETURNING),
        (3, PutBackDone(), [FAILED], Phase.ENDED),
    ],
    "a fault of ours while nobody knows whether a job was taken": [
        (0, OurFault(), [OUR_LOSS], Phase.RETURNING),
        (1, NotRunning(), [ALREADY], Phase.ENDED),
    ],
    "faults of ours without end": [
        BEGUN_AT_0,
        (1, OurFault(), [OUR_LOSS], Phase.RETURNING),
        (2, OurFault(), [FAILED], Phase.RETURNING),
        (2 + RETRY, TimeCame(), [OUR_LOSS], Phase.RETURNING),
        (20, Stopping(), [OUR_LOSS], Phase.RETURNING),
        (21, OurFault(), [Release()], Phase.ENDED),
    ],
    "somebody else has recorded it": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, ResultEnded(), [Record()], Phase.RECORDING),
        (3, NotRunning(), [ALREADY], Phase.ENDED),
    ],
    "a stop while a job is taken": [
        (0, Stopping(), [NO_LOSS], Phase.RETURNING),
        (0, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "a stop while a job runs": [
        BEGUN_AT_0,
        (1, Stopping(), [NO_LOSS], Phase.RETURNING),
        (2, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "a stop waits for a result": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, Stopping(), [], Phase.RECEIVING),
        (3, MORE, [ADD], Phase.RECEIVING),
        (4, ResultEnded(), [Record()], Phase.RECORDING),
        (5, Recorded(), [Acknowledge(), TellUploader()], Phase.ENDED),
    ],
    "a stop has waited long enough": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, Stopping(), [], Phase.RECEIVING),
        (10, Detached(counted=False), [NO_LOSS], Phase.RETURNING),
        (11, NO_SPACE, [Release()], Phase.ENDED),  # the next start finds it
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", TRANSCRIPTS)
def test_transcripts(what: str) -> None:
    assert play(TRANSCRIPTS[what]).wake_at == math.inf


GRACEFUL: dict[str, list[Step]] = {
    "a worker comes back": [
        BEGUN_AT_0,
        (10, Detached(), [], Phase.AWAY),
        (40, BACK, RESUME, Phase.RUNNING),
        (41, LINES, [APPEND], Phase.RUNNING),
        (100, TimeCame(), [OUT_OF_TIME, RecordAborted(result=TIMEOUT)], Phase.RECORDING),
    ],
    "a worker comes back before it was missed": [
        BEGUN_AT_0,
        (10, LINES, [APPEND], Phase.RUNNING),
        (11, BACK, RESUME, Phase.RUNNING),
        (12, BEGUN, [BEGIN], Phase.RECEIVING),
        (13, BACK, RESUME, Phase.RUNNING),
        (14, BEGUN, [BEGIN], Phase.RECEIVING),
    ],
    "a worker comes back with its result, from the begin": [
        BEGUN_AT_0,
        (99, BEGUN, [BEGIN], Phase.RECEIVING),
        (150, Detached(), [], Phase.AWAY),
        (151, BACK, RESUME, Phase.RUNNING),
        (152, BEGUN, [BEGIN], Phase.RECEIVING),
        (200, ResultEnded(), [Record()], Phase.RECORDING),
        (201, BACK, [], Phase.RECORDING),
        (202, Recorded(), [Acknowledge(), TellUploader()], Phase.ENDED),
        (203, BACK, [], Phase.ENDED),
    ],
    "a worker does not come back": [
        BEGUN_AT_0,
        (10, Detached(), [], Phase.AWAY),
        (70, TimeCame(), [LOSS], Phase.RETURNING),
        (71, BACK, [LOSE], Phase.RETURNING),  # too late
        (72, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "a worker gives up": [
        BEGUN_AT_0,
        (10, Detached(counted=False, is_final=True), [NO_LOSS], Phase.RETURNING),
        (11, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "a job takes too long while its worker is away": [
        BEGUN_AT_0,
        (90, Detached(), [], Phase.AWAY),
        (100, TimeCame(), [OUT_OF_TIME, RecordAborted(result=TIMEOUT)], Phase.RECORDING),
        (101, BACK, [OUT_OF_TIME], Phase.RECORDING),
        (102, NO_SPACE, [ClearConsole(), DISK_LOSS], Phase.RETURNING),
    ],
    "somebody ends it while its worker is away": [
        BEGUN_AT_0,
        (10, Detached(), [], Phase.AWAY),
        (11, CANCEL, [END, NOTE, RECORD_CANCELLED], Phase.RECORDING),
        (12, Recorded(), [END, TellUploader()], Phase.ENDED),
    ],
    "a stop leaves it to the next server": [
        BEGUN_AT_0,
        (10, Stopping(), [Release()], Phase.ENDED),
    ],
    "a stop leaves it to the next server, while its worker is away": [
        BEGUN_AT_0,
        (10, Detached(), [], Phase.AWAY),
        (20, Stopping(), [Release()], Phase.ENDED),
    ],
    "a stop leaves it to the next server, while the disk does not take its lines": [
        BEGUN_AT_0,
        (10, LINES, [APPEND], Phase.RUNNING),
        (11, NOT_APPENDED, [], Phase.HELD),
        (12, Stopping(), [Release()], Phase.ENDED),
    ],
    "a stop before its worker has it": [
        (0, Stopping(), [NO_LOSS], Phase.RETURNING),
        (1, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "a stop waits for a result, whose worker is lost": [
        BEGUN_AT_0,
        (10, BEGUN, [BEGIN], Phase.RECEIVING),
        (20, Stopping(), [], Phase.RECEIVING),
        (21, Detached(), [Release()], Phase.ENDED),
    ],
    "a stop waits for a result, whose worker comes back": [
        BEGUN_AT_0,
        (10, BEGUN, [BEGIN], Phase.RECEIVING),
        (20, Stopping(), [], Phase.RECEIVING),
        (21, BACK, [Release()], Phase.ENDED),
    ],
    "a stop waits for a result, which the disk does not take": [
        BEGUN_AT_0,
        (10, BEGUN, [BEGIN], Phase.RECEIVING),
        (20, Stopping(), [], Phase.RECEIVING),
        (21, NO_SPACE, [Release()], Phase.ENDED),
    ],
    "an earlier server has left it": [
        (0, Inherited(), [OpenConsole()], Phase.AWAY),
        (20, Returned(began=-70.0, has_ended=False), RESUME, Phase.RUNNING),
        (21, LINES, [APPEND], Phase.RUNNING),
        (30, TimeCame(), [OUT_OF_TIME, RecordAborted(result=TIMEOUT)], Phase.RECORDING),
    ],
    "an earlier server has left it, and the job has ended since": [
        (0, Inherited(), [OpenConsole()], Phase.AWAY),
        (20, Returned(began=-700.0, has_ended=True), RESUME, Phase.RUNNING),
        (21, BEGUN, [BEGIN], Phase.RECEIVING),
    ],
    "an earlier server has left it, and its worker does not come back": [
        (0, Inherited(), [OpenConsole()], Phase.AWAY),
        (1, NO_SPACE, [], Phase.AWAY),  # its console could not be opened
        (60, TimeCame(), [LOSS], Phase.RETURNING),
        (61, PutBackDone(), [LOSE], Phase.ENDED),
    ],
    "its console can't be opened": [
        (0, Inherited(), [OpenConsole()], Phase.AWAY),
        (1, BACK, RESUME, Phase.RUNNING),
        (2, DiskFault(reason="Input/output error", undone=(OpenConsole(), Resume())), [], Phase.HELD),
        (2 + RETRY, TimeCame(), RESUME, Phase.RUNNING),
    ],
    "the disk does not take lines, and the worker comes back meanwhile": [
        BEGUN_AT_0,
        (1, LINES, [APPEND], Phase.RUNNING),
        (2, NOT_APPENDED, [], Phase.HELD),
        (3, Detached(), [], Phase.AWAY),
        (4, BACK, RESUME, Phase.RUNNING),  # and it sends the lines again
    ],
    "the disk does not take a result": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, NO_SPACE, [Release(), DiscardRecord()], Phase.AWAY),
        (2 + RETRY, BACK, RESUME, Phase.RUNNING),
        (14, BEGUN, [BEGIN], Phase.RECEIVING),
        (15, ResultEnded(), [Record()], Phase.RECORDING),
        (16, NO_SPACE, [Release(), DiscardRecord()], Phase.AWAY),
        (17, NO_SPACE, [], Phase.AWAY),  # what there is can't be removed either
        (18, Detached(), [], Phase.AWAY),  # it was under way
        (19, BACK, [], Phase.HELD),  # it comes back at once, and has to wait
        (20, BACK, [], Phase.HELD),
        (16 + RETRY, TimeCame(), RESUME, Phase.RUNNING),
        (27, BEGUN, [BEGIN], Phase.RECEIVING),
        (28, ResultEnded(), [Record()], Phase.RECORDING),
        (29, Recorded(), [Acknowledge(), TellUploader()], Phase.ENDED),
    ],
    "the disk does not take a result, and its worker does not come back": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, NO_SPACE, [Release(), DiscardRecord()], Phase.AWAY),
        (2 + GRACE, TimeCame(), [NO_LOSS], Phase.RETURNING),
    ],
    "a job fills the disk by its result": [
        BEGUN_AT_0,
        (1, BEGUN, [BEGIN], Phase.RECEIVING),
        (2, FILLED, [ClearConsole(), FILL_LOSS], Phase.RETURNING),
    ],
}


@pytest.mark.parametrize("what", GRACEFUL)
def test_with_a_grace(what: str) -> None:
    play(GRACEFUL[what], grace=GRACE)


@pytest.mark.parametrize(
    ("grace", "steps", "wake_at"),
    [
        (0, [], math.inf),
        (0, [(5, Attached())], 5 + LIMIT),
        (0, [(5, Attached()), (6, LINES)], 5 + LIMIT),
        (0, [(5, Attached()), (6, BEGUN)], math.inf),  # the job has ended: its limit does not count any more
        (0, [(5, Attached()), (6, Detached()), (7, NO_SPACE)], 7 + RETRY),
        (GRACE, [(5, Attached()), (6, Detached())], 6 + GRACE),
        (GRACE, [(5, Attached()), (80, Detached())], 5 + LIMIT),
        (GRACE, [(5, Attached()), (6, Detached()), (7, Returned(began=5, has_ended=False))], 5 + LIMIT),
        (GRACE, [(5, Attached()), (6, Detached()), (7, Returned(began=5, has_ended=True))], math.inf),
        (GRACE, [(5, Inherited())], 5 + GRACE),
        (GRACE, [(5, Inherited()), (6, Returned(began=-3, has_ended=False))], LIMIT - 3),
        (0, [(5, Attached()), (6, NOT_APPENDED)], 6 + RETRY),
        (0, [(5, Attached()), (5 + LIMIT - 1, NOT_APPENDED)], 5 + LIMIT),
        (GRACE, [(5, Attached()), (104, BEGUN), (300, Detached())], 300 + GRACE),
    ],
)
def test_when_it_wants_to_be_woken(grace: float, steps: list[tuple[float, Event]], wake_at: float) -> None:
    found = Attempt(time_limit=LIMIT, grace=grace)
    for now, event in steps:
        found.handle(event, now)
    assert found.wake_at == wake_at


# --- every event in every phase ------------------------------------------------------------------------------------

ARRIVED: dict[Phase, list[Event]] = {
    Phase.TAKEN: [],
    Phase.RUNNING: [Attached()],
    Phase.HELD: [Attached(), NOT_APPENDED],
    Phase.AWAY: [Attached(), Detached()],
    Phase.RECEIVING: [Attached(), BEGUN],
    Phase.RECORDING: [Attached(), BEGUN, ResultEnded()],
    Phase.RETURNING: [Attached(), BEGUN, Detached(counted=False), FILLED],
    Phase.ENDED: [Attached(), BEGUN, ResultEnded(), Recorded()],
}
"""How each phase is come to: by a worker that can't come back, but for the one in which it may."""

REFUSED = ResultRefused(reason="bad")

Outcome = tuple[list[Action], Phase | None] | None

NEVER: Outcome = None
IGNORED: Outcome = ([], None)
ABORTS: Outcome = ([END, RecordAborted(result=CANCELLED)], Phase.RECORDING)
EXPIRES: Outcome = ([OUT_OF_TIME, RecordAborted(result=TIMEOUT)], Phase.RECORDING)
RESUMES: Outcome = (RESUME, Phase.RUNNING)
LOSES: Outcome = ([LOSS], Phase.RETURNING)
RETURNS: Outcome = ([NO_LOSS], Phase.RETURNING)
DISK: Outcome = ([ClearConsole(), DISK_LOSS], Phase.RETURNING)
OURS: Outcome = ([OUR_LOSS], Phase.RETURNING)
IS_OVER: Outcome = ([ALREADY], Phase.ENDED)
MOVES: Outcome = ([Release(), RemoveFiles()], Phase.ENDED)

TABLE: dict[Phase, dict[Event, Outcome]] = {
    Phase.TAKEN: {
        Attached(): ([BeginConsole(), SendJob()], Phase.RUNNING),
        Inherited(): ([OpenConsole()], Phase.AWAY),
        BACK: NEVER,
        LINES: NEVER,
        TOLD: NEVER,
        BEGUN: NEVER,
        MORE: NEVER,
        ResultEnded(): NEVER,
        REFUSED: NEVER,
        Detached(): LOSES,
        EndAsked(result=CANCELLED): ABORTS,
        TimeCame(): NEVER,
        Stopping(): RETURNS,
        NO_SPACE: DISK,
        OurFault(): OURS,
        Recorded(): NEVER,
        PutBackDone(): NEVER,
        NotPutBack(result=LOST): NEVER,
        NotRunning(): NEVER,
        Moved(): MOVES,
    },
    Phase.RUNNING: {
        Attached(): NEVER,
        Inherited(): NEVER,
        BACK: RESUMES,
        LINES: ([APPEND], None),
        TOLD: ([KEEP], None),
        BEGUN: ([BEGIN], Phase.RECEIVING),
        MORE: NEVER,
        ResultEnded(): NEVER,
        REFUSED: NEVER,
        Detached(): LOSES,
        EndAsked(result=CANCELLED): ABORTS,
        TimeCame(): EXPIRES,
        Stopping(): RETURNS,
        NO_SPACE: ([], Phase.HELD),
        OurFault(): OURS,
        Recorded(): NEVER,
        PutBackDone(): NEVER,
        NotPutBack(result=LOST): NEVER,
        NotRunning(): NEVER,
        Moved(): MOVES,
    },
    Phase.HELD: {
        Attached(): NEVER,
        Inherited(): NEVER,
        BACK: RESUMES,
        LINES: NEVER,
        TOLD: NEVER,
        BEGUN: NEVER,
        MORE: NEVER,
        ResultEnded(): NEVER,
        REFUSED: NEVER,
        Detached(): LOSES,
        EndAsked(result=CANCELLED): ABORTS,
        TimeCame(): ([APPEND], Phase.RUNNING),
        Stopping(): RETURNS,
        NO_SPACE: DISK,
        OurFault(): OURS,
        Recorded(): NEVER,
        PutBackDone(): NEVER,
        NotPutBack(result=LOST): NEVER,
        NotRunning(): NEVER,
        Moved(): MOVES,
    },
    Phase.AWAY: {
        Attached(): NEVER,
        Inherited(): NEVER,
        BACK: RESUMES,
        LINES: IGNORED,
        TOLD: IGNORED,
        BEGUN: IGNORED,
        MORE: IGNORED,
        ResultEnded(): IGNORED,
        REFUSED: IGNORED,
        Detached(): IGNORED,
        EndAsked(result=CANCELLED): ABORTS,
        TimeCame(): LOSES,
        Stopping(): ([Release()], Phase.ENDED),
        NO_SPACE: IGNORED,
        OurFault(): OURS,
        Recorded(): NEVER,
        PutBackDone(): NEVER,
        NotPutBack(result=LOST): NEVER,
        NotRunning(): NEVER,
        Moved(): MOVES,
    },
    Phase.RECEIVING: {
        Attached(): NEVER,
        Inherited(): NEVER,
        BACK: RESUMES,
        LINES: NEVER,
        TOLD: NEVER,
        BEGUN: NEVER,
        MORE: ([ADD], None),
        ResultEnded(): ([Record()], Phase.RECORDING),
        REFUSED: ([BAD, RecordAborted(result=Aborted(message="bad"))], Phase.RECORDING),
        Detached(): LOSES,
        EndAsked(result=CANCELLED): IGNORED,
        TimeCame(): NEVER,
        Stopping(): IGNORED,
        NO_SPACE: DISK,
        OurFault(): OURS,
        Recorded(): NEVER,
        PutBackDone(): NEVER,
        NotPutBack(result=LOST): NEVER,
        NotRunning(): NEVER,
        Moved(): MOVES,
    },
    Phase.RECORDING: {
        Attached(): NEVER,
        Inherited(): NEVER,
        BACK: IGNORED,
        LINES: IGNORED,
        TOLD: IGNORED,
        BEGUN: IGNORED,
        MORE: IGNORED,
        ResultEnded(): IGNORED,
        REFUSED: IGNORED,
        Detached(): IGNORED,
        EndAsked(result=CANCELLED): IGNORED,
        TimeCame(): NEVER,
        Stopping(): IGNORED,
        NO_SPACE: DISK,
        OurFault(): OURS,
        Recorded(): ([Acknowledge(), TellUploader()], Phase.ENDED),
        PutBackDone(): NEVER,
        NotPutBack(result=LOST): NEVER,
        NotRunning(): IS_OVER,
        Moved(): MOVES,
    },
    Phase.RETURNING: {
        Attached(): NEVER,
        Inherited(): NEVER,
        BACK: ([LOSE], None),
        LINES: IGNORED,
        TOLD: IGNORED,
        BEGUN: IGNORED,
        MORE: IGNORED,
        ResultEnded(): IGNORED,
        REFUSED: IGNORED,
        Detached(): IGNORED,
        EndAsked(result=CANCELLED): IGNORED,
        TimeCame(): ([NO_LOSS], None),
        Stopping(): ([NO_LOSS], None),
        NO_SPACE: ([LOSE], None),
        OurFault(): ([LOSE], None),
        Recorded(): NEVER,
        PutBackDone(): ([LOSE], Phase.ENDED),
        NotPutBack(result=LOST): ([RecordAborted(result=LOST)], Phase.RECORDING),
        NotRunning(): IS_OVER,
        Moved(): MOVES,
    },
}

EVENTS = tuple(TABLE[Phase.TAKEN])
TABLE[Phase.ENDED] = dict.fromkeys(EVENTS, IGNORED)


def test_the_table_has_every_kind_of_event_in_every_state() -> None:
    kinds = set(events.Event.__args__)
    for phase in Phase:
        assert {type(event) for event in TABLE[phase]} == kinds, phase


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_in_every_phase(phase: Phase, event: Event) -> None:
    found = Attempt(time_limit=LIMIT, grace=GRACE if phase is Phase.AWAY else 0.0)
    for number, before in enumerate(ARRIVED[phase]):
        found.handle(before, number)
    assert found.phase is phase
    now = LIMIT if phase is Phase.RUNNING else GRACE + 10
    outcome = TABLE[phase][event]
    if outcome is None:
        with pytest.raises(UnexpectedEvent):
            found.handle(event, now)
        assert found.phase is phase
    else:
        actions, following = outcome
        assert [*found.handle(event, now)] == actions
        assert found.phase is (following or phase)


# --- the job's own limits ------------------------------------------------------------------------------------------

SILENT = Aborted(message="silent for 10s (--max-silent of the job)")
OWN_TIMEOUT = Aborted(message="timeout after 30s (--timeout of the job)")


def with_limits(time_limit: float, max_silent: float, steps: Iterable[Step], *, grace: float = 0.0) -> Attempt:
    found = Attempt(time_limit=LIMIT, grace=grace)
    found.tighten(time_limit, max_silent)
    for now, event, actions, phase in steps:
        assert ([*found.handle(event, now)], found.phase) == (actions, phase), event
    return found


def test_the_lower_time_limit_holds() -> None:
    for limit, wake_at, result in ((30.0, 30.0, OWN_TIMEOUT), (LIMIT, LIMIT, TIMEOUT), (1000.0, LIMIT, TIMEOUT)):
        found = with_limits(limit, math.inf, [BEGUN_AT_0])
        assert found.wake_at == wake_at
        assert found.handle(TimeCame(), wake_at) == (Dismiss(reason=result.message), RecordAborted(result=result))


def test_a_job_that_says_nothing() -> None:
    steps: list[Step] = [BEGUN_AT_0, (8, LINES, [APPEND], Phase.RUNNING)]
    found = with_limits(1000, 10, steps)
    assert found.wake_at == 18
    assert not found.is_overdue(18)
    assert found.handle(TimeCame(), 18) == (Dismiss(reason=SILENT.message), RecordAborted(result=SILENT))


def test_a_job_that_speaks_has_its_time_limit() -> None:
    speaking: list[Step] = [(now, LINES, [APPEND], Phase.RUNNING) for now in range(9, 100, 9)]
    found = with_limits(1000, 10, [BEGUN_AT_0, *speaking])
    assert found.wake_at == LIMIT
    assert found.is_overdue(LIMIT)
    assert found.handle(TimeCame(), LIMIT) == (OUT_OF_TIME, RecordAborted(result=TIMEOUT))


def test_nobody_hears_a_job_whose_worker_is_away() -> None:
    steps: list[Step] = [
        BEGUN_AT_0,
        (5, Detached(), [], Phase.AWAY),
        (50, BACK, RESUME, Phase.RUNNING),
    ]
    found = with_limits(1000, 10, steps, grace=GRACE)
    assert found.wake_at == 60
    assert found.handle(TimeCame(), 60) == (Dismiss(reason=SILENT.message), RecordAborted(result=SILENT))


def test_what_comes_after_the_job_may_take_its_time() -> None:
    found = with_limits(1000, 10, [BEGUN_AT_0, (5, BEGUN, [BEGIN], Phase.RECEIVING)])
    assert found.wake_at == math.inf


@pytest.mark.parametrize(("seconds", "text"), [(600, "10m"), (7200, "2h"), (90, "1m30s"), (0.5, "0.5s")])
def test_a_limit_is_said_as_it_is_given(seconds: float, text: str) -> None:
    assert aborts.silent_for(seconds).message == f"silent for {text} (--max-silent of the job)"
    assert aborts.timeout_after(seconds, aborts.JOB_LIMIT).message.endswith(f" {text} (--timeout of the job)")
