"""Pages made of what the store says."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from attrs import evolve
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from builder_web import pages
from builder_web.charts import history
from builder_web.charts.chart import Chart
from builder_web.pages import models, parts
from builder_web.pages.links import Links
from builder_web.store import summaries
from builder_web.store.records import Build, Job, StoredArtifact
from builder_web.views.site import site_of

FEW = 5
"""Failures that the first page shows."""

ROW = summaries.PAST
"""Builds in the row of the last builds."""

MAX_CHARTS = 32
"""Jobs whose charts are kept until they are built again, some 50 KB each."""

MAX_STATES = 4096
"""Jobs that are kept as lists show them, until they are built again: some 2 KB each."""

_HEADERS = {
    "content-security-policy": pages.SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def links(request: Request) -> Links:
    """Return what makes addresses, with the origin by which this site was asked."""
    site = site_of(request)
    return evolve(site.links, origin=f"{request.url.scheme}://{request.url.netloc}")


def show(request: Request, page: models.Page, *, status: int = 200) -> Response:
    """Return a page."""
    return HTMLResponse(pages.render(page, links=links(request)), status_code=status, headers=_HEADERS)


def error(request: Request, status: int, detail: str, *, job: str | None = None) -> Response:
    """Return a page that says what could not be shown, and what to do next."""
    return show(request, models.ErrorPage(status=status, detail=detail, job=job), status=status)


def artifact(file: StoredArtifact) -> parts.ArtifactSummary:
    """Return an artifact as pages show it."""
    return parts.ArtifactSummary(path=file.path, size=file.size, sha256=file.digest.hex())


def summary(build: Build) -> parts.BuildSummary:
    """Return a build as lists show it."""
    return parts.BuildSummary(
        job=build.job,
        uuid=build.uuid,
        platform=build.platform,
        started=build.started,
        finished=build.finished,
        result=build.result,
        output=artifact(build.main_binary) if build.main_binary else None,
    )


def maybe(build: Build | None) -> parts.BuildSummary | None:
    """Return a build as lists show it, if there is one."""
    return summary(build) if build else None


def sections(jobs: Iterable[Job]) -> tuple[models.JobSection, ...]:
    """Return jobs by their sections, in order of names."""
    by_name: dict[str, list[models.JobState]] = {}
    for job in jobs:
        by_name.setdefault(job.section, []).append(_state(job))
    return tuple(models.JobSection(name=name, jobs=tuple(found)) for name, found in sorted(by_name.items()))


@lru_cache(maxsize=MAX_STATES)
def _state(job: Job) -> models.JobState:
    platforms = tuple(
        models.JobOnPlatform(
            platform=one.platform,
            newest=maybe(one.build),
            failed=maybe(one.failed),
            past=tuple(_STATES[state] for state in one.past),
        )
        for one in job.newest
    )
    return models.JobState(name=job.name, synopsis=job.synopsis, platforms=platforms)


def histories(newest: Mapping[str, Sequence[Build]]) -> tuple[parts.History, ...]:
    """Return the row of each platform; builds are the newest first, one more than are shown."""
    return tuple(_history(platform, found) for platform, found in sorted(newest.items()))


def _history(platform: str, newest: Sequence[Build]) -> parts.History:
    states = summaries.states([build.main_binary.digest if build.main_binary else None for build in newest])
    cells = [
        parts.Cell(uuid=build.uuid, started=build.started, state=_STATES[state])
        for build, state in zip(newest, reversed(states), strict=False)  # the one more has none
    ]
    return parts.History(platform=platform, cells=tuple(reversed(cells)))


_STATES = {
    summaries.SAME: parts.CellState.SAME,
    summaries.NEW: parts.CellState.NEW,
    summaries.FAILED: parts.CellState.FAILED,
}


def charts(newest: Mapping[str, Sequence[Build]]) -> tuple[Chart, ...]:
    """Return how long builds took and how large their outputs were, over time."""
    found = (
        history.BuildPoint(
            platform=platform,
            started=build.started,
            duration=build.duration // dt.timedelta(milliseconds=1),
            size=build.main_binary.size if build.main_binary else None,
            failed=build.main_binary is None,
        )
        for platform, builds in newest.items()
        for build in builds
    )
    return _charts(tuple(found))


@lru_cache(maxsize=MAX_CHARTS)
def _charts(found: tuple[history.BuildPoint, ...]) -> tuple[Chart, ...]:
    return tuple(one for one in (history.duration_chart(found), history.size_chart(found)) if one)
