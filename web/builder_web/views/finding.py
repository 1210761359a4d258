"""What the parts of an address name."""

from uuid import UUID

from starlette.requests import Request

from builder_web.store import builds, jobs
from builder_web.store.records import Build
from builder_web.views.answers import NotFound
from builder_web.views.site import site_of


def platform_of(request: Request) -> str | None:
    """Return the platform that is asked for, if one is."""
    return request.query_params.get("platform") or None


def number_of(request: Request, name: str, default: int, *, most: int) -> int:
    """Return a number of the query that is not negative; the default for what is none."""
    value = request.query_params.get(name, "")
    return min(int(value), most) if value.isascii() and value.isdigit() and len(value) < 10 else default


async def build_by(request: Request, uuid: str) -> Build:
    """Return the build with that uuid. Raises NotFound."""
    try:
        wanted = str(UUID(uuid))
    except ValueError:
        raise NotFound("A build is named by its UUID, which this is not.") from None
    found = await site_of(request).store.ask(builds.find, wanted)
    if found is None or uuid.lower() != wanted:
        raise NotFound(f"There is no build {uuid} here. Builds are removed when they are old.")
    return found


async def build_of(request: Request) -> Build:
    """Return the build that an address names: it must be of the job that stands there. Raises NotFound."""
    job = request.path_params["job"]
    try:
        found = await build_by(request, request.path_params["uuid"])
    except NotFound as missing:
        raise NotFound(missing.detail, job=job if await is_job(request, job) else None) from missing
    if found.job != job:
        raise NotFound(f"Build {found.uuid} is one of the job {found.job}.", job=found.job)
    return found


async def is_job(request: Request, name: str) -> bool:
    """Return whether there is a job of that name."""
    return await site_of(request).store.ask(jobs.exists, name)


async def check_job(request: Request, name: str) -> None:
    """Raise NotFound unless there is a job of that name."""
    if not await is_job(request, name):
        raise NotFound(
            f"There is no job {name} here. A job begins with its first upload, and a search finds parts of names."
        )
