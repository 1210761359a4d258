"""What can be found: by hash, by name."""

import re

from starlette.requests import Request
from starlette.responses import Response

from builder_web.pages import models, parts
from builder_web.store import builds, finding
from builder_web.views import answers, presenting
from builder_web.views.answers import NotFound
from builder_web.views.finding import number_of
from builder_web.views.remembering import remembered
from builder_web.views.site import site_of

_PAGE = 100
_MOST = 1000
_FOUND = 20
_MAX_QUERY = 200
_UNKNOWN = "No build has a file with that SHA256. Old builds may have been removed, or it was never uploaded here."
_DIGEST = re.compile(r"[0-9a-f]{64}")


async def hash_redirect(request: Request) -> Response:
    """Redirect to the newest build that has an artifact with that SHA-256."""
    site = site_of(request)
    found = await site.store.ask(builds.with_content, _digest(request.query_params.get("sha256", "")), start=0, count=1)
    if not found:
        raise NotFound(_UNKNOWN)
    build, _ = found[0]
    return answers.redirect(site.links.build(build.job, build.uuid), 302)


@remembered
async def hash_page(request: Request) -> Response:
    """Answer with all builds that have an artifact with that SHA-256."""
    site, digest = site_of(request), _digest(request.path_params["sha256"])
    start = number_of(request, "start", 0, most=10**9)
    count = number_of(request, "count", _PAGE, most=_MOST) or _PAGE
    found = await site.store.ask(builds.with_content, digest, start=start, count=count + 1)
    size = await site.store.ask(finding.size_of, digest)
    if size is None:
        raise NotFound(_UNKNOWN)
    page = models.HashPage(
        sha256=digest.hex(),
        size=size,
        entries=tuple(models.Found(build=presenting.summary(build), path=path) for build, path in found[:count]),
        paging=parts.Paging(
            start=start,
            count=count,
            total=await site.store.ask(finding.count_of, digest),
            more=len(found) > count,
        ),
    )
    return presenting.show(request, page)


@remembered
async def search(request: Request) -> Response:
    """Answer with what is named like that: jobs, files, packages; a whole SHA-256 leads to its page."""
    site = site_of(request)
    query = request.query_params.get("q", "").strip()[:_MAX_QUERY]
    plain = query.lower().removeprefix("sha256:")
    if _DIGEST.fullmatch(plain):
        return answers.redirect(site.links.hash(plain), 302)
    if not query:
        return presenting.show(request, models.SearchPage(query=""))
    jobs = await site.store.ask(finding.jobs, query, count=_FOUND + 1)
    files = await site.store.ask(finding.files, query, count=_FOUND + 1)
    packages = await site.store.ask(finding.packages, ".".join(query.split()), count=_FOUND + 1)
    hashes = await site.store.ask(finding.by_prefix, plain, count=_FOUND + 1)
    page = models.SearchPage(
        query=query,
        jobs=tuple(models.JobFound(name=name, synopsis=synopsis) for name, synopsis in jobs[:_FOUND]),
        files=tuple(
            models.FileFound(artifact=presenting.artifact(file), build=presenting.summary(build))
            for build, file in files[:_FOUND]
        ),
        packages=tuple(
            models.PackageFound(name=one.name, version=one.version, build=presenting.summary(build))
            for one, build in packages[:_FOUND]
        ),
        hashes=tuple(
            models.FileFound(artifact=presenting.artifact(file), build=presenting.summary(build))
            for build, file in hashes[:_FOUND]
        ),
        cut=any(len(found) > _FOUND for found in (jobs, files, packages, hashes)),
    )
    return presenting.show(request, page)


def _digest(value: str) -> bytes:
    if not _DIGEST.fullmatch(value.lower()):
        raise NotFound("That is no SHA256: it has 64 hexadecimal digits. A search finds hashes by their first digits.")
    return bytes.fromhex(value)
