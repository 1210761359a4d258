"""What a result means: whose doing it was."""

import pytest

from builder.history import WORKER_FAULT, Outcome, outcome_of
from builder.model import Aborted, Exited, Result, Signalled, Stopped
from builder_server.aborts import FAULT, JOB_LIMIT, LOST, could_not_record, silent_for, timeout_after


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (Exited(code=0), Outcome.SUCCEEDED),
        (Exited(code=1), Outcome.FAILED),
        (Signalled(signal=-7), Outcome.FAILED),
        (Stopped(signal=19), Outcome.FAILED),
        (timeout_after(60, JOB_LIMIT), Outcome.ABORTED),
        (silent_for(60), Outcome.ABORTED),
        (LOST, Outcome.LOST),
        (FAULT, Outcome.LOST),
        (could_not_record("no space"), Outcome.LOST),
        *(
            (Aborted(message=message), Outcome.ABORTED)
            for message in (
                "time limit of 5 s exceeded",
                "its output filled the worker's disk",
                "no output for 5 s",
                "out of memory (limit 1 MiB)",
                "too many processes (limit 5)",
                "work directory full (limit 1 MiB)",
                "it filled the worker's disk (1 MiB left)",
                "more than 5 bytes of console output",
                "more than the 5 artifacts allowed",
                "cancelled by 127.0.0.1:1234",
                "anything that another worker says",
            )
        ),
        *(
            (Aborted(message=message), Outcome.LOST)
            for message in (
                f"{WORKER_FAULT}the sandbox did not start: no",
                "the worker's disk stayed full (1 MiB left)",
                "the console can't be written: there is no room on the worker's disk",
                "the job's directory can't be looked at any more: no",
                "the work directory can't be read: no",
                "the process that watched over the job was killed",
                "the prepare hook failed: exited 1",
                "interrupted",
            )
        ),
    ],
)
def test_outcomes(result: Result, outcome: Outcome) -> None:
    assert outcome_of(result) is outcome
