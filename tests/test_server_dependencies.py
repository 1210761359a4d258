"""builder-server: jobs after others, which run where and when those have succeeded."""

import pytest
from farm import LocalServer
from plans import after, make_platforms, orb, plan, shown, succeed
from scripted import ScriptedPeer, build, do, queues, take_job

from builder.extension.applying import Apply
from builder.extension.schedule import ChangeJob
from builder.messages import Execute, Failure, Success
from builder.model import Exited, Period
from builder.planning import JobOptions, JobReference


async def test_a_job_after_others(client: ScriptedPeer, server: LocalServer) -> None:
    await client.request(plan("lib"))
    await client.request(plan("tool", platform="p2"))
    after = (JobReference(name="lib", platform="p1"), JobReference(name="tool"))
    await client.request(plan("app", after=after, run_now=False, period=Period.NEVER))
    assert (await shown(client, "app")).awaited == after
    await build(server)
    assert (await shown(client, "app")).awaited == (JobReference(name="tool"),)
    await build(server, platform="p2", result=Exited(code=1))
    assert await queues(server) == {"p1": [], "p2": []}
    await do(server, Execute(name="tool"))
    await build(server, platform="p2")
    assert await queues(server) == {"p1": ["app"], "p2": []}
    assert (await shown(client, "app")).awaited == after


@pytest.mark.parametrize("left", [("lib",), ("lib", "tool")])
async def test_what_a_paused_job_waited_for_is_not_forgotten(
    client: ScriptedPeer, server: LocalServer, left: tuple[str, ...]
) -> None:
    after = (JobReference(name="lib"), JobReference(name="tool"))
    await client.request(plan("lib"))
    await client.request(plan("app", "p2", after=after, run_now=False, paused=True))
    await build(server)
    assert (await shown(client, "app")).awaited == after[1:]
    still = tuple(JobReference(name=name) for name in left)
    assert await client.request(ChangeJob(name="app", revision=1, options=JobOptions(after=still))) == [Success()]
    found = await shown(client, "app")
    if left == ("lib",):
        assert (found.queued_on, found.awaited) == (("p2",), still)
        assert server.query("select cause, cause_of from queue") == [("after", "lib")]
    else:
        assert (found.queued_on, found.awaited) == ((), after[1:])


ORB_BUILDS_AFTER = [
    pytest.param(("lib",), id="another"),
    pytest.param(("lib", "tool"), id="several"),
    pytest.param(("lib", "script"), id="another and a script"),
    pytest.param(("lib", "tool@p1", "script"), id="others, a platform and a script"),
]


@pytest.mark.parametrize("names", ORB_BUILDS_AFTER)
async def test_an_orb_build_after_others_runs_where_each_of_them_has_succeeded(
    client: ScriptedPeer, server: LocalServer, names: tuple[str, ...]
) -> None:
    """One or several: on a platform it follows those that are built there, and all that were named with a place."""
    await make_platforms(server, "p1", "p2", "p3")
    for name in ("lib", "tool"):
        await client.request(orb(name, period=Period.NEVER))
    await client.request(plan("script", platform="p3", run_now=False, period=Period.NEVER))
    await client.request(orb("app", after=after(*names), period=Period.NEVER))
    for platform in ("p1", "p2"):
        assert (await shown(client, "app")).queued_on == (() if platform == "p1" else ("p1",))
        for name in names:
            if name in ("lib", "tool"):
                await succeed(server, name, platform)
            elif platform == "p1":
                await succeed(server, name.partition("@")[0], {"script": "p3"}.get(name, "p1"))
    assert (await shown(client, "app")).queued_on == ("p1", "p2")
    for platform in ("p1", "p2"):
        async with take_job(server, platform) as taken:
            assert taken.job.name == "app"
            await taken.finish()
    # and again: where it has run it waits for all anew, elsewhere what counts for all counts still
    await succeed(server, "lib", "p3")
    if "tool" in names:
        await succeed(server, "tool", "p3")
    assert (await shown(client, "app")).queued_on == ("p3",)
    await succeed(server, "lib", "p2")
    waits = (await shown(client, "app")).queued_on
    assert waits == (("p2", "p3") if names == ("lib",) else ("p3",))


