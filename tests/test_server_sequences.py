"""builder-server's store by itself: what holds after any sequence of its steps."""

from pathlib import Path

import databases
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import LOST, NOW, expand, opened, running, script, uuid

from builder import codec
from builder.messages import InfoReply
from builder.model import Exited, Instant, Job, OrbBuildJob, Period, ScheduleItem, ScriptJob
from builder_server.errors import CommandRefused

pytestmark = pytest.mark.databases

NAMES = st.sampled_from(["a", "b", "orb"])
PLATFORMS = st.sampled_from(["p1", "p2"])

Step = tuple[str, str | None, str | None]

STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), NAMES, PLATFORMS),
        st.tuples(st.just("unschedule"), NAMES, st.none()),
        st.tuples(st.just("execute"), NAMES, st.none() | PLATFORMS),
        st.tuples(st.just("reschedule"), NAMES, st.none()),
        st.tuples(st.just("drop"), st.none(), PLATFORMS),
        st.tuples(st.just("undrop"), st.none(), PLATFORMS),
        st.tuples(st.just("take"), st.none(), PLATFORMS),
        st.tuples(st.just("finish"), st.none(), st.none()),
        st.tuples(st.just("lose"), st.none(), st.none()),
        st.tuples(st.just("tick"), st.none(), st.none()),
    ),
    max_size=30,
)


def new_job(name: str, platform: str) -> Job:
    return OrbBuildJob(name=name, opam_package="x") if name == "orb" else script(name, platform)


@given(STEPS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_holds_after_any_sequence(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    _check(tmp_path_factory.mktemp("store"), steps)


@pytest.mark.long
@given(STEPS)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_holds_after_many_more(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    _check(tmp_path_factory.mktemp("store"), steps)


def _check(path: Path, steps: list[Step]) -> None:
    trio.run(_play, path, steps)
    databases.forget(is_as_new=True)  # the next one gets the same database in PostgreSQL


async def _play(path: Path, steps: list[Step]) -> None:
    now, number = NOW, 0
    async with opened(path) as store:
        for kind, name, platform in steps:
            now, number = Instant(now.ms + 20 * 60_000), number + 1
            alive = await running(store)
            try:
                match kind, name, platform:
                    case "schedule", str(), str():
                        await store.schedule(new_job(name, platform), Period.HOURLY, now)
                    case "unschedule", str(), _:
                        await store.unschedule(name)
                    case "execute", str(), _:
                        await store.execute(name, platform, NOW, "client")
                    case "reschedule", str(), _:
                        await store.reschedule(name, Instant(now.ms - 1), None)
                    case "drop", _, str():
                        await store.drop_platform(platform)
                    case "undrop", _, str():
                        await store.undrop_platform(platform)
                    case "take", _, str():
                        await store.take(platform, uuid(number), now, expand)
                    case "finish", _, _ if alive:
                        assert await store.finish(alive[0], now, Exited(code=0))
                    case "lose", _, _ if alive:
                        await store.lose(alive[0], now, LOST, count=True)
                    case "tick", _, _:
                        await store.queue_due(now)
            except CommandRefused:
                pass
            check(await store.info())


def check(found: InfoReply) -> None:
    scheduled = {item.job.name: item.job for item in found.schedule}
    assert len(scheduled) == len(found.schedule)
    assert not {queue.platform for queue in found.queues} & set(found.dropped_platforms)
    for queue in found.queues:
        assert len({job.name for job in queue.jobs}) == len(queue.jobs), "a queue holds a job once"
        for job in queue.jobs:
            assert scheduled[job.name] == job
            assert not isinstance(job, ScriptJob) or job.platform == queue.platform
    assert all(isinstance(item, ScheduleItem) for item in found.schedule)
    assert codec.decode(codec.encode(found)) == found
