"""Pages made of what the store says."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence

from attrs import evolve
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from builder_web import pages
from builder_web.charts import history
from builder_web.charts.chart import Chart
from builder_web.pages import models, parts
from builder_web.pages.links import Links
from builder_web.store.builds import Past
from builder_web.store.records import Artifact, Build, Job
from builder_web.views.site import site_of

FEW = 5
"""Failures that the first page shows."""

ROW = 30
"""Builds in the row of the last builds."""

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
    return show(request, models.Error(status=status, detail=detail, job=job), status=status)


def artifact(file: Artifact) -> parts.Artifact:
    """Return an artifact as pages show it."""
    return parts.Artifact(path=file.path, size=file.size, sha256=file.digest.hex())


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


Pasts = Mapping[tuple[str, str], Sequence[Past]]
"""The newest builds by job and platform, the newest first, one more than are shown."""


def sections(jobs: Iterable[Job], past: Pasts) -> tuple[models.Section, ...]:
    """Return jobs by their sections, in order of names, with the rows of those of which the past is known."""
    by_name: dict[str, list[models.JobState]] = {}
    for job in jobs:
        platforms = tuple(
            models.PlatformState(
                platform=one.platform,
                newest=maybe(one.build),
                failed=maybe(one.failed),
                history=_history(one.platform, past[place]) if (place := (job.name, one.platform)) in past else None,
            )
            for one in job.newest
        )
        by_name.setdefault(job.section, []).append(
            models.JobState(name=job.name, synopsis=job.synopsis, platforms=platforms)
        )
    return tuple(models.Section(name=name, jobs=tuple(found)) for name, found in sorted(by_name.items()))


def histories(newest: Mapping[str, Sequence[Build]]) -> tuple[parts.History, ...]:
    """Return the row of each platform; builds are the newest first, one more than are shown."""
    return tuple(_history(platform, [_past(build) for build in found]) for platform, found in sorted(newest.items()))


def _past(build: Build) -> Past:
    return Past(uuid=build.uuid, started=build.started, output=build.main_binary.digest if build.main_binary else None)


def _history(platform: str, newest: Sequence[Past]) -> parts.History:
    cells = []
    before: bytes | None = None
    for build in reversed(newest):
        if build.output is None:
            state = parts.CellState.FAILED
        else:
            state = parts.CellState.SAME if build.output == before else parts.CellState.NEW
            before = build.output
        cells.append(parts.Cell(uuid=build.uuid, started=build.started, state=state))
    return parts.History(platform=platform, cells=tuple(cells[-ROW:]))


def charts(newest: Mapping[str, Sequence[Build]]) -> tuple[Chart, ...]:
    """Return how long builds took and how large their outputs were, over time."""
    found = [
        history.BuildPoint(
            platform=platform,
            started=build.started,
            duration=build.duration // dt.timedelta(milliseconds=1),
            size=build.main_binary.size if build.main_binary else None,
            failed=build.main_binary is None,
        )
        for platform, builds in newest.items()
        for build in builds
    ]
    return tuple(one for one in (history.duration_chart(found), history.size_chart(found)) if one)