async def test_what_an_orb_build_still_waits_for_is_told_with_the_platform(
    client: ScriptedPeer, server: LocalServer
) -> None:
    await client.request(orb("lib"))
    await client.request(orb("app", after=after("lib", "script"), period=Period.NEVER))
    assert (await shown(client, "app")).awaited == after("lib", "script")  # no platform is known
    await make_platforms(server, "p1", "p2")
    await client.request(plan("script", run_now=False, period=Period.NEVER))
    assert (await shown(client, "app")).awaited == after("lib@p1", "lib@p2", "script")
    await succeed(server, "lib", "p1")
    assert (await shown(client, "app")).awaited == after("lib@p2", "script")
    await succeed(server, "script", "p1")
    assert (await shown(client, "app")).awaited == after("lib@p1", "lib@p2", "script")
    assert (await shown(client, "app")).queued_on == ("p1",)


async def test_a_new_platform_needs_only_what_is_built_there(client: ScriptedPeer, server: LocalServer) -> None:
    await make_platforms(server, "p1")
    await client.request(orb("lib"))
    await client.request(plan("script", run_now=False, period=Period.NEVER))
    await client.request(orb("app", after=after("lib", "script"), period=Period.NEVER))
    await succeed(server, "script", "p1")
    await make_platforms(server, "p2")
    assert await queues(server) == {"p1": [], "p2": ["lib"]}
    await build(server, "p2")
    assert await queues(server) == {"p1": [], "p2": ["app"]}


async def test_a_run_for_another_reason_uses_what_has_succeeded_before_it(
    client: ScriptedPeer, server: LocalServer
) -> None:
    for name in ("lib", "tool", "app"):
        waits = after("lib", "tool") if name == "app" else ()
        await client.request(plan(name, after=waits, run_now=False, period=Period.NEVER))
    await succeed(server, "lib", "p1")
    await succeed(server, "app", "p1")
    await succeed(server, "tool", "p1")
    assert (await shown(client, "app")).awaited == after("lib")
    assert await queues(server) == {"p1": []}
    await succeed(server, "lib", "p1")
    assert await queues(server) == {"p1": ["app"]}


async def test_a_script_after_an_orb_build_runs_wherever_that_has_succeeded(
    client: ScriptedPeer, server: LocalServer
) -> None:
    await make_platforms(server, "p1", "p2")
    await client.request(orb("lib"))
    await client.request(plan("publish", after=after("lib"), run_now=False, period=Period.NEVER))
    await succeed(server, "lib", "p2")
    assert await queues(server) == {"p1": ["publish"], "p2": []}


async def test_a_job_that_waits_for_less_runs_once_it_waits_for_nothing(
    client: ScriptedPeer, server: LocalServer
) -> None:
    for name in ("lib", "tool"):
        await client.request(plan(name, run_now=False, period=Period.NEVER))
    for name in ("app", "other"):
        await client.request(plan(name, "p2", after=after("lib", "tool"), run_now=False, period=Period.NEVER))
    await succeed(server, "lib", "p1")
    fewer = JobOptions(after=after("lib"), period=Period.NEVER)
    assert await client.request(ChangeJob(name="app", revision=1, options=fewer)) == [Success()]
    changed = ChangeJob(name="other", revision=1, options=fewer)
    assert await client.request(Apply(removed=(), changed=(changed,), added=())) == [Success()]
    assert await queues(server) == {"p1": [], "p2": ["app", "other"]}


async def test_jobs_that_change_who_waits_for_whom_at_once(client: ScriptedPeer) -> None:
    """Also where one change would lead to a cycle on the way."""
    for name in ("a", "b"):
        await client.request(plan(name, after=after("a") if name == "b" else (), run_now=False))
    turned = (
        ChangeJob(name="a", revision=1, options=JobOptions(after=after("b"))),
        ChangeJob(name="b", revision=1, options=JobOptions()),
    )
    assert await client.request(Apply(removed=(), changed=turned, added=())) == [Success()]
    both = (
        ChangeJob(name="a", revision=2, options=JobOptions(after=after("c"))),
        plan("c", after=after("a"), run_now=False),
    )
    (failure,) = await client.request(Apply(removed=(), changed=(both[0],), added=(both[1],)))
    assert failure == Failure(message="job c: jobs would wait for each other: c after a after c")
    assert (await shown(client, "a")).options.after == after("b")


async def test_jobs_that_would_wait_for_each_other(client: ScriptedPeer) -> None:
    await client.request(plan("a"))
    await client.request(plan("b", after=(JobReference(name="a"),)))
    await client.request(plan("c", after=(JobReference(name="b", platform="p1"),)))
    (failure,) = await client.request(
        ChangeJob(name="a", revision=1, options=JobOptions(after=(JobReference(name="c"),)))
    )
    assert failure == Failure(message="jobs would wait for each other: a after c after b after a")
    assert (await shown(client, "a")).revision == 1
