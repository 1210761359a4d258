"""What the parts of an address name."""

from uuid import UUID

from starlette.requests import Request

from builder_web.store import builds
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
        raise NotFound from None
    found = await site_of(request).store.ask(builds.find, wanted)
    if found is None or uuid.lower() != wanted:
        raise NotFound
    return found


async def build_of(request: Request) -> Build:
    """Return the build that an address names: it must be of the job that stands there. Raises NotFound."""
    found = await build_by(request, request.path_params["uuid"])
    if found.job != request.path_params["job"]:
        raise NotFound
    return found
