"""What tests of the schedule share: jobs with options of our own protocol, and how they come to run."""

from farm import LocalServer
from scripted import ScriptedPeer, build, do, schedule, script, take_job

from builder.extension.schedule import JobShown, PlanJob, ShowJob
from builder.messages import Execute, Success
from builder.model import OrbBuildJob, Period
from builder.planning import JobOptions, JobReference


def plan(name: str, platform: str = "p1", *, run_now: bool = True, **options: object) -> PlanJob:
    return PlanJob(job=script(name, platform), options=JobOptions(**options), run_now=run_now)  # type: ignore[arg-type]


def orb(name: str, *, run_now: bool = False, **options: object) -> PlanJob:
    job = OrbBuildJob(name=name, opam_package=name)
    return PlanJob(job=job, options=JobOptions(**options), run_now=run_now)  # type: ignore[arg-type]


def after(*names: str) -> tuple[JobReference, ...]:
    return tuple(map(JobReference.parse, names))


async def shown(client: ScriptedPeer, name: str) -> JobShown:
    reply, end = await client.request(ShowJob(name=name))
    assert isinstance(reply, JobShown)
    assert end == Success()
    return reply


async def make_platforms(server: LocalServer, *names: str) -> None:
    """Make platforms known, on which orb builds can run."""
    for name in names:
        await do(server, schedule(f"first-{name}", name, period=Period.NEVER))
        await build(server, name)
        (server.config_dir / f"orb-build.template.{name}").write_text("%%OPAM_PACKAGE%%")


async def succeed(server: LocalServer, name: str, platform: str) -> None:
    """Have a job run and succeed on a platform."""
    await do(server, Execute(name=name, platform=platform))
    async with take_job(server, platform) as taken:
        assert taken.job.name == name
        await taken.finish()


async def schedule_and_build_other(server: LocalServer) -> None:
    """Have a job of another platform run: what the server was asked for before has happened then."""
    await do(server, schedule("other", platform="p2"))
    await build(server, platform="p2")
