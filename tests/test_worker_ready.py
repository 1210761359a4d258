"""A worker that loops waits for a sandbox that fails for a while; one that takes one job says so and ends."""

import pytest
import trio.testing

from builder.endpoint import Servers
from builder_worker.build import Setup
from builder_worker.drain import Drain
from builder_worker.loop import get_ready
from builder_worker.sandbox import Backend, Check, Sandbox, SandboxError, Spare, Task
from builder_worker.sandbox.options import Options
from builder_worker.session import WorkerSettings


class Busy(Backend):
    """Fails at cleaning up until it has been asked often enough, and can't make a sandbox then."""

    name = "busy"

    def __init__(self, failures: int) -> None:
        self.options = Options()
        self.failures = failures
        self.asked = 0

    def check(self) -> Check:
        return Check(works=True)

    async def open(self, task: Task, spare: Spare | None = None) -> Sandbox:
        raise SandboxError("no sandbox today")

    async def clean_up(self) -> tuple[str, ...]:
        self.asked += 1
        if self.asked <= self.failures:
            raise SandboxError("the control group stays busy")
        return ()


def settings(backend: Backend) -> WorkerSettings:
    return WorkerSettings(servers=Servers.of("localhost:1", {}), platform="p1", setup=Setup(backend=backend))


async def test_one_job_is_not_waited_for() -> None:
    with pytest.raises(SandboxError, match="stays busy"):
        await get_ready(settings(Busy(1)), Drain(), patient=False)
    with pytest.raises(SandboxError, match="no sandbox today"):
        await get_ready(settings(Busy(0)), Drain(), patient=False)


async def test_a_loop_tries_again_until_it_drains(autojump_clock: trio.testing.MockClock) -> None:
    backend, drain = Busy(2), Drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: get_ready(settings(backend), drain, patient=True))
        await trio.sleep(600)
        assert backend.asked > 5
        drain.begin()
