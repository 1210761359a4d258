"""builder-server's store by itself: what becomes of jobs whose builds are lost."""

import pytest
from stores import HOUR, LOST, NOW, queues, running, script, take, uuid

from builder.model import Exited, Instant, OrbBuildJob, Period
from builder.planning import JobOptions
from builder_server.store import AfterLoss, Due, Store

pytestmark = pytest.mark.databases


async def test_a_late_result_of_a_lost_build_is_not_recorded(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    await take(store, 2)
    assert not await store.finish(uuid(1), NOW, Exited(code=0))
    assert await running(store) == (uuid(2),)


async def test_three_losses_in_a_row(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    for number in (1, 2):
        await take(store, number)
        assert await store.lose(uuid(number), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    assert (await take(store, 3)).losses == 2
    assert await store.lose(uuid(3), NOW, LOST, count=True) is AfterLoss.TOO_MANY
    assert await running(store) == (uuid(3),)
    assert await store.finish(uuid(3), NOW, LOST)
    await store.execute("a", None, NOW, "client")
    assert (await take(store, 4)).losses == 0


async def test_a_finished_build_ends_the_row_of_losses(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    for number in (1, 3, 5):
        await take(store, number)
        assert await store.lose(uuid(number), NOW, LOST, count=True) is AfterLoss.PUT_BACK
        assert (await take(store, number + 1)).losses == 1
        assert await store.finish(uuid(number + 1), NOW, Exited(code=0))
        await store.execute("a", None, NOW, "client")


async def test_losses_that_do_not_count_keep_the_row(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    for number in range(1, 10):
        losses = (await take(store, number)).losses
        assert losses == min(1, number - 1)
        assert await store.lose(uuid(number), NOW, LOST, count=number == 1) is AfterLoss.PUT_BACK


async def test_execute_does_not_forget_losses(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    await store.lose(uuid(1), NOW, LOST, count=True)
    await store.execute("a", None, NOW, "client")
    assert (await take(store, 2)).losses == 1


async def test_a_lost_job_returns_to_the_front(store: Store) -> None:
    for name in "abc":
        await store.schedule(script(name), Period.DAILY, NOW)
    await take(store, 1)
    await store.lose(uuid(1), NOW, LOST, count=True)
    assert await queues(store) == {"p1": ["a", "b", "c"]}


async def test_a_lost_job_that_was_queued_again_is_queued_once(store: Store) -> None:
    for name in "ab":
        await store.schedule(script(name), Period.DAILY, NOW)
    await take(store, 1)
    await store.execute("a", None, NOW, "client")
    assert await queues(store) == {"p1": ["a", "b"]}
    await store.lose(uuid(1), NOW, LOST, count=True)
    assert await queues(store) == {"p1": ["a", "b"]}


async def test_a_job_that_is_lost_again_without_being_to_blame_lets_others_go_first(store: Store) -> None:
    for name in "ab":
        await store.schedule(script(name), Period.DAILY, NOW)
    for number in (1, 2):
        assert (await take(store, number)).job.name == "a"
        await store.lose(uuid(number), NOW, LOST, count=False, may_pause=True)
    assert (await take(store, 3)).job.name == "b"
    assert (await store.take("p1", uuid(4), NOW, None)).build is None
    assert await store.queue_due(Instant(NOW.ms + 59_999)) == Due(next_run=Instant(NOW.ms + 60_000))
    await store.queue_due(Instant(NOW.ms + 60_000))
    assert (await take(store, 4)).job.name == "a"


@pytest.mark.parametrize("gone", ["unscheduled", "dropped"])
async def test_a_lost_job_that_left_the_schedule_does_not_come_back(store: Store, gone: str) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    await (store.unschedule("a") if gone == "unscheduled" else store.drop_platform("p1"))
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    assert await running(store) == ()
    assert all(not names for names in (await queues(store)).values())


async def test_a_lost_job_returns_to_the_platform_that_it_has_moved_to(store: Store) -> None:
    await store.schedule(script("a"), Period.NEVER, NOW)
    await take(store, 1)
    await store.change("a", 1, JobOptions(), script("a", "p2"), NOW)
    assert await store.lose(uuid(1), NOW, LOST, count=True) is AfterLoss.PUT_BACK
    assert await queues(store) == {"p1": [], "p2": ["a"]}


async def test_a_new_job_of_the_same_name_is_not_the_lost_one(store: Store) -> None:
    await store.schedule(script("a"), Period.DAILY, NOW)
    await take(store, 1)
    await store.unschedule("a")
    await store.schedule(OrbBuildJob(name="a", opam_package="x"), Period.DAILY, NOW)
    await take(store, 2)
    await store.lose(uuid(1), NOW, LOST, count=True)
    assert await queues(store) == {"p1": []}


async def test_a_pause_after_losses_ends_though_the_clock_was_ahead(store: Store) -> None:
    await store.schedule(script("a"), Period.NEVER, NOW)
    for number, at in ((1, NOW), (2, Instant(NOW.ms + HOUR))):
        build = await take(store, number)
        await store.lose(build.uuid, at, LOST, count=False, may_pause=True)
    assert (await store.queue_due(NOW)).next_run == Instant(NOW.ms + 60_000)
